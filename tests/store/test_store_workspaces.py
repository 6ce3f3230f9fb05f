"""From workspace to snapshot: what a folder looks like, what is durable when, and who may be whose parent."""

from __future__ import annotations

import errno
import os
import re
import stat
import subprocess
import threading
from pathlib import Path

import pytest
from store_filling import Fill

from layerbuild.digest import ChainID, DiffID, chain_id
from layerbuild.errors import NotFoundError, StoreError, UsageError
from layerbuild.layer.entry import RootMetadata
from layerbuild.store import overlay
from layerbuild.store.layers import LayerRecord
from layerbuild.store.overlay import LayerFolder
from layerbuild.store.prune import prune
from layerbuild.store.store import Store


def test_a_folder_looks_like_dockers(store: Store, fill: Fill) -> None:
    bottom = fill.snapshot(None, "a")
    top = fill.snapshot(bottom.chain, "b")
    assert re.fullmatch(r"[0-9a-f]{64}", top.id)
    assert re.fullmatch(r"[A-Z2-7]{26}", top.link)
    assert sorted(path.name for path in top.folder.iterdir()) == ["diff", "link", "lower", "merged", "work"]
    assert sorted(path.name for path in bottom.folder.iterdir()) == ["diff", "link", "merged", "work"]
    assert (top.folder / "link").read_text() == top.link
    assert (top.folder / "lower").read_text() == f"l/{bottom.link}"
    assert (store.overlay / "l" / top.link).readlink() == Path(f"../{top.id}/diff")
    assert (store.overlay / top.short).samefile(top.diff)


def test_a_stack_from_bottom_to_top(store: Store, fill: Fill) -> None:
    chain, expected = None, []
    for number in range(40):
        made = fill.snapshot(chain, f"f{number}")
        assert made.chain == chain_id(chain, made.diff_id)
        chain = made.chain
        expected.append(made)
    assert store.snapshots.stack(chain) == tuple(expected)
    assert store.snapshots.stack(None) == ()
    workspace = store.workspaces.begin(chain)
    assert [folder.id for folder in workspace.below] == [found.id for found in reversed(expected)]
    assert workspace.lower == (workspace.folder / "lower").read_text()
    assert len(workspace.lower) < 4096


def test_an_unknown_parent_is_not_found(store: Store) -> None:
    absent = ChainID.of(b"absent")
    assert store.snapshots.get(absent) is None
    for ask in (store.snapshots.stack, store.workspaces.begin, store.ensure_unpacked):
        with pytest.raises(NotFoundError, match=absent):
            ask(absent)
    assert list(store.overlay.glob("[0-9a-f]*")) == []


def test_the_root_folder_looks_the_same_in_each_layer(store: Store, fill: Fill) -> None:
    first = store.workspaces.begin(None)
    assert (stat.S_IMODE(first.diff.stat().st_mode), first.diff.stat().st_mtime_ns) == (0o755, 0)
    (first.diff / "x").touch()
    first.diff.chmod(0o711)
    os.utime(first.diff, ns=(5_000_000_000, 5_000_000_000))
    chain = store.workspaces.commit(first, fill.layer("x")).chain
    second = store.workspaces.begin(chain).diff.stat()
    assert (stat.S_IMODE(second.st_mode), second.st_mtime_ns) == (0o711, 5_000_000_000)


def test_a_discarded_workspace_is_gone(store: Store) -> None:
    workspace = store.workspaces.begin(None)
    closed = workspace.diff / "closed"
    closed.mkdir()
    (closed / "file").touch()
    closed.chmod(0)
    store.workspaces.discard(workspace)
    assert not workspace.folder.exists()
    assert list((store.overlay / "l").iterdir()) == []
    assert store.verify() == ()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, whose folders are 0:0")
def test_what_a_step_left_empty_serves_the_next_one_as_if_new(store: Store, fill: Fill) -> None:
    chain = fill.snapshot(fill.snapshot(None, "a").chain, "b").chain
    bottom = store.snapshots.stack(chain)[0].chain
    for parent in (chain, bottom, None, chain):
        workspace = store.workspaces.begin(parent)
        (workspace.work / "work").mkdir()
        workspace.diff.chmod(0o700)
        os.setxattr(workspace.diff, "user.left", b"over")
        store.workspaces.discard(workspace)
        again = store.workspaces.begin(parent)
        assert again == workspace
        assert list(again.work.iterdir()) == []
        expected = RootMetadata.of(again.below[0].diff) if again.below else RootMetadata()
        assert RootMetadata.of(again.diff) == expected
        assert os.listxattr(again.diff) == []
        lower = again.folder / "lower"
        assert (lower.read_text() if lower.exists() else "") == again.lower
        store.workspaces.discard(again)
    prune(store, all=True)
    assert store.verify() == ()
    assert list(store.overlay.iterdir()) == [store.overlay / "l"]


