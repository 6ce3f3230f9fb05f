"""What an image wastes, measured, and what would mend it, with the line of the recipe."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from layerbuild.digest import DiffID
from layerbuild.frozen import frozen
from layerbuild.layer.entry import Kind
from layerbuild.leaks import Finding
from layerbuild.store.builds import BuildRecord, StepAccount
from layerbuild.views.efficiency import Efficiency
from layerbuild.views.efficiency import as_json as efficiency_json
from layerbuild.views.layers import LayerRow
from layerbuild.views.text import count, seconds, shorten, size
from layerbuild.views.versions import Version, invisible

_LEAST = 4096  # bytes; less is not worth a word
_PATHS = 5  # that an advice names
_COMMAND = re.compile(r"(?:\|\d+ .*)?/bin/(?:ba)?sh -")  # the classic builder's, with the arguments before it
_METADATA = frozenset(("mode", "owner", "attributes", "time"))


@frozen
class Advice:
    """One thing to mend. ``kind`` is "copied up", "package cache", "deleted later", "replaced later", "duplicates",
    "order" or "secret"; ``layer`` counts from 1, 0: none in particular; ``line`` is the recipe's, 0: not known.
    ``bytes`` of content and ``seconds`` are what it costs now."""

    kind: str
    text: str
    remedy: str
    layer: int = 0
    line: int = 0
    bytes: int = 0
    seconds: float = 0.0
    paths: tuple[str, ...] = ()


@frozen
class _Cache:
    """A place where a tool leaves what only its next call needs, and what keeps it out of a layer."""

    tool: str
    folder: bytes
    remedy: str


_MOUNT = "RUN --mount=type=cache,target="
_CACHES = (
    _Cache(
        "apt's lists", b"var/lib/apt/lists/", f"rm -rf /var/lib/apt/lists/* in the same RUN, or {_MOUNT}/var/lib/apt"
    ),
    _Cache("apt's packages", b"var/cache/apt/", f"apt-get clean in the same RUN, or {_MOUNT}/var/cache/apt"),
    _Cache("apk's index", b"var/cache/apk/", f"apk add --no-cache, or {_MOUNT}/var/cache/apk"),
    _Cache("dnf's cache", b"var/cache/dnf/", f"dnf clean all in the same RUN, or {_MOUNT}/var/cache/dnf"),
    _Cache("yum's cache", b"var/cache/yum/", f"yum clean all in the same RUN, or {_MOUNT}/var/cache/yum"),
    _Cache("pip's cache", b"root/.cache/pip/", f"pip install --no-cache-dir, or {_MOUNT}/root/.cache/pip"),
    _Cache("uv's cache", b"root/.cache/uv/", f"uv --no-cache, or {_MOUNT}/root/.cache/uv"),
    _Cache("npm's cache", b"root/.npm/", f"npm cache clean --force in the same RUN, or {_MOUNT}/root/.npm"),
    _Cache("yarn's cache", b"usr/local/share/.cache/yarn/", f"{_MOUNT}/usr/local/share/.cache/yarn"),
    _Cache("Go's build cache", b"root/.cache/go-build/", f"{_MOUNT}/root/.cache/go-build"),
    _Cache("Go's modules", b"root/go/pkg/mod/", f"{_MOUNT}/root/go/pkg/mod, or build in a stage of its own"),
    _Cache("Cargo's registry", b"root/.cargo/registry/", f"{_MOUNT}/root/.cargo/registry"),
    _Cache("Maven's repository", b"root/.m2/repository/", f"{_MOUNT}/root/.m2"),
    _Cache("Gradle's caches", b"root/.gradle/caches/", f"{_MOUNT}/root/.gradle/caches"),
)


@frozen
class Maker:
    """What made a layer. ``kind`` is "run", "copy" or "" for another; "base": the build found the layer there.
    ``where`` names the step as people find it; ``lent``: it copies from a stage or an image, which no ignore file
    concerns."""

    kind: str
    where: str = ""
    lent: bool = False


class Lines:
    """Which layer is which line of the recipe, as far as the build that made the image is recorded; of an image that
    others made, what its history says."""

    def __init__(self, rows: Sequence[LayerRow], build: BuildRecord | None) -> None:
        self._rows = rows
        self._recorded = build is not None
        steps = build.steps if build is not None else ()
        self._steps: dict[DiffID, StepAccount] = {step.diff_id: step for step in steps if step.diff_id is not None}

    def step(self, layer: int) -> StepAccount | None:
        """The step that made a layer, None: the base brought it, or nobody knows."""
        diff_id = self._rows[layer - 1].diff_id
        return self._steps.get(diff_id) if diff_id is not None else None

    def maker(self, layer: int) -> Maker:
        """What made a layer."""
        step = self.step(layer)
        if step is not None:
            return Maker(step.kind, f"line {step.line}", lent="--from=" in step.instruction)
        if self._recorded:
            return Maker("base")
        word = keyword(self._rows[layer - 1].instruction)
        kind = "run" if word == "RUN" else "copy" if word else ""
        return Maker(kind, f"the {word} of layer {layer}" if kind == "copy" else f"layer {layer}")

    def line(self, layer: int) -> int:
        """The line of the recipe, 0: not known."""
        step = self.step(layer)
        return step.line if step is not None else 0

    def named(self, layer: int) -> str:
        """The layer as people find it: its line, else its number; and its instruction."""
        step = self.step(layer)
        text = shorten(step.instruction if step else self._rows[layer - 1].instruction, 60)
        return f"{f'line {step.line}' if step else f'layer {layer}'}{f' ({text})' if text else ''}"


def keyword(created_by: str) -> str:
    """The instruction that a line of history tells of, as BuildKit, the classic builder and buildah write it; empty for
    another one, and for what none of them wrote.

    >>> keyword("RUN /bin/sh -c make # buildkit"), keyword("|1 A=b /bin/sh -c make")
    ('RUN', 'RUN')
    >>> keyword("/bin/sh -c #(nop) COPY file:4d5e in /f"), keyword("bazel build")
    ('COPY', '')
    """
    text = created_by.removeprefix("/bin/sh -c #(nop) ").lstrip()
    word = text.partition(" ")[0]
    if word in ("RUN", "COPY", "ADD"):
        return word
    return "RUN" if _COMMAND.match(text) else ""


def advise(found: Sequence[Version], lines: Lines, *, least: int = _LEAST) -> list[Advice]:
    """What the files of an image tell, the costliest first; what costs fewer than ``least`` bytes is left out."""
    told = [
        *_copied_up(found, lines),
        *_caches(found, lines),
        *_hidden(found, lines),
        *_duplicates(found, lines),
    ]
    return sorted((advice for advice in told if advice.bytes >= least), key=lambda advice: -advice.bytes)


def advise_order(builds: Sequence[BuildRecord], lines: Callable[[StepAccount], str]) -> list[Advice]:
    """What the builds of a recipe, newest first, tell of the order of its steps: which one made others run again that
    had nothing new themselves."""
    told = []
    for step in builds[0].steps if builds else ():
        if step.kind == "metadata":
            continue
        times, lost, victims = _victims(step, builds)
        if times >= 2 and victims:
            what = f"{lines(step)} changed in {times} of the last {count(len(builds), 'build')} and made "
            what += f"{', '.join(f'line {line}' for line in victims)} run again: {seconds(lost)} in all"
            told.append(
                Advice(
                    "order",
                    what,
                    f"move it below line {max(victims)}, or copy first only what those need",
                    line=step.line,
                    seconds=lost,
                )
            )
    return sorted(told, key=lambda advice: -advice.seconds)


def advise_secrets(found: Mapping[int, Iterable[Finding]], lines: Lines) -> list[Advice]:
    """What looks like a secret, by layer (0: the configuration)."""
    return [
        Advice(
            "secret",
            f"{lines.named(layer) if layer else 'the configuration'} ships what looks like a secret: {finding}",
            "lend it with RUN --mount=type=secret; whoever has the image has it now, so change it",
            layer=layer,
            line=lines.line(layer) if layer else 0,
        )
        for layer, findings in found.items()
        for finding in findings
    ]


def as_json(told: Sequence[Advice], measure: Efficiency, broken: Sequence[str]) -> dict[str, Any]:
    """Everything as plain data."""
    advices = [{**asdict(advice), "paths": list(advice.paths)} for advice in told]
    return {"efficiency": efficiency_json(measure), "broken_rules": list(broken), "advice": advices}


def as_text(told: Sequence[Advice], measure: Efficiency, broken: Sequence[str]) -> str:
    """Everything for people."""
    lines = []
    for advice in told:
        lines += [f"{advice.kind}: {advice.text}", *(f"    {path}" for path in advice.paths), f"  → {advice.remedy}"]
    wasted = f"{size(measure.wasted_bytes)} wasted of {size(measure.user_bytes)} above the first layer"
    counted = f"{len(told)} to mend" if told else "nothing to mend"
    lines.append(f"{counted}; efficiency {measure.score:.1%}, {wasted}")
    return "\n".join([*lines, *(f"rule broken: {rule}" for rule in broken)])


# -- files -------------------------------------------------------------------------------------------------------------


def _is_copy_up(version: Version) -> bool:
    """Whether a layer has a file's content again though only its metadata changed."""
    return version.size > 0 and bool(version.facts) and set(version.facts) <= _METADATA


