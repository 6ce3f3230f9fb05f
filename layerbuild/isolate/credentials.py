"""The ids of a process that the kernel does not know, as far as the process can tell: set and asked for by its calls.

The rules are those of setuid(2), setreuid(2), setresuid(2), setfsuid(2), setgroups(2) and credentials(7). Groups obey
the same as users, with the privilege still that of the effective user. Pure: values in, values out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from layerbuild.frozen import frozen

KEEP: Final = 0xFFFFFFFF  # -1: leave this id as it is


class Refused(Exception):
    """What the kernel answers with EPERM."""


@frozen
class Ids:
    """The four ids of one kind. ``fs`` counts for files."""

    real: int = 0
    effective: int = 0
    saved: int = 0
    fs: int = 0

    @classmethod
    def all(cls, number: int) -> Ids:
        return cls(number, number, number, number)

    def set(self, number: int, *, privileged: bool) -> Ids:
        """setuid(2): for the privileged all ids, for others the effective one."""
        if privileged:
            return Ids.all(number)
        self._check(number, self.real, self.saved)
        return replace(self, effective=number, fs=number)

    def set_two(self, real: int, effective: int, *, privileged: bool) -> Ids:
        """setreuid(2): the saved id follows where the real one is set, or the effective to what was not the real."""
        if not privileged:
            self._check(real, self.real, self.effective)
            self._check(effective, self.real, self.effective, self.saved)
        new_real = self.real if real == KEEP else real
        new = self.effective if effective == KEEP else effective
        follows = real != KEEP or (effective != KEEP and effective != self.real)
        return Ids(new_real, new, new if follows else self.saved, new)

    def set_three(self, real: int, effective: int, saved: int, *, privileged: bool) -> Ids:
        """setresuid(2)."""
        known = (self.real, self.effective, self.saved)
        wanted = (real, effective, saved)
        if not privileged:
            for number in wanted:
                self._check(number, *known)
        new = [old if number == KEEP else number for number, old in zip(wanted, known, strict=True)]
        return Ids(new[0], new[1], new[2], new[1])

    def set_fs(self, number: int, *, privileged: bool) -> Ids:
        """setfsuid(2), which refuses without a word."""
        if privileged or number in (self.real, self.effective, self.saved, self.fs):
            return replace(self, fs=number)
        return self

    def _check(self, number: int, *allowed: int) -> None:
        if number != KEEP and number not in allowed:
            raise Refused


@frozen
class Credentials:
    """Who a process takes itself for. ``program`` is the set-user-ID program whose owner's id it has got already.
    ``keeps``: it keeps its capabilities when it becomes another user, until it executes something."""

    user: Ids = Ids()
    group: Ids = Ids()
    groups: tuple[int, ...] = ()
    program: tuple[int, int] | None = None
    keeps: tuple[int, int] | None = None

    @property
    def privileged(self) -> bool:
        return self.user.effective == 0 or self.keeps is not None

    @property
    def is_root(self) -> bool:
        """Whether it is root in every respect, so that all it does may be left to the kernel."""
        return self.user == Ids() and self.group == Ids()

    def check_chown(self, old: tuple[int, int], new: tuple[int, int]) -> None:
        """Refused unless this process may give a file of owner ``old`` to ``new``: chown(2)."""
        if self.privileged:
            return
        groups = (old[1], self.group.fs, *self.groups)
        if old[0] != self.user.fs or new[0] != old[0] or new[1] not in groups:
            raise Refused

    def with_groups(self, groups: Sequence[int]) -> Credentials:
        """setgroups(2)."""
        if not self.privileged:
            raise Refused
        return replace(self, groups=tuple(groups))
