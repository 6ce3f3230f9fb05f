"""``--secret``, ``--ssh`` and ``--allow``: what the caller lends to a build, spelled as in ``docker build``."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from layerbuild.errors import UsageError

if TYPE_CHECKING:
    from layerbuild.build.credentials import Credentials

_LARGEST = 500 << 10  # bytes of a secret, as in BuildKit
_SECRET_HINT = "--secret id=NAME,src=FILE or --secret id=NAME,env=VARIABLE"
_SSH_HINT = "--ssh default for the agent of SSH_AUTH_SOCK, --ssh ID=SOCKET for another, --ssh ID=KEYFILE,… for keys"


@contextmanager
def lent(secrets: tuple[str, ...], agents: tuple[str, ...]) -> Iterator[Credentials]:
    """What the options name, read, for as long as the context lasts; UsageError for what can't be. Keys in files are
    held by an agent of their own. From then on this process and its children leave no core dump."""
    from layerbuild.build.credentials import Credentials
    from layerbuild.isolate.rlimits import forbid_core_dumps

    if secrets or agents:
        forbid_core_dumps()
    values = dict(_secret(text) for text in secrets)
    with ExitStack() as cleaning:
        yield Credentials(
            secrets={name: value for name, value in values.items() if value is not None},
            agents=dict(_agent(text, cleaning) for text in agents),
        )


def _secret(text: str) -> tuple[str, bytes | None]:
    """Its id and value; None for a variable that is not set, for which a step may have no need."""
    keys = _keys(text)
    name, source, variable, kind = keys["id"], keys["src"], keys["env"], keys["type"]
    if not name:
        raise UsageError(f"--secret {text!r} has no id", hint=_SECRET_HINT)
    if kind not in ("", "file", "env"):
        raise UsageError(f"--secret can't be of type {kind!r}", hint="file or env")
    if kind == "env":
        source, variable = "", variable or source or name
    if not (source or variable):
        source, variable = ("", name) if name in os.environ and kind != "file" else (name, "")
    if variable:
        value = os.environ.get(variable)
        return name, None if value is None else os.fsencode(value)
    return name, _content(name, Path(source))


def _keys(text: str) -> dict[str, str]:
    import csv

    keys = dict.fromkeys(("id", "src", "env", "type"), "")
    for field in next(csv.reader([text]), []):
        key, _, value = field.partition("=")
        key = {"source": "src"}.get(key.lower(), key.lower())
        if key not in keys:
            raise UsageError(f"--secret has no key {key!r}", hint=_SECRET_HINT)
        keys[key] = value
    return keys


def _content(name: str, path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            value = file.read(_LARGEST + 1)
    except OSError as error:
        raise UsageError(f"can't read secret {name} from {str(path)!r}: {error.strerror}", hint=_SECRET_HINT) from error
    if len(value) > _LARGEST:
        raise UsageError(f"secret {name} is too big", hint=f"{_LARGEST >> 10} KiB at most")
    return value


def _agent(text: str, cleaning: ExitStack) -> tuple[str, Path]:
    from layerbuild.build.agents import holding

    name, _, places = text.partition("=")
    if not name:
        raise UsageError(f"--ssh {text!r} has no id", hint=_SSH_HINT)
    paths = [Path(place) for place in (places or os.environ.get("SSH_AUTH_SOCK", "")).split(",") if place]
    if not paths:
        raise UsageError("invalid empty ssh agent socket: make sure SSH_AUTH_SOCK is set", hint=_SSH_HINT)
    sockets = [path for path in paths if _is_socket(name, path)]
    if sockets and len(paths) > 1:
        raise UsageError(f"--ssh {name}: an agent stands alone, and not beside keys or agents", hint=_SSH_HINT)
    if sockets:
        return name, sockets[0].absolute()
    try:
        keys = [_content(f"of --ssh {name}", path) for path in paths]
        return name, cleaning.enter_context(holding(keys, dict(os.environ)))
    except UsageError as error:
        raise UsageError(f"--ssh {text}: {error.message}", hint=error.hint or _SSH_HINT) from error


def _is_socket(name: str, path: Path) -> bool:
    try:
        return stat.S_ISSOCK(path.stat().st_mode)
    except OSError as error:
        raise UsageError(f"--ssh {name}: {str(path)!r}: {error.strerror}", hint=_SSH_HINT) from error
