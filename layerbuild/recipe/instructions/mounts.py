"""``RUN --mount``: a comma-separated list of keys and values, whose defaults hang on the mount's type."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable
from dataclasses import replace

from layerbuild.errors import RecipeError
from layerbuild.frozen import frozen
from layerbuild.recipe.scope import Roots
from layerbuild.recipe.words import Word
from layerbuild.steps import ContextRoot, Root, RunMount

KINDS = ("bind", "cache", "tmpfs", "secret", "ssh")
SHARING = ("shared", "private", "locked")
SECRETS = "/run/secrets"
AGENT = "/run/buildkit/ssh_agent.{number}"

_ALIASES = {
    "source": "source",
    "src": "source",
    "target": "target",
    "dst": "target",
    "destination": "target",
    "ro": "readonly",
    "rw": "readwrite",
}
_SWITCHES = ("readonly", "readwrite", "required")
# The keys that make sense for some types only.
_ONLY = {
    "required": ("secret", "ssh"),
    "env": ("secret",),
    "size": ("tmpfs",),
}
_OWNERSHIP = ("uid", "gid", "mode")
_OWNED = ("secret", "ssh", "cache")
_KNOWN = frozenset(("type", "from", "id", "sharing", *_OWNERSHIP, *_ALIASES.values(), *_SWITCHES, *_ONLY))

_SIZE = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,9})?) ?([kmgtp]?)i?b?", re.ASCII)
_SCALES = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40, "p": 1 << 50}
_LARGEST_ID = 2**32 - 2  # (uid_t) -1 means "unchanged" to chown(2)


@frozen
class Surroundings:
    """What a mount's values are read against. ``agents`` counts the ssh mounts before this one in the same RUN."""

    working_dir: str
    roots: Roots
    expand: Callable[[str], str]
    agents: int = 0


def from_word(flag: Word) -> Word | None:
    """The value of ``from``, which is never expanded: it names a stage, and stages are picked before anything runs.
    A tmpfs has no use for one."""
    values = {key.lower(): value for key, value in _pairs(flag.text)}
    name = values.get("from")
    return Word(name, flag.offset) if name and (values.get("type") or "").lower() != "tmpfs" else None


def read_mount(text: str, around: Surroundings) -> RunMount:
    """The mount that ``text`` describes; a RecipeError, without a place, if it makes none."""
    keys = _Keys.read(text, around.expand)
    _check_combination(keys)
    return _READERS[keys.kind](keys, around)


@frozen
class _Keys:
    """The keys of one mount by their full names; a switch is "true" or "false"."""

    kind: str
    values: dict[str, str]

    @classmethod
    def read(cls, text: str, expand: Callable[[str], str]) -> _Keys:
        kind = "bind"
        values: dict[str, str] = {}
        for spelling, raw in _pairs(text):
            field = spelling if raw is None else f"{spelling}={raw}"
            key = _ALIASES.get(spelling.lower(), spelling.lower())
            if raw is None and key not in _SWITCHES:
                raise RecipeError(f"invalid field '{field}' must be a key=value pair", hint=_allowed(key, kind))
            if key not in _KNOWN:
                raise RecipeError(f"unexpected key '{key}' in '{field}'", hint=_allowed(key, kind))
            if key != "env" and kind not in _ONLY.get(key, KINDS):
                raise RecipeError(f"unexpected key '{key}' for mount type '{kind}'", hint=_allowed(key, kind))
            value = _switch(key, raw, expand) if raw is None or key in _SWITCHES else _value(key, raw, expand)
            if key == "type":
                kind = value.lower()
                _one_of("mount type", kind, KINDS)
            else:
                values[key] = value
        if "env" in values and kind not in _ONLY["env"]:  # the one key that may stand before the type it hangs on
            raise RecipeError(f"unexpected key 'env' for mount type '{kind}'", hint=_allowed("env", kind))
        return cls(kind, values)

    def get(self, key: str) -> str:
        return self.values.get(key, "")

    def read_only(self, default: bool) -> bool:
        if "readonly" in self.values:
            return self.values["readonly"] == "true"
        if "readwrite" in self.values:
            return self.values["readwrite"] != "true"
        return default

    def number(self, key: str) -> int:
        text = self.values.get(key, "0")
        if not (text.isascii() and text.isdecimal() and len(text) < 11 and int(text) <= _LARGEST_ID):
            raise RecipeError(f"invalid value {text} for {key}", hint="write a number, such as 1000")
        return int(text)

    def mode(self, default: int) -> int:
        text = self.values.get("mode")
        if text is None:
            return default
        if not re.fullmatch(r"0*[0-7]{1,4}", text, re.ASCII):
            raise RecipeError(f"invalid value {text} for mode", hint="write it in octal, such as 0755")
        return int(text, 8)


def _pairs(text: str) -> list[tuple[str, str | None]]:
    import csv

    try:
        fields = next(csv.reader([text], strict=True), [])
    except csv.Error as error:
        raise RecipeError(f"failed to parse mount `{text}`: {error}", hint="write type=…,target=…") from error
    split = (field.partition("=") for field in fields)
    return [(key, value if equals else None) for key, equals, value in split]


