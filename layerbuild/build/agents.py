"""An SSH agent for a container: a socket of the container's own, whose talk goes on to the caller's agent.

The agent's own socket can't simply be mounted: it belongs to the caller, and so does whoever may connect to it.
"""

from __future__ import annotations

import os
import select
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_PIECE = 65536


@contextmanager
def relayed(agent: Path, folder: Path, *, uid: int, gid: int, mode: int) -> Iterator[Path]:
    """A socket in ``folder``, with this owner and mode, that leads to the socket ``agent`` until the context ends.

    OSError if ``folder`` can't hold one. An agent that does not answer is found out by who connects.
    """
    path = folder / "agent"
    with socket.socket(socket.AF_UNIX) as listener:
        _bind(listener, folder, path.name)
        with suppress(OSError):  # an id that this user namespace does not have
            os.chown(path, uid, gid)
        path.chmod(mode)
        listener.listen()
        threading.Thread(target=_accept, args=(listener, agent), daemon=True).start()
        try:
            yield path
        finally:
            listener.shutdown(socket.SHUT_RDWR)  # wakes the thread, which a close would not (accept(2))


def _bind(listener: socket.socket, folder: Path, name: str) -> None:
    # A socket's address takes 107 bytes (unix(7)), and a store may lie deeper than that.
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        listener.bind(f"/proc/self/fd/{descriptor}/{name}")
    finally:
        os.close(descriptor)


def _accept(listener: socket.socket, agent: Path) -> None:
    with suppress(OSError):  # the listener was shut down
        while True:
            client, _ = listener.accept()
            threading.Thread(target=_talk, args=(client, agent), daemon=True).start()


def _talk(client: socket.socket, agent: Path) -> None:
    with client, socket.socket(socket.AF_UNIX) as server, suppress(OSError):
        server.connect(str(agent))
        other = {client: server, server: client}
        while True:
            for ready in select.select(list(other), [], [])[0]:
                data = ready.recv(_PIECE)
                if not data:
                    return
                other[ready].sendall(data)
