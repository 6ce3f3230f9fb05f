"""From blob to folder: a base that arrives, a folder or an index that was lost."""

from __future__ import annotations

import io
import os
import stat
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from layerbuild.digest import BlobDigest, ChainID, DiffID
from layerbuild.errors import DigestMismatch, FormatError, NotFoundError
from layerbuild.layer import codecs
from layerbuild.layer.capture import LayerWriter, capture
from layerbuild.layer.changes import seal
from layerbuild.layer.entry import RootMetadata
from layerbuild.layer.whiteout import is_whiteout, make_whiteout
from layerbuild.store import overlay
from layerbuild.store.layers import BlobRecord, LayerRecord
from layerbuild.store.snapshots import Snapshot
from layerbuild.store.store import Store
from layerbuild.store.workspaces import Workspace

EPOCH = 315532800


def committed(store: Store, workspace: Workspace, *, codec: str = "gzip") -> Snapshot:
    """Seal, capture and commit, as a build does."""
    below = RootMetadata.of(workspace.below[0].diff) if workspace.below else None
    seal(workspace.diff, [folder.diff for folder in workspace.below], epoch=EPOCH, root=below)
    blob, index = store.blobs.temporary(), store.layers.temporary_index()
    with LayerWriter(blob, index, codec=codecs.named(codec)) as writer:
        made = capture(workspace.diff, writer)
    store.layers.adopt_index(index, made.diff_id)
    size = store.blobs.adopt(blob, made.digest)
    record = LayerRecord(made.diff_id, made.tar_size, made.entries, (BlobRecord(made.digest, size, codec),))
    return store.workspaces.commit(workspace, record)


def two_layers(store: Store, *, codec: str = "gzip") -> Snapshot:
    first = store.workspaces.begin(None)
    (first.diff / "etc").mkdir()
    (first.diff / "etc" / "passwd").write_text("root")
    (first.diff / "etc" / "gone").write_text("x")
    (first.diff / "link").symlink_to("etc/passwd")
    (first.diff / "bin").write_bytes(b"\x7fELF" * 1000)
    (first.diff / "bin").chmod(0o4755)
    bottom = committed(store, first, codec=codec)
    second = store.workspaces.begin(bottom.chain)
    (second.diff / "etc").mkdir()
    make_whiteout(os.fsencode(second.diff / "etc" / "gone"))
    (second.diff / "new").write_text("new")
    (second.diff / "again").hardlink_to(second.diff / "new")
    return committed(store, second, codec=codec)


def tree(folder: Path) -> dict[str, tuple[object, ...]]:
    """All that a step could see of a diff folder, times included; a whiteout is seen by nobody, whatever its time."""
    found = {}
    for path in sorted((folder, *folder.rglob("*"))):
        info = path.lstat()
        content = path.read_bytes() if stat.S_ISREG(info.st_mode) else b""
        target = path.readlink() if path.is_symlink() else None
        time = 0 if is_whiteout(info) else info.st_mtime_ns
        facts = (info.st_mode, info.st_uid, info.st_gid, time, info.st_rdev, info.st_nlink)
        found[str(path.relative_to(folder))] = (*facts, content, target)
    return found


@pytest.mark.parametrize("codec", ["none", "gzip", "zstd"])
def test_a_lost_folder_comes_back_as_it_was(store: Store, codec: str) -> None:
    top = two_layers(store, codec=codec)
    stack = store.snapshots.stack(top.chain)
    before = [tree(snapshot.diff) for snapshot in stack]
    for snapshot in stack:
        trash = store.temporary_name()
        snapshot.folder.rename(trash)
        assert not snapshot.unpacked
    assert store.ensure_unpacked(top.chain) == stack
    assert [tree(snapshot.diff) for snapshot in stack] == before
    assert [(found.folder / "link").read_text() for found in stack] == [found.link for found in stack]
    assert [found for found in store.verify(contents=True) if "tmp/" not in found.subject] == []


