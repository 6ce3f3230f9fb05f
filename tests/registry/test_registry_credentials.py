"""Where credentials are found and kept: the files of Docker and of the containers tools, and their helper programs."""

from __future__ import annotations

import json
import os
import stat
from base64 import b64encode
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from layerbuild.errors import MachineError, RegistryError
from layerbuild.registry.credentials import DOCKER_KEY, Credential, Keychain, credential_files, login_file

HOST = "registry.example.com"
HELPER = """#!/bin/sh
# A helper that keeps what it is given in files, and writes down how it was called.
cd "{folder}" && mkdir -p kept
input=$(cat)
echo "$1 $input" >> calls
name=$(echo "$input" | sed -n 's/.*"ServerURL": "\\([^"]*\\)".*/\\1/p' | tr '/:' '__')
[ -n "$name" ] || name=$(echo "$input" | tr '/:' '__')
case $1 in
store) echo "$input" > "kept/$name" ;;
get) cat "kept/$name" 2> /dev/null || {{ echo "credentials not found in native keychain"; exit 1; }} ;;
erase) rm "kept/$name" ;;
esac
"""


def auth(user: str, password: str) -> dict[str, str]:
    return {"auth": b64encode(f"{user}:{password}".encode()).decode()}


def written(path: Path, content: Mapping[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def keychain(*files: Path, path: str = "") -> Keychain:
    return Keychain(files, {"PATH": f"{path}:{os.environ['PATH']}"})


@pytest.fixture
def helper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of docker-credential-tests, which is found by PATH."""
    program = tmp_path / "bin/docker-credential-tests"
    program.parent.mkdir()
    program.write_text(HELPER.format(folder=tmp_path))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    return tmp_path


def test_places(tmp_path: Path) -> None:
    home = tmp_path / "home"
    plain = credential_files({}, home=home, user=7)
    assert plain == (
        Path("/run/containers/7/auth.json"),
        home / ".config/containers/auth.json",
        home / ".docker/config.json",
        home / ".dockercfg",
    )
    environment = {
        "REGISTRY_AUTH_FILE": "/a/auth.json",
        "DOCKER_CONFIG": "/d",
        "XDG_RUNTIME_DIR": "/r",
        "XDG_CONFIG_HOME": "/c",
    }
    assert credential_files(environment, home=home, user=7)[:4] == (
        Path("/a/auth.json"),
        Path("/d/config.json"),
        Path("/r/containers/auth.json"),
        Path("/c/containers/auth.json"),
    )
    assert login_file({}, home=home) == home / ".docker/config.json"
    assert login_file({"DOCKER_CONFIG": "/d"}, home=home) == Path("/d/config.json")
    assert login_file(environment, home=home) == Path("/a/auth.json")


@pytest.mark.parametrize(
    ("registry", "key"),
    [
        (HOST, HOST),
        (HOST, f"https://{HOST}"),
        (HOST, f"https://{HOST}/v1/"),
        (HOST, f"http://{HOST}/"),
        ("localhost:5000", "localhost:5000"),
        ("docker.io", DOCKER_KEY),
        ("docker.io", "docker.io"),
        ("docker.io", "index.docker.io"),
        ("registry-1.docker.io", DOCKER_KEY),
    ],
)
def test_names_of_a_registry(tmp_path: Path, registry: str, key: str) -> None:
    file = written(tmp_path / "config.json", {"auths": {key: auth("me", "a:b"), "other": auth("x", "y")}})
    assert keychain(file).find(registry) == Credential("me", "a:b")
    assert keychain(file).find("elsewhere.example.com") is None


def test_the_narrowest_key_of_the_first_file_counts(tmp_path: Path) -> None:
    first = written(tmp_path / "one/auth.json", {"auths": {f"{HOST}/team": auth("team", "1"), HOST: auth("all", "2")}})
    second = written(tmp_path / "two/config.json", {"auths": {HOST: auth("late", "3"), "b": {"identitytoken": "t"}}})
    chain = keychain(tmp_path / "absent", first, second)
    assert chain.find(HOST, "team/app") == Credential("team", "1")
    assert chain.find(HOST, "teams/app") == Credential("all", "2")
    assert chain.find("b") == Credential(identity_token="t")


def test_the_oldest_form(tmp_path: Path) -> None:
    file = written(tmp_path / ".dockercfg", {DOCKER_KEY: auth("old", "1")})
    assert keychain(file).find("docker.io") == Credential("old", "1")
    assert keychain(file).erase("docker.io") == (str(file),)
    assert keychain(file).find("docker.io") is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "is not JSON"),
        ("[]", "is not JSON"),
        ('{"auths": []}', "auths is not an object"),
        ('{"auths": {"registry.example.com": {"auth": "c2VjcmV0!"}}}', "can't be read"),
        ('{"auths": {"registry.example.com": 7}}', "has a credential for registry.example.com that can't be read"),
        ('{"auths": {"registry.example.com": {"auth": "bm8gY29sb24="}}}', "can't be read"),
        ('{"credHelpers": {"registry.example.com": 7}}', "credHelpers is not an object of names"),
        ('{"credHelpers": [1]}', "credHelpers is not an object of names"),
        ('{"credsStore": {"a": 1}}', "credsStore is not a name"),
        ("[" * 99_999, "is not JSON"),
    ],
)
def test_a_file_that_is_broken(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "config.json"
    file.write_text(text)
    with pytest.raises(RegistryError, match=said) as refused:
        keychain(file).find(HOST)
    assert str(file) in refused.value.message and "c2VjcmV0" not in str(refused.value)


def test_a_folder_in_the_place_of_the_file(tmp_path: Path) -> None:
    """A container engine makes one where a file that it shall mount is absent."""
    with pytest.raises(RegistryError, match=f"can't read the credentials in {tmp_path}: Is a directory"):
        keychain(tmp_path).find(HOST)


def test_kept_for_its_owner_alone(tmp_path: Path) -> None:
    file = written(tmp_path / "docker/config.json", {"HttpHeaders": {"x": "y"}, "auths": {"b": auth("b", "b")}})
    file.chmod(0o644)
    link = tmp_path / "link.json"
    link.symlink_to(file)
    assert keychain(link).store(HOST, Credential("me", "pässword"), file=link) == str(link)
    assert link.is_symlink() and stat.S_IMODE(file.stat().st_mode) == 0o600
    assert json.loads(file.read_text())["HttpHeaders"] == {"x": "y"}
    assert keychain(link).find(HOST) == Credential("me", "pässword")
    assert keychain(link).find("b") == Credential("b", "b")
    keychain(link).store("docker.io", Credential("hub", "x"), file=link)
    assert DOCKER_KEY in json.loads(file.read_text())["auths"]
    assert keychain(link).erase(HOST) == (str(link),)
    assert keychain(link).erase(HOST) == ()
    assert keychain(link).find(HOST) is None and keychain(link).find("b") is not None
    assert os.listdir(file.parent) == ["config.json"]


def test_a_new_file_in_a_new_folder(tmp_path: Path) -> None:
    file = tmp_path / "home/.docker/config.json"
    keychain(file).store(HOST, Credential("me", "x"), file=file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600 and stat.S_IMODE(file.parent.stat().st_mode) == 0o700


def test_a_file_that_can_not_be_written(tmp_path: Path) -> None:
    (tmp_path / "in the way").touch()
    with pytest.raises(MachineError, match=r"can't write .*in the way"):
        keychain().store(HOST, Credential("me", "x"), file=tmp_path / "in the way/config.json")


def test_nothing_shows_a_secret() -> None:
    assert "hidden" not in repr(Credential("me", "hidden", "hidden", "hidden"))


# -- helpers -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", [{"credsStore": "tests"}, {"credHelpers": {HOST: "tests"}}])
def test_a_helper_keeps_it(helper: Path, config: dict[str, Any]) -> None:
    file = written(helper / "config.json", config)
    chain = keychain(file, path=str(helper / "bin"))
    assert chain.find(HOST) is None
    assert chain.store(HOST, Credential("me", "secret"), file=file) == "docker-credential-tests"
    assert chain.find(HOST) == Credential("me", "secret")
    assert "secret" not in file.read_text()
    assert chain.erase(HOST) == ("docker-credential-tests",)
    assert chain.find(HOST) is None
    assert f"erase {HOST}" in (helper / "calls").read_text()


def test_a_helper_for_one_registry_and_the_file_for_others(helper: Path) -> None:
    file = written(helper / "config.json", {"credHelpers": {HOST: "tests"}, "auths": {"b": auth("b", "1"), HOST: {}}})
    chain = keychain(file, path=str(helper / "bin"))
    chain.store(HOST, Credential(identity_token="refresh"), file=file)
    assert chain.find(HOST) == Credential(identity_token="refresh")
    assert chain.find("b") == Credential("b", "1")


def test_a_helper_knows_docker_by_its_old_name(helper: Path) -> None:
    file = written(helper / "config.json", {"credsStore": "tests"})
    chain = keychain(file, path=str(helper / "bin"))
    chain.store("docker.io", Credential("hub", "x"), file=file)
    assert chain.find("docker.io") == Credential("hub", "x")
    assert DOCKER_KEY in (helper / "calls").read_text()


@pytest.mark.parametrize(
    ("name", "script", "said"),
    [
        ("absent", None, "docker-credential-absent is not installed"),
        ("../x", None, "is no name"),
        ("fails", "echo secret; exit 3", "failed at 'get': exit code 3"),
        ("babbles", "echo secret", "gives no credential"),
        ("mute", "true", "gives no credential"),
        ("nests", "printf '%099999d' 0 | tr 0 [", "gives no credential"),
    ],
)
def test_a_helper_that_fails(helper: Path, name: str, script: str | None, said: str) -> None:
    if script:
        program(helper, name, script)
    file = written(helper / "config.json", {"credsStore": name})
    with pytest.raises(RegistryError, match=said) as refused:
        keychain(file, path=str(helper / "bin")).find(HOST)
    assert "secret" not in str(refused.value)


def program(helper: Path, name: str, script: str) -> None:
    path = helper / f"bin/docker-credential-{name}"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def test_a_helper_that_never_answers(helper: Path) -> None:
    program(helper, "waits", "exec sleep 600")
    file = written(helper / "config.json", {"credsStore": "waits"})
    with pytest.raises(RegistryError, match=r"docker-credential-waits did not answer 'get' in 0\.1 seconds"):
        Keychain((file,), {"PATH": os.environ["PATH"]}, seconds=0.1).find(HOST)


def test_a_helper_that_is_no_program(helper: Path) -> None:
    program(helper, "text", "")
    (helper / "bin/docker-credential-text").write_bytes(b"\x7fELF of another machine")
    with pytest.raises(RegistryError, match="docker-credential-text can't be started: Exec format error"):
        keychain(written(helper / "config.json", {"credsStore": "text"})).find(HOST)


def test_a_helper_with_an_empty_answer_has_nothing(helper: Path) -> None:
    program(helper, "empty", """echo '{"ServerURL":"","Username":"","Secret":""}'""")
    later = written(helper / "later.json", {"auths": {HOST: auth("me", "1")}})
    assert keychain(written(helper / "config.json", {"credsStore": "empty"}), later).find(HOST) == Credential("me", "1")


def test_a_registry_without_a_helper_of_its_own(helper: Path) -> None:
    """As in Docker: an empty name takes a registry out of the store for all."""
    config = {"credHelpers": {HOST: ""}, "credsStore": "fails", "auths": {HOST: auth("me", "1")}}
    chain = keychain(written(helper / "config.json", config))
    assert chain.find(HOST) == Credential("me", "1")
    chain.store(HOST, Credential("me", "2"), file=helper / "config.json")
    assert chain.find(HOST) == Credential("me", "2")
    assert chain.erase(HOST) == (str(helper / "config.json"),)
    assert chain.find(HOST) is None


def test_a_helper_of_the_containers_tools_knows_docker_by_its_name(helper: Path) -> None:
    found = """echo '{"Username":"me","Secret":"1"}'"""
    absent = "echo credentials not found in native keychain; exit 1"
    program(helper, "theirs", f'read server; if [ "$server" = docker.io ]; then {found}; else {absent}; fi')
    chain = keychain(written(helper / "config.json", {"credHelpers": {"docker.io": "theirs"}}))
    assert chain.find("docker.io") == Credential("me", "1")
