"""Ranges of ids: which a user has, and what is said of a machine that gives none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from isolate_world import World, in_build

from layerbuild.isolate import ids
from layerbuild.isolate.ids import Mapping, Ranges

BOTH = ("newuidmap", "newgidmap")


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Ranges]:
    """What user 99999 with group 42 may map where these files lie in /etc and these programs on the path."""

    def make(subuid: str, subgid: str, *, programs: tuple[str, ...] = BOTH) -> Ranges:
        (tmp_path / "subuid").write_text(subuid)
        (tmp_path / "subgid").write_text(subgid)
        for name in programs:
            (tmp_path / name).touch(mode=0o755)
        monkeypatch.setenv("PATH", str(tmp_path))
        return ids.ranges(99999, 42, etc=tmp_path)

    return make


def test_ranges_are_stacked_above_the_user_itself(machine: Callable[..., Ranges]) -> None:
    found = machine("other:1:2\n99999:100000:65536\n99999:300000:10\nbroken\n99999:x:1\n", "99999:5:1\n")
    assert found.uids == (Mapping(0, 99999, 1), Mapping(1, 100000, 65536), Mapping(65537, 300000, 10))
    assert found.gids == (Mapping(0, 42, 1), Mapping(1, 5, 1))
    assert not found.lack


@pytest.mark.parametrize(
    ("subuid", "subgid", "programs", "lack", "remedy"),
    [
        ("", "99999:5:1\n", BOTH, "no range of ids for 99999 in /etc/subuid", "usermod --add-subuids"),
        ("", "", BOTH, "/etc/subuid and /etc/subgid", "usermod --add-subuids"),
        ("99999:1:9\n", "99999:5:1\n", BOTH[1:], "newuidmap not installed", "apt-get install uidmap"),
    ],
)
def test_what_is_lacking_is_told(
    machine: Callable[..., Ranges], subuid: str, subgid: str, programs: tuple[str, ...], lack: str, remedy: str
) -> None:
    found = machine(subuid, subgid, programs=programs)
    assert lack in found.lack and remedy in found.remedy
    assert found.uids == (Mapping(0, 99999, 1),)


def test_the_range_that_is_proposed_is_nobodys(machine: Callable[..., Ranges]) -> None:
    found = machine("other:100000:65536\nlow:5:1\n", "third:165536:65536\nbroken:x:1\n")
    assert "--add-subuids 231072-296607 --add-subgids 231072-296607 99999" in found.remedy
    assert "--add-subuids 100000-165535 " in machine("low:5:1\n", "").remedy


@in_build("user")
def test_a_build_without_ranges_says_why(world: World) -> None:
    assert world.identity.one_id
    assert "no range of ids" in world.identity.lack
