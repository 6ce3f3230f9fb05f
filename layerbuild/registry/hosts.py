"""Where a registry's repositories are asked for: its host on the network, mirrors, and how far each is trusted.

The configuration has the form of containers-registries.conf(5), version 2, so a machine's own is honoured as it is::

    [[registry]]
    prefix = "docker.io"              # of image names: a registry, a repository, or "*.example.com"
    location = "registry-1.docker.io" # what stands there instead   [default: the prefix]
    insecure = false                  # any certificate will do, and so does plain HTTP
    blocked = false
    [[registry.mirror]]               # asked before the registry itself, in order
    location = "mirror.example.com/hub"
    insecure = false
    pull-from-mirror = "all"          # or "digest-only", "tag-only"

The longest prefix wins; of two equal ones the later. Short names are Docker's, whatever the file says of them.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import field, replace
from errno import ENOENT
from pathlib import Path
from typing import Any

from layerbuild.errors import RegistryError, UsageError
from layerbuild.frozen import frozen
from layerbuild.network import Trust
from layerbuild.reference import DEFAULT_REGISTRY, Reference

_DOCKER_HOST = "registry-1.docker.io"  # where docker.io really is
_KINDS = ("all", "digest-only", "tag-only")


@frozen
class Endpoint:
    """A repository at one place. ``registry`` is a host as image names and credentials have it; ``insecure``: any
    certificate will do, and plain HTTP where no TLS is spoken; ``mirror``: another place has the same."""

    registry: str
    repository: str
    insecure: bool = False
    mirror: bool = False

    @property
    def host(self) -> str:
        """The host on the network."""
        return _DOCKER_HOST if self.registry == DEFAULT_REGISTRY else self.registry

    @property
    def local(self) -> bool:
        """Whether it is this machine itself: there plain HTTP is no risk, and usual."""
        name = self.host.rpartition(":")[0] if self.host.rpartition(":")[2].isdecimal() else self.host
        try:
            return name == "localhost" or ipaddress.ip_address(name.strip("[]")).is_loopback
        except ValueError:
            return False

    def __str__(self) -> str:
        return f"{self.registry}/{self.repository}"


@frozen
class Mirror:
    """A place that has copies; ``kind`` says of what: "all", "digest-only" or "tag-only"."""

    location: str
    insecure: bool = False
    kind: str = "all"


@frozen
class Rule:
    """What holds for image names that begin with ``prefix``."""

    prefix: str
    location: str
    insecure: bool = False
    blocked: bool = False
    mirrors: tuple[Mirror, ...] = ()

    def matches(self, name: str) -> bool:
        """Whether ``name``, registry and repository, is one of them."""
        if self.prefix.startswith("*."):
            return name.partition("/")[0].partition(":")[0].endswith(self.prefix[1:])
        return name == self.prefix or name.startswith(f"{self.prefix}/")

    def place(self, location: str, name: str) -> tuple[str, str]:
        """``name`` with ``location`` for its prefix, as registry and repository. Below ``*.`` it replaces the registry,
        and an empty one replaces nothing."""
        registry, _, repository = name.partition("/")
        if not self.prefix.startswith("*."):
            registry, _, repository = (location + name[len(self.prefix) :]).partition("/")
        elif location:
            registry, _, repository = f"{location}/{repository}".partition("/")
        return registry, repository


@frozen
class Hosts:
    """The rules of a machine and a command line. ``insecure`` are the registries that ``--insecure-registry`` names,
    ``mirrors`` what ``--registry-mirror`` says, by registry."""

    rules: tuple[Rule, ...] = ()
    insecure: frozenset[str] = frozenset()
    mirrors: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def pull(self, reference: Reference) -> tuple[Endpoint, ...]:
        """Where to ask for an image, in order; RegistryError if the configuration forbids it."""
        rule = self._rule(reference)
        unwanted = "tag-only" if reference.digest else "digest-only"
        plain = Rule(reference.registry, reference.registry)
        found = [self._endpoint(plain, Mirror(place), reference) for place in self.mirrors.get(reference.registry, ())]
        found += [self._endpoint(rule, mirror, reference) for mirror in rule.mirrors if mirror.kind != unwanted]
        return (*(replace(endpoint, mirror=True) for endpoint in found), self.push(reference))

    def push(self, reference: Reference) -> Endpoint:
        """Where an image is pushed to: never a mirror."""
        rule = self._rule(reference)
        return self._endpoint(rule, Mirror(rule.location, rule.insecure), reference)

    def _rule(self, reference: Reference) -> Rule:
        fitting = [rule for rule in self.rules if rule.matches(reference.name)]
        if not fitting:
            return Rule(reference.registry, reference.registry)
        longest = max(len(rule.prefix) for rule in fitting)
        rule = [rule for rule in fitting if len(rule.prefix) == longest][-1]
        if rule.blocked:
            raise RegistryError(f"{reference.name} is blocked by the configuration of registries")
        return rule

    def _endpoint(self, rule: Rule, place: Mirror, reference: Reference) -> Endpoint:
        registry, repository = rule.place(place.location, reference.name)
        return Endpoint(registry, repository, place.insecure or registry in self.insecure)


# -- reading -----------------------------------------------------------------------------------------------------------


def read_rules(files: Iterable[Path]) -> tuple[Rule, ...]:
    """The rules of ``files`` that exist, in order; UsageError names the one that is wrong."""
    rules: list[Rule] = []
    for path in files:
        if path.is_file():
            rules += _rules(path)
    return tuple(rules)


def _rules(path: Path) -> list[Rule]:
    import tomllib

    try:
        raw = tomllib.loads(path.read_text("utf-8"))
        if "registries" in raw and any(part.get("registries") for part in raw["registries"].values()):
            raise ValueError("it is of version 1; write [[registry]] tables")
        return [_rule(table) for table in raw.get("registry", [])]
    except OSError as error:
        raise UsageError(f"can't read {path}: {error.strerror}") from error
    except (ValueError, TypeError, AttributeError) as error:
        hint = "its form is that of containers-registries.conf(5), version 2"
        raise UsageError(f"{path} is no configuration of registries: {error}", hint=hint) from error


def _rule(table: dict[str, Any]) -> Rule:
    location, prefix = _text(table, "location"), _text(table, "prefix")
    if not location and not prefix:
        raise ValueError("a [[registry]] has neither prefix nor location")
    if not location and not prefix.startswith("*."):
        location = prefix
    digests = "digest-only" if _flag(table, "mirror-by-digest-only") else "all"
    mirrors = tuple(_mirror(mirror, digests) for mirror in table.get("mirror", []))
    return Rule(prefix or location, location, _flag(table, "insecure"), _flag(table, "blocked"), mirrors)


def _mirror(table: dict[str, Any], default: str) -> Mirror:
    location, kind = _text(table, "location"), _text(table, "pull-from-mirror") or default
    if not location:
        raise ValueError("a mirror has no location")
    if kind not in _KINDS:
        raise ValueError(f"pull-from-mirror is {kind!r} instead of {', '.join(_KINDS)}")
    return Mirror(location, _flag(table, "insecure"), kind)


def _text(table: dict[str, Any], key: str) -> str:
    value = table.get(key, "")
    if not isinstance(value, str) or "://" in value:
        raise ValueError(f"{key} is {value!r} instead of HOST[/PATH]")
    return value.rstrip("/")


def _flag(table: dict[str, Any], key: str) -> bool:
    value = table.get(key, False)
    if not isinstance(value, bool):
        raise ValueError(f"{key} is {value!r} instead of true or false")
    return value


def rule_files(environment: Mapping[str, str], *, home: Path) -> tuple[Path, ...]:
    """Where the configuration may lie, what counts more last: the containers tools', then our own."""
    named = environment.get("LAYERBUILD_REGISTRIES_CONF")
    if named:
        return (Path(named),)
    config = Path(environment.get("XDG_CONFIG_HOME") or home / ".config")
    theirs = environment.get("CONTAINERS_REGISTRIES_CONF")
    users = config / "containers/registries.conf"
    main = Path(theirs) if theirs else users if users.is_file() else Path("/etc/containers/registries.conf")
    parts = [
        path
        for folder in (Path("/etc/containers/registries.conf.d"), config / "containers/registries.conf.d")
        for path in sorted(folder.glob("*.conf"))
    ]
    own = (Path("/etc/layerbuild/registries.conf"), config / "layerbuild/registries.conf")
    return (main, *parts, *own)


