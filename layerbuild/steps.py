"""The waist: what a recipe asks for, as values that nothing has acted upon yet.

::

    LayerPlan ─ StagePlan ─ Step = ConfigStep   metadata only: no layer, ever
                                 | RunStep      a process in an overlay mount; a layer if it changed a file
                                 | CopyStep     files from elsewhere; a layer if it changed a file

Many instructions become these three kinds; the kinds are closed, and ``match`` over them ends in ``assert_never``.
A step carries the configuration *after* it, so metadata needs no verb of its own and a view can show a difference.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping

from layerbuild.errors import Span
from layerbuild.frozen import frozen
from layerbuild.image.config import ImageConfig, Pairs, Platform, RuntimeConfig, canonical_json

_USERINFO = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://([^/?#\s\"']*)@")


def masked(text: str) -> str:
    """``text`` without the credentials of the URLs in it; the mere user name of ssh is none.

    >>> masked("ADD https://me:secret@host/file /")
    'ADD https://xxxxx:xxxxx@host/file /'
    """
    return _USERINFO.sub(_mask, text)


def _mask(found: re.Match[str]) -> str:
    scheme, user = found.groups()
    if scheme == "ssh" and ":" not in user:
        return found[0]
    return f"{scheme}://{'xxxxx:xxxxx' if ':' in user else 'xxxxx'}@"


# -- where files come from ---------------------------------------------------------------------------------------------


@frozen
class ContextRoot:
    """The build context, or the named context ``name``."""

    name: str = ""


@frozen
class StageRoot:
    """The result of an earlier stage, by its index in the recipe."""

    stage: int


@frozen
class ImageRoot:
    """An image, as the recipe spells it."""

    reference: str


Root = ContextRoot | StageRoot | ImageRoot


@frozen
class PathSource:
    """A path or pattern below the copy's root."""

    pattern: str


@frozen
class InlineSource:
    """A heredoc: a file of that name and content."""

    name: str
    content: bytes


@frozen
class UrlSource:
    """A file to fetch over HTTP(S); ``checksum`` may be empty."""

    url: str
    checksum: str = ""


@frozen
class GitSource:
    """A git repository to fetch, as the recipe spells it."""

    repository: str
    keep_git_dir: bool = False
    checksum: str = ""


@frozen
class EmptyDirectory:
    """Nothing but the destination directory, made if it is absent: what WORKDIR asks for."""


Source = PathSource | InlineSource | UrlSource | GitSource | EmptyDirectory

# -- what RUN mounts ---------------------------------------------------------------------------------------------------


@frozen
class RunMount:
    """One ``RUN --mount``. ``kind`` is bind, cache, tmpfs, secret or ssh; ``target`` is absolute (or empty: a secret
    that is only a variable). ``size`` is in bytes, 0: no limit. ``root`` is where ``source`` lies, None: nowhere."""

    kind: str
    target: str
    source: str = ""
    root: Root | None = None
    read_only: bool = False
    id: str = ""
    sharing: str = "shared"
    uid: int = 0
    gid: int = 0
    mode: int | None = None
    size: int = 0
    required: bool = False
    env: str = ""


# -- the steps ---------------------------------------------------------------------------------------------------------


@frozen
class Origin:
    """Where a step comes from: for messages and views, never part of its identity.

    ``text`` is the instruction as written (joined lines); ``trigger`` tells that an ONBUILD of the base brought it.
    """

    span: Span
    keyword: str
    text: str
    trigger: bool = False


@frozen
class ConfigStep:
    """Metadata only. ``created_by`` is the history line; None: no history entry (ONBUILD)."""

    origin: Origin
    config: RuntimeConfig
    created_by: str | None
    author: str | None = None  # MAINTAINER sets it


@frozen
class RunStep:
    """A process. ``argv`` is what is executed, the shell included; ``env`` is the whole environment that the recipe
    determines (ENV and the ARGs in force), in order; ``proxy`` reaches the process but is no part of its identity;
    ``files`` are heredoc scripts, name and content, shown read-only below /dev/pipes. ``hostname`` is what the process
    finds itself on, empty: what every step does; ``hosts`` are further names that it knows, with their addresses.
    """

    origin: Origin
    config: RuntimeConfig
    created_by: str
    argv: tuple[str, ...]
    env: Pairs
    cwd: str
    user: str
    mounts: tuple[RunMount, ...] = ()
    network: str = "default"
    security: str = "sandbox"
    proxy: Pairs = ()
    files: tuple[tuple[str, bytes], ...] = ()
    hostname: str = ""
    hosts: Pairs = ()


@frozen
class CopyStep:
    """Files from ``root`` to ``dest`` (absolute; a trailing ``/`` means a directory).

    ``owner`` is ``--chown`` as written after expansion, empty: 0:0 from the context, kept from stages and images
    (``keep_owner``). ``mode`` is ``--chmod`` likewise, empty: kept. ``unpack`` None: archives by content, as ADD does
    with local ones; True, False: said by the recipe; COPY has False.
    """

    origin: Origin
    config: RuntimeConfig
    created_by: str
    root: Root
    sources: tuple[Source, ...]
    dest: str
    owner: str = ""
    mode: str = ""
    keep_owner: bool = False
    unpack: bool | None = False
    link: bool = False
    parents: bool = False
    exclude: tuple[str, ...] = ()


Step = ConfigStep | RunStep | CopyStep


