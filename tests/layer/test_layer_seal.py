"""Sealing and capturing what a real overlay leaves in an upperdir. These tests mount, so they need root."""

from __future__ import annotations

import os
import shutil
import socket
import stat
import subprocess
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from layer_trees import EPOCH, applied, captured, described, entries, overlay
from places import fresh

from layerbuild.errors import BuildError
from layerbuild.layer.changes import seal
from layerbuild.layer.clone import lay
from layerbuild.layer.compare import gather
from layerbuild.layer.entry import RootMetadata
from layerbuild.layer.index import Index
from layerbuild.layer.whiteout import TRUSTED, USER

pytestmark = [
    pytest.mark.root,
    pytest.mark.machine,
    pytest.mark.skipif(os.geteuid() != 0, reason="overlay is mounted outside a user namespace: needs root"),
]

Step = Callable[[Path], object]


def changed(tmp_path: Path, base: Step, step: Step, *, epoch: int | None = EPOCH) -> tuple[Path, dict[bytes, str]]:
    """Run ``step`` on an overlay over what ``base`` makes, seal; the upper folder and its layer's entries."""
    lower, upper = tmp_path / "lower", tmp_path / "upper"
    lower.mkdir()
    base(lower)
    seal(lower, (), epoch=epoch)
    with overlay([lower], upper, tmp_path) as merged:
        step(merged)
    sealed = seal(upper, [lower], epoch=epoch)
    done = captured(upper, tmp_path)
    assert sealed.entries == done.entries
    if epoch is not None:
        assert compared(tmp_path, [lower], step) == done.diff_id
    return upper, entries(tmp_path / "layer.index")


def compared(scratch: Path, lowers: list[Path], step: Step) -> str:
    """The diff ID of the same step, run in a complete tree that is compared with what lies below."""
    tree, upper = scratch / "tree", scratch / "gathered"
    for folder in (tree, upper):
        folder.mkdir()
    for lower in reversed(lowers):
        lay(lower, tree)
    step(tree)
    gather(tree, lowers, upper)
    seal(upper, lowers, epoch=EPOCH)
    return captured(upper, scratch, "compared").diff_id


def some(root: Path) -> None:
    (root / "d/sub").mkdir(parents=True)
    (root / "d/f").write_text("content")
    (root / "d/sub/g").write_text("more")
    (root / "top").write_text("top")
    (root / "link").symlink_to("d/f")


def rename(merged: Path) -> None:
    shutil.copytree(merged / "d", merged / "e", symlinks=True)
    shutil.rmtree(merged / "d")


def replaced_by_equal(merged: Path) -> None:
    shutil.rmtree(merged / "d")
    some_again = merged / "again"
    some_again.mkdir()
    some(some_again)
    shutil.move(some_again / "d", merged / "d")
    shutil.rmtree(some_again)


def emptied(merged: Path) -> None:
    shutil.rmtree(merged / "d")
    (merged / "d").mkdir()
    (merged / "d/new").touch()


def with_socket(merged: Path) -> None:
    (merged / "top").unlink()
    for name in ("top", "other"):
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(merged / name))


def rewritten_unnoticed(merged: Path) -> None:
    before = (merged / "d/f").stat()
    (merged / "d/f").write_text("CONTENT")
    os.utime(merged / "d/f", ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize("unit", [10**9, 1], ids=["whole_seconds", "fractions"])
def test_content_of_the_same_size_and_time(tmp_path: Path, unit: int) -> None:
    def base(root: Path) -> None:
        some(root)
        os.utime(root / "d/f", ns=(5 * unit, 5 * unit))

    _, found = changed(tmp_path, base, rewritten_unnoticed, epoch=None)
    assert found == {b"d": "directory", b"d/f": "file"}


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (lambda merged: None, {}),
        (lambda merged: (merged / "d/f").chmod(0o600), {"d": "directory", "d/f": "file"}),
        (lambda merged: os.chown(merged / "d/f", 5, 6), {"d": "directory", "d/f": "file"}),
        (lambda merged: os.setxattr(merged / "d/f", "user.k", b"v"), {"d": "directory", "d/f": "file"}),
        (lambda merged: (merged / "d/f").write_text("CONTENT"), {"d": "directory", "d/f": "file"}),
        (lambda merged: (merged / "d/f").write_text("content"), {}),
        (lambda merged: os.utime(merged / "d/f", (5, 5)), {"d": "directory", "d/f": "file"}),
        (lambda merged: (merged / "d/f").touch(), {}),
        (lambda merged: (merged / "d").chmod(0o700), {"d": "directory"}),
        (lambda merged: os.utime(merged / "d/sub", (5, 5)), {}),
        (lambda merged: ((merged / "x").touch(), (merged / "x").unlink()), {}),
        (lambda merged: ((merged / "top").unlink(), (merged / "top").write_text("top")), {}),
        (lambda merged: (merged / "d/sub/g").unlink(), {"d": "directory", "d/sub": "directory", "d/sub/g": "whiteout"}),
        (lambda merged: shutil.rmtree(merged / "d"), {"d": "whiteout"}),
        (lambda merged: (shutil.rmtree(merged / "d"), (merged / "d").touch()), {"d": "file"}),
        (lambda merged: ((merged / "top").unlink(), (merged / "top").mkdir()), {"top": "directory"}),
        (rename, {"d": "whiteout", "e": "directory", "e/f": "file", "e/sub": "directory", "e/sub/g": "file"}),
        (replaced_by_equal, {}),
        (emptied, {"d": "directory", "d/f": "whiteout", "d/new": "file", "d/sub": "whiteout"}),
        (with_socket, {"top": "whiteout"}),
        (lambda merged: os.link(merged / "top", merged / "same"), {"same": "file", "top": "hardlink"}),
        (lambda merged: os.mkfifo(merged / "pipe"), {"pipe": "fifo"}),
        (lambda merged: os.mknod(merged / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3)), {"null": "character"}),
        (lambda merged: ((merged / "link").unlink(), (merged / "link").symlink_to("top")), {"link": "symlink"}),
        (lambda merged: ((merged / "link").unlink(), (merged / "link").symlink_to("d/f")), {}),
    ],
)
def test_what_a_layer_holds(tmp_path: Path, step: Step, expected: dict[str, str]) -> None:
    upper, found = changed(tmp_path, some, step)
    assert {path.decode(): kind for path, kind in found.items()} == expected
    for path in upper.rglob("*"):
        assert not [name for name in os.listxattr(path, follow_symlinks=False) if "overlay" in name]