# -- certificates ------------------------------------------------------------------------------------------------------


def certificate_folders(environment: Mapping[str, str], *, home: Path) -> tuple[Path, ...]:
    """Where hosts may have certificates of their own, each in a folder called like it (containers-certs.d(5), and
    dockerd's manual)."""
    config = Path(environment.get("XDG_CONFIG_HOME") or home / ".config")
    return (config / "containers/certs.d", Path("/etc/containers/certs.d"), Path("/etc/docker/certs.d"))


def trust(host: str, folders: Iterable[Path]) -> Trust:
    """What the first of ``folders`` says that knows ``host``; OSError names the file that is wrong."""
    for folder in folders:
        place = folder / host
        if place.is_dir():
            files = sorted(place.iterdir())
            _check_pairs(files)
            pairs = tuple((path, path.with_suffix(".key")) for path in files if path.suffix == ".cert")
            return Trust(tuple(path for path in files if path.suffix == ".crt"), pairs)
    return Trust()


def _check_pairs(files: Sequence[Path]) -> None:
    for path in files:
        missing = path.with_suffix({".cert": ".key", ".key": ".cert"}.get(path.suffix, path.suffix))
        if missing not in files:
            raise FileNotFoundError(ENOENT, f"is not there, and {path.name} is of no use without it", str(missing))
