"""EXPOSE: the ports that a container of the image listens on."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self

from layerbuild.errors import RecipeError
from layerbuild.frozen import frozen
from layerbuild.recipe.arguments import blank_separated
from layerbuild.recipe.instructions import flags
from layerbuild.recipe.instructions.base import Instruction, Lowered, at_least_one
from layerbuild.recipe.instructions.spelling import plain_list
from layerbuild.recipe.scope import Scope
from layerbuild.recipe.syntax import Statement
from layerbuild.recipe.words import Word, expand_words

PROTOCOLS = ("tcp", "udp", "sctp")
_HINT = "write PORT, PORT/udp or FIRST-LAST"


@frozen(kw_only=True)
class Expose(Instruction):
    """``EXPOSE PORT[-LAST][/PROTOCOL] …``. Docker also takes ``ip:host:container``; only the last part counts."""

    words: tuple[Word, ...]

    shape = blank_separated

    @classmethod
    def parse(cls, statement: Statement) -> Self:
        flags.read(statement)
        words = at_least_one(statement, blank_separated).words
        return cls(statement=statement, words=tuple(sorted(words, key=lambda word: word.text)))

    def lower(self, scope: Scope) -> Lowered:
        ports: list[str] = []
        for word in self.words:
            with self._blamed(word):
                for spec in self._specs(word, scope):
                    ports += read_ports(spec)
        exposed = sorted({*scope.config.exposed_ports, *ports})
        return self.metadata(scope.with_config(exposed_ports=tuple(exposed)), f"EXPOSE {plain_list(ports)}")

    def specs(self, scope: Scope) -> tuple[str, ...]:
        """What is exposed, expanded but not understood."""
        found: list[str] = []
        for word in self.words:
            with self._blamed(word):
                found += self._specs(word, scope)
        return tuple(found)

    def _specs(self, word: Word, scope: Scope) -> tuple[str, ...]:
        # The one instruction for which a variable may hold several words.
        return expand_words(word.text, scope.variables, escape=self.statement.escape)

    @contextmanager
    def _blamed(self, word: Word) -> Iterator[None]:
        try:
            yield
        except RecipeError as error:
            raise self.statement.error(error.message, at=word, hint=error.hint) from error


def read_ports(spec: str) -> list[str]:
    """The ports that ``spec`` means, as ``port/protocol``; a RecipeError, without a place, if it means none.

    >>> read_ports("127.0.0.1::80-81/UDP")
    ['80/udp', '81/udp']
    """
    ports, _, protocol = spec.partition("/")
    protocol = protocol.lower() or "tcp"
    address, _, host_and_port = ports.rpartition(":")[0].rpartition(":")
    container = ports.rpartition(":")[2]
    host = host_and_port
    if protocol not in PROTOCOLS:
        raise _invalid(spec, f"invalid proto: {protocol}")
    _check_address(spec, address)
    if not container:
        raise _invalid(spec, "no port specified")
    first, last = _range(spec, container, "containerPort")
    if host:
        host_first, host_last = _range(spec, host, "hostPort")
        if host_last - host_first != last - first and first != last:
            raise _invalid(spec, f"invalid ranges specified for container and host Ports: {container} and {host}")
    return [f"{port}/{protocol}" for port in range(first, last + 1)]


def _invalid(spec: str, why: str) -> RecipeError:
    return RecipeError(f'invalid port: "{spec}": {why}', hint=_HINT)


def _check_address(spec: str, address: str) -> None:
    bare = address[1:-1] if address.startswith("[") and address.endswith("]") else address
    if not bare:
        return
    try:
        ipaddress.ip_address(bare.partition("%")[0])
    except ValueError as error:
        raise _invalid(spec, f"invalid IP address: {bare}") from error


def _range(spec: str, text: str, what: str) -> tuple[int, int]:
    first, dash, last = text.partition("-")
    low, high = _port(spec, first, what), _port(spec, last if dash else first, what)
    if high < low:
        raise _invalid(spec, f"invalid {what}: {text}")  # a range that ends before it starts
    return low, high


def _port(spec: str, text: str, what: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 20 and int(text) <= 65535):
        raise _invalid(spec, f"invalid {what}: {text}")
    return int(text)
