"""What a build tells while it goes on. An observer is a plain callable; it may not raise and should be quick."""

from __future__ import annotations

from collections.abc import Callable

from layerbuild.digest import BlobDigest, ChainID, DiffID
from layerbuild.frozen import frozen
from layerbuild.image.config import Platform
from layerbuild.steps import LayerPlan, SkippedStage, StagePlan, Step


@frozen
class BuildStarted:
    """``platform`` is the one that was asked for, None: none was. A build for several starts once for each."""

    plan: LayerPlan
    platform: Platform | None = None


@frozen
class StageSkipped:
    stage: SkippedStage


@frozen
class StageStarted:
    """``layers`` counts those that the base brings."""

    stage: StagePlan
    layers: int


@frozen
class StepStarted:
    """A step is about to run. ``number`` counts the stage's steps from 1."""

    stage: StagePlan
    number: int
    step: Step


@frozen
class CacheHit:
    """A step need not run. ``by`` is the key that hit, "definition" or "content"; ``chain`` the stack after it;
    ``source`` the cache of another machine that knew it, empty: the store's own."""

    stage: StagePlan
    number: int
    step: Step
    by: str
    chain: ChainID | None
    source: str = ""


@frozen
class RootMounting:
    """The root of a RUN is about to be there. ``lowers`` are the diff folders below, topmost first; ``mount`` is the
    shell line for it, empty where the ``driver`` mounts nothing and in a build that does not go step by step. ``tree``
    is the complete tree that the command writes to, once that is there; empty: it writes to ``upper``."""

    stage: StagePlan
    number: int
    driver: str
    lowers: tuple[str, ...]
    upper: str
    work: str
    merged: str
    mount: str
    tree: str


@frozen
class UpperWritten:
    """A RUN has ended, and its upper folder is as the command left it: nothing is sealed yet. Told only where a build
    goes step by step. ``lowers`` as in ``RootMounting``."""

    stage: StagePlan
    number: int
    lowers: tuple[str, ...]
    upper: str


@frozen
class StepOutput:
    """Bytes that a RUN wrote to its standard output or error, as they came."""

    stage: StagePlan
    number: int
    data: bytes


@frozen
class LayerProgress:
    """A step's layer is being written: ``done`` bytes of its tar are hashed and compressed. Told a few times each
    second, so of a small layer never; a COPY is written while it runs, a RUN's changes behind the steps."""

    stage: StagePlan
    number: int
    done: int


@frozen
class LayerSealed:
    """A step's changes are a layer now: complete, durable, recorded. ``size`` is the blob's, ``tar_size`` the tar's,
    both in bytes. Layers are made behind the steps: later steps may have begun and ended since."""

    stage: StagePlan
    number: int
    diff_id: DiffID
    digest: BlobDigest
    chain: ChainID
    size: int
    tar_size: int
    entries: int


@frozen
class StepFinished:
    """``seconds`` of wall time; ``layer`` tells whether it makes one: ``LayerSealed`` follows when that is whole."""

    stage: StagePlan
    number: int
    step: Step
    seconds: float
    layer: bool


@frozen
class ImageWritten:
    """The result is in the store."""

    image_id: BlobDigest
    manifest: BlobDigest
    names: tuple[str, ...]


@frozen
class ImagePushed:
    """The result, an image or an index, is in a registry: all its blobs, and what it is known by there. ``name`` has
    the tag, if it was given one."""

    name: str
    digest: BlobDigest


@frozen
class IndexWritten:
    """The results for several platforms are in the store, under one index."""

    digest: BlobDigest
    platforms: tuple[Platform, ...]
    names: tuple[str, ...]


@frozen
class BlobMoved:
    """A blob is on its way between the store and a registry: ``done`` of its ``size`` bytes. ``way`` is "pull" or
    "push"; ``place`` names the repository. ``how`` tells of one that is there how it came: "sent", or without being
    sent ("existing", "mounted"); empty: by this way."""

    digest: BlobDigest
    way: str
    place: str
    done: int
    size: int
    how: str = ""


@frozen
class Failed:
    """The command ends with an error. ``place`` is file, line and column, ``workspace`` the id of a failed RUN's kept
    workspace, ``output`` the last of what it wrote; each empty where there is none."""

    message: str
    exit_code: int
    hint: str = ""
    place: str = ""
    output: bytes = b""
    workspace: str = ""


@frozen
class Note:
    """Something that its reader should know, and that is no error."""

    text: str


Event = (
    BuildStarted
    | StageSkipped
    | StageStarted
    | StepStarted
    | CacheHit
    | RootMounting
    | UpperWritten
    | StepOutput
    | LayerProgress
    | LayerSealed
    | StepFinished
    | ImageWritten
    | IndexWritten
    | ImagePushed
    | BlobMoved
    | Failed
    | Note
)
Observer = Callable[[Event], None]