def _copied_up(found: Sequence[Version], lines: Lines) -> Iterator[Advice]:
    groups: dict[tuple[int, int, tuple[str, ...]], list[Version]] = {}
    for version in found:
        if _is_copy_up(version) and version.before is not None:
            facts = tuple(fact for fact in version.facts if fact != "time") or ("time",)
            groups.setdefault((version.layer, version.before.layer, facts), []).append(version)
    for (layer, below, facts), versions in groups.items():
        total = sum(version.size for version in versions)
        what = f"{lines.named(layer)} copies {size(total)} up to change only {' and '.join(facts)}"
        remedy = f"{_instead(lines, below, facts, versions)}: saves {size(total)}"
        yield Advice("copied up", what, remedy, layer, lines.line(layer), total, paths=_paths(versions))


def _instead(lines: Lines, below: int, facts: tuple[str, ...], versions: Sequence[Version]) -> str:
    maker = lines.maker(below)
    flags = {"mode": _flag("--chmod", {f"{found.entry.mode:o}" for found in versions})}
    flags["owner"] = _flag("--chown", {f"{found.entry.uid}:{found.entry.gid}" for found in versions})
    wanted = " ".join(flags[fact] for fact in facts if fact in flags)
    match maker.kind:
        case "base":
            return "the files are the base's: let the base have them so, or leave them as they are"
        case "run":
            return f"do it in the RUN of {maker.where}, where the files are made"
        case "copy" if wanted:
            return f"use {wanted} on {maker.where}"
        case "copy":
            return f"do it before {maker.where} copies them"
    return f"do it in the step that made {maker.where}, which brought the files"