def test_discarding_what_is_finished_changes_nothing(store: Store, fill: Fill) -> None:
    workspace = store.workspaces.begin(None)
    (workspace.diff / "a").touch()
    made = store.workspaces.commit(workspace, fill.layer("a"))
    store.workspaces.discard(workspace)
    assert made.unpacked
    empty = store.workspaces.begin(None)
    store.workspaces.discard(empty)
    store.workspaces.discard(empty)
    again = store.workspaces.begin(None)
    store.workspaces.discard(empty)
    assert again.diff.is_dir()
    with pytest.raises(NotFoundError):
        store.workspaces.begin(ChainID.of(b"absent"))
    assert store.verify() == ()


def test_a_commit_needs_its_files(store: Store, fill: Fill) -> None:
    layer = fill.layer("a")
    store.layers.index_path(layer.diff_id).unlink()
    workspace = store.workspaces.begin(None)
    with pytest.raises(StoreError, match="index"):
        store.workspaces.commit(workspace, layer)
    with pytest.raises(StoreError, match="without a blob"):
        store.layers.add(LayerRecord(fill.layer("b").diff_id, 1, 1, ()))
    assert store.snapshots.all() == ()
    assert store.layers.all() == ()


def test_a_layer_is_found_by_diff_id_and_by_blob(store: Store, fill: Fill) -> None:
    layer = fill.layer("a")
    assert store.layers.get(layer.diff_id) is None
    store.layers.add(layer)
    assert store.layers.get(layer.diff_id) == layer
    assert store.layers.by_blob(layer.blobs[0].digest) == layer
    other = LayerRecord(layer.diff_id, layer.tar_size, layer.entries, fill.layer("smaller").blobs)
    store.layers.add(other)
    found = store.layers.get(layer.diff_id)
    assert found is not None
    assert set(found.blobs) == {*layer.blobs, *other.blobs}


def test_the_same_chain_twice_is_one_snapshot(store: Store, fill: Fill) -> None:
    first = fill.snapshot(None, "a")
    workspace = store.workspaces.begin(None)
    assert store.workspaces.commit(workspace, fill.layer("a")) == first
    assert not workspace.folder.exists()
    assert store.verify() == ()


def test_a_lost_folder_is_refilled_by_the_next_commit(store: Store, fill: Fill) -> None:
    bottom = fill.snapshot(None, "a")
    top = fill.snapshot(bottom.chain, "b")
    store.workspaces.discard(store.workspaces.begin(None))
    for path in (bottom.diff / "a", bottom.diff):
        path.unlink() if path.is_file() else path.rmdir()
    assert [found.subject for found in store.verify()] == [f"snapshot {bottom.chain}"]
    assert fill.snapshot(None, "a") == bottom
    assert (bottom.diff / "a").read_text() == "a"
    assert (top.folder / "lower").read_text() == f"l/{bottom.link}"
    assert store.verify() == ()


def test_a_step_may_begin_before_the_one_below_is_committed(store: Store, fill: Fill) -> None:
    first = store.workspaces.begin(None)
    second = store.workspaces.begin(first)
    third = store.workspaces.begin(second)
    assert [folder.id for folder in third.below] == [second.id, first.id]
    with pytest.raises(ValueError, match="must be committed"):
        store.workspaces.commit(second, fill.layer("b"))
    for workspace, text in ((first, "a"), (second, "b"), (third, "c")):
        store.workspaces.commit(workspace, fill.layer(text))
    stack = store.snapshots.stack(ChainID(third_chain(fill)))
    assert [found.id for found in stack] == [first.id, second.id, third.id]
    assert store.verify() == ()


def third_chain(fill: Fill) -> ChainID:
    first, second, third = (fill.layer(text).diff_id for text in "abc")
    return chain_id(chain_id(chain_id(None, first), second), third)


def test_a_superseded_workspace_stays_while_another_lies_on_it(store: Store, fill: Fill) -> None:
    known = fill.snapshot(None, "a")
    first = store.workspaces.begin(None)
    second = store.workspaces.begin(first)
    assert store.workspaces.commit(first, fill.layer("a")) == known
    assert first.diff.is_dir()
    third = store.workspaces.begin(first)
    assert [folder.id for folder in third.below] == [known.id]
    made = store.workspaces.commit(second, fill.layer("b"))
    assert not first.folder.exists()
    assert (made.folder / "lower").read_text() == f"l/{known.link}"
    store.workspaces.discard(third)
    assert store.verify() == ()


def test_what_was_begun_and_not_finished_goes_with_the_process(root: Path) -> None:
    with Store.open(root) as store:
        folder = store.workspaces.begin(None).folder
        assert folder.is_dir()
    assert not folder.exists()
    assert list((root / "builds").iterdir()) == []


