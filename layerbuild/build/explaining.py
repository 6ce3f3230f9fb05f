"""Why a step has to run: what it is compared with, and the reason in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property

from layerbuild.build.difference import differences
from layerbuild.build.keys import Keys
from layerbuild.build.selecting import Match, listing
from layerbuild.digest import BlobDigest, ChainID
from layerbuild.errors import NotFoundError
from layerbuild.frozen import frozen
from layerbuild.image.image import Image
from layerbuild.steps import CopyStep, RunStep, StageBase, StagePlan, arguments_of
from layerbuild.store.builds import BuildRecord, Difference, StepAccount, recipe_name
from layerbuild.store.cache import PARENT
from layerbuild.store.store import Store

_TOLD = 3  # differences in the one line of a reason
_UNKNOWN = "what it reads is made by a step that runs first"


@frozen
class Reason:
    """Why a step missed: in a line, and as differences, of which ``more`` were left out."""

    text: str
    differences: tuple[Difference, ...] = ()
    more: int = 0


class Explainer:
    """Finds for a step that missed what it was the last time that it ran."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._builds: dict[str, tuple[BuildRecord, ...]] = {}

    def why(
        self,
        stage: StagePlan,
        step: RunStep | CopyStep,
        found: Keys,
        *,
        chain: ChainID | None,
        missed: str,
        groups: Sequence[list[Match]],
    ) -> Reason:
        """Why ``step`` missed on ``chain``. ``missed`` names the step that has to run first and decides what lies
        below, empty: that is known. ``groups`` are the files whose listings ``found`` names."""
        before, below, were = self._before(stage, step, found, chain)
        decides = (
            f"{missed} runs first, and what it makes decides" if missed else _UNKNOWN if not found.complete else ""
        )
        if before is None:
            return Reason(decides or self._never(stage, step))
        after = dict(found.known)
        if decides:  # what is not known yet can't be told as a difference
            before = {name: value for name, value in before.items() if name in after}
        else:
            after[PARENT] = chain or "scratch"
        changed, more = differences(before, after, _Listings(self._store, groups), args=arguments_of(step) | were)
        if decides and not changed:
            return Reason(decides)
        if not changed:
            return Reason("its layer was pruned")
        changed = tuple(replace(one, subject=below) if one.change == "below" else one for one in changed)
        return Reason(summary(changed, more), changed, more)

    def _never(self, stage: StagePlan, step: RunStep | CopyStep) -> str:
        """What to say of a step that has nothing to be compared with: perhaps it began, and failed or was stopped."""
        builds = self._builds[recipe_name(step.origin.span.file)]
        accounts = (account for build in builds for account in build.steps if account.stage == stage.title)
        began = any(account.instruction == step.origin.text and account.verdict == "miss" for account in accounts)
        return f"it has not run {'to its end ' if began else ''}here before"

    def _before(
        self, stage: StagePlan, step: RunStep | CopyStep, found: Keys, chain: ChainID | None
    ) -> tuple[Mapping[str, str] | None, str, frozenset[str]]:
        """The inputs of the same step in an earlier build of this recipe, else those of the nearest record; and what of
        the layers below is another than there, if they are others: "base", "steps", or "parent": nobody knows. And
        which of its variables were arguments, as far as that is known."""
        file, kind = recipe_name(step.origin.span.file), found.known["kind"]
        others = {other.origin.text for other in stage.steps} - {step.origin.text}  # what they were is theirs
        if file not in self._builds:
            ended = (build for build in self._store.builds.of_recipe(file) if build.outcome != "running")
            self._builds[file] = tuple(ended)  # so without the one that is going on
        for number, build in enumerate(self._builds[file]):
            ranked = [
                (_likeness(account, step, chain), account)
                for account in build.steps
                if account.stage == stage.title and account.inputs.get("kind") == kind and account.ended is not None
                if account.instruction not in others
            ]
            best = max(ranked, key=lambda pair: pair[0], default=None)
            # In an older build than the last one only the very same instruction counts.
            if best is not None and best[0] >= (2 if number == 0 else 4):
                return best[1].inputs, _other_below(build, stage), frozenset(best[1].args)
        record = self._store.cache.nearest(step.origin.text, parent=chain)
        same = record is not None and record.inputs.get("kind") == kind
        return record.inputs if record is not None and same else None, PARENT, frozenset()


class _Listings:
    """The listing that a digest names: kept by the store, or made of the files at hand."""

    def __init__(self, store: Store, groups: Sequence[list[Match]]) -> None:
        self._store = store
        self._groups = groups

    def __call__(self, digest: str) -> bytes | None:
        return stored_listing(self._store, digest) or self._own.get(digest)

    @cached_property
    def _own(self) -> Mapping[str, bytes]:
        return dict(listing(group).text() for group in self._groups)


def stored_listing(store: Store, digest: str) -> bytes | None:
    """A listing that the store keeps, None if it is gone."""
    try:
        return store.cache.listing(BlobDigest(digest))
    except NotFoundError:
        return None


def summary(changed: tuple[Difference, ...], more: int = 0) -> str:
    """The differences in one line; the first ones, if there are many."""
    told = "; ".join(map(str, changed[:_TOLD]))
    rest = len(changed) - _TOLD + more
    return f"{told}; and {rest} more" if rest > 0 else told


def _other_below(before: BuildRecord, stage: StagePlan) -> str:
    first = next((account for account in before.steps if (account.stage, account.number) == (stage.title, 1)), None)
    if first is None or isinstance(stage.base, StageBase):
        return PARENT
    return "steps" if first.below == Image.of_base(stage.start).top else "base"


def _likeness(account: StepAccount, step: RunStep | CopyStep, chain: ChainID | None) -> int:
    same_text = account.instruction == step.origin.text
    same_line = account.line == step.origin.span.line
    same_below = account.inputs.get(PARENT) == (chain or "scratch")
    return 4 * same_text + 2 * same_line + same_below
