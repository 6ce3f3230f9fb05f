"""From the environment and the global options to a registry client, and to what brings images into a store."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from layerbuild.errors import UsageError

if TYPE_CHECKING:
    from layerbuild.cli.main import Settings
    from layerbuild.digest import BlobDigest
    from layerbuild.events import Observer
    from layerbuild.image.config import Platform
    from layerbuild.reference import Reference
    from layerbuild.registry.client import Client
    from layerbuild.registry.credentials import Keychain
    from layerbuild.registry.hosts import Hosts
    from layerbuild.registry.pull import Puller
    from layerbuild.store.arrivals import Arrival
    from layerbuild.store.images import StoredImage
    from layerbuild.store.sources import Source
    from layerbuild.store.store import Store


_CLIENT = "layerbuild.client"


def options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The global options about registries, spelled as dockerd has them."""
    for option in reversed(
        [
            click.option(
                "--insecure-registry",
                "insecure",
                metavar="HOST",
                multiple=True,
                envvar="LAYERBUILD_INSECURE_REGISTRIES",
                help="Take any certificate from it, and plain HTTP.  [env: LAYERBUILD_INSECURE_REGISTRIES]",
            ),
            click.option(
                "--registry-mirror",
                "mirrors",
                metavar="[REGISTRY=]HOST[/PATH]",
                multiple=True,
                help="Ask it before the registry.  [default registry: docker.io]",
            ),
        ]
    ):
        command = option(command)
    return command


def client(context: click.Context | None = None) -> Client:
    """The client of this run; of the run of ``context`` for a thread that click knows nothing of."""
    from layerbuild.registry.client import Client
    from layerbuild.registry.hosts import certificate_folders, trust
    from layerbuild.registry.transport import Transport

    root = (context or click.get_current_context()).find_root()
    if _CLIENT not in root.meta:  # one for all: tokens and connections are shared
        environment = dict(os.environ)
        folders = certificate_folders(environment, home=Path.home())
        transport = Transport(environment, trust=lambda host: trust(host, folders))
        root.meta[_CLIENT] = Client(_hosts(root.obj), keychain(), transport)
    found: Client = root.meta[_CLIENT]
    return found


def keychain() -> Keychain:
    """The credentials of this user."""
    from layerbuild.registry.credentials import Keychain, credential_files

    environment = dict(os.environ)
    return Keychain(credential_files(environment, home=Path.home(), user=os.getuid()), environment)


def read_mirrors(texts: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """What ``--registry-mirror`` says, by registry; UsageError."""
    from layerbuild.reference import DEFAULT_REGISTRY

    found: dict[str, tuple[str, ...]] = {}
    for text in texts:
        registry, equals, place = text.rpartition("=")
        registry = registry if equals else DEFAULT_REGISTRY
        place = place.removeprefix("https://").rstrip("/")
        if not place or not registry or "://" in place:
            hint = "--registry-mirror mirror.example.com; plain HTTP needs --insecure-registry mirror.example.com"
            raise UsageError(f"--registry-mirror {text!r} names no host", hint=hint)
        found[registry] = (*found.get(registry, ()), place)
    return found


def _hosts(settings: Settings) -> Hosts:
    from layerbuild.registry.hosts import Hosts, read_rules, rule_files

    rules = read_rules(rule_files(dict(os.environ), home=Path.home()))
    return Hosts(rules, frozenset(settings.insecure), read_mirrors(settings.mirrors))


class Bringer:
    """Pulls into a store, once something is asked for: most commands ask for nothing, and need no client.

    Stages that are built side by side may all ask, each from a thread of its own.
    """

    def __init__(self, store: Store, observe: Observer) -> None:
        self._store = store
        self._observe = observe
        self._context = click.get_current_context()  # of the thread that read the command line
        self._guard = threading.Lock()
        self._made: Puller | None = None

    def pull(self, reference: Reference, platform: Platform, *, tag: bool = True) -> StoredImage:
        """As ``build.bases.Puller`` has it."""
        return self._puller.pull(reference, platform, tag=tag)

    @contextmanager
    def supply(self, wanted: Sequence[Sequence[Source]]) -> Iterator[Mapping[BlobDigest, Arrival]]:
        """As ``store.sources.Supplier`` has it."""
        with self._puller.supply(wanted) as arrivals:
            yield arrivals

    @property
    def _puller(self) -> Puller:
        with self._guard:
            if self._made is None:
                self._made = self._make()
            return self._made

    def _make(self) -> Puller:
        from layerbuild.events import BlobMoved, Note
        from layerbuild.registry.pull import Puller

        def tell(digest: BlobDigest, place: str, done: int, size: int) -> None:
            self._observe(BlobMoved(digest, "pull", place, done, size))

        return Puller(self._store, client(self._context), tell=tell, note=lambda text: self._observe(Note(text)))
