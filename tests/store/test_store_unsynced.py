"""What is named before it is on the disk: marked, confirmed later, and looked at again after the machine went down."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from store_filling import Fill, record

from layerbuild.digest import BlobDigest, DiffID
from layerbuild.errors import NotFoundError
from layerbuild.layer.entry import Entry, Kind
from layerbuild.layer.tar import END, header, padding
from layerbuild.store.layers import BlobRecord
from layerbuild.store.prune import prune
from layerbuild.store.snapshots import Snapshot
from layerbuild.store.sources import Source
from layerbuild.store.store import Store

_ANOTHER = "another boot"


def a_tar(text: str) -> bytes:
    data = text.encode()
    entry = Entry(data.partition(b" ")[0], Kind.FILE, 0o644, size=len(data))
    return header(entry) + data + padding(len(data)) + END


def a_layer(store: Store, parent: Snapshot | None, text: str) -> Snapshot:
    """A layer as a blob would bring it: a file that is called as its first word."""
    data = a_tar(text)
    blob = BlobRecord(store.blobs.add(data), len(data), "none")
    return store.add_from_blob(parent.chain if parent else None, DiffID.of(data), blob)


@contextmanager
def after_the_machine_went_down(root: Path) -> Iterator[Store]:
    """The store in the next boot. What is wrong with its files by then is up to the test."""
    database = sqlite3.connect(root / "layerbuild.db")
    with database:
        database.execute("UPDATE unsynced SET boot = ? WHERE boot != ''", (_ANOTHER,))
    database.close()
    with Store.open(root) as store:
        assert not store.unsynced.is_doubtful
        yield store


def marks(store: Store) -> set[str]:
    return {str(path.relative_to(store.root)).partition("/")[0] for path in store.unsynced.marked()}


def test_a_layer_is_named_without_an_fsync_and_confirmed_by_one(root: Path) -> None:
    code = """
import sys
from pathlib import Path
from test_store_unsynced import a_layer
from layerbuild.store.store import Store
with Store.open(Path(sys.argv[1])) as store:
    bottom = a_layer(store, None, "first of the boot")
    a_layer(store, bottom, "second")
    store.unsynced.confirm()
