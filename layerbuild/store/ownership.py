"""Whose the layer folders are: the ids that numbers on the disk stand for.

A folder that a user namespace wrote holds the ids to which the namespace's were mapped (user_namespaces(7)), and marks
that overlay reads there only. Seen from a namespace with another map it would be another tree. So the store notes the
maps of whoever made it, and is opened for writing from namespaces with these maps alone.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from layerbuild.errors import StoreError
from layerbuild.store.durable import replace_file

_FILE = "ids"
_ROOT = "uid 0 0 4294967295\n"


def wants_one_id(root: Path) -> bool:
    """Whether the store was made where there is one id only, so that whoever opens it must be there too."""
    noted = _noted(root)
    return noted is not None and _is_one(noted)


def has_ranges(root: Path) -> bool:
    """Whether the files of layers belong to the ids of ranges, so that their maker can't open them all from outside."""
    noted = _noted(root)
    return noted is not None and not noted.startswith(_ROOT) and not _is_one(noted)


def claim(root: Path, maps: str, *, temporary: Callable[[], Path]) -> None:
    """Note ``maps`` (of this process's user namespace) in a store that bears no note yet; StoreError if the store at
    ``root`` was made with others."""
    noted = _noted(root)
    if noted is None:
        replace_file(root / _FILE, maps.encode(), temporary=temporary())
    elif noted != maps:
        raise StoreError(
            f"the layers in {root} were made by {_called(noted)}, and this is {_called(maps)}",
            hint=_remedy(noted, maps),
        )


def _noted(root: Path) -> str | None:
    try:
        return (root / _FILE).read_text()
    except OSError:
        return None


def _is_one(maps: str) -> bool:
    return [line.split()[3] for line in maps.splitlines()] == ["1", "1"]


def _called(maps: str) -> str:
    if maps.startswith(_ROOT):
        return "root"
    owner = f"user {maps.split()[2]}"
    return f"{owner} with one id" if _is_one(maps) else f"{owner} with the ids {_ranges(maps)}"


def _ranges(maps: str) -> str:
    words = [line.split() for line in maps.splitlines()]
    return ", ".join(f"{first}+{count}" for kind, inside, first, count in words if kind == "uid" and inside != "0")


def _remedy(noted: str, maps: str) -> str:
    if noted.split()[2] == maps.split()[2] and not noted.startswith(_ROOT):
        return "restore /etc/subuid and /etc/subgid as they were, with newuidmap installed; or choose another --root"
    return "choose a folder of your own with --root"