def test_another_store_unpacks_the_same_tree_and_index(store: Store, tmp_path: Path) -> None:
    top = two_layers(store)
    with Store.open(tmp_path / "other") as other:
        chain: ChainID | None = None
        for snapshot in store.snapshots.stack(top.chain):
            layer = store.layers.get(snapshot.diff_id)
            assert layer is not None
            other.blobs.add(store.blobs.read(layer.blobs[0].digest))
            made = other.add_from_blob(chain, layer.diff_id, layer.blobs[0])
            assert made == other.add_from_blob(chain, layer.diff_id, layer.blobs[0])
            assert tree(made.diff) == tree(snapshot.diff)
            ours, theirs = store.layers.index_path(layer.diff_id), other.layers.index_path(layer.diff_id)
            assert ours.read_bytes() == theirs.read_bytes()
            assert other.layers.get(layer.diff_id) == layer
            chain = made.chain
        assert other.verify(contents=True) == ()


def test_a_lost_index_is_written_again(store: Store) -> None:
    top = two_layers(store)
    index = store.layers.index_path(top.diff_id)
    before = index.read_bytes()
    index.unlink()
    with pytest.raises(NotFoundError, match="index"), store.open_stack(top.chain):
        pass
    store.ensure_unpacked(top.chain)
    assert index.read_bytes() == before
    assert store.verify(contents=True) == ()


def test_a_lost_folder_without_a_blob_is_not_found(store: Store) -> None:
    top = two_layers(store)
    layer = store.layers.get(top.diff_id)
    assert layer is not None
    store.blobs.path(layer.blobs[0].digest).unlink()
    top.folder.rename(store.temporary_name())
    with pytest.raises(NotFoundError, match=top.diff_id):
        store.ensure_unpacked(top.chain)


def test_a_stack_is_read_without_a_mount(store: Store) -> None:
    top = two_layers(store)
    with store.open_stack(top.chain) as union:
        assert [found.entry.path for found in union.walk()] == [
            *(b"again", b"bin", b"etc", b"etc/passwd", b"link", b"new")
        ]
        with union.open(b"link") as file:
            assert file.read() == b"root"
    with store.open_stack(None) as union:
        assert list(union.walk()) == []


def a_tar(name: str) -> bytes:
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(tarfile.TarInfo(name))
    return written.getvalue()


def test_a_blob_of_another_layer_is_refused_and_leaves_nothing(root: Path) -> None:
    store = Store.open(root)
    data = a_tar("x")
    blob = BlobRecord(store.blobs.add(data), len(data), "none")
    with pytest.raises(DigestMismatch, match="instead of"):
        store.add_from_blob(None, DiffID.of(b"another"), blob)
    assert store.snapshots.all() == ()
    assert list(store.temporary.iterdir()) == []
    store.close()
    assert [path.name for path in store.overlay.iterdir()] == ["l"]


def test_a_damaged_blob_is_refused_and_leaves_nothing(store: Store) -> None:
    data = a_tar("x")
    digest = store.blobs.add(data)
    store.blobs.path(digest).write_bytes(data.replace(b"x", b"y", 1)[:-512])
    with pytest.raises(FormatError):
        store.add_from_blob(None, DiffID.of(data), BlobRecord(BlobDigest(digest), len(data), "none"))
    assert store.snapshots.all() == ()
    assert list(store.temporary.iterdir()) == []


def test_two_processes_unpack_a_layer_once(store: Store, root: Path) -> None:
    first = store.workspaces.begin(None)
    for number in range(3000):
        (first.diff / str(number)).write_bytes(b"x")
    made = committed(store, first)
    overlay.remove(made)
    code = """
import sys
from pathlib import Path
from layerbuild.digest import ChainID
from layerbuild.store.store import Store
begun = []
with Store.open(Path(sys.argv[1])) as store:
    store.lease()
    print("ready", flush=True)
    sys.stdin.readline()
    def watch(event, told):
        if event == "os.mkdir" and str(told[0]).endswith("/diff"):
            begun.append(told)
    sys.addaudithook(watch)
    store.ensure_unpacked(ChainID(sys.argv[2]))
print(len(begun))
"""
    command = [sys.executable, "-c", code, str(root), made.chain]
    pipe = subprocess.PIPE
    others = [subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) for _ in range(3)]
    for other in others:
        assert other.stdout and other.stdout.readline() == "ready\n"
    for other in others:
        assert other.stdin
        other.stdin.write("\n")
        other.stdin.flush()
    assert sorted(other.communicate()[0] for other in others) == ["0\n", "0\n", "1\n"]
    assert len(os.listdir(made.diff)) == 3000
    assert [path.name for path in store.temporary.iterdir()] == []
