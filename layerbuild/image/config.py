"""The image configuration: OCI image-spec config.md, with Docker's additions (Healthcheck, Shell, OnBuild…).

A base image's unknown fields are kept (``extra``), so that an image which passes through here loses nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import field
from typing import Any

from layerbuild.digest import BlobDigest, DiffID
from layerbuild.errors import FormatError
from layerbuild.frozen import frozen

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
MOST_LAYERS = 127  # of an image that Docker runs, and others with it: an overlay mount of theirs takes no more

Pairs = tuple[tuple[str, str], ...]


@frozen
class Platform:
    """What an image runs on; ``str()`` is ``os/architecture[/variant]``."""

    os: str
    architecture: str
    variant: str = ""
    os_version: str = ""
    os_features: tuple[str, ...] = ()

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)


@frozen
class Healthcheck:
    """A HEALTHCHECK; durations in nanoseconds, 0 inherits the runtime's default."""

    test: tuple[str, ...]
    interval: int = 0
    timeout: int = 0
    start_period: int = 0
    start_interval: int = 0
    retries: int = 0


@frozen
class RuntimeConfig:
    """How a container of the image is started. Sets (ports, volumes) are sorted; ``env`` keeps its order.

    ``env`` may hold an entry without ``=`` from a foreign base: it becomes one with an empty value.
    """

    user: str = ""
    exposed_ports: tuple[str, ...] = ()
    env: Pairs = ()
    entrypoint: tuple[str, ...] | None = None
    cmd: tuple[str, ...] | None = None
    volumes: tuple[str, ...] = ()
    working_dir: str = ""
    labels: Pairs = ()
    stop_signal: str = ""
    shell: tuple[str, ...] | None = None
    on_build: tuple[str, ...] = ()
    healthcheck: Healthcheck | None = None
    args_escaped: bool = False
    extra: str = "{}"  # canonical JSON of unknown keys

    def env_value(self, name: str) -> str | None:
        """The value of the first entry with that name, as a runtime would see it."""
        return next((value for key, value in self.env if key == name), None)


@frozen
class History:
    """One line of an image's history. ``created`` is RFC 3339 text, empty where unknown."""

    created: str = ""
    created_by: str = ""
    author: str = ""
    comment: str = ""
    empty_layer: bool = False


@frozen
class ImageConfig:
    """The whole configuration. The number of history entries with a layer equals the number of diff IDs,
    or the history is empty (allowed by the specification; foreign images do it)."""

    platform: Platform
    config: RuntimeConfig = field(default_factory=RuntimeConfig)
    diff_ids: tuple[DiffID, ...] = ()
    history: tuple[History, ...] = ()
    created: str = ""
    author: str = ""
    extra: str = "{}"

    @classmethod
    def scratch(cls, platform: Platform) -> ImageConfig:
        """The configuration that FROM scratch starts with (no layers, default PATH, working directory ``/``). Windows
        has a PATH of its own."""
        env = () if platform.os == "windows" else (("PATH", DEFAULT_PATH),)
        return cls(platform, RuntimeConfig(env=env, working_dir="/"))

    @classmethod
    def from_json(cls, data: bytes) -> ImageConfig:
        """Read a configuration blob; FormatError if it is none."""
        try:
            raw = json.loads(data)
            return _read_config(raw)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise FormatError(f"this is not an image configuration: {error}") from error

    def to_json(self) -> bytes:
        """Canonical bytes: sorted keys, no blanks, UTF-8. Equal values give equal bytes."""
        return canonical_json(_write_config(self))

    @property
    def image_id(self) -> BlobDigest:
        """sha256 of the configuration as ``to_json`` writes it: right for an image made here.

        An image from elsewhere keeps the bytes it came with; its ID is the digest that its manifest names.
        """
        return BlobDigest.of(self.to_json())


