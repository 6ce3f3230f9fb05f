"""Remembered digests: what is not read again, and what must be."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from build_trees import step

from layerbuild.build.context import ContextTree
from layerbuild.build.selecting import content_digest, select
from layerbuild.build.tree import Node
from layerbuild.recipe.ignore import IgnoreRules
from layerbuild.steps import PathSource
from layerbuild.store.digests import GRAIN, Digests, is_settled
from layerbuild.store.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "store") as store:
        yield store


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "context"
    (folder / "d/e").mkdir(parents=True)
    for name, text in (("a", "1"), ("d/b", "2"), ("d/e/c", "3")):
        (folder / name).write_text(text)
    (folder / "d/l").symlink_to("b")
    (folder / "\udcfe").touch()
    return folder


class Counting(ContextTree):
    """A context that counts the files that it is asked to open, on a clock that is some hours ahead: all is settled."""

    opened = 0

    def open(self, node: Node):  # type: ignore[no-untyped-def]
        self.opened += 1
        return super().open(node)


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some hours pass between what happens on the disk and each look at it."""
    true_clock = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: true_clock() + 3600 * 10**9)


def look(folder: Path, known: Digests, pattern: str = "/", rules: str = "") -> tuple[str, int]:
    """The digest of what a COPY of ``pattern`` reads, and how many files were opened for it."""
    tree = Counting(folder, IgnoreRules.parse(rules), known=known)
    return content_digest(select(step(pattern, dest="/"), PathSource(pattern), tree), known), tree.opened


@pytest.mark.usefixtures("later")
def test_what_did_not_change_is_not_read_again(folder: Path, store: Store) -> None:
    first = look(folder, store.digests)
    assert first[1] == 4
    assert look(folder, store.digests) == (first[0], 0)


@pytest.mark.usefixtures("later")
def test_of_a_changed_tree_only_what_changed_is_read(folder: Path, store: Store) -> None:
    first = look(folder, store.digests)
    (folder / "new").write_text("4")
    second = look(folder, store.digests)
    assert second[0] != first[0] and second[1] == 1


CHANGES: dict[str, Callable[[Path], object]] = {
    "content of the same size and time": lambda folder: rewrite(folder / "d/b"),
    "mode": lambda folder: (folder / "d/e/c").chmod(0o600),
    "mode of a folder": lambda folder: (folder / "d/e").chmod(0o700),
    "link": lambda folder: ((folder / "d/l").unlink(), (folder / "d/l").symlink_to("e")),
    "attribute": lambda folder: os.setxattr(folder / "a", "user.x", b"y"),
    "name": lambda folder: (folder / "a").rename(folder / "z"),
    "a second name": lambda folder: os.link(folder / "a", folder / "d/a"),
    "less": lambda folder: (folder / "d/e/c").unlink(),
    "a name that is no text": lambda folder: Path(os.fsdecode(os.fsencode(folder) + b"/\xff")).touch(),
    "one such instead of another": lambda folder: (folder / "\udcfe").rename(folder / "\udcfd"),
}


def rewrite(path: Path) -> None:
    found = path.stat()
    path.write_text("9")
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))


@pytest.mark.usefixtures("later")
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_every_change_is_seen(folder: Path, store: Store, change: Callable[[Path], object]) -> None:
    before = look(folder, store.digests)[0]
    change(folder)
    after = look(folder, store.digests)[0]
    assert after != before
    assert after == look(folder, Digests(store.database))[0]


@pytest.mark.usefixtures("later")
def test_a_single_file_too(folder: Path, store: Store) -> None:
    before = look(folder, store.digests, "a")
    assert before[1] == 1 and look(folder, store.digests, "a") == (before[0], 0)
    rewrite(folder / "a")
    after = look(folder, store.digests, "a")
    assert after[0] != before[0] and after[1] == 1


@pytest.mark.usefixtures("later")
def test_an_ignore_file_decides_too(folder: Path, store: Store) -> None:
    whole, _ = look(folder, store.digests)
    less = look(folder, store.digests, rules="d/e\n")
    assert less[0] != whole and less[1] == 0
    assert look(folder, store.digests, rules="d/e\n") == less
    assert look(folder, store.digests)[0] == whole


def test_what_changed_within_the_clocks_grain_is_read_again(folder: Path, store: Store) -> None:
    first = look(folder, store.digests)
    assert look(folder, store.digests) == first and first[1] == 4
    assert not store.database.rows("SELECT * FROM file") and not store.database.rows("SELECT * FROM selection")
    assert is_settled(100, 101 + GRAIN) and not is_settled(100, 100 + GRAIN)


@pytest.mark.usefixtures("later")
@pytest.mark.parametrize("rules", ["", "nothing\n"], ids=["no rules", "rules"])
def test_the_order_in_which_a_folder_is_listed_does_not_count(
    folder: Path, store: Store, monkeypatch: pytest.MonkeyPatch, rules: str
) -> None:
    for number in range(5):
        (folder / f"folder{number}").mkdir()
        (folder / f"folder{number}/file").touch()
    first = look(folder, store.digests, rules=rules)
    scandir = os.scandir

    @contextmanager
    def backwards(place: Any) -> Iterator[list[Any]]:
        with scandir(place) as scanned:
            yield list(scanned)[::-1]

    monkeypatch.setattr(os, "scandir", backwards)
    assert look(folder, store.digests, rules=rules) == (first[0], 0)
    assert len(store.database.rows("SELECT * FROM selection")) == 1


@pytest.mark.usefixtures("later")
def test_the_digests_of_a_folder_are_asked_for_together(
    folder: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(600):
        (folder / "d" / f"file{number:03d}").write_text(str(number))
    before = look(folder, store.digests)[0]
    (folder / "a").write_text("9")
    asked: list[str] = []

    def file(self: Digests, found: os.stat_result) -> None:
        asked.append("one")

    def files(self: Digests, found: Sequence[os.stat_result]) -> list[str | None]:
        asked.append("several")
        return several(self, found)

    several = Digests.files
    monkeypatch.setattr(Digests, "file", file)
    monkeypatch.setattr(Digests, "files", files)
    after, opened = look(folder, store.digests)
    assert after != before
    assert opened == 1
    assert asked.count("one") == 1  # "a", which is not known
    assert 3 <= asked.count("several") <= 6


@pytest.mark.usefixtures("later")
def test_several_files_have_the_digests_that_each_has_alone(folder: Path, store: Store) -> None:
    look(folder, store.digests)
    (folder / "d/b").write_text("another")  # its state is not the one that is known
    found = [os.lstat(folder / name) for name in ("a", "d/b", "d/e/c", "a")]
    digests = store.digests.files(found)
    assert digests == [store.digests.file(one) for one in found]
    assert [digest is None for digest in digests] == [False, True, False, False]


def test_a_digest_that_is_known_is_not_written_again(folder: Path, store: Store) -> None:
    log = store.root / "layerbuild.db-wal"
    sizes = []
    for digest in ("1" * 64, "1" * 64, "2" * 64):
        store.digests.remember_file(os.lstat(folder / "a"), digest, looked=time.time_ns() + 10 * GRAIN)
        store.digests.flush()
        sizes.append(log.stat().st_size)
        assert store.digests.file(os.lstat(folder / "a")) == digest
    assert sizes[0] == sizes[1] < sizes[2]


@pytest.mark.usefixtures("later")
def test_prune_forgets(folder: Path, store: Store) -> None:
    from layerbuild.store.prune import prune

    look(folder, store.digests)
    assert store.database.rows("SELECT * FROM file")
    prune(store, all=True)
    assert look(folder, store.digests)[1] == 4
