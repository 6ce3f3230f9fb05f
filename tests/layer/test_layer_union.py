"""A stack read without a mount says what a mount of it would show."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest
from layer_trees import applied, index_of, overlay

from layerbuild.errors import BuildError, NotFoundError
from layerbuild.layer.apply import apply
from layerbuild.layer.entry import Kind
from layerbuild.layer.index import Index
from layerbuild.layer.union import LayerView, Union, in_folder

Layer = dict[str, str | None]  # a path with its content; None: a folder; "-> x": a link; "= x": a hard link


def stack(tmp_path: Path, *layers: Layer) -> Union:
    """Unpack ``layers``, bottom first."""
    views = []
    for number, layer in enumerate(layers):
        sink = io.BytesIO()
        with tarfile.open(fileobj=sink, mode="w") as tar:
            for name, text in layer.items():
                info = tarfile.TarInfo(name)
                content = b""
                if text is None:
                    info.type = tarfile.DIRTYPE
                elif text[:3] == "-> ":
                    info.type, info.linkname = tarfile.SYMTYPE, text[3:]
                elif text[:2] == "= ":
                    info.type, info.linkname = tarfile.LNKTYPE, text[2:]
                else:
                    content = text.encode()
                info.size = len(content)
                info.mode = 0o755
                tar.addfile(info, io.BytesIO(content))
        folder = tmp_path / f"layer{number}"
        applied(sink.getvalue(), folder)
        views.append(LayerView(Index.open(index_of(folder)), in_folder(folder)))
    return Union(views[::-1])


BOTTOM: Layer = {"etc": None, "etc/a": "a", "etc/b": "b", "lib": "-> usr/lib", "usr": None, "usr/lib": None,
                 "usr/lib/so": "so", "old": None, "old/x": "x", "f": "file", "h": "= f"}  # fmt: skip
MIDDLE: Layer = {"etc/.wh.a": "", "etc/c": "c", "old": None, "old/.wh..wh..opq": "", "old/y": "y", ".wh.f": ""}
TOP: Layer = {"etc/a": "new", "etc": None, "usr": "now a file", "dangling": "-> not/yet", "up": "-> ../../etc/b"}


def paths(union: Union, folder: bytes = b"") -> list[str]:
    return [found.entry.path.decode() for found in union.walk(folder)]


def test_layers_merge(tmp_path: Path) -> None:
    union = stack(tmp_path, BOTTOM, MIDDLE, TOP)
    assert paths(union) == ["dangling", "etc", "etc/a", "etc/b", "etc/c", "h", "lib", "old", "old/y", "up", "usr"]
    assert [found.entry.path for found in union.children(b"etc")] == [b"etc/a", b"etc/b", b"etc/c"]
    assert union.open(b"etc/a").read() == b"new"
    assert union.open(b"up").read() == b"b"
    assert union.lookup(b"usr/lib/so") is None
    assert union.lookup(b"old/x") is None
    assert union.lookup(b"f") is None


def test_a_hard_link_knows_its_file_though_a_layer_above_hides_it(tmp_path: Path) -> None:
    union = stack(tmp_path, BOTTOM, MIDDLE)
    found = union.lookup(b"h")
    assert found is not None
    assert (found.entry.kind, found.inode.kind, found.inode.size, found.layer) == (Kind.HARDLINK, Kind.FILE, 4, 1)
    assert union.content(found).read() == b"file"


def test_links_are_resolved_over_layers(tmp_path: Path) -> None:
    union = stack(tmp_path, BOTTOM, {"usr": None, "usr/lib": None, "usr/lib/more": "more", "l": "-> l"})
    assert union.resolve(b"lib/more") == b"usr/lib/more"
    assert union.open(b"lib/more").read() == b"more"
    assert union.open(b"lib/so").read() == b"so"
    assert union.resolve(b"lib", follow_last=False) == b"lib"
    assert union.resolve(b"dangling/x") == b"dangling/x"
    with pytest.raises(BuildError, match="too many links"):
        union.get(b"l")
    with pytest.raises(NotFoundError, match="/etc is no file"):
        union.open(b"etc")


def test_an_empty_stack_is_an_empty_root() -> None:
    union = Union(())
    found = union.lookup(b"")
    assert found is not None and found.entry.kind is Kind.DIRECTORY and found.layer == -1
    assert list(union.walk()) == [] and union.lookup(b"x") is None


def test_a_very_deep_path(tmp_path: Path) -> None:
    deep = "/".join("d" * 1200)
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as tar:
        tar.addfile(tarfile.TarInfo(deep + "/f"))
    apply(io.BytesIO(sink.getvalue()), None, index=tmp_path / "index")
    union = Union([LayerView(Index.open(tmp_path / "index"))])
    assert union.lookup(f"{deep}/f".encode()) is not None
    assert len(paths(union)) == 1201
    with pytest.raises(NotFoundError, match="not unpacked"):
        union.open(f"{deep}/f".encode())


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="overlay is mounted outside a user namespace: needs root")
def test_a_mount_of_the_same_stack_shows_the_same(tmp_path: Path) -> None:
    union = stack(tmp_path, BOTTOM, MIDDLE, TOP)
    folders = [tmp_path / f"layer{number}" for number in (2, 1, 0)]
    with overlay(folders, tmp_path / "upper", tmp_path) as merged:
        shown = sorted(str(path.relative_to(merged)) for path in merged.rglob("*"))
    assert sorted(paths(union)) == shown