def canonical_json(value: object) -> bytes:
    """One way to write a value: sorted keys, no blanks, UTF-8 (lone surrogates become U+FFFD)."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return text.encode("utf-8", "replace")


_KNOWN_RUNTIME = frozenset(
    [
        *("User", "ExposedPorts", "Env", "Entrypoint", "Cmd", "Volumes", "WorkingDir", "Labels", "StopSignal"),
        *("Shell", "OnBuild", "Healthcheck", "ArgsEscaped"),
    ]
)
_KNOWN_CONFIG = frozenset(
    ("created", "author", "architecture", "os", "os.version", "os.features", "variant", "config", "rootfs", "history")
)


def _read_config(raw: Mapping[str, Any]) -> ImageConfig:
    rootfs = raw.get("rootfs") or {}
    return ImageConfig(
        platform=Platform(
            os=_text(raw.get("os")),
            architecture=_text(raw.get("architecture")),
            variant=_text(raw.get("variant")),
            os_version=_text(raw.get("os.version")),
            os_features=_strings(raw.get("os.features")) or (),
        ),
        config=_read_runtime(raw.get("config") or {}),
        diff_ids=tuple(DiffID.parse(text) for text in rootfs.get("diff_ids") or ()),
        history=tuple(_read_history(entry) for entry in raw.get("history") or ()),
        created=_text(raw.get("created")),
        author=_text(raw.get("author")),
        extra=_unknown(raw, _KNOWN_CONFIG),
    )


def _read_runtime(raw: Mapping[str, Any]) -> RuntimeConfig:
    pairs = (entry.partition("=") for entry in _strings(raw.get("Env")) or ())
    health = raw.get("Healthcheck")
    return RuntimeConfig(
        user=_text(raw.get("User")),
        exposed_ports=tuple(sorted(raw.get("ExposedPorts") or ())),
        env=tuple((key, value) for key, _, value in pairs),
        entrypoint=_strings(raw.get("Entrypoint")),
        cmd=_strings(raw.get("Cmd")),
        volumes=tuple(sorted(raw.get("Volumes") or ())),
        working_dir=_text(raw.get("WorkingDir")),
        labels=tuple(sorted((key, _text(value)) for key, value in (raw.get("Labels") or {}).items())),
        stop_signal=_text(raw.get("StopSignal")),
        shell=_strings(raw.get("Shell")),
        on_build=_strings(raw.get("OnBuild")) or (),
        healthcheck=_read_healthcheck(health) if health else None,
        args_escaped=raw.get("ArgsEscaped") is True,
        extra=_unknown(raw, _KNOWN_RUNTIME),
    )


def _read_healthcheck(raw: Mapping[str, Any]) -> Healthcheck:
    return Healthcheck(
        test=_strings(raw.get("Test")) or (),
        interval=int(raw.get("Interval") or 0),
        timeout=int(raw.get("Timeout") or 0),
        start_period=int(raw.get("StartPeriod") or 0),
        start_interval=int(raw.get("StartInterval") or 0),
        retries=int(raw.get("Retries") or 0),
    )


def _read_history(raw: Mapping[str, Any]) -> History:
    return History(
        created=_text(raw.get("created")),
        created_by=_text(raw.get("created_by")),
        author=_text(raw.get("author")),
        comment=_text(raw.get("comment")),
        empty_layer=raw.get("empty_layer") is True,
    )


def _write_config(config: ImageConfig) -> dict[str, Any]:
    platform = config.platform
    written: dict[str, Any] = {
        "created": config.created,
        "author": config.author,
        "architecture": platform.architecture,
        "os": platform.os,
        "variant": platform.variant,
        "os.version": platform.os_version,
        "os.features": list(platform.os_features),
        "history": [_write_history(entry) for entry in config.history],
    }
    # architecture, os, config and rootfs are there even when they say nothing (config.md: REQUIRED, or expected).
    kept = {key: value for key, value in written.items() if value or key in ("architecture", "os")}
    kept |= json.loads(config.extra)
    kept["config"] = write_runtime(config.config)
    kept["rootfs"] = {"type": "layers", "diff_ids": list(config.diff_ids)}
    return kept


def write_runtime(config: RuntimeConfig) -> dict[str, Any]:
    """The ``config`` object with Go's field names; a field that says nothing is left out, unless it is unknown here:
    what an empty value means there is not known either (``StopTimeout: 0`` is no time, not the default)."""
    health = config.healthcheck
    written: dict[str, Any] = {
        "User": config.user,
        "ExposedPorts": {port: {} for port in config.exposed_ports},
        "Env": [f"{key}={value}" for key, value in config.env],
        "Volumes": {path: {} for path in config.volumes},
        "WorkingDir": config.working_dir,
        "Labels": dict(config.labels),
        "StopSignal": config.stop_signal,
        "OnBuild": list(config.on_build),
        "ArgsEscaped": config.args_escaped,
        "Healthcheck": _write_healthcheck(health) if health else None,
        "Entrypoint": list(config.entrypoint) if config.entrypoint else None,
        "Cmd": list(config.cmd) if config.cmd else None,
        "Shell": list(config.shell) if config.shell else None,
    }
    return {**json.loads(config.extra), **{key: value for key, value in written.items() if value}}


def _write_healthcheck(health: Healthcheck) -> dict[str, Any]:
    written: dict[str, Any] = {
        "Test": list(health.test),
        "Interval": health.interval,
        "Timeout": health.timeout,
        "StartPeriod": health.start_period,
        "StartInterval": health.start_interval,
        "Retries": health.retries,
    }
    return {key: value for key, value in written.items() if value}


def _write_history(entry: History) -> dict[str, Any]:
    written: dict[str, Any] = {
        "created": entry.created,
        "created_by": entry.created_by,
        "author": entry.author,
        "comment": entry.comment,
        "empty_layer": entry.empty_layer,
    }
    return {key: value for key, value in written.items() if value}


def _text(value: object) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise TypeError(f"expected text, found {value!r}")
    return value


def _strings(value: object) -> tuple[str, ...] | None:
    if value is None:
        return None
    if isinstance(value, str):  # Docker once allowed a bare string for Cmd and Entrypoint
        return (value,)
    if not isinstance(value, list):
        raise TypeError(f"expected a list, found {value!r}")
    return tuple(_text(item) for item in value)


def _unknown(raw: Mapping[str, Any], known: frozenset[str]) -> str:
    return canonical_json({key: value for key, value in raw.items() if key not in known}).decode()