def linked(root: Path) -> None:
    (root / "d").mkdir()
    (root / "d/a").write_text("a")
    os.link(root / "d/a", root / "d/b")


def test_names_of_one_file_that_did_not_change_are_dropped_together(tmp_path: Path) -> None:
    def step(merged: Path) -> None:
        (merged / "d/a").unlink()
        (merged / "d/b").unlink()
        (merged / "d/a").write_text("a")
        os.link(merged / "d/a", merged / "d/b")

    _, found = changed(tmp_path, linked, step)
    assert found == {}


def test_an_unchanged_name_stays_with_a_new_one_of_its_inode(tmp_path: Path) -> None:
    _, found = changed(tmp_path, some, lambda merged: os.link(merged / "d/f", merged / "a"))
    assert found == {b"a": "file", b"d": "directory", b"d/f": "hardlink"}


def test_times_are_whole_seconds_not_later_than_the_epoch(tmp_path: Path) -> None:
    def step(merged: Path) -> None:
        (merged / "n").mkdir()
        for name, when in (("old", 1000), ("new", time.time_ns())):
            (merged / "n" / name).touch()
            os.utime(merged / "n" / name, ns=(when, when))

    upper, _ = changed(tmp_path, some, step)
    assert (upper / "n/old").stat().st_mtime_ns == 0
    assert (upper / "n/new").stat().st_mtime_ns == EPOCH * 10**9
    assert (upper / "n").stat().st_mtime_ns == EPOCH * 10**9


def test_a_folder_of_changed_entries_keeps_the_time_that_it_was_given(tmp_path: Path) -> None:
    def step(merged: Path) -> None:
        (merged / "d/f").write_text("CONTENT")
        os.utime(merged / "d", (7, 7))

    upper, _ = changed(tmp_path, some, step)
    assert (upper / "d").stat().st_mtime_ns == 7 * 10**9


def test_without_an_epoch_times_are_kept(tmp_path: Path) -> None:
    upper, found = changed(tmp_path, some, lambda merged: os.utime(merged / "top", (2e9, 2e9)), epoch=None)
    assert (upper / "top").stat().st_mtime_ns == 2 * 10**18
    assert found == {b"top": "file"}


def test_the_root_is_reset_and_never_in_the_tar(tmp_path: Path) -> None:
    upper, found = changed(tmp_path, some, lambda merged: (merged.chmod(0o700), (merged / "x").touch()))
    assert found == {b"x": "file"}
    assert RootMetadata.of(upper) == RootMetadata()


def test_what_a_layer_cannot_say_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"/d/\.wh\.x") as caught:
        changed(tmp_path, some, lambda merged: (merged / "d/.wh.x").touch())
    assert "rename" in caught.value.hint


@pytest.mark.parametrize(("space", "mark"), [(TRUSTED, "redirect"), (USER, "metacopy")])
def test_an_upperdir_that_does_not_hold_its_content_is_refused(tmp_path: Path, space: str, mark: str) -> None:
    (tmp_path / "upper/d").mkdir(parents=True)
    (tmp_path / "upper/d/f").touch()
    os.setxattr(tmp_path / "upper/d/f", space + mark, b"/elsewhere")
    with pytest.raises(BuildError, match=space + mark):
        seal(tmp_path / "upper", (), epoch=EPOCH, spaces=(space,))


def test_a_mark_that_overlay_has_not_set_says_nothing(tmp_path: Path) -> None:
    def step(merged: Path) -> None:
        (merged / "d/new").touch()
        for name in ("user.overlay.opaque", "user.overlay.redirect", "user.layerbuild.opaque"):
            os.setxattr(merged / "d", name, b"y")
        os.setxattr(merged / "d/new", "user.overlay.whiteout", b"")

    upper, found = changed(tmp_path, some, step)
    assert found == {b"d": "directory", b"d/new": "file"}
    assert os.listxattr(upper / "d") == os.listxattr(upper / "d/new") == []


