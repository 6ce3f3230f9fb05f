"""Credentials for registries, where Docker and the containers tools keep them.

::

    REGISTRY_AUTH_FILE                              if set, first
    DOCKER_CONFIG/config.json                       if set
    $XDG_RUNTIME_DIR/containers/auth.json           podman login; without the variable /run/containers/<uid>/auth.json
    $XDG_CONFIG_HOME/containers/auth.json           [~/.config]
    ~/.docker/config.json                           docker login
    ~/.dockercfg                                    Docker's oldest form

The first file that knows the registry decides. In a file ``credHelpers`` names a program for a registry, ``auths``
holds the credential itself, ``credsStore`` names a program for all others. Programs are called
``docker-credential-NAME`` and speak Docker's protocol on standard input and output. Sources: docker login's manual;
containers-auth.json(5); docker/docker-credential-helpers.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from base64 import b64decode, b64encode
from binascii import Error as BadBase64
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import field
from pathlib import Path
from typing import Any

from layerbuild.errors import MachineError, RegistryError
from layerbuild.frozen import frozen
from layerbuild.reference import DEFAULT_REGISTRY

#: How Docker calls its own registry in such files.
DOCKER_KEY = "https://index.docker.io/v1/"

_OLDEST = ".dockercfg"  # its whole content is what later files call auths
_TOKEN_USER = "<token>"  # docker-credential-helpers: the secret is an identity token
_ABSENT = "credentials not found in native keychain"
_HELPER_SECONDS = 60


@frozen
class Credential:
    """What a user has for a registry: user and password, or an ``identity_token`` (a refresh token of OAuth2), or a
    ``registry_token``, which is sent as it is."""

    username: str = ""
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)
    registry_token: str = field(default="", repr=False)

    @property
    def secrets(self) -> tuple[str, ...]:
        """The texts that may not be shown."""
        return (self.password, self.identity_token, self.registry_token)


class Keychain:
    """The credentials of a user. ``files`` are read in order; ``environment`` is what helper programs see."""

    def __init__(self, files: tuple[Path, ...], environment: Mapping[str, str]) -> None:
        self.files = files
        self._environment = environment

    def find(self, registry: str, repository: str = "") -> Credential | None:
        """The credential for a repository, or for its whole registry; None: there is none. RegistryError for a file or
        program that is broken."""
        for path in self.files:
            found = self._in_file(_read(path), registry, repository, path=path)
            if found is not None:
                return found
        return None

    def store(self, registry: str, credential: Credential, *, file: Path) -> str:
        """Keep it, in ``file`` or in the program that the file names; where it went."""
        raw = _read(file)
        helper = _helper_for(raw, registry)
        if helper:
            secret = credential.identity_token or credential.password
            user = _TOKEN_USER if credential.identity_token else credential.username
            data = {"ServerURL": _key(registry), "Username": user, "Secret": secret}
            self._call(helper, "store", json.dumps(data))
            return f"docker-credential-{helper}"
        auths = raw.setdefault("auths", {})
        auths[_key(registry)] = _entry(credential)
        _write(file, raw)
        return str(file)

    def erase(self, registry: str) -> tuple[str, ...]:
        """Forget the registry's credential everywhere; where it was."""
        return tuple(place for path in self.files for place in self._erase(path, registry))

    def _erase(self, path: Path, registry: str) -> Iterator[str]:
        raw = _read(path)
        helper = _helper_for(raw, registry)
        if helper and self._from_helper(helper, registry) is not None:
            self._call(helper, "erase", _key(registry))
            yield f"docker-credential-{helper}"
        auths = _auths(raw, path)
        kept = {key: value for key, value in auths.items() if key not in _keys(registry)}
        if len(kept) < len(auths):
            _write(path, kept if path.name == _OLDEST else {**raw, "auths": kept})
            yield str(path)

    def _in_file(self, raw: dict[str, Any], registry: str, repository: str, *, path: Path) -> Credential | None:
        helpers = raw.get("credHelpers") or {}
        for key in _keys(registry):
            if key in helpers:
                return self._from_helper(helpers[key], registry)
        auths = _auths(raw, path)
        for key in (*_narrower(registry, repository), *_keys(registry)):
            found = _credential(auths[key], path) if key in auths else None
            if found is not None:
                return found
        return self._from_helper(raw["credsStore"], registry) if raw.get("credsStore") else None

    # -- programs

    def _from_helper(self, name: str, registry: str) -> Credential | None:
        for key in (_key(registry), *([] if registry == DEFAULT_REGISTRY else [f"https://{registry}"])):
            said = self._call(name, "get", key)
            if said is None:
                continue
            try:
                raw = json.loads(said)
                user, secret = str(raw["Username"]), str(raw["Secret"])
            except (ValueError, TypeError, KeyError) as error:
                raise RegistryError(f"docker-credential-{name} gives no credential for {registry}") from error
            return Credential(identity_token=secret) if user == _TOKEN_USER else Credential(user, secret)
        return None

    def _call(self, name: str, verb: str, text: str) -> str | None:
        """What a helper says; None: it has nothing. What it said is never shown: it may hold the secret."""
        program = f"docker-credential-{name}"
        if not name or "/" in name:
            raise RegistryError(f"{name!r} is no name of a credential helper")
        try:
            done = subprocess.run(
                [program, verb],
                input=text.encode(),
                capture_output=True,
                env=dict(self._environment),
                timeout=_HELPER_SECONDS,
                check=False,
            )
        except FileNotFoundError as error:
            hint = "install it, or take it out of the configuration file of credentials"
            raise RegistryError(f"the credential helper {program} is not installed", hint=hint) from error
        except (OSError, subprocess.TimeoutExpired) as error:
            raise RegistryError(f"the credential helper {program} can't be asked") from error
        said = done.stdout.decode("utf-8", "replace")
        if done.returncode and _ABSENT in said:
            return None
        if done.returncode:
            raise RegistryError(f"the credential helper {program} failed at {verb!r}: exit code {done.returncode}")
        return said


