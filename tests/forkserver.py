"""Commands forked from a process that has imported all that they need: of most, the start of Python is half the time.

::

    test ── arguments, environment, folder, streams ──▶ server ── fork ──▶ command
         ◀──────────────────── exit code ──────────────────┘

For tests of what commands do, not of how they start or of the processes that they are (``pytest.mark.forked``). A
command is a process of its own here too, with its streams as pipes. Each module of tests has servers of its own, and so
another seed for hashes.
"""

from __future__ import annotations

import io
import json
import os
import socket
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

_TEXT = Path(__file__).with_name("forkserver_main.py").read_text()
_MOUNTS = Path("/proc/self/mountinfo")

active = False  # whether commands are forked now
servers: dict[tuple[str, ...], _Server] = {}
_choosing = threading.Lock()


class _Server:
    """Is started by the words ``interpreter``."""

    def __init__(self, interpreter: Sequence[str], environment: Mapping[str, str]) -> None:
        self._mounts = _MOUNTS.read_bytes()
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [*interpreter, "-c", _TEXT, str(theirs.fileno())],
                env=environment,
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
            )

    @property
    def is_stale(self) -> bool:
        """Whether it has a mount namespace of its own, and there are others here by now."""
        apart = os.readlink(f"/proc/{self._process.pid}/ns/mnt") != os.readlink("/proc/self/ns/mnt")
        return apart and self._mounts != _MOUNTS.read_bytes()

    def close(self) -> None:
        self._control.close()
        self._process.wait()

    def run(
        self, arguments: Sequence[str], environment: Mapping[str, str], folder: str, stdin: bytes
    ) -> subprocess.CompletedProcess[bytes]:
        request = {"arguments": arguments, "environment": environment, "folder": folder}
        with ExitStack() as ours:
            with ExitStack() as theirs:
                described = theirs.enter_context(os.fdopen(os.memfd_create("request"), "w+"))
                described.write(json.dumps(request))
                described.seek(0)
                pipes = [os.pipe() for _ in range(4)]
                (reading, feeding), *read = pipes
                given = [reading, *(writing for _, writing in read)]
                for descriptor in given:
                    theirs.callback(os.close, descriptor)
                feed = ours.enter_context(io.FileIO(feeding, "wb"))
                out, err, code = (ours.enter_context(os.fdopen(number, "rb")) for number, _ in read)
                socket.send_fds(self._control, [b"1"], [described.fileno(), *given])
            found: list[bytes] = []
            beside = [
                threading.Thread(target=_feed, args=(feed, stdin)),
                threading.Thread(target=lambda: found.append(err.read())),
            ]
            for thread in beside:
                thread.start()
            told = out.read()
            for thread in beside:
                thread.join()
            return subprocess.CompletedProcess(list(arguments), int(code.read()), told, found[0])


def run(
    interpreter: Sequence[str],
    arguments: Sequence[str],
    environment: Mapping[str, str],
    folder: str,
    stdin: bytes,
    *,
    usual: Mapping[str, str],
) -> subprocess.CompletedProcess[bytes]:
    """Run layerbuild with ``arguments``. ``usual`` is the environment in which the ``interpreter`` starts."""
    with _choosing:
        server = servers.get(tuple(interpreter))
        if server is not None and server.is_stale:
            server.close()
            server = None
        if server is None:
            server = servers[tuple(interpreter)] = _Server(interpreter, usual)
    return server.run(arguments, environment, folder, stdin)


@contextmanager
def used() -> Iterator[None]:
    """Let commands be forked meanwhile."""
    global active
    active = True
    try:
        yield
    finally:
        active = False
        for server in servers.values():
            server.close()
        servers.clear()


def _feed(pipe: io.FileIO, data: bytes) -> None:
    with pipe, suppress(BrokenPipeError):  # who has read enough
        left = memoryview(data)
        while left:
            left = left[pipe.write(left) :]
