"""Users and groups by name and number."""

from __future__ import annotations

from pathlib import Path

import pytest
from build_trees import context

from layerbuild.build.accounts import Account, account, owner
from layerbuild.build.tree import Tree
from layerbuild.errors import BuildError

PASSWD = """\
root:x:0:0:root:/root:/bin/sh
# a remark:x:9:9::/:
broken line
app:x:1000:1001:App:/home/app:/bin/sh
bare:x:7:8
"""
GROUP = """\
root:x:0:
wheel:x:10:root,app
app:x:1001:
video:x:44:bare,app
"""


@pytest.fixture
def image(tmp_path: Path) -> Tree:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_text(PASSWD)
    (tmp_path / "etc/group").write_text(GROUP)
    return context(tmp_path)


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        ("", Account(0, 0, (0, 10), "/root")),
        ("root", Account(0, 0, (0, 10), "/root")),
        ("0", Account(0, 0, (0, 10), "/root")),
        ("app", Account(1000, 1001, (10, 44, 1001), "/home/app")),
        ("1000", Account(1000, 1001, (10, 44, 1001), "/home/app")),
        ("4711", Account(4711, 0, (0,), "/")),
        ("4711:12", Account(4711, 12, (12,), "/")),
        ("app:video", Account(1000, 44, (44,), "/home/app")),
        ("app:55", Account(1000, 55, (55,), "/home/app")),
        ("bare", Account(7, 8, (8, 44), "/")),
        ("+5:+6", Account(5, 6, (6,), "/")),
        ("2147483647", Account(2147483647, 0, (0,), "/")),
    ],
)
def test_who_runs(image: Tree, user: str, expected: Account) -> None:
    assert account(image, user) == expected


@pytest.mark.parametrize(("user", "name"), [("nobody", "nobody"), ("app:nogroup", "nogroup"), ("#", "#")])
def test_unknown_names_are_told(image: Tree, user: str, name: str) -> None:
    with pytest.raises(BuildError, match=f"unable to find (user|group) '{name}'") as error:
        account(image, user)
    assert "earlier RUN" in error.value.hint


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("app", (1000, 1001)),
        ("app:video", (1000, 44)),
        ("app:12", (1000, 12)),
        ("1000", (1000, 1000)),
        ("1000:video", (1000, 44)),
        ("0", (0, 0)),
        ("3:4", (3, 4)),
        ("root", (0, 0)),
        (":video", (0, 44)),
        ("nobody", (0, 0)),
        ("nobody:video", (0, 44)),
        ("app:nogroup", (1000, 1001)),
        ("app:video:more", (1000, 1001)),
        ("5:nogroup", (5, 5)),
        (":nogroup", (0, 0)),
        ("app:", (1000, 0)),
        ("5:", (5, 0)),
        ("+5", (5, 5)),
        ("5:+6", (5, 6)),
        ("05:00000000000007", (5, 7)),
    ],
)
def test_chown(image: Tree, text: str, expected: tuple[int, int]) -> None:
    assert owner(image, text) == expected


@pytest.mark.parametrize("text", ["4294967295", "1:4294967295", "99999999999999999999"])
def test_ids_that_no_file_can_have(image: Tree, text: str) -> None:
    for look in (account, owner):
        with pytest.raises(BuildError, match="is no user or group id"):
            look(image, text)


@pytest.mark.parametrize("text", ["2147483648", "1:2147483648", "app:4294967294"])
def test_ids_that_no_process_can_have(image: Tree, text: str) -> None:
    with pytest.raises(BuildError, match="is no user or group id") as error:
        account(image, text)
    assert error.value.hint == "the largest is 2147483647"


@pytest.mark.parametrize("text", ["-5", "5:-6", "app:-1"])
def test_negative_owners(image: Tree, text: str) -> None:
    with pytest.raises(BuildError, match="is no user or group id"):
        owner(image, text)


def test_without_the_files(tmp_path: Path) -> None:
    bare = context(tmp_path / "t", "f")
    assert account(bare, "") == Account(0, 0, (0,), "/")
    assert owner(bare, "app:app") == (0, 0)


@pytest.mark.parametrize("text", ["app", ":video", "5:video"])
def test_an_empty_image_tells_no_name(tmp_path: Path, text: str) -> None:
    empty = context(tmp_path / "t")
    assert owner(empty, "5:6") == (5, 6)
    with pytest.raises(BuildError, match="the image is empty"):
        owner(empty, text)


def test_links_to_the_files_stay_in_the_image(image: Tree, tmp_path: Path) -> None:
    (tmp_path / "etc/passwd").rename(tmp_path / "users")
    (tmp_path / "etc/passwd").symlink_to("/users")
    (tmp_path / "etc/group").unlink()
    (tmp_path / "etc/group").symlink_to("/../../nowhere")
    assert account(image, "app") == Account(1000, 1001, (1001,), "/home/app")


def test_more_groups_than_a_process_can_have(image: Tree, tmp_path: Path) -> None:
    rows = "".join(f"g{number}:x:{number}:app\n" for number in range(2000, 68000))
    (tmp_path / "etc/group").write_text(rows)
    with pytest.raises(BuildError, match="'app' is in 66001 groups"):
        account(image, "app")
    assert account(image, "app:g2001").groups == (2001,)