def _flag(name: str, values: set[str]) -> str:
    return f"{name}={next(iter(values))}" if len(values) == 1 else name


def _caches(found: Sequence[Version], lines: Lines) -> Iterator[Advice]:
    groups: dict[tuple[int, _Cache], list[Version]] = {}
    for version in found:
        if version.size and version.visible:
            cache = next((known for known in _CACHES if version.path.startswith(known.folder)), None)
            if cache is not None:
                groups.setdefault((version.layer, cache), []).append(version)
    for (layer, cache), versions in groups.items():
        total = sum(version.size for version in versions)
        what = f"{lines.named(layer)} leaves {cache.tool} behind: {size(total)} in {count(len(versions), 'file')}"
        remedy = cache.remedy
        if lines.maker(layer).kind == "base":
            remedy = f"the base brings it; where that is built: {remedy}"
        yield Advice("package cache", what, remedy, layer, lines.line(layer), total, paths=_paths(versions))


def _hidden(found: Sequence[Version], lines: Lines) -> Iterator[Advice]:
    """What a later layer deletes or replaces. What it merely copied up is told as that."""
    copied = {id(version.before) for version in found if _is_copy_up(version)}
    groups: dict[tuple[int, int, bool], list[Version]] = {}
    for version in invisible(found):
        if id(version) not in copied:
            groups.setdefault((version.layer, version.hidden_by, version.deleted), []).append(version)
    for (layer, by, deleted), versions in groups.items():
        total = sum(version.size for version in versions)
        kind = "deleted later" if deleted else "replaced later"
        verb = "deletes" if deleted else "writes anew"
        what = f"{lines.named(by)} {verb} {size(total)} that {lines.named(layer)} ships all the same"
        remedy = _earlier(lines.maker(layer), deleted=deleted)
        yield Advice(kind, what, remedy, layer, lines.line(layer), total, paths=_paths(versions))


