"""Why a step missed, as a difference between the inputs of two of its runs.

Inputs are compared by name. Where one is files, both listings are compared line by line, so that a path and what
changed of it are told. A listing's lines are those of ``selecting.content_digest``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from layerbuild.build import wildcard
from layerbuild.layer.paths import clean
from layerbuild.steps import masked
from layerbuild.store.builds import Difference
from layerbuild.store.cache import PARENT

Listing = Callable[[str], bytes | None]

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{40}", re.ASCII)  # as git names it
_MOST = 200  # differences that are kept; the rest is counted
_FACTS = ("kind", "mode", "owner", "size", "device", "content", "target", "attributes", "names")
# What a mount's input tells, in its order (steps.identity).
_MOUNT = ("type", "source", "from", "read only", "id", "uid", "gid", "mode", "size", "variable")
_WORDS = {"tar format": "layerbuild's tar format", "key format": "layerbuild's cache keys", "times": "times in layers"}


def differences(
    before: Mapping[str, str], after: Mapping[str, str], listing: Listing, *, args: frozenset[str] = frozenset()
) -> tuple[tuple[Difference, ...], int]:
    """What the inputs ``after`` have otherwise than ``before``, and how many differences were left out.

    ``listing`` gives the listing that a digest names, None where it is gone. ``args`` are the variables of the step
    that are arguments of the build, and not part of the image.
    """
    found = list(_differences(before, after, listing, args))
    return tuple(found[:_MOST]), max(0, len(found) - _MOST)


def _differences(
    before: Mapping[str, str], after: Mapping[str, str], listing: Listing, args: frozenset[str]
) -> Iterator[Difference]:
    names = [*after, *(name for name in before if name not in after)]
    for name in sorted(names, key=lambda name: name == PARENT):  # what lies below is told last
        old, new = before.get(name), after.get(name)
        if old == new:
            continue
        if name == PARENT:
            yield Difference(PARENT, "below", old or "", new or "")
        elif (files := _files(name, old, new, listing)) is not None:
            yield from files
        elif old is not None and new is not None and name.startswith("mount "):
            yield from _mount(name, json.loads(old), json.loads(new))
        elif old is not None and new is not None and name == "sources":
            yield from _sources(json.loads(old), json.loads(new))
        elif name.startswith("content of ") and _COMMIT.fullmatch(old or "") and _COMMIT.fullmatch(new or ""):
            yield Difference(f"commit of {name.removeprefix('content of ')}", "value", str(old)[:12], str(new)[:12])
        elif name.startswith(("content of ", "file ")) and _is_digest(f"sha256:{str(old)[-64:]}"):
            yield Difference(name.removeprefix("content of "), "content")
        else:
            yield _value(_subject(name, args), old, new)


def _value(subject: str, old: str | None, new: str | None) -> Difference:
    if old is None:
        return Difference(subject, "added", "", masked(new or ""))
    if new is None:
        return Difference(subject, "removed", masked(old), "")
    if masked(old) == masked(new):  # nothing but the credentials of a URL
        return Difference(subject, "changed")
    return Difference(subject, "value", masked(old), masked(new))


def _mount(name: str, old: Sequence[Any], new: Sequence[Any]) -> Iterator[Difference]:
    for fact, was, now in zip(_MOUNT, old, new, strict=False):
        if was != now:
            shown = [oct(value) if fact == "mode" and value else str(value) for value in (was, now)]
            yield Difference(f"{name} {fact}", "value", *shown)


def _sources(old: Sequence[Sequence[str]], new: Sequence[Sequence[str]]) -> Iterator[Difference]:
    names, others = ([_spelled(*source) for source in sources] for sources in (old, new))
    if names != others:
        yield Difference("sources", "value", " ".join(names), " ".join(others))
        return
    for name, was, now in zip(names, old, new, strict=True):
        if was != now and now[0] == "inline":
            yield Difference(name, "content")
        elif was != now:
            yield Difference(f"options of {name}", "value", " ".join(was[2:]), " ".join(now[2:]))


def _spelled(kind: str, name: str = "", *_: str) -> str:
    return f"<<{name}" if kind == "inline" else name


def _subject(name: str, args: frozenset[str]) -> str:
    """An input as people call it."""
    kind, _, rest = name.partition(" ")
    if kind == "env":
        return f"{'ARG' if rest in args else 'ENV'} {rest}"
    return _WORDS.get(name, name)


# -- files -------------------------------------------------------------------------------------------------------------


def _files(name: str, old: str | None, new: str | None, listing: Listing) -> list[Difference] | None:
    """The differences of two listings; None if the input is no files, or a listing is gone."""
    if not name.startswith(("files ", "mounted at ")) or not (_is_digest(old) and _is_digest(new)):
        return None
    texts = listing(str(old)), listing(str(new))
    if texts[0] is None or texts[1] is None:
        return None
    lines, others = _lines(texts[0]), _lines(texts[1])
    top = _top(name)
    paths = sorted({*lines, *others})
    return [found for path in paths for found in _file(_join(top, path), lines.get(path), others.get(path))]


def _is_digest(value: str | None) -> bool:
    return value is not None and _DIGEST.fullmatch(value) is not None


def _top(name: str) -> str:
    """Where the paths of a listing begin: for a pattern that is its folder."""
    if name.startswith("mounted at "):
        return name.removeprefix("mounted at ")
    spelled = name.removeprefix("files ")
    pattern = clean(spelled.encode("utf-8", "surrogateescape"))
    folder = wildcard.split(pattern)[0] if wildcard.is_pattern(pattern) else pattern
    return "/" * spelled.startswith("/") + folder.decode("utf-8", "backslashreplace")


def _join(top: str, path: str) -> str:
    return f"{top.rstrip('/')}/{path}" if top and path else top or path or "."


def _lines(listing: bytes) -> dict[str, tuple[str, ...]]:
    """The facts of each path of a listing, in the order of ``_FACTS``."""
    table: dict[str, tuple[str, ...]] = {}
    for line in listing.decode("utf-8", "backslashreplace").split("\n"):
        fields = line.split("\t")
        if fields[0] == "d" and len(fields) == 2:  # the folder that a source is
            table.setdefault(fields[1], ("directory",) + ("",) * (len(_FACTS) - 1))
            continue
        if len(fields) < 9:
            continue
        path, kind, mode, uid, gid, size, device, content, target, *rest = fields
        attributes, names = [*rest, "", ""][:2]
        table[path] = (kind, f"0{mode}", f"{uid}:{gid}", size, device, content, target, attributes, names)
    return table


def _file(path: str, old: tuple[str, ...] | None, new: tuple[str, ...] | None) -> Iterator[Difference]:
    if old is None or new is None:
        yield Difference(path, "removed" if new is None else "added")
        return
    if old[0] != new[0]:
        yield Difference(path, "kind", old[0], new[0])
        return
    for fact, was, now in zip(_FACTS, old, new, strict=True):
        if was != now and fact != "size":  # of another size is of another content
            yield Difference(path, fact, was, now)
