"""Whom a process takes itself for, beside what the kernel says of a real one that makes the same calls."""

from __future__ import annotations

import ctypes
import itertools
import os
from pathlib import Path

import pytest

from layerbuild.isolate.credentials import KEEP, Credentials, Ids, Refused

_libc = ctypes.CDLL(None, use_errno=True)
NUMBERS = (0, 5, 7)
STARTS = [Ids(0, 0, 0, 0), Ids(5, 5, 5, 5), Ids(5, 0, 0, 0), Ids(5, 7, 0, 7), Ids(0, 5, 5, 5), Ids(5, 7, 7, 7)]


def real(start: Ids, call: str, arguments: tuple[int, ...]) -> Ids | None:
    """What a process with the ids ``start`` has after ``call``; None: it was refused."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        _libc.setresuid(start.real, start.effective, start.saved)
        refused = getattr(_libc, call)(*(ctypes.c_uint32(number) for number in arguments)) < 0
        status = Path("/proc/self/status").read_text()
        said = "refused" if refused else status.split("Uid:")[1].splitlines()[0]
        os.write(writer, said.encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as file:
        said = file.read()
    os.waitpid(pid, 0)
    return None if said == "refused" else Ids(*map(int, said.split()))


def ours(start: Ids, call: str, arguments: tuple[int, ...]) -> Ids | None:
    methods = {"setuid": start.set, "setreuid": start.set_two, "setresuid": start.set_three}
    try:
        return methods[call](*arguments, privileged=start.effective == 0)  # type: ignore[operator]
    except Refused:
        return None


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="becomes other users: needs root")
@pytest.mark.parametrize("start", STARTS, ids=str)
def test_ids_change_as_the_kernel_changes_them(start: Ids) -> None:
    calls = [("setuid", (number,)) for number in NUMBERS]
    calls += [("setreuid", pair) for pair in itertools.product((*NUMBERS, KEEP), repeat=2)]
    calls += [("setresuid", three) for three in itertools.product((0, 7, KEEP), repeat=3)]
    for call, arguments in calls:
        assert ours(start, call, arguments) == real(start, call, arguments), (call, arguments)


def test_file_ids_follow_or_are_set_alone() -> None:
    assert Ids.all(0).set_fs(5, privileged=True) == Ids(0, 0, 0, 5)
    assert Ids.all(5).set_fs(0, privileged=False) == Ids.all(5)
    assert Ids(5, 7, 7, 7).set_fs(5, privileged=False) == Ids(5, 7, 7, 5)


def test_who_may_give_a_file_away() -> None:
    me = Credentials(Ids.all(5), Ids.all(50), (50, 60))
    me.check_chown((5, 50), (5, 60))
    for old, new in (((5, 50), (7, 50)), ((7, 50), (7, 60)), ((5, 50), (5, 70))):
        with pytest.raises(Refused):
            me.check_chown(old, new)
    Credentials().check_chown((7, 7), (5, 5))
    with pytest.raises(Refused):
        me.with_groups((1,))
