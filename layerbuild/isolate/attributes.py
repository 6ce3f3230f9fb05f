"""Extended attributes that a command sets or removes: as it asks for, but for the marks of layer/standin.py.

A mark says what a layer will hold (a device, an owner), so a command that could set one might have made for it what it
has no right to. It gets the answer that all is well, and nothing is changed: as where root builds, whose layers leave
such attributes out. Every call is made here in the command's place, with its rights: a call that is let through reads
the name once more, from memory that another thread may have changed meanwhile (seccomp_unotify(2)).
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from layerbuild.isolate.callers import AT_FDCWD, MASK, OF_ITSELF, PATH, Callers, Gone
from layerbuild.isolate.notices import Listener, Notice
from layerbuild.layer import standin

_MOST: Final = 65536  # bytes of a value: XATTR_SIZE_MAX
_DESCRIPTOR: Final = re.compile(rb"/(?:proc/(?:thread-)?self/fd|dev/fd)/([0-9]{1,9})")


class Attributes:
    """Answers the calls that change attributes, of which ``listener`` tells."""

    def __init__(self, listener: Listener, callers: Callers) -> None:
        self._listener = listener
        self._callers = callers

    def answer(self, notice: Notice) -> None:
        """OSError if the call fails."""
        target, pointer, value, size, flags, _ = notice.arguments
        name = self._callers.string(notice, pointer)
        with self._file(notice, target) as file:
            if not name.startswith(standin.SPACE):
                text = self._value(notice, value, size) if "set" in notice.name else None
                self._change(notice, file, name, text, flags & MASK)
        self._listener.result(notice)

    @contextmanager
    def _file(self, notice: Notice, target: int) -> Iterator[int]:
        if notice.name.startswith("f"):
            with self._callers.file_of(notice, target) as file:
                yield file
            return
        path = self._callers.string(notice, target)
        own = _DESCRIPTOR.fullmatch(path)
        if own is not None:
            with self._callers.file_of(notice, int(own[1])) as file:
                yield file
            return
        if path.startswith(OF_ITSELF):
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        with self._callers.at(notice, AT_FDCWD, path) as place, self._callers.acting(notice.thread):
            file = os.open(path, PATH | (os.O_NOFOLLOW if notice.name.startswith("l") else 0), dir_fd=place)
        try:
            yield file
        finally:
            os.close(file)

    def _value(self, notice: Notice, pointer: int, size: int) -> bytes:
        if size > _MOST:
            raise OSError(errno.E2BIG, os.strerror(errno.E2BIG))
        text = self._callers.read(notice, pointer, size) if size else b""
        if len(text) < size:
            raise OSError(errno.EFAULT, os.strerror(errno.EFAULT))
        return text

    def _change(self, notice: Notice, file: int, name: bytes, value: bytes | None, flags: int) -> None:
        with self._callers.acting(notice.thread):
            if not self._listener.is_valid(notice):
                raise Gone
            os.fchdir(self._callers.proc)  # no call takes a descriptor that is open for its path alone
            if value is None:
                os.removexattr(self._callers.itself(file), name)
            else:
                os.setxattr(self._callers.itself(file), name, value, flags)