def _switch(key: str, raw: str | None, expand: Callable[[str], str]) -> str:
    value = "true" if raw is None else expand(raw).lower()
    # The spellings of Go's strconv.ParseBool.
    if value not in ("true", "t", "1", "false", "f", "0"):
        raise RecipeError(f"invalid value for {key}: {raw}", hint=f"write {key} or {key}=false")
    return "true" if value in ("true", "t", "1") else "false"


def _value(key: str, raw: str, expand: Callable[[str], str]) -> str:
    if key != "from":
        return expand(raw)
    if raw != expand(raw):
        raise RecipeError(
            "'from' doesn't support variable expansion, define alias stage instead",
            hint="FROM expands global ARGs: `FROM $NAME AS alias`, then from=alias",
        )
    return raw


def _one_of(what: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise RecipeError(f'unsupported {what} "{value}"', hint=f"known are {', '.join(known)}")


def _allowed(key: str, kind: str) -> str:
    if key in _ONLY:
        return f"{key} belongs behind type={' or type='.join(_ONLY[key])}, not type={kind}"
    return f"known keys are {', '.join(sorted(_KNOWN))}"


def _check_combination(keys: _Keys) -> None:
    kind = keys.kind
    for key in _OWNERSHIP:
        if key in keys.values and kind not in _OWNED:
            raise RecipeError(f'{key} not allowed for "{kind}" type mounts')
    if "sharing" in keys.values and kind != "cache":
        raise RecipeError(f"invalid cache sharing set for {kind} mount")
    if keys.get("from") and kind in ("secret", "ssh"):
        raise RecipeError(f"{kind} mount should not have a from")
    if keys.get("source") and kind == "ssh":
        raise RecipeError(f"{kind} mount should not have a source")


def _target(keys: _Keys, around: Surroundings) -> str:
    """Where it is mounted; without a target, on the working directory."""
    return _absolute(keys.get("target"), around)


def _absolute(target: str, around: Surroundings) -> str:
    path = posixpath.normpath("/" + posixpath.join(around.working_dir, target).lstrip("/"))
    if path == "/":
        raise RecipeError('invalid mount target "/"', hint="add target=/path, a directory below")
    if "\0" in path:
        raise RecipeError("a path can't hold a NUL byte")
    return path


def _root(keys: _Keys, around: Surroundings) -> Root | None:
    name = keys.get("from")
    return around.roots.find(name, verb="mount", by_index=False) if name else None


def _bind(keys: _Keys, around: Surroundings) -> RunMount:
    return RunMount(
        "bind",
        _target(keys, around),
        source=keys.get("source"),
        root=_root(keys, around) or ContextRoot(),
        read_only=keys.read_only(True),
    )


def _cache(keys: _Keys, around: Surroundings) -> RunMount:
    target = _target(keys, around)
    sharing = keys.get("sharing").lower() or "shared"
    _one_of("sharing value", sharing, SHARING)
    return RunMount(
        "cache",
        target,
        source=keys.get("source"),
        root=_root(keys, around),
        read_only=keys.read_only(False),
        # A relative target is the same cache wherever it is mounted: BuildKit takes it as written, but cleaned.
        id=keys.get("id") or posixpath.normpath(re.sub("^/+", "/", keys.get("target"))),
        sharing=sharing,
        uid=keys.number("uid"),
        gid=keys.number("gid"),
        mode=keys.mode(0o755),
    )


def _tmpfs(keys: _Keys, around: Surroundings) -> RunMount:
    return RunMount("tmpfs", _target(keys, around), read_only=keys.read_only(False), size=_size(keys.get("size")))


def _size(text: str) -> int:
    if not text:
        return 0
    form = _SIZE.fullmatch(text.lower())
    if form is None:
        raise RecipeError(f"invalid value for size: {text}", hint="write bytes, or 64m, 1g")
    return int(float(form[1]) * _SCALES[form[2]])


def _secret(keys: _Keys, around: Surroundings) -> RunMount:
    source, target, env = keys.get("source"), keys.get("target"), keys.get("env")
    if source and keys.get("id"):
        raise RecipeError("both source and id can't be set", hint="they mean the same: keep one")
    name = keys.get("id") or source or posixpath.basename(target.rstrip("/")) or env
    if not name:
        raise RecipeError("invalid secret mount. one of source, target required", hint="add id=NAME")
    if not target and not env:
        target = f"{SECRETS}/{posixpath.basename(name.rstrip('/')) or name}"
    mount = _credential(keys, mode=0o400)
    return replace(mount, target=_absolute(target, around) if target else "", id=name, env=env)


def _ssh(keys: _Keys, around: Surroundings) -> RunMount:
    target = keys.get("target") or AGENT.format(number=around.agents)
    mount = _credential(keys, mode=0o600)
    return replace(mount, target=_absolute(target, around), id=keys.get("id") or "default")


def _credential(keys: _Keys, *, mode: int) -> RunMount:
    return RunMount(
        keys.kind,
        "",
        read_only=True,
        uid=keys.number("uid"),
        gid=keys.number("gid"),
        mode=keys.mode(mode),
        required=keys.get("required") == "true",
    )


_READERS: dict[str, Callable[[_Keys, Surroundings], RunMount]] = {
    "bind": _bind,
    "cache": _cache,
    "tmpfs": _tmpfs,
    "secret": _secret,
    "ssh": _ssh,
}
