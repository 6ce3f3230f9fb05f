"""Which ids an ordinary user may have in a user namespace, and how they are put there.

The kernel lets a user map its own id; more of them only who has CAP_SETUID in the namespace around. The programs
``newuidmap`` and ``newgidmap`` (set-user-ID root, package uidmap) do it for those whom root has given ranges in
``/etc/subuid`` and ``/etc/subgid``: subuid(5), newuidmap(1), user_namespaces(7).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Literal

from layerbuild.frozen import frozen

Kind = Literal["uid", "gid"]
KINDS: Final[tuple[Kind, ...]] = ("uid", "gid")

_MAX_LINES: Final = 340  # of a map: user_namespaces(7)
_FIRST, _COUNT = 100_000, 65536  # SUB_UID_MIN and SUB_UID_COUNT of login.defs(5)


@frozen
class Mapping:
    """A line of a map: ``count`` ids from ``inside`` on are those from ``outside`` on."""

    inside: int
    outside: int
    count: int

    def __str__(self) -> str:
        return f"{self.inside} {self.outside} {self.count}"


@frozen
class Ranges:
    """What an ordinary user could map: for each kind of id the whole map, id 0 being the user itself.

    ``lack`` says what is missing for more than that one id, and ``remedy`` what helps; both are empty if nothing is.
    """

    uids: tuple[Mapping, ...]
    gids: tuple[Mapping, ...]
    lack: str = ""
    remedy: str = ""


def ranges(uid: int, gid: int, *, etc: Path = Path("/etc")) -> Ranges:
    """What the user ``uid`` may map on this machine, as the files in ``etc`` say."""
    name = user_name(uid)
    uids, gids = subordinate(etc / "subuid", uid), subordinate(etc / "subgid", uid)
    lack, remedy = _lack(name, uids, gids, etc)
    if lack:
        uids, gids = (), ()
    return Ranges(_stacked(uid, uids), _stacked(gid, gids), lack, remedy)


def _lack(
    name: str, uids: tuple[tuple[int, int], ...], gids: tuple[tuple[int, int], ...], etc: Path
) -> tuple[str, str]:
    absent = [f"/etc/sub{kind}" for kind, found in (("uid", uids), ("gid", gids)) if not found]
    if absent:
        first = _first_free(etc)
        free = f"{first}-{first + _COUNT - 1}"
        return (
            f"no range of ids for {name} in {' and '.join(absent)}",
            f"as root: usermod --add-subuids {free} --add-subgids {free} {name}",
        )
    from shutil import which

    programs = [program for program in ("newuidmap", "newgidmap") if which(program) is None]
    if programs:
        return f"{' and '.join(programs)} not installed", "as root: apt-get install uidmap (elsewhere: shadow-utils)"
    return "", ""


def _first_free(etc: Path) -> int:
    """The first id above all ranges: two users of one range could change each other's files."""
    ends = [first + count for kind in KINDS for _, first, count in _given(etc / f"sub{kind}")]
    return max([_FIRST, *ends])


def subordinate(path: Path, uid: int) -> tuple[tuple[int, int], ...]:
    """The ranges (first id, count) that root has given to the user in the file ``path``, in its order."""
    owners = (user_name(uid), str(uid))
    return tuple((first, count) for owner, first, count in _given(path) if owner in owners)


def _given(path: Path) -> Iterator[tuple[str, int, int]]:
    """All ranges in the file ``path``: whose, the first id, and how many."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return
    for words in (line.split(":") for line in lines):
        if len(words) == 3 and words[1].isdecimal() and words[2].isdecimal() and int(words[2]) > 0:
            yield words[0], int(words[1]), int(words[2])


def user_name(uid: int) -> str:
    """The name of the account, or the number of a user without one."""
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def current(kind: Kind) -> tuple[Mapping, ...]:
    """The map of the user namespace that this process is in."""
    lines = Path(f"/proc/self/{kind}_map").read_text().splitlines()
    return tuple(Mapping(*map(int, line.split())) for line in lines)


def _stacked(own: int, found: tuple[tuple[int, int], ...]) -> tuple[Mapping, ...]:
    mappings = [Mapping(0, own, 1)]
    for first, count in found[: _MAX_LINES - 1]:
        mappings.append(Mapping(mappings[-1].inside + mappings[-1].count, first, count))
    return tuple(mappings)


# -- putting them there ------------------------------------------------------------------------------------------------


class MappingRefused(Exception):
    """``newuidmap`` or ``newgidmap`` said no; ``uids_done``: after the user ids had been mapped."""

    def __init__(self, text: str, *, uids_done: bool) -> None:
        super().__init__(text)
        self.uids_done = uids_done


@contextmanager
def mapper(wanted: Ranges) -> Iterator[Callable[[], None]]:
    """A function that maps ``wanted`` for this process, to be called once it is in its new user namespace.

    The programs must be started from outside of it. So a child is forked before, which waits.
    """
    pid = os.getpid()
    go_reader, go = os.pipe()
    answer, answer_writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(go)
            if os.read(go_reader, 1):
                os.write(answer_writer, _map(pid, wanted).encode())
        finally:
            os._exit(0)
    os.close(go_reader)
    os.close(answer_writer)

    def carry_out() -> None:
        os.write(go, b"!")
        with os.fdopen(answer, "r", closefd=False) as file:
            done, _, text = file.read().partition(":")
        if done != "gid":
            raise MappingRefused(text or "the mapping process died", uids_done=done == "uid")

    try:
        yield carry_out
    finally:
        os.close(go)
        os.close(answer)
        os.waitpid(child, 0)


def _map(pid: int, wanted: Ranges) -> str:
    """Up to which kind it went well, and what was said then: ``:text``, ``uid:text`` or ``gid:``."""
    import subprocess

    done = ""
    for kind, mappings in (("uid", wanted.uids), ("gid", wanted.gids)):
        words = [word for mapping in mappings for word in str(mapping).split()]
        found = subprocess.run(
            [f"new{kind}map", str(pid), *words], capture_output=True, text=True, errors="replace", check=False
        )
        if found.returncode:
            return f"{done}:{found.stderr.strip() or f'new{kind}map ended with code {found.returncode}'}"
        done = kind
    return f"{done}:"