def _earlier(maker: Maker, *, deleted: bool) -> str:
    match maker.kind:
        case "base":
            return "the base has them: take one without"
        case "run":
            return f"{'delete them' if deleted else 'write them once,'} in the RUN of {maker.where}"
        case "copy" if deleted:
            first = "" if maker.lent else ".dockerignore, "
            return f"leave them out on {maker.where}: {first}--exclude, or RUN --mount=type=bind in place of the copy"
        case "copy":
            return f"copy them on {maker.where} as they shall be"
    return f"{'leave them out of' if deleted else 'bring them once, in'} the step that made {maker.where}"


def _duplicates(found: Sequence[Version], lines: Lines) -> Iterator[Advice]:
    """Files of one content under several names, by the layers that they lie in."""
    same: dict[str, list[Version]] = {}
    for version in found:
        if version.visible and version.size and version.entry.kind is Kind.FILE:
            same.setdefault(version.entry.digest, []).append(version)
    groups: dict[tuple[int, ...], list[Version]] = {}
    for versions in same.values():
        if len(versions) > 1:
            layers = tuple(sorted({version.layer for version in versions}))
            groups.setdefault(layers, []).extend(versions[1:])
    for layers, versions in groups.items():
        total = sum(version.size for version in versions)
        where = " and ".join(lines.named(layer) for layer in layers)
        what = f"{where}: {size(total)} are there under another name already"
        remedy = "copy them once" if len(layers) > 1 else "make links of the copies (ln), in the step that makes them"
        yield Advice("duplicates", what, remedy, layers[-1], lines.line(layers[-1]), total, paths=_paths(versions))


def _paths(versions: Sequence[Version]) -> tuple[str, ...]:
    largest = sorted(versions, key=lambda version: (-version.size, version.path))
    return tuple(f"/{version.path.decode('utf-8', 'backslashreplace')}" for version in largest[:_PATHS])


# -- order -------------------------------------------------------------------------------------------------------------


def _victims(step: StepAccount, builds: Sequence[BuildRecord]) -> tuple[int, float, list[int]]:
    """How often ``step`` missed for reasons of its own, and which later steps then ran for no other reason than that:
    the seconds that they took, and their lines."""
    times, lost, lines = 0, 0.0, set()
    for build in builds:
        mine = next((found for found in build.steps if _same(found, step)), None)
        if mine is None or mine.verdict != "miss" or not _own_reasons(mine):
            continue
        times += 1
        later = [found for found in build.steps if found.stage == step.stage and found.number > mine.number]
        for found in later:
            if found.verdict == "miss" and _own_reasons(found):
                break  # from here on it is that one's doing
            if found.verdict == "miss" and found.differences:
                lost += found.seconds
                lines.add(found.line)
    return times, lost, sorted(lines)


def _same(found: StepAccount, step: StepAccount) -> bool:
    return (found.stage, found.instruction, found.kind) == (step.stage, step.instruction, step.kind)


def _own_reasons(step: StepAccount) -> bool:
    return any(found.change != "below" for found in step.differences)
