"""An SSH agent for a container: a socket of the container's own, whose questions go on to the caller's agent.

The agent's own socket can't simply be mounted: it belongs to the caller, and so does whoever may connect to it. And not
all may be asked: a step may list keys and let them sign, but not add, remove or lock any. Keys in files are lent
through an agent of the build's own. Source: draft-ietf-sshm-ssh-agent (messages), BuildKit's ``sshprovider``.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from layerbuild.errors import MachineError, UsageError

_LIST = 11  # SSH_AGENTC_REQUEST_IDENTITIES
_ALLOWED = (_LIST, 13)  # and SSH_AGENTC_SIGN_REQUEST
_FAILURE = b"\x05"  # SSH_AGENT_FAILURE
_LONGEST = 256 << 10  # bytes of a message; OpenSSH's own limit


# -- a relay -----------------------------------------------------------------------------------------------------------


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
    """Pass each question on, and its answer back; one that may not be asked fails as the protocol has it."""
    with client, socket.socket(socket.AF_UNIX) as server, suppress(OSError):
        server.connect(str(agent))
        while (question := _message(client)) is not None:
            answer: bytes | None = _FAILURE
            if question[0] in _ALLOWED:
                server.sendall(_framed(question))
                answer = _message(server)
            if answer is None:
                return
            client.sendall(_framed(answer))


def _message(end: socket.socket) -> bytes | None:
    """The next message without its length; None if the other side is gone, or does not speak the protocol."""
    length = int.from_bytes(_exactly(end, 4))
    content = _exactly(end, length) if length <= _LONGEST else b""
    return content if content and len(content) == length else None


def _exactly(end: socket.socket, size: int) -> bytes:
    return end.recv(size, socket.MSG_WAITALL) if size else b""


def _framed(message: bytes) -> bytes:
    return len(message).to_bytes(4) + message


# -- keys --------------------------------------------------------------------------------------------------------------


@contextmanager
def holding(keys: Sequence[bytes], environment: Mapping[str, str]) -> Iterator[Path]:
    """The socket of a new ssh-agent that holds ``keys``, the contents of private key files, until the context ends.

    UsageError for a key that can't be used, one that a passphrase protects included; MachineError without ssh-agent.
    The agent ends with this process, however that ends: it goes once the program that it has started is gone (ssh-agent
    (1)), and that reads from here.
    """
    import subprocess

    command = ["ssh-agent", "sh", "-c", 'echo "$SSH_AUTH_SOCK"; echo "$SSH_AGENT_PID"; exec cat']
    quiet = {**environment, "SSH_ASKPASS_REQUIRE": "never"}
    try:
        running = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=quiet)
    except FileNotFoundError as error:
        hint = "install OpenSSH's client programs: apt-get install openssh-client, or apk add openssh-client-default"
        raise MachineError("a key file needs the program ssh-agent, which is not there", hint=hint) from error
    with running:
        assert running.stdin is not None and running.stdout is not None
        place, agent = os.fsdecode(running.stdout.readline().strip()), running.stdout.readline().strip()
        if not agent:
            raise MachineError("ssh-agent does not start", hint="run it yourself, and give --ssh its socket")
        try:
            _wait_for_answer(place)
            for key in keys:
                _add(key, {**quiet, "SSH_AUTH_SOCK": place})
            yield Path(place)
        finally:
            with suppress(ProcessLookupError):
                os.kill(int(agent), signal.SIGTERM)


def _wait_for_answer(place: str) -> None:
    """An agent that is told to end before it has got that far leaves its socket behind."""
    with socket.socket(socket.AF_UNIX) as client, suppress(OSError):
        client.connect(place)
        client.sendall(_framed(bytes((_LIST,))))
        _message(client)


def _add(key: bytes, environment: Mapping[str, str]) -> None:
    import subprocess

    # In a session of its own ssh-add finds no terminal where it could ask for a passphrase.
    done = subprocess.run(
        ["ssh-add", "-q", "-"], input=key, env=environment, capture_output=True, start_new_session=True, check=False
    )
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace").strip().replace("(stdin)", "it")
        protected = "passphrase" in said.lower()
        raise UsageError(
            "it is protected by a passphrase" if protected else f"it is no private key: {said}",
            hint="start an ssh-agent, `ssh-add` the key, and give --ssh the agent" if protected else "",
        )
