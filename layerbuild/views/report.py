"""What the page of ``layerbuild report`` shows of an image, as plain data of bounded size.

::

    Report ─ Line …       history, oldest first, with what each layer did
           ─ Node …       one tree of bytes for each layer; small things folded into "… more"
           ─ Hidden …     files that are shipped though nothing shows them, the largest first
           ─ Shadow …     which layer hides how much of which
           ─ Advice …     what would mend it
           ─ Timeline     the recorded build: times, overlap of capture, verdicts with reasons

However many files an image has, and however long its names are, a report has at most some thousand rows.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from layerbuild.frozen import frozen
from layerbuild.layer.entry import Kind
from layerbuild.store.builds import BuildRecord, StepAccount
from layerbuild.store.images import StoredImage
from layerbuild.views.advise import Advice, Lines, advise, keyword
from layerbuild.views.blame import LayerBlame, by_layer
from layerbuild.views.efficiency import Efficiency, efficiency
from layerbuild.views.explain import Explained, explained
from layerbuild.views.layers import LayerRow
from layerbuild.views.text import printable, shorten
from layerbuild.views.versions import Version, invisible

NODES = 3000  # of all trees together
_CHILDREN = 80  # of a folder that are told apart
_DEPTH = 24
_LINES = 400  # of a history, or steps of a build
_HIDDEN = 40
_SHADOWS = 60
_ADVICE = 40
_DIFFERENCES = 12  # of a step
_TEXT = 600  # characters of an instruction
_NAME = 120  # of a name
_NAMES = 10  # of an image


@frozen
class Line:
    """A history entry. ``layer`` counts from 1, the lowest; 0: the entry made none, and the rest is empty. ``line`` is
    the recipe's and ``recipe`` what stands there, 0 and empty: not known. ``size`` is the blob's; ``bytes`` of content,
    of which nothing shows ``invisible``."""

    instruction: str
    layer: int = 0
    line: int = 0
    recipe: str = ""
    size: int = 0
    bytes: int = 0
    invisible: int = 0
    created: int = 0
    changed: int = 0
    deleted: int = 0
    diff_id: str = ""
    digest: str = ""
    chain_id: str = ""

    @property
    def idle(self) -> bool:
        """Whether it could have changed files, and changed none."""
        return not self.layer and bool(keyword(self.instruction))


@frozen
class Node:
    """A folder or file of a layer. ``files`` counts what is no folder in it, ``invisible`` the bytes of ``bytes`` that
    nothing shows. Folders with nothing in them but one folder are one node. ``more`` counts the children that were
    folded away, ``more_files`` and ``more_bytes`` what is in them."""

    name: str
    bytes: int
    files: int
    invisible: int = 0
    folder: bool = False
    children: tuple[Node, ...] = ()
    more: int = 0
    more_files: int = 0
    more_bytes: int = 0


@frozen
class Hidden:
    """A file of ``layer`` that is shipped though invisible, since layer ``by`` deleted or replaced it."""

    path: str
    bytes: int
    layer: int
    by: int
    deleted: bool


@frozen
class Shadow:
    """What layer ``by`` takes out of sight of layer ``layer``: paths replaced and deleted, folders not counted; their
    bytes; and the largest of them."""

    by: int
    layer: int
    replaced: int
    deleted: int
    bytes: int
    paths: tuple[str, ...]


@frozen
class Timed:
    """A step of the recorded build. Times are in seconds since it began: it went on from ``began`` to ``ended`` (None:
    it did not end), and its layer was made behind it until ``sealed`` (None: in the step itself, or none)."""

    stage: str
    number: int
    line: int
    instruction: str
    verdict: str
    reasons: tuple[str, ...]
    more: int
    layer: int
    began: float
    ended: float | None
    sealed: float | None


@frozen
class Timeline:
    """The recorded build. ``capture`` are the seconds in which layers were made behind their steps, summed over the
    layers; in ``overlapped`` of them another step went on. ``more`` steps were left out."""

    number: int
    began: float
    seconds: float
    recipe: str
    steps: tuple[Timed, ...]
    more: int
    capture: float
    overlapped: float


@frozen
class Report:
    """Everything. ``size`` counts the bytes of all blobs of layers. ``hidden_files`` and ``hidden_bytes`` count all
    that is hidden, also what was left out of ``hidden``; ``history_more`` and ``shadows_more`` what was left out."""

    name: str
    names: tuple[str, ...]
    image_id: str
    platform: str
    size: int
    history: tuple[Line, ...]
    history_more: int
    trees: tuple[Node, ...]
    measure: Efficiency
    hidden: tuple[Hidden, ...]
    hidden_files: int
    hidden_bytes: int
    shadows: tuple[Shadow, ...]
    shadows_more: int
    advice: tuple[Advice, ...]
    timeline: Timeline | None

    @property
    def layers(self) -> tuple[Line, ...]:
        """The history entries that made a layer, the lowest first."""
        return tuple(line for line in self.history if line.layer)

    @property
    def bytes(self) -> int:
        """The bytes of content in all layers."""
        return sum(tree.bytes for tree in self.trees)

    @property
    def files(self) -> int:
        """The paths in all layers that are no folders."""
        return sum(tree.files for tree in self.trees)


def report(
    name: str,
    image: StoredImage,
    *,
    rows: Sequence[LayerRow],
    found: Sequence[Version],
    build: BuildRecord | None,
    nodes: int = NODES,
) -> Report:
    """The report on ``image``, of its whole history ``rows``, all versions of its paths, and the build that made it.
    ``nodes`` are at most in all trees, besides their roots."""
    layers = [row for row in rows if row.diff_id is not None]
    lines = Lines(layers, build)
    hidden = sorted(invisible(found), key=lambda version: (-version.size, version.path, version.layer))
    shadows = _shadows(found)
    history = _history(rows, by_layer(layers, found), lines)
    return Report(
        name=_name(name),
        names=tuple(map(_name, image.names[:_NAMES])),
        image_id=image.image_id,
        platform=printable(str(image.config.platform)),
        size=sum(row.size or 0 for row in layers),
        history=tuple(history[:_LINES]),
        history_more=max(0, len(history) - _LINES),
        trees=tuple(_trees(len(layers), found, {id(version) for version in hidden}, nodes)),
        measure=efficiency(found),
        hidden=tuple(
            Hidden(_path(version.path), version.size, version.layer, version.hidden_by, version.deleted)
            for version in hidden[:_HIDDEN]
        ),
        hidden_files=len(hidden),
        hidden_bytes=sum(version.size for version in hidden),
        shadows=tuple(shadows[:_SHADOWS]),
        shadows_more=max(0, len(shadows) - _SHADOWS),
        advice=tuple(map(_told, advise(found, lines)[:_ADVICE])),
        timeline=_timeline(build, layers) if build is not None else None,
    )


def as_json(told: Report) -> dict[str, Any]:
    """The report as plain data."""
    return asdict(told)


# -- texts -------------------------------------------------------------------------------------------------------------


def _name(text: str) -> str:
    line = printable(text)
    return line if len(line) <= _NAME else f"{line[: _NAME // 2]}…{line[-_NAME // 2 + 1 :]}"


def _path(path: bytes) -> str:
    return _name("/" + path.decode("utf-8", "backslashreplace"))


def _instruction(text: str) -> str:
    cut = text[:_TEXT] + "…" * (len(text) > _TEXT)
    return "\n".join(map(printable, cut.expandtabs(4).split("\n")))


def _told(advice: Advice) -> Advice:
    return Advice(
        advice.kind,
        printable(advice.text),
        printable(advice.remedy),
        advice.layer,
        advice.line,
        advice.bytes,
        advice.seconds,
        tuple(map(_name, advice.paths)),
    )


# -- history -----------------------------------------------------------------------------------------------------------


def _history(rows: Sequence[LayerRow], blamed: Sequence[LayerBlame], lines: Lines) -> list[Line]:
    told = []
    rest = iter(blamed)
    for row in rows:
        if row.diff_id is None:
            told.append(Line(_instruction(row.instruction)))
            continue
        layer = next(rest)
        step = lines.step(layer.layer)
        told.append(
            Line(
                _instruction(row.instruction),
                layer.layer,
                step.line if step else 0,
                _instruction(step.instruction) if step else "",
                row.size or 0,
                layer.bytes,
                layer.invisible,
                layer.created,
                layer.changed,
                layer.deleted,
                row.diff_id,
                row.digest or "",
                row.chain or "",
            )
        )
    return told


# -- trees -------------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Tree:
    size: int = 0
    files: int = 0
    invisible: int = 0
    folder: bool = False
    children: dict[bytes, _Tree] = field(default_factory=dict)


def _trees(count: int, found: Sequence[Version], hidden: set[int], nodes: int) -> Iterator[Node]:
    trees = [_Tree(folder=True) for _ in range(count)]
    for version in found:
        if version.action != "deleted" and version.entry.kind is not Kind.DIRECTORY:
            _add(trees[version.layer - 1], version, hidden=id(version) in hidden)
    for number, tree in enumerate(trees, start=1):
        yield _folded(tree, f"layer {number}", budget=nodes // count)


def _add(tree: _Tree, version: Version, *, hidden: bool) -> None:
    node = tree
    for name in (None, *version.path.split(b"/")):
        if name is not None:
            node.folder = True
            node = node.children.setdefault(name, _Tree())
        node.size += version.size
        node.files += 1
        node.invisible += version.size if hidden else 0


def _folded(tree: _Tree, name: str, *, budget: int) -> Node:
    """The tree with its ``budget`` largest nodes; a folder is larger than what is in it, so none hangs in the air."""
    kept: dict[int, list[tuple[str, _Tree]]] = {}
    order = itertools.count()  # of equal size, the first stays
    waiting = [(-tree.size, next(order), 0, id(tree), name, tree)]
    while waiting and budget >= 0:
        _, _, depth, parent, text, node = heapq.heappop(waiting)
        if node is not tree:
            siblings = kept.setdefault(parent, [])
            if len(siblings) == _CHILDREN:
                continue
            siblings.append((text, node))
        budget -= 1
        if depth < _DEPTH:
            for child_name, child in node.children.items():
                text, deepest = _chain(child_name, child)
                heapq.heappush(waiting, (-child.size, next(order), depth + 1, id(node), text, deepest))
    return _node(name, tree, kept)


def _chain(name: bytes, tree: _Tree) -> tuple[str, _Tree]:
    """A folder with nothing in it but one folder, and so on, as one."""
    names = [name]
    while len(tree.children) == 1:
        ((below, child),) = tree.children.items()
        if not child.folder:
            break
        names.append(below)
        tree = child
    return _name(b"/".join(names).decode("utf-8", "backslashreplace")), tree


def _node(name: str, tree: _Tree, kept: dict[int, list[tuple[str, _Tree]]]) -> Node:
    children = tuple(_node(text, child, kept) for text, child in kept.get(id(tree), ()))
    return Node(
        name,
        tree.size,
        tree.files,
        tree.invisible,
        tree.folder,
        children,
        more=len(tree.children) - len(children),
        more_files=tree.files - sum(child.files for child in children) if tree.folder else 0,
        more_bytes=tree.size - sum(child.bytes for child in children) if tree.folder else 0,
    )


# -- shadows -----------------------------------------------------------------------------------------------------------


def _shadows(found: Sequence[Version]) -> list[Shadow]:
    groups: dict[tuple[int, int], list[Version]] = {}
    for version in found:
        if version.hidden_by and version.action != "deleted" and version.entry.kind is not Kind.DIRECTORY:
            groups.setdefault((version.hidden_by, version.layer), []).append(version)
    told = [_shadow(by, layer, versions) for (by, layer), versions in groups.items()]
    return sorted(told, key=lambda shadow: (-shadow.bytes, shadow.by, shadow.layer))


def _shadow(by: int, layer: int, versions: Sequence[Version]) -> Shadow:
    deleted = sum(version.deleted for version in versions)
    largest = heapq.nsmallest(3, versions, key=lambda version: (-version.size, version.path))
    total = sum(version.size for version in versions)
    return Shadow(by, layer, len(versions) - deleted, deleted, total, tuple(_path(version.path) for version in largest))


# -- the build ---------------------------------------------------------------------------------------------------------


def _timeline(build: BuildRecord, layers: Sequence[LayerRow]) -> Timeline:
    numbers = {row.diff_id: number for number, row in enumerate(layers, start=1)}
    steps = [
        _timed(found, numbers.get(found.step.diff_id, 0) if found.step.diff_id else 0) for found in explained(build)
    ]
    capture, overlapped = capture_overlap(build.steps)
    return Timeline(
        build.number,
        build.began,
        build.seconds,
        _name(build.recipe),
        tuple(steps[:_LINES]),
        max(0, len(steps) - _LINES),
        capture,
        overlapped,
    )


def _timed(found: Explained, layer: int) -> Timed:
    step = found.step
    reasons = [reason for reason in _reasons(found) if reason]
    return Timed(
        printable(step.stage),
        step.number,
        step.line,
        _instruction(step.instruction),
        step.verdict,
        tuple(printable(shorten(reason, 240)) for reason in reasons[:_DIFFERENCES]),
        max(0, len(reasons) - _DIFFERENCES) + step.more,
        layer,
        step.began,
        step.ended,
        step.sealed if _captured(step) else None,
    )


def _reasons(found: Explained) -> Iterator[str]:
    """Why a step hit or missed."""
    step = found.step
    if step.verdict == "hit":
        yield found.because
    elif step.verdict == "miss" and not step.differences:
        yield found.because or step.reason
    for difference in step.differences:
        yield found.because if difference.change == "below" and found.because else str(difference)


def capture_overlap(steps: Iterable[StepAccount]) -> tuple[float, float]:
    """The seconds in which layers were made behind their steps, summed over the layers, and those of them in which
    another step went on."""
    made = list(steps)
    captures = [span for step in made if (span := _captured(step)) is not None]
    running = _union((step.began, step.ended) for step in made if step.verdict == "miss" and step.ended is not None)
    capture = sum(end - begin for begin, end in captures)
    shared = (max(0.0, min(end, upto) - max(begin, since)) for begin, end in captures for since, upto in running)
    return capture, sum(shared)


def _captured(step: StepAccount) -> tuple[float, float] | None:
    if step.verdict != "miss" or step.ended is None or step.sealed is None or step.sealed <= step.ended:
        return None
    return step.ended, step.sealed


def _union(spans: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """Spans that do not touch, of spans that may overlap."""
    merged: list[tuple[float, float]] = []
    for begin, end in sorted(spans):
        if merged and begin <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((begin, end))
    return merged