def test_attributes_that_no_layer_carries_are_removed(tmp_path: Path) -> None:
    def step(merged: Path) -> None:
        (merged / "x").touch()
        os.setxattr(merged / "x", "trusted.mine", b"1")
        os.setxattr(merged / "x", "user.kept", b"2")

    upper, _ = changed(tmp_path, some, step)
    assert os.listxattr(upper / "x") == ["user.kept"]
    with Index.open(tmp_path / "layer.index") as index:
        found = index.lookup(b"x")
        assert found is not None and found.xattrs == ((b"user.kept", b"2"),)


# -- random edits ------------------------------------------------------------------------------------------------------

_names = st.lists(st.sampled_from(["a", "b", "c", "a-1"]), min_size=1, max_size=3).map("/".join)
_edits = st.lists(
    st.tuples(
        st.sampled_from(["write", "mkdir", "remove", "link", "symlink", "chmod", "touch", "move", "same", "chown"]),
        _names,
        _names,
    ),
    max_size=14,
)


def edit(root: Path, verb: str, one: str, two: str) -> bool:
    """One random edit; False for one that can't be done at this point, and is passed over."""
    path, other = root / one, root / two
    try:
        match verb:
            case "write":
                path.write_text(two)
            case "same":
                path.write_bytes(path.read_bytes())
            case "mkdir":
                path.mkdir(parents=True)
            case "remove":
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
            case "link":
                os.link(path, other, follow_symlinks=False)
            case "symlink":
                path.symlink_to(two)
            case "chmod":
                os.chmod(path, 0o700 if path.is_dir() else 0o640, follow_symlinks=True)
            case "chown":
                os.chown(path, 12, 34, follow_symlinks=False)
            case "touch":
                os.utime(path, (7, 7), follow_symlinks=False)
            case "move":
                path.rename(other)
    except OSError:
        return False
    return True


def edit_all(root: Path, edits: list[tuple[str, str, str]]) -> list[tuple[str, str, str]]:
    """Those that could be done."""
    return [item for item in edits if edit(root, *item)]


@settings(max_examples=60, deadline=None)
@given(first=_edits, second=_edits, third=_edits)
def test_random_edits_give_the_same_tree_again(
    first: list[tuple[str, str, str]], second: list[tuple[str, str, str]], third: list[tuple[str, str, str]]
) -> None:
    """Three layers of random edits: what the next step sees is the same after sealing, and from unpacked layers."""
    scratch = fresh("seal")
    try:
        _three_layers(scratch, (first, second, third))
    finally:
        subprocess.run(["rm", "-rf", scratch], check=True)


def _three_layers(scratch: Path, steps: tuple[list[tuple[str, str, str]], ...]) -> None:
    built: list[Path] = []
    unpacked: list[Path] = []
    for number, edits in enumerate(steps):
        place = scratch / str(number)
        place.mkdir()
        upper = place / "upper"
        lowers = built or [place / "nothing"]
        (place / "nothing").mkdir()
        with overlay(lowers, upper, place) as merged:
            carried_out = edit_all(merged, edits)
            before = {name: value for name, value in described(merged, times=False).items() if name != "."}
        sealed = seal(upper, built, epoch=EPOCH)
        again = seal(upper, built, epoch=EPOCH)
        assert sealed == again, "sealing twice changes nothing"
        done = captured(upper, place)
        assert done.entries == sealed.entries
        assert compared(place, built, partial(edit_all, edits=carried_out)) == done.diff_id
        apply_result = applied((place / "layer.tar").read_bytes(), place / "unpacked")
        assert apply_result.diff_id == done.diff_id
        assert described(place / "unpacked") == described(upper)
        assert (place / "unpacked.index").read_bytes() == (place / "layer.index").read_bytes()
        for path, kind in entries(place / "layer.index").items():
            assert kind != "whiteout" or _shows(built, path), f"{path!r} is not below"
        built.insert(0, upper)
        unpacked.insert(0, place / "unpacked")
        trees = []
        for stack in (built, unpacked):
            with overlay(stack, place / "look", place) as merged:
                trees.append(described(merged))
        assert trees[0] == trees[1]
        after = {name: (*value[:3], None, *value[4:]) for name, value in trees[0].items() if name != "."}
        assert {name: value[:5] for name, value in after.items()} == {name: value[:5] for name, value in before.items()}


def _shows(stack: list[Path], path: bytes) -> bool:
    parts = path.split(b"/")
    for folder in stack:
        for count in range(1, len(parts) + 1):
            full = os.fsencode(folder) + b"/" + b"/".join(parts[:count])
            if not os.path.lexists(full):
                break
            if count == len(parts):
                return not stat.S_ISCHR(os.lstat(full).st_mode)
            if not stat.S_ISDIR(os.lstat(full).st_mode):
                return False
    return False


def test_no_thread_is_left_behind(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d/f").touch()
    captured(tmp_path / "d", tmp_path)
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("layer-")] == []