def test_a_kept_workspace_stays_until_it_is_removed(root: Path) -> None:
    with Store.open(root) as store:
        base = Fill(store).snapshot(None, "a")
        workspace = store.workspaces.begin(base.chain)
        (workspace.diff / "core").write_text("x")
        (workspace.work / "work").mkdir()
        kept = store.workspaces.keep(workspace, {"command": "make", "made at": "noon"})
    with Store.open(root) as store:
        assert store.workspaces.kept() == (kept,)
        found = store.workspaces.find(kept.id[:6])
        assert (found.meta, found.parent) == ({"command": "make", "made at": "noon"}, base.chain)
        assert [folder.id for folder in found.below] == [base.id]
        assert (found.diff / "core").read_text() == "x"
        assert list(found.work.iterdir()) == []
        prune(store)
        assert store.workspaces.kept() == (kept,)
        assert store.snapshots.get(base.chain) == base
        store.workspaces.remove(found)
        assert store.workspaces.kept() == ()
        assert not kept.folder.exists()


def test_kept_workspaces_are_found_by_a_prefix(store: Store) -> None:
    for _ in range(20):
        store.workspaces.keep(store.workspaces.begin(None), {})
    assert store.workspaces.find(store.workspaces.kept()[0].id) == store.workspaces.kept()[0]
    shared = [kept.id[0] for kept in store.workspaces.kept()]
    often = max(shared, key=shared.count)
    with pytest.raises(UsageError, match="begin with"):
        store.workspaces.find(often)
    for text in ("", "xyz"):
        with pytest.raises(NotFoundError):
            store.workspaces.find(text)


@pytest.mark.root
@pytest.mark.machine
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to mount overlay")
def test_the_short_names_can_be_mounted(store: Store, fill: Fill) -> None:
    chain = None
    for number in range(60):
        chain = fill.snapshot(chain, f"f{number}").chain
    workspace = store.workspaces.begin(chain)
    options = f"lowerdir={workspace.lower},upperdir={workspace.id}/diff,workdir={workspace.id}/work"
    mount = ["mount", "-t", "overlay", "overlay", "-o", options, workspace.id + "/merged"]
    script = '"$@" && ls "$0/merged" && touch "$0/merged/new" && rm "$0/merged/f3"'
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script, workspace.id, *mount], cwd=store.overlay, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.split()) == 60
    assert sorted(path.name for path in workspace.diff.iterdir()) == ["f3", "new"]
    made = store.workspaces.commit(workspace, fill.layer("changes"))
    assert list(made.work.iterdir()) == []


def test_diff_ids_are_not_chain_ids(store: Store, fill: Fill) -> None:
    bottom = fill.snapshot(None, "a")
    top = fill.snapshot(bottom.chain, "a")
    assert top.diff_id == bottom.diff_id
    assert top.chain != bottom.chain
    assert store.snapshots.get(ChainID(DiffID(top.diff_id))) == bottom


def test_a_kept_workspace_is_entered_by_one_at_a_time(store: Store) -> None:
    kept = store.workspaces.keep(store.workspaces.begin(None), {"instruction": "RUN false"})
    with store.workspaces.entered(kept):
        with pytest.raises(StoreError, match="entered by another process"), store.workspaces.entered(kept):
            pass
        assert not store.workspaces.remove(kept)
        assert store.workspaces.kept() == (kept,)
    assert store.workspaces.remove(kept)
    assert store.workspaces.remove(kept), "it is gone, which is what was asked for"
    assert store.workspaces.kept() == ()


def test_a_store_that_cannot_tidy_up_lets_go_all_the_same(root: Path) -> None:
    store = Store.open(root)
    store.workspaces.begin(None)
    store.database.execute("CREATE TRIGGER stuck BEFORE DELETE ON workspace BEGIN SELECT RAISE(ABORT, 'stuck'); END")
    with pytest.raises(StoreError, match="stuck"):
        store.close()
    with Store.open(root) as again:
        assert list(again.leases.iterdir()) == []
        again.database.execute("DROP TRIGGER stuck")
        again.lease()
        assert again.database.rows("SELECT * FROM workspace") == []


def test_who_closes_the_store_leaves_alone_what_another_thread_removes(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store.open(root)
    workspace = store.workspaces.begin(None)
    (workspace.diff / "file").touch()
    removing, closed = threading.Event(), threading.Event()
    removed: list[LayerFolder] = []

    def remove(folder: LayerFolder) -> None:
        removed.append(folder)
        removing.set()
        assert closed.wait(10)

    with monkeypatch.context() as patch:
        patch.setattr(overlay, "remove", remove)
        thread = threading.Thread(target=store.workspaces.discard, args=(workspace,), daemon=True)
        thread.start()
        assert removing.wait(10)
        store.workspaces.close()
        closed.set()
        thread.join(10)
    assert removed == [workspace]
    store.close()


def test_a_folder_that_somebody_writes_to_is_left_for_the_next_process(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store.open(root)
    workspace = store.workspaces.begin(None)

    def remove(folder: LayerFolder) -> None:
        raise OSError(errno.ENOTEMPTY, "Directory not empty", str(folder.diff))

    with monkeypatch.context() as patch:
        patch.setattr(overlay, "remove", remove)
        store.close()
    assert workspace.folder.is_dir()
    with Store.open(root) as again:
        again.lease()
        assert not workspace.folder.exists()
