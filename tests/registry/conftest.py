"""A store, a web server, and a registry behind it that can be told to fail."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import registry_faults
from loopback import Web

from layerbuild.store.store import Store


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Web]:
    with Web(tmp_path) as web:
        yield web


@pytest.fixture
def faulty(web: Web) -> registry_faults.Registry:
    return registry_faults.Registry(web)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "store", user_xattr=os.geteuid() != 0) as store:
        yield store


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory, program: Callable[[str], str]) -> Path:
    return registry_faults.certificate(program("openssl"), tmp_path_factory.mktemp("tls"))
