"""Where a name leads: Docker's own hosts, mirrors, prefixes, and hosts that are blocked."""

from __future__ import annotations

from pathlib import Path

import pytest

from layerbuild.cli.registries import read_mirrors
from layerbuild.errors import RegistryError, UsageError
from layerbuild.reference import Reference
from layerbuild.registry.hosts import Endpoint, Hosts, read_rules, rule_files

RULES = """
unqualified-search-registries = ["registry.fedoraproject.org"]
[[registry]]
location = "docker.io"
[[registry.mirror]]
location = "mirror.example.com/hub"
[[registry.mirror]]
location = "digests.example.com"
pull-from-mirror = "digest-only"
insecure = true
[[registry]]
prefix = "old.example.com/team"
location = "new.example.com/projects/team"
[[registry]]
prefix = "old.example.com/team/secret"
blocked = true
[[registry]]
location = "plain.example.com:5000"
insecure = true
[[registry]]
prefix = "*.internal.example.com"
location = "proxy.example.com/internal"
[[registry]]
prefix = "*.lab.example.com"
insecure = true
"""


@pytest.fixture
def hosts(tmp_path: Path) -> Hosts:
    file = tmp_path / "registries.conf"
    file.write_text(RULES)
    return Hosts(read_rules([file, tmp_path / "absent"]))


def shown(*endpoints: Endpoint) -> list[str]:
    return [f"{endpoint}{' insecure' * endpoint.insecure}" for endpoint in endpoints]


@pytest.mark.parametrize(
    ("name", "places"),
    [
        ("debian", ["mirror.example.com/hub/library/debian", "docker.io/library/debian"]),
        (
            "some/app@sha256:" + "0" * 64,
            ["mirror.example.com/hub/some/app", "digests.example.com/some/app insecure", "docker.io/some/app"],
        ),
        ("old.example.com/team/app", ["new.example.com/projects/team/app"]),
        ("old.example.com/teams/app", ["old.example.com/teams/app"]),
        ("plain.example.com:5000/app", ["plain.example.com:5000/app insecure"]),
        ("plain.example.com/app", ["plain.example.com/app"]),
        ("a.internal.example.com/app", ["proxy.example.com/internal/app"]),
        ("b.lab.example.com:5000/app", ["b.lab.example.com:5000/app insecure"]),
        ("lab.example.com/app", ["lab.example.com/app"]),
    ],
)
def test_places(hosts: Hosts, name: str, places: list[str]) -> None:
    assert shown(*hosts.pull(Reference.parse(name))) == places
    assert shown(hosts.push(Reference.parse(name))) == places[-1:]


def test_blocked(hosts: Hosts) -> None:
    for ask in (hosts.pull, hosts.push):
        with pytest.raises(RegistryError, match=r"old\.example\.com/team/secret/app is blocked"):
            ask(Reference.parse("old.example.com/team/secret/app"))


@pytest.mark.parametrize(
    ("registry", "host", "local"),
    [
        ("docker.io", "registry-1.docker.io", False),
        ("localhost", "localhost", True),
        ("localhost:5000", "localhost:5000", True),
        ("127.8.9.1:5000", "127.8.9.1:5000", True),
        ("[::1]:5000", "[::1]:5000", True),
        ("[::1]", "[::1]", True),
        ("128.0.0.1", "128.0.0.1", False),
        ("localhost.example.com", "localhost.example.com", False),
    ],
)
def test_hosts_on_the_network(registry: str, host: str, local: bool) -> None:
    endpoint = Endpoint(registry, "x")
    assert (endpoint.host, endpoint.local) == (host, local)


def test_options_come_before_the_files(hosts: Hosts) -> None:
    mirrors = read_mirrors(["first.example.com", "quay.io=q.example.com/quay/", "https://second.example.com"])
    assert mirrors == {"docker.io": ("first.example.com", "second.example.com"), "quay.io": ("q.example.com/quay",)}
    own = Hosts(hosts.rules, frozenset(["first.example.com"]), mirrors)
    assert shown(*own.pull(Reference.parse("debian")))[:3] == [
        "first.example.com/library/debian insecure",
        "second.example.com/library/debian",
        "mirror.example.com/hub/library/debian",
    ]
    assert shown(*own.pull(Reference.parse("quay.io/a/b")))[0] == "q.example.com/quay/a/b"
    for wrong in ("http://plain.example.com", "x=", ""):
        with pytest.raises(UsageError, match="names no host"):
            read_mirrors([wrong])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[[registry]]\n", "neither prefix nor location"),
        ('[[registry]]\nlocation = "https://host"\n', "location is 'https://host'"),
        ('[[registry]]\nlocation = "h"\ninsecure = "yes"\n', "insecure is 'yes'"),
        ('[[registry]]\nlocation = "h"\n[[registry.mirror]]\n', "a mirror has no location"),
        ('[[registry]]\nlocation = "h"\n[[registry.mirror]]\nlocation="m"\npull-from-mirror="x"\n', "pull-from-mirror"),
        ('[registries.insecure]\nregistries = ["h"]\n', "of version 1"),
        ("registry = 5", "no configuration"),
        ("[[", "no configuration"),
    ],
)
def test_a_file_that_is_wrong(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "registries.conf"
    file.write_text(text)
    with pytest.raises(UsageError, match=said) as refused:
        read_rules([file])
    assert str(file) in refused.value.message


def test_files(tmp_path: Path) -> None:
    assert rule_files({"LAYERBUILD_REGISTRIES_CONF": "/x"}, home=tmp_path) == (Path("/x"),)
    users = tmp_path / ".config/containers"
    users.mkdir(parents=True)
    (users / "registries.conf").touch()
    files = rule_files({}, home=tmp_path)
    assert files[0] == users / "registries.conf"
    assert files[-2:] == (Path("/etc/layerbuild/registries.conf"), tmp_path / ".config/layerbuild/registries.conf")
    assert rule_files({"CONTAINERS_REGISTRIES_CONF": "/y"}, home=tmp_path)[0] == Path("/y")


@pytest.mark.parametrize("registry", ["localhost:99999", "localhost:0", "[a.b]", "[::::]:5000", "[1.2.3.4]"])
def test_what_is_no_registry_host(registry: str) -> None:
    with pytest.raises(UsageError, match="is not a registry host"):
        Reference.parse(f"{registry}/app")
