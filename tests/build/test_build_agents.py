"""What a container may ask an SSH agent: a relay between it and a small agent that answers everything."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from traces import wait_until

from layerbuild.build.agents import holding, relayed

LIST, SIGN, REMOVE_ALL, LOCK, EXTENSION = 11, 13, 19, 22, 27
FAILURE = b"\x05"


@contextmanager
def agent(path: Path) -> Iterator[list[bytes]]:
    """An agent at ``path`` that answers each question with its own words; the questions."""
    asked: list[bytes] = []

    def serve() -> None:
        client, _ = listener.accept()
        with client:
            while length := client.recv(4, socket.MSG_WAITALL):
                asked.append(client.recv(int.from_bytes(length), socket.MSG_WAITALL))
                client.sendall(framed(b"\x0c" + asked[-1]))

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield asked
        thread.join(5)


def framed(message: bytes) -> bytes:
    return len(message).to_bytes(4) + message


def answer(client: socket.socket) -> bytes:
    length = client.recv(4, socket.MSG_WAITALL)
    return client.recv(int.from_bytes(length), socket.MSG_WAITALL)


def test_keys_are_listed_and_sign_and_all_else_fails(tmp_path: Path) -> None:
    (tmp_path / "relay").mkdir()
    large = bytes([SIGN]) + b"x" * 100_000
    with (
        agent(tmp_path / "agent") as asked,
        relayed(tmp_path / "agent", tmp_path / "relay", uid=0, gid=0, mode=0o600) as path,
        socket.socket(socket.AF_UNIX) as client,
    ):
        client.connect(str(path))
        for kind in (REMOVE_ALL, LIST, LOCK, EXTENSION, 17, 25):
            client.sendall(framed(bytes([kind])))
            assert answer(client) == (b"\x0c\x0b" if kind == LIST else FAILURE)
        client.sendall(framed(large)[:50])
        client.sendall(framed(large)[50:])
        assert answer(client) == b"\x0c" + large
    assert asked == [bytes([LIST]), large]


@pytest.mark.parametrize("data", [b"\0\0\0\0", b"\xff\xff\xff\xff\x0b", b"GET / HTTP/1.1\r\n\r\n"])
def test_what_is_no_question_ends_the_talk(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "relay").mkdir()
    with (
        agent(tmp_path / "agent") as asked,
        relayed(tmp_path / "agent", tmp_path / "relay", uid=0, gid=0, mode=0o600) as path,
        socket.socket(socket.AF_UNIX) as client,
    ):
        client.connect(str(path))
        client.sendall(data)
        client.settimeout(5)
        with suppress(ConnectionResetError):  # what it had not read yet was thrown away
            assert client.recv(1) == b""
    assert asked == []


def test_an_agent_for_keys_goes_with_the_build(program: Callable[[str], str]) -> None:
    program("ssh-agent")
    with holding((), dict(os.environ)) as place:
        assert place.is_socket()
    wait_until(lambda: not place.exists())
