"""What prune takes, and what it never takes."""

from __future__ import annotations

from dataclasses import replace

import pytest
from store_filling import Fill, keep_listing, record

from layerbuild.digest import BlobDigest
from layerbuild.errors import StoreError
from layerbuild.store.prune import prune
from layerbuild.store.store import Store
from layerbuild.store.usage import disk_usage


def names(store: Store) -> list[tuple[str, ...]]:
    return [image.names for image in store.images.list()]


def test_a_dangling_image_goes_and_what_it_shares_stays(store: Store, fill: Fill) -> None:
    named = fill.image("base", "a", names=("app",))
    dangling = fill.image("base", "b")
    report = prune(store)
    assert names(store) == [("docker.io/library/app:latest",)]
    assert report.counts["images"] == 1
    assert report.counts["snapshots"] == report.counts["layers"] == 1
    assert report.counts["blobs"] == 3  # layer b, configuration, manifest
    assert report.bytes > 0
    assert not store.blobs.has(dangling.manifest_digest)
    assert [found.unpacked for found in store.ensure_unpacked(named.top)] == [True, True]
    assert store.verify(contents=True) == ()


def test_the_step_cache_keeps_its_snapshots_until_all_is_asked_for(store: Store, fill: Fill) -> None:
    base = fill.snapshot(None, "base")
    cached = fill.snapshot(base.chain, "cached")
    listing = keep_listing(store, b"listing")
    store.cache.put(record(cached, inputs={"files": listing}))
    keep_listing(store, b"of no step")
    prune(store)
    assert store.cache.by_definition("definition") is not None
    assert store.cache.listing(listing) == b"listing"
    assert store.database.row("SELECT count(*) FROM listing") == (1,)
    assert store.ensure_unpacked(cached.chain) == (base, cached)
    report = prune(store, all=True)
    assert (report.counts["steps"], report.counts["snapshots"]) == (1, 2)
    assert store.snapshots.all() == ()
    assert store.database.row("SELECT count(*) FROM listing") == (0,)
    assert list(store.overlay.iterdir()) == [store.overlay / "l"]
    assert list(store.blobs.digests()) == []
    assert store.verify() == ()


def test_all_never_takes_what_a_named_image_needs(store: Store, fill: Fill) -> None:
    image = fill.image("base", "a", names=("app",))
    store.cache.put(record(store.snapshots.stack(image.top)[0]))
    kept = store.workspaces.keep(store.workspaces.begin(image.top), {"command": "x"})
    prune(store, all=True)
    assert store.images.resolve("app") == image
    assert all(found.unpacked for found in store.ensure_unpacked(image.top))
    assert not kept.folder.exists()
    assert store.workspaces.kept() == ()
    assert store.verify(contents=True) == ()


def test_a_dry_run_tells_the_same_and_changes_nothing(store: Store, fill: Fill) -> None:
    fill.image("a", names=("app",))
    fill.image("b")
    told = prune(store, dry_run=True)
    assert len(store.images.list()) == 2
    assert prune(store) == told
    assert prune(store).bytes == 0


def test_this_process_keeps_what_it_is_writing(store: Store, fill: Fill) -> None:
    base = fill.snapshot(None, "base")
    workspace = store.workspaces.begin(base.chain)
    with store.blobs.writer() as writer:
        writer.write(b"half")
        prune(store, all=True)
        writer.commit()
    assert workspace.diff.is_dir()
    assert store.snapshots.get(base.chain) == base
    assert store.workspaces.commit(workspace, fill.layer("x")).parent == base.chain


def test_unclaimed_files_go(store: Store, fill: Fill) -> None:
    fill.image("a", names=("app",))
    fill.layer("blob and index without a row")
    (store.overlay / ("0" * 64) / "diff").mkdir(parents=True)
    (store.overlay / "l" / ("A" * 26)).symlink_to(f"../{'0' * 64}/diff")
    (store.temporary / "dead-0").write_text("x")
    (store.temporary / "dead-1").mkdir()
    (store.leases / "dead.lock").touch()
    (store.leases / "young.new").touch()
    assert len([found for found in store.verify() if "no row" in found.text]) == 7
    report = prune(store)
    assert report.counts["leftovers"] == 4
    assert store.verify(contents=True) == ()
    assert list(store.temporary.iterdir()) == []
    assert [path.stem for path in store.leases.iterdir()] == [store.lease()]
    assert len(list((store.overlay / "l").iterdir())) == 1


def test_a_damaged_named_image_stops_prune_before_it_takes_anything(store: Store, fill: Fill) -> None:
    image = fill.image("a", names=("app",))
    fill.image("b")
    store.blobs.path(image.manifest_digest).write_bytes(b"{}")
    with pytest.raises(StoreError, match="damaged"):
        prune(store)
    assert len(store.snapshots.all()) == 2


def test_an_index_json_left_behind_is_mended(store: Store, fill: Fill) -> None:
    fill.image("a", names=("app",))
    store.images.index.write_text("{}")
    assert [found.subject for found in store.verify()] == ["index.json"]
    prune(store)
    assert store.verify() == ()


def test_verify_tells_everything_at_once(store: Store, fill: Fill) -> None:
    image = fill.image("a", "b", names=("app",))
    bottom, top = store.snapshots.stack(image.top)
    store.layers.index_path(top.diff_id).unlink()
    (top.folder / "lower").write_text("l/ELSEWHERE")
    (store.overlay / bottom.short).unlink()
    blob = image.manifest.layers[0].digest
    store.blobs.path(blob).write_bytes(b"x" * store.blobs.size(blob))
    (store.root / "oci-layout").unlink()
    told = {(found.subject.split()[0], found.text.split(" ")[1]) for found in store.verify(contents=True)}
    assert told == {
        ("oci-layout", "missing"),
        ("layer", "index"),
        ("layer", blob),
        ("snapshot", "file"),
        ("snapshot", "short"),
    }


def test_disk_use(store: Store, fill: Fill) -> None:
    image = fill.image("base", "a", names=("app",))
    fill.image("base", "b")
    cached = fill.snapshot(image.top, "cached")
    store.cache.put(replace(record(cached), inputs={"files": keep_listing(store, b"listing")}))
    store.workspaces.keep(store.workspaces.begin(None), {})
    fill.layer("unclaimed")
    rows = {row.kind: row for row in disk_usage(store)}
    counts = {kind: row.count for kind, row in rows.items()}
    assert counts == {
        "images": 2,
        "snapshots": 4,
        "step cache": 1,
        "workspaces": 1,
        "cache mounts": 0,
        "leftovers": 2,
    }
    assert 0 < rows["images"].reclaimable < rows["images"].bytes
    assert 0 < rows["snapshots"].reclaimable < rows["snapshots"].bytes
    for kind in ("step cache", "workspaces", "leftovers"):
        assert 0 < rows[kind].bytes == rows[kind].reclaimable, kind
    prune(store, all=True)
    left = {row.kind: row for row in disk_usage(store)}
    assert sum(row.reclaimable for row in left.values()) == 0
    assert left["images"].bytes == rows["images"].bytes - rows["images"].reclaimable


def test_a_blob_that_two_images_share_stays_for_the_named_one(store: Store, fill: Fill) -> None:
    fill.image("shared", names=("app",))
    fill.image("shared", label="dangling")
    prune(store, all=True)
    assert store.blobs.has(BlobDigest(fill.layer("shared").blobs[0].digest))
    assert store.verify(contents=True) == ()
