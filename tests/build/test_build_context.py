"""The context as a tree: ignore rules, links, and files that change or can't be read."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from build_trees import context, placed, shown, step

from layerbuild.build.context import ContextTree, ignore_rules
from layerbuild.build.copying import write
from layerbuild.build.selecting import listing, select
from layerbuild.errors import SourceError
from layerbuild.layer.capture import LayerWriter
from layerbuild.layer.codecs import NONE
from layerbuild.layer.entry import Kind
from layerbuild.recipe.ignore import IgnoreRules
from layerbuild.steps import PathSource


def walked(tree: ContextTree, folder: bytes = b"") -> list[str]:
    found = []
    for node in tree.children(folder):
        found.append(os.fsdecode(node.path))
        if node.entry.kind is Kind.DIRECTORY:
            found += walked(tree, node.path)
    return found


@pytest.mark.parametrize(
    ("ignore", "expected"),
    [
        ("", ["a", "a/b", "a/b/c", "a/d", "e"]),
        ("a", ["e"]),
        ("a/b", ["a", "a/d", "e"]),
        ("a/**", ["a", "e"]),
        ("**/c", ["a", "a/b", "a/d", "e"]),
        ("*\n!e", ["e"]),
        ("*\n!a/b/c", ["a", "a/b", "a/b/c"]),
        ("a\n!a/d", ["a", "a/d", "e"]),
        ("a\n!a/nothing", ["e"]),
    ],
)
def test_ignored(tmp_path: Path, ignore: str, expected: list[str]) -> None:
    tree = context(tmp_path / "s", "a/b/c a/d e", ignore=ignore)
    assert walked(tree) == expected


def test_an_ignored_source_is_missing_and_the_rule_is_told(tmp_path: Path) -> None:
    tree = context(tmp_path / "s", "a.log", ignore="# logs\n*.log\n")
    with pytest.raises(SourceError, match=r"'a.log' not found: .dockerignore line 2 \(`\*.log`\) leaves it out"):
        select(step("a.log", dest="/"), PathSource("a.log"), tree)


@pytest.mark.parametrize("path", ["hidden", "to-hidden", "hidden-link", "hidden-folder-link/f"])
def test_links_show_nothing_that_is_ignored(tmp_path: Path, path: str) -> None:
    things = "hidden=1 to-hidden->hidden shown=2 hidden-link->shown d/f hidden-folder-link->d"
    tree = context(tmp_path / "s", things, ignore="hidden*\n!hidden-folder-link/f")
    assert tree.get(path.encode()) is None
    assert tree.get(b"shown") is not None


@pytest.mark.parametrize(
    ("link", "path", "expected"),
    [
        ("/d", "l/f", "d/f"),
        ("../../d", "l/f", "d/f"),
        ("d/..", "l/d/f", "d/f"),
        ("/etc/passwd", "l", None),
        ("l", "l", "error"),
    ],
)
def test_links_stay_inside(tmp_path: Path, link: str, path: str, expected: str | None) -> None:
    tree = context(tmp_path / "s", f"d/f l->{link}")
    if expected == "error":
        with pytest.raises(Exception, match="too many links"):
            tree.get(path.encode())
        return
    node = tree.get(path.encode())
    assert (node and os.fsdecode(node.path)) == expected


def test_what_a_node_tells(tmp_path: Path) -> None:
    tree = context(tmp_path / "s", "a=12 b~a c l->a s!")
    nodes = {os.fsdecode(node.path): node for node in tree.children(b"")}
    assert nodes["a"].inode == nodes["b"].inode is not None and nodes["c"].inode is None
    assert (nodes["a"].entry.size, nodes["a"].entry.uid, nodes["a"].entry.gid) == (2, 0, 0)
    assert (nodes["l"].entry.kind, nodes["l"].entry.target) == (Kind.SYMLINK, b"a")
    assert (nodes["s"].entry.kind, nodes["s"].entry.size) == (Kind.FILE, 0)
    assert tree.digest(nodes["s"]) == tree.digest(nodes["c"])
    assert list(tree.children(b"a")) == [], "a file has no children"


def test_ignore_files(tmp_path: Path) -> None:
    folder, recipe = tmp_path / "s", tmp_path / "other.Dockerfile"
    folder.mkdir()
    assert ignore_rules(folder, recipe) == IgnoreRules()
    (folder / ".dockerignore").write_bytes(b"\xef\xbb\xbfa\n")
    assert ignore_rules(folder, recipe).verdict(b"a").ignored
    (tmp_path / "other.Dockerfile.dockerignore").write_text("b\n")
    rules = ignore_rules(folder, recipe)
    assert rules.verdict(b"b").ignored and not rules.verdict(b"a").ignored
    assert ignore_rules(folder, None).verdict(b"a").ignored


def test_what_cannot_be_read_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tree = context(tmp_path / "s", "d/f:0=secret")
    (node,) = tree.children(b"d")
    monkeypatch.chdir(tmp_path / "s")
    tree = ContextTree(Path("."), IgnoreRules())  # pytest's own folders are closed to the user that root becomes here
    with (
        unprivileged(),
        pytest.raises(SourceError, match="can't read 'd/f' of the context: Permission denied") as error,
    ):
        tree.digest(node)
    assert "dockerignore" in error.value.hint


@contextmanager
def unprivileged() -> Iterator[None]:
    """As an ordinary user, whoever runs the tests."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(12345)
    try:
        yield
    finally:
        os.seteuid(0)


