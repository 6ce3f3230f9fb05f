"""A layer's diff folder, written beside whoever reads the files and makes the tar; where there are many, by a process.

::

    writer's process                                    process of the folder
    path, metadata, whole content  ── batches, pipe ──▶ file in the folder
    a large file's pieces ──▶ file in the folder        (which waits meanwhile)

To make a small file takes the kernel a third of all that a COPY does with it. A thread for that would cost more than it
gives: each of the five system calls for a file hands the interpreter's lock over and back (20,000 files on two cores:
2.8 s without, 3.6 s with a thread and half as much processor time again, 2.4 s with a process and no more of it). A
process costs its start, some 50 ms on the other core: it is started where files turn out to be many.
"""

from __future__ import annotations

import fcntl
import marshal
import os
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, Final, Self, cast

from layerbuild import errors
from layerbuild.layer.entry import Entry, Kind, RootMetadata
from layerbuild.layer.tree import Tree, explained

_FEW: Final = 1024  # entries that are written before a process is worth its start
_ENTRIES: Final = 256  # in a batch
_BYTES: Final = 1 << 18  # of contents in a batch, where that is sooner
_PIPE: Final = 1 << 20  # as much as an ordinary user may ask for (pipe(7)); the kernel may refuse it
_LENGTH: Final = 8  # bytes before each message that tell its length

_Told = tuple[Any, ...]  # a message, or an entry with its content: what marshal takes


class FolderWriter:
    """Writes the folder ``root``, which exists and is empty, entry by entry, parents first.

    What goes wrong with an entry names it, and may be raised by a later call. As a context manager it leaves no process
    behind, and no more is written after it has been left. ``user_xattr`` as for ``Tree``.
    """

    def __init__(self, root: Path, *, user_xattr: bool) -> None:
        self._root = root
        self._user_xattr = user_xattr
        self._tree = Tree(root, user_xattr=user_xattr)
        self._left = _FEW if len(os.sched_getaffinity(0)) > 1 else sys.maxsize
        self._process: _Process | None = None
        self._batch: list[_Told] = []
        self._size = 0

    def add(self, entry: Entry, content: bytes = b"") -> None:
        """Write ``entry``, a file with its whole ``content``."""
        if self._left:
            self._left -= 1
            _add(self._tree, entry, content)
            return
        self._batch.append(_told(entry, content))
        self._size += len(content)
        if len(self._batch) >= _ENTRIES or self._size >= _BYTES:
            self._send()

    def add_pieces(self, entry: Entry, pieces: Iterable[bytes], *, source: int | None) -> None:
        """Write a large file; ``pieces`` and ``source`` as for ``Tree.file``."""
        self._settle()
        self._tree.file(entry, pieces, source=source)

    def finish(self, root: RootMetadata) -> None:
        """Complete the folder."""
        self._settle()
        if self._process is not None:
            self._process.ask("finish")
        self._tree.finish(root)

    def fail(self, error: BaseException) -> None:
        """From another thread: whoever waits here for the process gets ``error``."""
        if self._process is not None:
            self._process.fail(error)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.end()
        self._tree.__exit__()

    def _settle(self) -> None:
        """Have all on the disk that was added."""
        if self._batch:
            self._send()
        if self._process is not None:
            self._process.ask("settle")

    def _send(self) -> None:
        if self._process is None:
            self._process = _Process(self._root, user_xattr=self._user_xattr)
        self._process.make(self._batch)
        self._batch = []
        self._size = 0


