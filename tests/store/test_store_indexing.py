"""A layer that is known by its index: what can be asked of it before it has a folder."""

from __future__ import annotations

import io
import os
import tarfile
from typing import Any

import pytest
from support import add_member

from layerbuild.digest import ChainID, DiffID
from layerbuild.errors import DigestMismatch, FormatError
from layerbuild.layer import codecs
from layerbuild.store.layers import BlobRecord
from layerbuild.store.snapshots import Snapshot
from layerbuild.store.store import Store

LARGE = os.urandom(3 << 20)


def a_tar(*members: tuple[str, bytes, dict[str, Any]]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, kind, options in members:
            add_member(tar, name, kind, **options)
    return out.getvalue()


def stored(store: Store, data: bytes, parent: ChainID | None = None, *, codec: str = "gzip") -> Snapshot:
    """A layer as an import leaves it."""
    return store.add_indexed(parent, DiffID.of(data), blob_of(store, data, codec=codec))


def blob_of(store: Store, data: bytes, *, codec: str = "gzip") -> BlobRecord:
    packed = io.BytesIO()
    compressor = codecs.compress(codecs.named(codec), packed)
    compressor.write(data)
    compressor.close()
    return BlobRecord(store.blobs.add(packed.getvalue()), len(packed.getvalue()), codec)


BASE = a_tar(
    ("./", tarfile.DIRTYPE, {"mode": 0o711}),
    ("etc", tarfile.DIRTYPE, {}),
    ("etc/passwd", tarfile.REGTYPE, {"content": b"old"}),
    ("etc/group", tarfile.REGTYPE, {"content": b"root:x:0:"}),
    ("etc/passwd", tarfile.REGTYPE, {"content": b"new"}),  # what comes later wins
    ("etc/shadow", tarfile.LNKTYPE, {"link": "etc/passwd"}),
    ("large", tarfile.REGTYPE, {"content": LARGE}),
)
TOP = a_tar(("new", tarfile.REGTYPE, {"content": b"x"}), ("again", tarfile.LNKTYPE, {"link": "etc/passwd"}))


@pytest.mark.parametrize("codec", ["none", "gzip", "zstd"])
def test_small_files_come_out_of_the_blob(store: Store, codec: str) -> None:
    made = stored(store, BASE, codec=codec)
    with store.open_stack(made.chain) as union:
        assert union.lookup(b"etc/passwd") is not None
        for name, content in ((b"etc/passwd", b"new"), (b"etc/shadow", b"new"), (b"etc/group", b"root:x:0:")):
            with union.open(name) as file:
                assert file.read() == content
        assert not made.unpacked and store.verify(contents=True) == ()
        with union.open(b"large") as file:
            assert file.read() == LARGE
        assert made.unpacked and store.verify(contents=True) == ()


def test_the_index_is_the_one_of_the_folder(store: Store) -> None:
    made = stored(store, BASE)
    index = store.layers.index_path(made.diff_id)
    before = index.read_bytes()
    assert store.ensure_unpacked(made.chain) == (made,)
    assert index.read_bytes() == before
    assert made.diff.stat().st_mode & 0o7777 == 0o711
    assert stored(store, BASE) == made


def test_a_link_to_a_file_below_needs_the_folder(store: Store) -> None:
    """The link has the file copied up, and its content is none of this layer's tar."""
    base = stored(store, BASE)
    top = stored(store, TOP, base.chain)
    assert top.unpacked and not base.unpacked
    assert (top.diff / "again").read_text() == (top.diff / "etc/passwd").read_text() == "new"
    with store.open_stack(top.chain) as union, union.open(b"again") as file:
        assert file.read() == b"new"
    assert store.verify(contents=True) == ()


@pytest.mark.parametrize(
    "data",
    [a_tar(("link", tarfile.LNKTYPE, {"link": "absent"})), BASE[:-3000], b"no tar" * 1000],
    ids=["link to nothing", "cut short", "no tar"],
)
def test_a_broken_layer_is_refused_and_leaves_nothing(store: Store, data: bytes) -> None:
    with pytest.raises(FormatError):
        stored(store, data)
    assert store.snapshots.all() == () and store.layers.all() == ()
    assert list(store.temporary.iterdir()) == [] and list(store.layers.folder.iterdir()) == []


def test_another_layer_than_was_said_is_refused(store: Store) -> None:
    with pytest.raises(DigestMismatch, match="instead of"):
        store.add_indexed(None, DiffID.of(b"another"), blob_of(store, BASE))
    assert store.snapshots.all() == () and list(store.layers.folder.iterdir()) == []


def test_the_same_layer_compressed_in_another_way_is_one_more_blob(store: Store) -> None:
    made = stored(store, BASE, codec="gzip")
    assert stored(store, BASE, codec="zstd") == made
    record = store.layers.get(made.diff_id)
    assert record is not None and [blob.codec for blob in record.blobs] == ["gzip", "zstd"]