def arguments_of(step: RunStep | CopyStep) -> frozenset[str]:
    """The names of the variables that a RUN sees, and that are arguments of the build rather than the image's."""
    if not isinstance(step, RunStep):
        return frozenset()
    return frozenset(name for name, _ in step.env) - frozenset(name for name, _ in step.config.env)


# -- the plan ----------------------------------------------------------------------------------------------------------


@frozen
class ScratchBase:
    """FROM scratch: no layers."""


@frozen
class StageBase:
    """FROM an earlier stage, by its index."""

    stage: int


@frozen
class ImageBase:
    """FROM an image, as the recipe spells it after expansion."""

    reference: str


Base = ScratchBase | StageBase | ImageBase


@frozen
class StagePlan:
    """One stage that the target needs. ``start`` is the configuration that it starts with: its base's."""

    index: int
    name: str
    origin: Origin
    base: Base
    platform: Platform
    start: ImageConfig
    steps: tuple[Step, ...]

    @property
    def title(self) -> str:
        """Its name, or its index where it has none."""
        return self.name or str(self.index)

    @property
    def opening(self) -> str:
        """Its FROM as written; with the image that is meant, where that stands in a variable."""
        text = self.origin.text
        image = self.base.reference if isinstance(self.base, ImageBase) else ""
        return text if image in text else f"{text} → {image}"


@frozen
class SkippedStage:
    """A stage that the target does not need: it is neither lowered nor built. ``reason`` is a sentence for people."""

    index: int
    name: str
    origin: Origin
    reason: str

    @property
    def title(self) -> str:
        """Its name, or its index where it has none."""
        return self.name or str(self.index)


@frozen
class LayerPlan:
    """A whole recipe, ready to run. ``stages`` are those that the target needs, in an order in which they can be built;
    the target is the last of them. ``notes`` are remarks for people (a front end named by ``# syntax=``, say)."""

    stages: tuple[StagePlan, ...]
    skipped: tuple[SkippedStage, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def target(self) -> StagePlan:
        """The stage whose result is the image."""
        return self.stages[-1]

    @property
    def lineage(self) -> tuple[StagePlan, ...]:
        """The target, the stage that it is built upon, and so on: their layers are the image's own."""
        stages = [self.target]
        while isinstance(stages[-1].base, StageBase):
            stages.append(self.stage(stages[-1].base.stage))
        return tuple(stages)

    def stage(self, index: int) -> StagePlan:
        """The stage with that index in the recipe."""
        return next(stage for stage in self.stages if stage.index == index)


# -- identity ----------------------------------------------------------------------------------------------------------


def identity(step: RunStep | CopyStep) -> Mapping[str, str]:
    """The step's own inputs by name: all that decides its result, but for its parent and the files it reads.

    Display texts, spans and the configuration after the step are no part of it, and neither are proxies and secrets,
    nor the addresses of hosts: where a server stands does not decide what it serves.
    """
    match step:
        case RunStep():
            return _run_identity(step)
        case CopyStep():
            return _copy_identity(step)


def fingerprint(step: RunStep | CopyStep) -> str:
    """sha256 (hex) over ``identity``: the step's part of a cache key."""
    return hashlib.sha256(canonical_json(dict(identity(step)))).hexdigest()


def _run_identity(step: RunStep) -> dict[str, str]:
    named = {
        "kind": "run",
        "command": _text(step.argv),
        "working directory": step.cwd,
        "user": step.user,
        "network": "none" if step.network == "none" else "default",  # which is the machine's, as with "host"
        "security": step.security,
    }
    if step.hostname:
        named["hostname"] = step.hostname
    if step.hosts:
        named["hosts"] = _text(tuple(sorted({name for name, _ in step.hosts})))
    named.update((f"env {key}", value) for key, value in step.env)
    named.update((f"mount {mount.target or mount.env}", _text(_mount_values(mount))) for mount in step.mounts)
    named.update((f"file {name}", hashlib.sha256(content).hexdigest()) for name, content in step.files)
    return named


def _mount_values(mount: RunMount) -> tuple[object, ...]:
    # The content behind a bind mount counts as an input of the build; a cache's or a secret's never does.
    return (
        mount.kind,
        mount.source,
        repr(mount.root),
        mount.read_only,
        mount.id,
        mount.uid,
        mount.gid,
        mount.mode,
        mount.size,
        mount.env,
    )


def _copy_identity(step: CopyStep) -> dict[str, str]:
    return {
        "kind": "copy",
        "destination": step.dest,
        "sources": _text(tuple(_source_values(source) for source in step.sources)),
        "owner": step.owner,
        "mode": step.mode,
        "keep owner": str(step.keep_owner),
        "unpack": str(step.unpack),
        "link": str(step.link),
        "parents": str(step.parents),
        "exclude": _text(step.exclude),
    }


def _source_values(source: Source) -> tuple[str, ...]:
    match source:
        case PathSource(pattern):
            return ("path", pattern)
        case InlineSource(name, content):
            return ("inline", name, hashlib.sha256(content).hexdigest())
        case UrlSource(url, checksum):
            return ("url", masked(url), checksum)
        case GitSource(repository, keep_git_dir, checksum):
            return ("git", masked(repository), str(keep_git_dir), checksum)
        case EmptyDirectory():
            return ("directory",)


def _text(value: tuple[object, ...]) -> str:
    return canonical_json(value).decode()