class _Process:
    """The other process, as seen from here. A message to it is a word and a batch: "make" it; "settle", which asks for
    an answer; "finish" the folder, and answer. An answer is an error's class, text and hint, or three times nothing."""

    def __init__(self, root: Path, *, user_xattr: bool) -> None:
        import subprocess

        self._root = root
        self._failed: BaseException | None = None
        package = os.path.dirname(os.path.dirname(errors.__file__))
        code = f"import sys; sys.path.insert(0, {package!r}); from {__name__} import serve; serve()"
        # In a group of its own: Ctrl-C at the terminal is for the build to act upon. It ends with its input.
        self._popen = subprocess.Popen(
            [sys.executable, "-I", "-S", "-B", "-c", code, root, "user" if user_xattr else "trusted"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            process_group=0,
        )
        self._input = cast(BinaryIO, self._popen.stdin)
        self._answers = cast(BinaryIO, self._popen.stdout)
        with suppress(OSError):
            fcntl.fcntl(self._input, fcntl.F_SETPIPE_SZ, _PIPE)

    def make(self, batch: list[_Told]) -> None:
        """Hand it over; raises what went wrong with an earlier one."""
        try:
            _put(self._input, ("make", batch))
        except BrokenPipeError:
            self._hear()

    def ask(self, word: str) -> None:
        """Wait until all is made, and ``word`` done; raises what went wrong."""
        with suppress(BrokenPipeError):  # it has said why
            _put(self._input, (word, []))
        self._hear()

    def fail(self, error: BaseException) -> None:
        """From another thread: end it, because of ``error``."""
        self._failed = error
        self._popen.kill()

    def end(self) -> None:
        """End it, whatever it does."""
        self._popen.kill()
        self._popen.wait()
        with suppress(BrokenPipeError):  # of what it did not take
            self._input.close()
        self._answers.close()

    def _hear(self) -> None:
        answer = _take(self._answers)
        if answer is None and self._failed is not None:
            raise self._failed
        if answer is None:
            code = self._popen.wait()
            raise errors.MachineError(f"the process that writes {self._root} ended with exit code {code}")
        kind, text, hint = answer
        if kind:
            raise getattr(errors, kind)(text, hint=hint)
        if text:
            raise RuntimeError(text)


# -- in the other process ----------------------------------------------------------------------------------------------


def serve() -> None:
    """Write the folder that the command line names, from what comes on standard input."""
    source, answers = sys.stdin.buffer, sys.stdout.buffer
    _, root, space = sys.argv
    try:
        with Tree(Path(root), user_xattr=space == "user") as tree:
            while (message := _take(source)) is not None:
                word, batch = message
                for entry, content in map(_understood, batch):
                    _add(tree, entry, content)
                if word == "finish":
                    tree.finish()
                if word != "make":
                    _put(answers, ("", "", ""))
    except errors.LayerbuildError as error:
        _put(answers, (type(error).__name__, error.message, error.hint))
    except Exception:
        import traceback

        _put(answers, ("", traceback.format_exc(), ""))


# -- in both -----------------------------------------------------------------------------------------------------------


def _put(stream: BinaryIO, message: _Told) -> None:
    data = marshal.dumps(message)
    stream.write(len(data).to_bytes(_LENGTH))
    stream.write(data)
    stream.flush()


def _take(stream: BinaryIO) -> _Told | None:
    """The next message; None: there will be none, or only a part of it."""
    length = stream.read(_LENGTH)
    data = stream.read(int.from_bytes(length)) if len(length) == _LENGTH else b""
    return marshal.loads(data) if data and len(data) == int.from_bytes(length) else None


def _add(tree: Tree, entry: Entry, content: bytes) -> None:
    try:
        tree.add(entry, (content,) if content else ())
    except OSError as error:
        raise explained(error, f"writing /{os.fsdecode(entry.path)}") from error


def _told(entry: Entry, content: bytes) -> _Told:
    """Without what no folder shows."""
    return (
        entry.path,
        entry.kind.value,
        entry.mode,
        entry.uid,
        entry.gid,
        entry.mtime,
        entry.mtime_ns,
        entry.target,
        entry.device,
        entry.xattrs,
        content,
    )


_KINDS: Final = {kind.value: kind for kind in Kind}


def _understood(told: _Told) -> tuple[Entry, bytes]:
    path, kind, mode, uid, gid, mtime, mtime_ns, target, device, xattrs, content = told
    return Entry(path, _KINDS[kind], mode, uid, gid, len(content), mtime, mtime_ns, target, device, xattrs), content
