"""Where COPY puts what. Most cases are blocks of copy_cases.txt: the context, the image, the instruction, the layer."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from build_trees import TIMES, context, placed, shown, stack, step

from layerbuild.build.archives import Archive
from layerbuild.build.placement import Placement
from layerbuild.build.times import Times
from layerbuild.errors import BuildError, SourceError
from layerbuild.image.config import Platform
from layerbuild.layer.entry import Entry, Kind
from layerbuild.recipe.planner import plan
from layerbuild.recipe.syntax import parse
from layerbuild.steps import CopyStep


def blocks() -> Iterator[tuple[str, dict[str, str]]]:
    """The cases by name: the first word of each indented line, and the rest of that line."""
    text = Path(__file__).with_name("copy_cases.txt").read_text().strip()
    for block in text.split("\n\n"):
        name, *lines = [line for line in block.splitlines() if not line.startswith("#")]
        yield name, {line.split()[0]: line.strip().partition(" ")[2].strip() for line in lines}


def copy_step(arguments: str) -> CopyStep:
    """The step of the instruction as a recipe says it."""
    platform = Platform("linux", "amd64")
    planned = plan(
        parse(f"FROM scratch\nCOPY {arguments}\n"), bases=lambda name, _: pytest.fail(name), platform=platform
    )
    (found,) = planned.target.steps
    assert isinstance(found, CopyStep)
    return found


CASES = dict(blocks())


@pytest.mark.parametrize("name", CASES)
def test_case(tmp_path: Path, name: str) -> None:
    case = CASES[name]
    source, target = context(tmp_path / "s", case["source"]), context(tmp_path / "t", case.get("target", ""))
    asked = copy_step(case["COPY"])
    if "error" in case:
        with pytest.raises(BuildError) as error:
            placed(source, target, asked)
        assert error.value.message.startswith(case["error"])
        assert error.value.span is not None and error.value.span.line == 2
    else:
        assert shown(placed(source, target, asked)) == case["layer"].removeprefix("none")


def test_the_same_again_changes_nothing(tmp_path: Path) -> None:
    source = context(tmp_path / "s", "f=1 l->f e/:711 e/g=2")
    target = context(tmp_path / "t", "x/f=1 x/l->f x/e/:711 x/e/g=2")
    for path in (tmp_path / "t").rglob("*"):  # as a layer has it: clamped
        os.utime(path, (TIMES.made, TIMES.made), follow_symlinks=False)
    assert placed(source, target, step(".", dest="/x")) == []
    (tmp_path / "s/e/g").write_text("3")
    assert shown(placed(context(tmp_path / "s"), target, step(".", dest="/x"))) == "x/ x/e/:711 x/e/g=3"


def test_owners(tmp_path: Path) -> None:
    target = context(tmp_path / "t", "x/")
    link = Entry(b"d/l", Kind.SYMLINK, 0o777, 5, 6, target=b"r")
    theirs = stack(tmp_path / "s", [Entry(b"d", Kind.DIRECTORY, 0o755, 3, 4), link])
    asked = step("d", dest="/x/y", keep_owner=True)
    assert shown(placed(theirs, target, asked), owners=True) == "0:0@x/ 0:0@x/y/ 5:6@x/y/l->r"
    assert shown(placed(theirs, target, asked, owner=(1, 2)), owners=True) == "0:0@x/ 1:2@x/y/ 1:2@x/y/l->r"
    assert shown(placed(context(tmp_path / "c", "f"), target, step("f", dest="/f")), owners=True) == "0:0@f"


def test_times(tmp_path: Path) -> None:
    source, target = context(tmp_path / "s", "d/f d/old"), context(tmp_path / "t", "x/")
    os.utime(tmp_path / "s/d/old", (5, 5))
    os.utime(tmp_path / "s/d/f", ns=(1_600_000_000_700_000_000,) * 2)
    os.utime(tmp_path / "s/d", (1_500_000_000, 1_500_000_000))
    asked = step("d", dest="/x/y")
    clamped = {item.entry.path: item.entry.mtime for item in placed(source, target, asked)}
    assert clamped == {b"x": TIMES.epoch, b"x/y": TIMES.epoch, b"x/y/f": TIMES.epoch, b"x/y/old": 5}
    # Kept: what is made new has the time of the build, but a copied folder's own time goes to the destination.
    keep = Times(None, 1_700_000_000)
    kept = {item.entry.path: item.entry.mtime for item in placed(source, target, asked, times=keep)}
    assert kept == {b"x": 1_700_000_000, b"x/y": 1_500_000_000, b"x/y/f": 1_600_000_000, b"x/y/old": 5}
    there, *_ = placed(source, target, step("d", dest="/x"), times=keep)
    assert (there.entry.path, there.entry.mtime) == (b"x", 1_500_000_000)


def test_attributes_come_along(tmp_path: Path) -> None:
    source = context(tmp_path / "s", "f")
    try:
        os.setxattr(tmp_path / "s/f", "user.colour", b"red")
    except OSError:
        pytest.skip("this file system has no user attributes")
    (item,) = placed(source, context(tmp_path / "t"), step("f", dest="/f"))
    assert item.entry.xattrs == ((b"user.colour", b"red"),)


def test_a_device_that_would_delete_is_refused(tmp_path: Path) -> None:
    source = stack(tmp_path / "s", [Entry(b"d", Kind.DIRECTORY, 0o755), Entry(b"d/x", Kind.CHARACTER, 0o600)])
    with pytest.raises(BuildError, match="device 0/0"):
        placed(source, context(tmp_path / "t"), step("d", dest="/"))


def test_a_file_that_vanishes_is_named(tmp_path: Path) -> None:
    items = placed(context(tmp_path / "s", "f=1"), context(tmp_path / "t"), step("f", dest="/x"))
    (tmp_path / "s/f").unlink()
    with pytest.raises(SourceError, match="'f' of the context vanished while it was read"):
        shown(items)


# -- heredocs and WORKDIR ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dest", "expected"),
    [("/x", "x/ x/DOC=text"), ("/x/", "x/ x/DOC=text"), ("/y", "y=text"), ("/y/", "y/ y/DOC=text")],
)
def test_a_heredoc_is_a_file(tmp_path: Path, dest: str, expected: str) -> None:
    placement = Placement(step(dest=dest), context(tmp_path / "t", "x/"), owner=None, times=TIMES)
    placement.add_inline(b"DOC", b"text")
    assert shown(placement.items()) == expected


def test_flags_cover_a_heredoc(tmp_path: Path) -> None:
    placement = Placement(step(dest="/y/", mode="0700"), context(tmp_path / "t"), owner=(1, 2), times=TIMES)
    placement.add_inline(b"DOC", b"text")
    assert shown(placement.items(), owners=True) == "1:2@y/:700 1:2@y/DOC:700=text"


@pytest.mark.parametrize(
    ("target", "dest", "expected"),
    [
        ("", "/a/b", "5:6@a/ 5:6@a/b/"),
        ("a/:700", "/a/b", "0:0@a/:700 5:6@a/b/"),
        ("a/b/:700", "/a/b", ""),
        ("r/ a->r", "/a/b", "0:0@r/ 5:6@r/b/"),
        ("a->r", "/a", "5:6@r/"),
        ("", "/", ""),
    ],
)
def test_workdir_makes_only_what_is_missing(tmp_path: Path, target: str, dest: str, expected: str) -> None:
    placement = Placement(step(dest=dest), context(tmp_path / "t", target), owner=(5, 6), times=TIMES)
    placement.add_folder_itself()
    assert shown(placement.items(), owners=True) == expected


@pytest.mark.parametrize("dest", ["/f", "/f/below"])
def test_workdir_on_a_file(tmp_path: Path, dest: str) -> None:
    placement = Placement(step(dest=dest), context(tmp_path / "t", "f=1"), owner=None, times=TIMES)
    with pytest.raises(BuildError, match="/f is no folder: not a directory"):
        placement.add_folder_itself()


def test_a_link_where_a_folder_is_copied_is_told_with_the_remedy(tmp_path: Path) -> None:
    source = context(tmp_path / "s", "r/bin/f=1")
    target = context(tmp_path / "t", "usr/bin/ bin->usr/bin")
    with pytest.raises(BuildError, match="/bin is no folder: cannot copy to non-directory") as error:
        placed(source, target, copy_step("r /"))
    assert "a link to usr/bin" in error.value.hint and "with /bin/ as its destination" in error.value.hint
    placed(source, target, copy_step("r/bin /bin/"))


def test_a_flag_behind_a_source_is_told(tmp_path: Path) -> None:
    source = context(tmp_path / "s", "f=1")
    with pytest.raises(SourceError, match="'--chown=1' not found") as error:
        placed(source, context(tmp_path / "t"), copy_step("f --chown=1 /x"))
    assert error.value.hint == "flags stand in front of the sources"


# -- archives ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "implied", "target", "dest", "expected"),
    [
        ("f=1", (), "", "/x", "x/ x/f=1"),
        ("d/:700", (), "x/d/", "/x", "x/ x/d/:700"),
        ("f=1", (), "x/f/g", "/x", "x/ x/f=1"),
        ("d/g=1", (), "x/d=0", "/x", "x/ x/d/ x/d/g=1"),
        ("d/g=1", (), "r/ d->r", "/", "d/ d/g=1"),
        ("d/g=1", (b"d",), "r/ d->r", "/", "r/ r/g=1"),
        ("d/g=1", (b"d",), "x/d->/new", "/x", "x/ x/new/ x/new/g=1"),
        ("d/e/g=1", (b"d", b"d/e"), "d/:700 d/e->/", "/", "g=1"),
        ("b=1 a~b", (), "", "/", "a=1 b~a"),
    ],
)
def test_archives(
    tmp_path: Path, content: str, implied: tuple[bytes, ...], target: str, dest: str, expected: str
) -> None:
    placement = Placement(step(dest=dest, mode="0777"), context(tmp_path / "t", target), owner=None, times=TIMES)
    placement.add_archive(Archive(context(tmp_path / "a", content), frozenset(implied)))
    assert shown(placement.items()) == expected


def test_a_folder_that_an_archive_brings_back_is_empty(tmp_path: Path) -> None:
    target = context(tmp_path / "t", "d/old d/e/older d/e/f/")
    placement = Placement(step(dest="/"), target, owner=None, times=TIMES)
    placement.add_archive(Archive(context(tmp_path / "one", "d=file"), frozenset()))
    placement.add_archive(Archive(context(tmp_path / "two", "d/e/new=2"), frozenset()))
    written = "d/ d/e/ d/e/f<whiteout> d/e/new=2 d/e/older<whiteout> d/old<whiteout>"
    assert shown(placement.items()) == written