def credential_files(environment: Mapping[str, str], *, home: Path, user: int) -> tuple[Path, ...]:
    """Where credentials may lie, in the order in which they are looked up."""
    named = [Path(environment[key]) for key in ("REGISTRY_AUTH_FILE",) if environment.get(key)]
    named += [Path(environment[key]) / "config.json" for key in ("DOCKER_CONFIG",) if environment.get(key)]
    runtime = environment.get("XDG_RUNTIME_DIR")
    config = Path(environment.get("XDG_CONFIG_HOME") or home / ".config")
    usual = (
        (Path(runtime) / "containers" if runtime else Path(f"/run/containers/{user}")) / "auth.json",
        config / "containers/auth.json",
        home / ".docker/config.json",
        home / _OLDEST,
    )
    return tuple(dict.fromkeys((*named, *usual)))


def login_file(environment: Mapping[str, str], *, home: Path) -> Path:
    """The file that ``login`` writes: REGISTRY_AUTH_FILE, else Docker's."""
    if environment.get("REGISTRY_AUTH_FILE"):
        return Path(environment["REGISTRY_AUTH_FILE"])
    return Path(environment.get("DOCKER_CONFIG") or home / ".docker") / "config.json"


# -- files -------------------------------------------------------------------------------------------------------------


def _read(path: Path) -> dict[str, Any]:
    try:
        raw = json.loads(path.read_text("utf-8") or "{}")
        if not isinstance(raw, dict):
            raise ValueError("it is not a JSON object")
        return raw
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except PermissionError as error:
        raise RegistryError(f"can't read the credentials in {path}: {error.strerror}") from error
    except ValueError as error:  # its text is not shown: it may quote the file
        raise RegistryError(
            f"{path} is no file of credentials: it is not JSON", hint="mend it, or log in again"
        ) from error


def _write(path: Path, raw: dict[str, Any]) -> None:
    """Give the file its new content at once, for its owner alone."""
    path = path.resolve()  # a link stays a link
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # mode 0600 (mkstemp(3))
        try:
            with open(descriptor, "w", encoding="utf-8") as file:
                file.write(json.dumps(raw, indent="\t", ensure_ascii=False) + "\n")
                file.flush()
                os.fsync(file.fileno())
            Path(name).replace(path)
        except BaseException:
            with suppress(FileNotFoundError):
                Path(name).unlink()
            raise
    except OSError as error:
        hint = "DOCKER_CONFIG or REGISTRY_AUTH_FILE names another place"
        raise MachineError(f"can't write {path}: {error.strerror}", hint=hint) from error


def _auths(raw: dict[str, Any], path: Path) -> dict[str, Any]:
    found = raw if path.name == _OLDEST else raw.get("auths")
    found = {} if found is None else found
    if not isinstance(found, dict):
        raise RegistryError(f"{path} is no file of credentials: auths is not an object")
    return found


def _key(registry: str) -> str:
    return DOCKER_KEY if registry == DEFAULT_REGISTRY else registry


def _keys(registry: str) -> tuple[str, ...]:
    """What a file may call a registry."""
    hosts = ("docker.io", "index.docker.io", "registry-1.docker.io") if registry == DEFAULT_REGISTRY else (registry,)
    spelled = [f"{scheme}{host}{path}" for host in hosts for scheme in ("", "https://", "http://") for path in _PATHS]
    return tuple(dict.fromkeys((_key(registry), *spelled)))


_PATHS = ("", "/", "/v1/", "/v2/", "/v1", "/v2")


def _narrower(registry: str, repository: str) -> Iterator[str]:
    """Keys for parts of a registry (containers-auth.json(5)), the longest first."""
    while repository:
        yield f"{registry}/{repository}"
        repository = repository.rpartition("/")[0]


def _helper_for(raw: dict[str, Any], registry: str) -> str:
    helpers = raw.get("credHelpers") or {}
    found = next((helpers[key] for key in _keys(registry) if key in helpers), raw.get("credsStore") or "")
    return str(found)


def _credential(entry: Any, path: Path) -> Credential | None:
    """An entry of ``auths``; None for an empty one, as Docker leaves it beside a store."""
    try:
        user, password = str(entry.get("username", "")), str(entry.get("password", ""))
        if entry.get("auth"):
            user, _, password = b64decode(entry["auth"].strip(), validate=True).decode().partition(":")
        identity, token = str(entry.get("identitytoken") or ""), str(entry.get("registrytoken") or "")
    except (AttributeError, TypeError, ValueError, BadBase64) as error:
        raise RegistryError(f"{path} has a credential that can't be read", hint="log in again") from error
    if not (user or identity or token):
        return None
    return Credential(user, password.rstrip("\0"), identity, token)


def _entry(credential: Credential) -> dict[str, str]:
    pair = b64encode(f"{credential.username}:{credential.password}".encode()).decode()
    return {"auth": pair} | ({"identitytoken": credential.identity_token} if credential.identity_token else {})