# -- the cache's view --------------------------------------------------------------------------------------------------


def digest(tree: ContextTree, pattern: str) -> str:
    return listing(select(step(pattern, dest="/"), PathSource(pattern), tree)).finish()[0]


THINGS = "d/f=1 d/g=1 d/l->f d/e/"


def rename(folder: Path) -> None:
    (folder / "d/f").rename(folder / "d/h")


def relink(folder: Path) -> None:
    (folder / "d/l").unlink()
    (folder / "d/l").symlink_to("g")


def join_names(folder: Path) -> None:
    (folder / "d/g").unlink()
    (folder / "d/g").hardlink_to(folder / "d/f")


@pytest.mark.parametrize(
    ("change", "counts"),
    [
        (lambda folder: os.utime(folder / "d/f", (1, 1)), False),
        (lambda folder: os.utime(folder / "d", (1, 1)), False),
        (lambda folder: (folder / "d").rename(folder / "d2"), False),
        (lambda folder: (folder / "d").chmod(0o700), False),
        (lambda folder: (folder / "d/f").write_text("2"), True),
        (lambda folder: (folder / "d/f").chmod(0o755), True),
        (lambda folder: (folder / "d/e").chmod(0o700), True),
        (lambda folder: (folder / "d/e").rmdir(), True),
        (lambda folder: (folder / "d/new").mkdir(), True),
        (rename, True),
        (relink, True),
        (join_names, True),
    ],
)
def test_what_changes_a_folders_digest(tmp_path: Path, change: Callable[[Path], object], counts: bool) -> None:
    before = digest(context(tmp_path / "s", THINGS), "d")
    change(tmp_path / "s")
    after = digest(context(tmp_path / "s"), "d2" if (tmp_path / "s/d2").exists() else "d")
    assert (before != after) is counts


def test_a_matched_name_counts_and_a_literal_one_does_not(tmp_path: Path) -> None:
    tree = context(tmp_path / "s", "a1=x b1=x")
    assert digest(tree, "a1") == digest(tree, "b1")
    assert digest(tree, "a*") != digest(tree, "b*")


LARGE = "x" * 400_000

# -- files that change meanwhile ---------------------------------------------------------------------------------------


def grows(path: Path) -> None:
    path.write_text("123")


def other_content(path: Path) -> None:
    path.write_text("zz")


def fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def large(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(300_000)
        file.write(b"!")


@pytest.mark.parametrize(
    ("content", "change", "message"),
    [
        ("12", other_content, "'d/f' of the context changed while it was read"),
        ("12", grows, "'d/f' of the context changed while it was read"),
        ("12", fifo, "'d/f' of the context changed while it was read"),
        ("12", Path.unlink, "'d/f' of the context vanished while it was read"),
        (LARGE, large, "'d/f' of the context changed while it was read"),
    ],
)
def test_a_file_that_changes_is_never_in_a_layer(
    tmp_path: Path, content: str, change: Callable[[Path], object], message: str
) -> None:
    tree = context(tmp_path / "s", f"d/f={content}")
    items = placed(tree, context(tmp_path / "t"), step("d", dest="/x"))
    change(tmp_path / "s/d/f")
    with (
        pytest.raises(SourceError) as error,
        LayerWriter(tmp_path / "blob", tmp_path / "index", codec=NONE) as writer,
    ):
        write(items, writer)
    assert error.value.message.startswith(message)
    assert error.value.hint


def test_what_does_not_change_is_written(tmp_path: Path) -> None:
    tree = context(tmp_path / "s", f"d/f=12 d/large={LARGE} d/s! d/same~d/f")
    items = placed(tree, context(tmp_path / "t"), step("d", dest="/x"))
    (tmp_path / "out").mkdir()
    with LayerWriter(tmp_path / "blob", tmp_path / "index", codec=NONE, folder=tmp_path / "out") as writer:
        write(items, writer)
        assert writer.finish().entries == 5
    assert (tmp_path / "out/x/large").read_text() == LARGE
    assert (tmp_path / "out/x/s").read_bytes() == b""
    assert (tmp_path / "out/x/f").stat().st_ino == (tmp_path / "out/x/same").stat().st_ino
    assert shown(items).endswith("x/same~x/f")
