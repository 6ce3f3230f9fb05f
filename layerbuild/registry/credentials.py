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
#: What it is called besides.
DOCKER_HOSTS = (DEFAULT_REGISTRY, "index.docker.io", "registry-1.docker.io")

_OLDEST = ".dockercfg"  # its whole content is what later files call auths
_TOKEN_USER = "<token>"  # docker-credential-helpers: the secret is an identity token
_ABSENT = "credentials not found in native keychain"


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
    """The credentials of a user. ``files`` are read in order; ``environment`` is what helper programs see, ``seconds``
    how long they may take."""

    def __init__(self, files: tuple[Path, ...], environment: Mapping[str, str], *, seconds: float = 60) -> None:
        self.files = files
        self._environment = environment
        self._seconds = seconds

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
        helper = _helper_for(raw, registry, file)
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
        helper = _helper_for(raw, registry, path)
        if helper and self._from_helper(helper, registry) is not None:
            self._call(helper, "erase", _key(registry))
            yield f"docker-credential-{helper}"
        auths = _auths(raw, path)
        kept = {key: value for key, value in auths.items() if key not in _keys(registry)}
        if len(kept) < len(auths):
            _write(path, kept if path.name == _OLDEST else {**raw, "auths": kept})
            yield str(path)

    def _in_file(self, raw: dict[str, Any], registry: str, repository: str, *, path: Path) -> Credential | None:
        own = _own_helper(raw, registry, path)
        if own:
            return self._from_helper(own, registry)
        auths = _auths(raw, path)
        for key in (*_narrower(registry, repository), *_keys(registry)):
            found = _credential(auths[key], f"{path} has a credential for {key}") if key in auths else None
            if found is not None:
                return found
        helper = _helper_for(raw, registry, path)
        return self._from_helper(helper, registry) if helper else None

    # -- programs

    def _from_helper(self, name: str, registry: str) -> Credential | None:
        # The containers tools call Docker's registry as image names do.
        for key in (_key(registry), DEFAULT_REGISTRY if registry in DOCKER_HOSTS else f"https://{registry}"):
            said = self._call(name, "get", key)
            found = None if said is None else _said(said, name, registry)
            if found is not None:
                return found
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
                timeout=self._seconds,
                check=False,
            )
        except FileNotFoundError as error:
            hint = "install it, or take it out of the configuration file of credentials"
            raise RegistryError(f"the credential helper {program} is not installed", hint=hint) from error
        except OSError as error:
            raise RegistryError(f"the credential helper {program} can't be started: {error.strerror}") from error
        except subprocess.TimeoutExpired as error:
            raise RegistryError(
                f"the credential helper {program} did not answer {verb!r} in {self._seconds:g} seconds",
                hint="does it wait for a key store that is locked?",
            ) from error
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
    except OSError as error:
        raise RegistryError(f"can't read the credentials in {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:  # its text is not shown: it may quote the file
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
    return DOCKER_KEY if registry in DOCKER_HOSTS else registry


def _keys(registry: str) -> tuple[str, ...]:
    """What a file may call a registry."""
    hosts = DOCKER_HOSTS if registry in DOCKER_HOSTS else (registry,)
    spelled = [f"{scheme}{host}{path}" for host in hosts for scheme in ("", "https://", "http://") for path in _PATHS]
    return tuple(dict.fromkeys((_key(registry), *spelled)))


_PATHS = ("", "/", "/v1/", "/v2/", "/v1", "/v2")


def _narrower(registry: str, repository: str) -> Iterator[str]:
    """Keys for parts of a registry (containers-auth.json(5)), the longest first."""
    while repository:
        yield f"{registry}/{repository}"
        repository = repository.rpartition("/")[0]


def _own_helper(raw: dict[str, Any], registry: str, path: Path) -> str | None:
    """The program that ``credHelpers`` names for a registry; empty: for this one none, None: nothing is said of it."""
    helpers = raw.get("credHelpers") or {}
    found = [helpers.get(key) for key in _keys(registry)] if isinstance(helpers, dict) else [helpers]
    name = next((each for each in found if each is not None), None)
    if name is not None and not isinstance(name, str):
        raise RegistryError(f"{path} is no file of credentials: credHelpers is not an object of names")
    return name


def _helper_for(raw: dict[str, Any], registry: str, path: Path) -> str:
    """The program that keeps a registry's credential; empty: the file does."""
    own = _own_helper(raw, registry, path)
    found = (raw.get("credsStore") or "") if own is None else own
    if not isinstance(found, str):
        raise RegistryError(f"{path} is no file of credentials: credsStore is not a name")
    return found


def _credential(entry: Any, place: str) -> Credential | None:
    """An entry of ``auths``; None for an empty one, as Docker leaves it beside a store. ``place`` is for messages."""
    try:
        user, password = str(entry.get("username", "")), str(entry.get("password", ""))
        identity, token = str(entry.get("identitytoken") or ""), str(entry.get("registrytoken") or "")
        if entry.get("auth"):
            user, colon, password = b64decode(entry["auth"].strip(), validate=True).decode().partition(":")
            if not colon:
                raise ValueError("it is not USER:PASSWORD")
    except (AttributeError, TypeError, ValueError, BadBase64) as error:
        hint = "its auth is the Base64 form of USER:PASSWORD; or log in again"
        raise RegistryError(f"{place} that can't be read", hint=hint) from error
    if not (user or identity or token):
        return None
    return Credential(user, password.rstrip("\0"), identity, token)


def _said(text: str, helper: str, registry: str) -> Credential | None:
    """A helper's answer; None for an empty one, as for what it does not have."""
    try:
        raw = json.loads(text)
        user, secret = str(raw["Username"]), str(raw["Secret"])
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        hint = f"`docker-credential-{helper} get` must write JSON with Username and Secret"
        raise RegistryError(f"docker-credential-{helper} gives no credential for {registry}", hint=hint) from error
    if not user and not secret:
        return None
    return Credential(identity_token=secret) if user == _TOKEN_USER else Credential(user, secret)


def _entry(credential: Credential) -> dict[str, str]:
    pair = b64encode(f"{credential.username}:{credential.password}".encode()).decode()
    return {"auth": pair} | ({"identitytoken": credential.identity_token} if credential.identity_token else {})
