"""What two trees differ in, path by path: images, layers, or what a build had after two of its steps."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from typing import Any, BinaryIO

from layerbuild.frozen import frozen
from layerbuild.image.config import ImageConfig, write_runtime
from layerbuild.layer.entry import Entry, Kind, sort_key
from layerbuild.store.builds import Difference
from layerbuild.views.text import count, rfc3339, size
from layerbuild.views.versions import changed_facts

TEXT_LIMIT = 64 << 10  # bytes of a file whose lines are compared
_MOST_LINES = 400  # of one file's text difference


@frozen
class Thing:
    """A path of one side. ``entry`` is what it is, of a hard link the file behind it under its own path; ``link`` is
    that file's path. ``open`` gives a file's content, None where it can't be had."""

    entry: Entry
    link: bytes = b""
    open: Callable[[], BinaryIO] | None = None


@frozen
class PathDifference:
    """``change`` is "added", "deleted" or "changed", then ``facts`` tell in what; ``text`` are the lines of a unified
    difference, of a small file that is text on both sides. Sizes are in bytes, None where there is nothing."""

    path: str
    change: str
    kind: str
    facts: tuple[Difference, ...] = ()
    before: int | None = None
    after: int | None = None
    text: tuple[str, ...] = ()


def compare(before: Iterable[Thing], after: Iterable[Thing], *, times: bool, text: bool) -> Iterator[PathDifference]:
    """The differences of two listings in a layer's order. ``times``: other times are a difference, too."""
    left, right = iter(before), iter(after)
    old, new = next(left, None), next(right, None)
    while old is not None or new is not None:
        order = _order(old, new)
        if order < 0 and old is not None:
            yield _alone(old, "deleted")
        elif order > 0 and new is not None:
            yield _alone(new, "added")
        elif old is not None and new is not None:
            yield from _both(old, new, times=times, text=text)
        old = next(left, None) if order <= 0 else old
        new = next(right, None) if order >= 0 else new


def compare_config(before: ImageConfig, after: ImageConfig) -> list[Difference]:
    """What two images' configurations differ in: keys as Docker calls them, variables and labels one by one."""
    old, new = _told(before), _told(after)
    names = sorted({*old, *new})
    return [_value(name, old.get(name), new.get(name)) for name in names if old.get(name) != new.get(name)]


def as_json(config: Sequence[Difference], paths: Sequence[PathDifference]) -> dict[str, Any]:
    """The differences as plain data."""
    return {
        "same": not config and not paths,
        "config": [asdict(found) for found in config],
        "paths": [{**asdict(found), "text": list(found.text)} for found in paths],
    }


def as_text(config: Sequence[Difference], paths: Sequence[PathDifference]) -> str:
    """The differences for people: ``+``, ``-`` and ``~`` before a path, and below it what changed."""
    if not config and not paths:
        return "no difference"
    lines = [f"config: {found}" for found in config]
    for found in paths:
        mark = {"added": "+", "deleted": "-", "changed": "~"}[found.change]
        slash = "/" * (found.kind == Kind.DIRECTORY.value)
        lines.append(f"{mark} {found.path}{slash}{_remark(found)}")
        lines += [f"    {line}" for line in found.text]
    return "\n".join([*lines, _summary(config, paths)])


def _summary(config: Sequence[Difference], paths: Sequence[PathDifference]) -> str:
    counted = {change: sum(found.change == change for found in paths) for change in ("added", "changed", "deleted")}
    told = ", ".join(f"{number} {change}" for change, number in counted.items())
    more = f"; {count(len(config), 'difference')} in the configuration" if config else ""
    growth = sum((found.after or 0) - (found.before or 0) for found in paths)
    return f"{told}; {'-' if growth < 0 else '+'}{size(abs(growth))}{more}"


def _remark(found: PathDifference) -> str:
    if found.change != "changed":
        amount = found.after if found.change == "added" else found.before
        return f"  {size(amount)}" if amount else f"  {found.kind}" * (found.kind not in ("file", "directory"))
    told = [_fact(found, fact) for fact in found.facts]
    return f"  {', '.join(told)}"