"""
    trace = root.with_name("trace")
    subprocess.run(
        ["strace", "-f", "-e", "trace=fsync,fdatasync,syncfs,openat", "-o", trace, sys.executable, "-c", code, root],
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    calls = trace.read_text().splitlines()
    first = next(number for number, line in enumerate(calls) if f"{root}/overlay2/" in line)
    synced = [line.split("(")[0].split()[-1] for line in calls[first:] if "sync" in line.split("(")[0]]
    assert synced.count("syncfs") == 1 and "fsync" not in synced
    with Store.open(root) as store:
        assert store.unsynced.marked() == frozenset()


def test_what_is_marked_is_what_was_written(root: Path, store: Store) -> None:
    made = a_layer(store, None, "a")
    layer = store.layers.get(made.diff_id)
    assert layer is not None
    blob = store.blobs.path(layer.blobs[0].digest)
    assert store.unsynced.marked() == {made.folder, blob, store.layers.index_path(made.diff_id)}
    store.unsynced.confirm(older=60)
    assert len(store.unsynced.marked()) == 3
    store.unsynced.confirm()
    assert store.unsynced.marked() == frozenset()
    again = a_layer(store, made, "a")
    assert store.unsynced.marked() == {again.folder}


def test_whole_files_outlive_the_machine(root: Path) -> None:
    with Store.open(root) as store:
        bottom = a_layer(store, None, "bottom")
        top = a_layer(store, bottom, "top")
        store.cache.put(record(top))
    with after_the_machine_went_down(root) as store:
        assert not store.is_here(top.chain)
        assert store.verify(contents=True) == ()
        stack = store.ensure_unpacked(top.chain)
        assert [(stack[0].diff / "bottom").read_text(), (stack[1].diff / "top").read_text()] == ["bottom", "top"]
        assert store.is_here(top.chain) and len(store.cache.all()) == 1
        assert store.verify(contents=True) == ()
        assert marks(store) == {"overlay2", "indexes"}


@pytest.mark.parametrize("damage", ["zeros", "short", "gone"])
def test_a_blob_that_did_not_reach_the_disk_is_forgotten_with_its_step(root: Path, damage: str) -> None:
    with Store.open(root) as store:
        bottom = a_layer(store, None, "bottom")
        store.unsynced.confirm()
        top = a_layer(store, bottom, "top")
        for snapshot in (bottom, top):
            store.cache.put(record(snapshot, definition_key=snapshot.chain))
        layer = store.layers.get(top.diff_id)
        assert layer is not None
        blob = store.blobs.path(layer.blobs[0].digest)
    size = blob.stat().st_size
    match damage:
        case "zeros":
            blob.write_bytes(bytes(size))
        case "short":
            os.truncate(blob, size // 2)
        case "gone":
            blob.unlink()
    (top.diff / "top").write_bytes(b"")
    with after_the_machine_went_down(root) as store:
        assert [step.chain for step in store.cache.all()] == [bottom.chain]
        assert not blob.exists() and store.layers.get(top.diff_id) is None
        assert store.verify(contents=True) == ()
        assert store.is_here(bottom.chain) and not store.is_here(top.chain)
        with pytest.raises(NotFoundError, match="no blob of layer"):
            store.ensure_unpacked(top.chain)
        # The step runs again.
        assert a_layer(store, bottom, "top").chain == top.chain
        assert [(layer.diff / "top").read_text() for layer in store.ensure_unpacked(top.chain)[1:]] == ["top"]
        assert store.verify(contents=True) == ()


def test_what_a_repository_has_has_not_come(root: Path) -> None:
    with Store.open(root) as store:
        made = a_layer(store, None, "a")
        layer = store.layers.get(made.diff_id)
        assert layer is not None
        store.sources.add(Source(layer.blobs[0], made.diff_id, "registry.example/a"))
        store.cache.put(record(made))
        blob = store.blobs.path(layer.blobs[0].digest)
    blob.write_bytes(b"")
    with after_the_machine_went_down(root) as store:
        assert store.sources.absent([made.diff_id]) == {made.diff_id}
        assert len(store.cache.all()) == 1
        assert store.verify() == ()


def test_an_image_whose_manifest_did_not_reach_the_disk_is_gone_and_the_others_stay(root: Path) -> None:
    with Store.open(root) as store:
        Fill(store).image("a", names=("whole",))
        lost = Fill(store).image("a", names=("lost",), label="another")
        path = store.blobs.path(lost.manifest_digest)
        (root / "oci-layout").write_bytes(b"")
        (root / "index.json").write_bytes(b"")
    path.write_bytes(b"")
    with after_the_machine_went_down(root) as store:
        assert [image.names for image in store.images.list()] == [("docker.io/library/whole:latest",)]
        assert b"whole" in store.images.index.read_bytes() and b"lost" not in store.images.index.read_bytes()
        prune(store)
        assert store.verify(contents=True) == ()


def test_what_no_row_claims_is_not_believed(root: Path) -> None:
    """A power failure may leave the name of a blob, and take its content and the rows with it."""
    data = a_tar("a")
    with Store.open(root) as store:
        store.blobs.add(b"something else, to have a mark")
        part = store.arrivals.folder / ("0" * 64)
        part.parent.mkdir()
        part.write_bytes(b"part")
        path = store.blobs.path(BlobDigest.of(data))
        path.write_bytes(bytes(len(data)))
    with after_the_machine_went_down(root) as store:
        assert not path.exists() and not part.exists()
        assert store.blobs.has(BlobDigest.of(b"something else, to have a mark"))
        a_layer(store, None, "a")
        wrong = [found for found in store.verify(contents=True) if "no row" not in found.text]
        assert wrong == []


def test_a_store_of_confirmed_layers_is_not_read_again(root: Path) -> None:
    with Store.open(root) as store:
        made = a_layer(store, None, "a")
        store.unsynced.confirm()
    with after_the_machine_went_down(root) as store:
        assert store.is_here(made.chain)
        assert store.unsynced.marked() == frozenset()


def test_marks_of_what_was_pruned_go_with_it(store: Store) -> None:
    made = a_layer(store, None, "a")
    expected = a_tar("b")
    blob = BlobRecord(BlobDigest.of(expected), len(expected), "none")
    store.sources.expect([Source(blob, DiffID.of(expected), "registry.example/a")])
    assert made.folder in store.unsynced.marked()
    prune(store)
    assert store.database.rows("SELECT path FROM unsynced WHERE path != '.'") == []


def test_a_kernel_without_a_boot_id_syncs_before_it_names(root: Path, store: Store) -> None:
    store.unsynced.boot = ""
    made = a_layer(store, None, "a")
    assert store.unsynced.marked() == frozenset()
    assert (made.diff / "a").read_text() == "a"


def test_the_next_command_confirms_what_has_settled(root: Path) -> None:
    with Store.open(root) as store:
        a_layer(store, None, "a")
        store.database.execute("UPDATE unsynced SET since = since - 60")
    with Store.open(root) as store:
        before = store.unsynced.marked()
        assert before
        store.unsynced.confirm_earlier()
        store.unsynced.close()
        assert store.unsynced.marked() == frozenset()
