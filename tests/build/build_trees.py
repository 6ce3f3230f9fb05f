"""Small trees as words, COPY from one onto another, and what it would write as words again.

::

    d/  d/:700          a folder, of mode 755 where none is said
    f  f=text  f:600=x  a file, of mode 644 where none is said, with its content
    l->target           a symbolic link
    b~a                 another name of the file a
    s!                  a socket
    d/f<whiteout>       anything else, in what is written

Parents need no words of their own. Odd bytes are written ``\\xHH``.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from layerbuild.build.context import ContextTree
from layerbuild.build.placement import Item, Placement
from layerbuild.build.selecting import select
from layerbuild.build.times import DEFAULT_EPOCH, Times
from layerbuild.build.tree import StackTree, Tree
from layerbuild.errors import Span
from layerbuild.image.config import RuntimeConfig
from layerbuild.layer.entry import Entry, Kind
from layerbuild.layer.index import Index, IndexWriter
from layerbuild.layer.union import LayerView, Union
from layerbuild.recipe.ignore import IgnoreRules
from layerbuild.steps import ContextRoot, CopyStep, Origin, PathSource

TIMES = Times(DEFAULT_EPOCH, DEFAULT_EPOCH + 1000)
ORIGIN = Origin(Span("Dockerfile", 7), "COPY", "COPY …")

_WORD = re.compile(
    r"(?P<path>[^:=~>]*?)(?::(?P<mode>[0-7]+))?(?:->(?P<link>.*)|~(?P<same>.*)|(?P<socket>!)|=(?P<text>.*))?"
)
_MODES = {Kind.FILE: 0o644, Kind.DIRECTORY: 0o755}


def grow(folder: Path, words: str) -> Path:
    """Make what ``words`` name below ``folder``."""
    folder.mkdir(exist_ok=True)
    for word in words.split():
        found = _WORD.fullmatch(word)
        assert found is not None, word
        _make(folder, found)
    return folder


def _make(folder: Path, word: re.Match[str]) -> None:
    name = os.fsdecode(word["path"].encode().decode("unicode_escape").encode("latin-1"))
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if word["link"] is not None:
        path.symlink_to(word["link"])
    elif word["same"] is not None:
        path.hardlink_to(folder / word["same"])
    elif word["socket"]:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
        path.chmod(0o755)
    elif name.endswith("/"):
        path.mkdir(exist_ok=True)
        path.chmod(int(word["mode"] or "755", 8))
    else:
        path.write_text(word["text"] or "")
        path.chmod(int(word["mode"] or "644", 8))


def context(folder: Path, words: str = "", *, ignore: str = "") -> ContextTree:
    """A context that holds ``words``, and what is in ``folder`` already."""
    return ContextTree(grow(folder, words), IgnoreRules.parse(ignore))


def stack(folder: Path, *layers: list[Entry]) -> StackTree:
    """A stack of layers, bottom first, without any content."""
    folder.mkdir(exist_ok=True)
    views: list[LayerView] = []
    for number, entries in enumerate(layers):
        path = folder / f"{number}.index"
        with IndexWriter(path) as writer:
            for entry in entries:
                writer.add(entry)
            writer.finish()
        views.insert(0, LayerView(Index.open(path)))
    union = Union(views)
    return StackTree(lambda: union, name="the image")


def step(*sources: str, dest: str, **options: Any) -> CopyStep:
    """``COPY SOURCE… DEST``."""
    return CopyStep(ORIGIN, RuntimeConfig(), "", ContextRoot(), tuple(map(PathSource, sources)), dest, **options)


def placed(
    source: Tree, target: Tree, asked: CopyStep, *, owner: tuple[int, int] | None = None, times: Times = TIMES
) -> list[Item]:
    """The items of ``asked``."""
    placement = Placement(asked, target, owner=owner, times=times)
    for named in asked.sources:
        assert isinstance(named, PathSource)
        for match in select(asked, named, source):
            placement.add(match)
    return placement.items()


def shown(items: list[Item], *, owners: bool = False) -> str:
    """The words for ``items``, in their order; with ``owners`` each begins with UID:GID@."""
    return " ".join("".join(_parts(item, owners)) for item in items)


def _parts(item: Item, owners: bool) -> Iterator[str]:
    entry = item.entry
    if owners:
        yield f"{entry.uid}:{entry.gid}@"
    yield entry.path.decode("latin-1").encode("unicode_escape").decode().replace(" ", "\\x20")
    if entry.kind is Kind.DIRECTORY:
        yield "/"
    if entry.kind in _MODES and entry.mode != _MODES[entry.kind]:
        yield f":{entry.mode:o}"
    match entry.kind:
        case Kind.FILE:
            content = _content(item).decode()
            yield f"={content}" if content else ""
        case Kind.SYMLINK:
            yield f"->{os.fsdecode(entry.target)}"
        case Kind.HARDLINK:
            yield f"~{os.fsdecode(entry.target)}"
        case Kind.DIRECTORY:
            pass
        case kind:
            yield f"<{kind.value}>"


def _content(item: Item) -> bytes:
    if isinstance(item.content, bytes):
        return item.content
    assert item.content is not None
    tree, node = item.content
    with tree.open(node) as file:
        return file.read()