def _fact(found: PathDifference, fact: Difference) -> str:
    if fact.change == "content":
        return f"content ({size(found.before or 0)} → {size(found.after or 0)})"
    return fact.change if fact.change == "attributes" else f"{fact.change} {fact.before or '-'} → {fact.after or '-'}"


def _order(old: Thing | None, new: Thing | None) -> int:
    if old is None or new is None:
        return 1 if old is None else -1
    left, right = sort_key(old.entry.path), sort_key(new.entry.path)
    return (left > right) - (left < right)


def _alone(thing: Thing, change: str) -> PathDifference:
    amount = thing.entry.size if thing.entry.kind is Kind.FILE else None
    sizes = (amount, None) if change == "deleted" else (None, amount)
    return PathDifference(_path(thing.entry.path), change, thing.entry.kind.value, (), *sizes)


def _both(old: Thing, new: Thing, *, times: bool, text: bool) -> Iterator[PathDifference]:
    facts = [fact for fact in changed_facts(old.entry, new.entry) if times or fact != "time"]
    if old.link != new.link:
        facts.append("link")
    if not facts:
        return
    path = _path(new.entry.path)
    told = tuple(Difference(path, fact, _shown(old, fact), _shown(new, fact)) for fact in facts)
    lines = _lines(old, new) if text and "content" in facts else ()
    sizes = [thing.entry.size if thing.entry.kind is Kind.FILE else None for thing in (old, new)]
    yield PathDifference(path, "changed", new.entry.kind.value, told, sizes[0], sizes[1], lines)


def _shown(thing: Thing, fact: str) -> str:
    entry = thing.entry
    match fact:
        case "kind":
            return entry.kind.value
        case "content":
            return entry.digest
        case "mode":
            return f"{entry.mode:04o}"
        case "owner":
            return f"{entry.uid}:{entry.gid}"
        case "time":
            return rfc3339(entry.mtime) + (f" +{entry.mtime_ns}ns" if entry.mtime_ns else "")
        case "target":
            return entry.target.decode("utf-8", "backslashreplace")
        case "device":
            return f"{entry.device[0]}:{entry.device[1]}"
        case "attributes":
            return ",".join(f"{name.decode('utf-8', 'backslashreplace')}={value.hex()}" for name, value in entry.xattrs)
        case "link":
            return thing.link.decode("utf-8", "backslashreplace")
    raise AssertionError(fact)


def _lines(old: Thing, new: Thing) -> tuple[str, ...]:
    before, after = _text(old), _text(new)
    if before is None or after is None:
        return ()
    path = _path(new.entry.path)
    found = list(difflib.unified_diff(before, after, f"a{path}", f"b{path}", lineterm=""))
    rest = len(found) - _MOST_LINES
    return (*found[:_MOST_LINES], *([f"… and {count(rest, 'line')} more"] if rest > 0 else []))


def _text(thing: Thing) -> list[str] | None:
    """The lines of a small text; None for all else."""
    if thing.entry.kind is not Kind.FILE or thing.entry.size > TEXT_LIMIT or thing.open is None:
        return None
    with thing.open() as file:
        data = file.read()
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return None
    return None if "\0" in text else text.splitlines()


def _path(path: bytes) -> str:
    return "/" + path.decode("utf-8", "backslashreplace")


def _value(name: str, old: str | None, new: str | None) -> Difference:
    change = "added" if old is None else "removed" if new is None else "value"
    return Difference(name, change, old or "", new or "")


def _told(config: ImageConfig) -> dict[str, str]:
    told = {"platform": str(config.platform), "author": config.author}
    for key, value in write_runtime(config.config).items():
        if key == "Env":
            told |= {f"Env {name}": text for name, text in config.config.env}
        elif key == "Labels":
            told |= {f"Label {name}": text for name, text in config.config.labels}
        elif isinstance(value, dict) and not any(value.values()):
            told |= {f"{key} {name}": "set" for name in value}
        else:
            told[key] = str(value)
    return {name: text for name, text in told.items() if text}
