"""A client as tests want it: no environment, no patience."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from registries import Registry

from layerbuild.network import Trust
from layerbuild.registry.client import Client, Repository
from layerbuild.registry.credentials import Keychain
from layerbuild.registry.hosts import Endpoint, Hosts
from layerbuild.registry.transport import Patience, Transport

PATIENCE = Patience(tries=3, pause=0.01, longest=2.0, connect=5.0, read=0.5)


def client(
    *files: Path,
    hosts: Hosts | None = None,
    environment: Mapping[str, str] | None = None,
    patience: Patience = PATIENCE,
    trust: Callable[[str], Trust] = lambda host: Trust(),
) -> Client:
    keychain = Keychain(files, environment or {})
    return Client(hosts or Hosts(), keychain, Transport(environment or {}, patience=patience, trust=trust))


def repository(registry: Registry, name: str, *files: Path) -> Repository:
    return client(*files, patience=Patience()).open(Endpoint(registry.host, name))  # it is a real one
