"""The two cache keys of a step.

The *definition* key is known before anything runs: the parent's definition key, the step's fingerprint, and what it
reads, told by definition (a stage counts as that stage's definition key). The *content* key tells the same by result:
the parent's chain ID, and digests of the files read. Whoever hits by definition need not look further; a step whose
parent ran again and gave the same bytes hits by content.

Every input has a name and is kept with the record, so that a miss can be told as a difference of two records.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from layerbuild.digest import ChainID
from layerbuild.frozen import frozen
from layerbuild.image.config import Platform, canonical_json
from layerbuild.layer.tar import TAR_FORMAT_VERSION
from layerbuild.steps import CopyStep, RunStep, identity
from layerbuild.store.cache import PARENT

FORMAT = "1"  # of the keys themselves: a change here empties every cache, on purpose


@frozen
class Read:
    """One thing that a step reads besides its parent: its name, and its value by definition and by content.
    ``content`` is None where the content is not known yet. ``of_stack``: it lies in the stack of layers ``chain``."""

    name: str
    definition: str
    content: str | None
    of_stack: bool = False
    chain: ChainID | None = None


@frozen
class Keys:
    """The definition key of a step; and ``known``, its inputs besides the parent, by name and content. With the
    parent's chain they make the content key, if they are ``complete``: no source is unknown. ``step`` tells the step
    itself, apart from the parent and all that it reads."""

    definition: str
    known: Mapping[str, str]
    complete: bool
    step: str

    @property
    def own(self) -> Mapping[str, str] | None:
        """All inputs besides the parent; None while a source is unknown."""
        return self.known if self.complete else None

    def inputs(self, chain: ChainID | None) -> Mapping[str, str]:
        """All inputs by name, on the stack ``chain``."""
        assert self.own is not None  # a build knows every source of the step at hand
        return {**self.own, PARENT: chain or "scratch"}

    def content(self, chain: ChainID | None) -> str:
        """The content key on the stack ``chain``."""
        return _digest(self.inputs(chain))


def base_definition(chain: ChainID | None, platform: Platform) -> str:
    """The definition key of what FROM names: its layers and its platform, not its tag (nor its labels)."""
    return _digest({"base": chain or "scratch", "platform": str(platform)})


def keys(
    step: RunStep | CopyStep,
    *,
    parent: str,
    reads: tuple[Read, ...],
    platform: Platform,
    times: str,
) -> Keys:
    """The keys of ``step``, of a stage for ``platform``, on a parent with definition key ``parent``.

    ``times`` tells how modification times are written; it decides about a layer's bytes, so it is an input.
    """
    own = _own(step, platform, times)
    by_definition = {**own, PARENT: parent, **{read.name: read.definition for read in reads}}
    by_content = {read.name: read.content for read in reads if read.content is not None}
    complete = len(by_content) == len({read.name for read in reads})
    return Keys(_digest(by_definition), {**own, **by_content}, complete, _digest(own))


def step_key(step: RunStep | CopyStep, *, platform: Platform, times: str) -> str:
    """A key of the step itself, whatever it reads and stands on."""
    return _digest(_own(step, platform, times))


def _own(step: RunStep | CopyStep, platform: Platform, times: str) -> dict[str, str]:
    own = {**identity(step), "times": times, "tar format": str(TAR_FORMAT_VERSION), "key format": FORMAT}
    # The same files are another machine to a program, which asks uname(2); a copy is the same on each.
    return {**own, "platform": str(platform)} if isinstance(step, RunStep) else own


def _digest(value: Mapping[str, str]) -> str:
    return hashlib.sha256(canonical_json(dict(value))).hexdigest()
