"""Where an export goes. It is written under a name of its own beside its place, and moved there when it is complete.

A folder that exists is kept and receives the new files: the temporary one then lies inside it, since it may be a mount
point, and a rename does not cross those.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from layerbuild.errors import MachineError, SpaceError, UsageError
from layerbuild.layer.tree import remove_tree

_PREFIX = ".layerbuild-"
_FULL = frozenset((errno.ENOSPC, errno.EDQUOT))

# What a process that can't wait any longer has to remove, since nobody else would know of it.
unfinished: set[Path] = set()

Merge = Callable[[Path, Path], None]


@contextmanager
def new_file(place: Path) -> Iterator[BinaryIO]:
    """A file that takes ``place`` when the context ends well; otherwise nothing is left of it. A device or a pipe that
    is there already is written to as it is: /dev/null is no place for an image."""
    if place.is_dir():
        raise UsageError(f"{place} is a folder; this format writes a file", hint=f"dest={place}/image.tar")
    with writing(place):
        if place.exists() and not place.is_file():
            with open(place, "wb") as file:
                yield file
            return
        place.parent.mkdir(parents=True, exist_ok=True)
        made = _beside(place.parent)
        unfinished.add(made)
        try:
            with open(made, "xb") as file:
                os.fchmod(file.fileno(), 0o644)
                yield file
            made.replace(place)
        except BaseException:
            made.unlink(missing_ok=True)
            raise
        finally:
            unfinished.discard(made)


@contextmanager
def new_folder(place: Path, *, merge: Merge) -> Iterator[Path]:
    """An empty folder that takes ``place`` when the context ends well; where there is one already, ``merge`` moves the
    content of the new one (first argument) into it."""
    if place.exists() and not place.is_dir():
        raise UsageError(f"{place} is a file; this format writes a folder")
    with writing(place):
        present = place.is_dir()
        home = place if present else place.parent
        home.mkdir(parents=True, exist_ok=True)
        made = _beside(home)
        unfinished.add(made)
        try:
            made.mkdir()
            made.chmod(0o755)
            yield made
            if present:
                merge(made, place)
            else:
                made.rename(place)
        finally:
            remove_tree(made)
            unfinished.discard(made)


def _beside(folder: Path) -> Path:
    return folder / f"{_PREFIX}{os.urandom(8).hex()}"


def drop_unfinished() -> None:
    """Remove what exports have begun to write."""
    for place in tuple(unfinished):
        with suppress(OSError):
            remove_tree(place) if place.is_dir() else place.unlink()


@contextmanager
def writing(place: Path) -> Iterator[None]:
    """Say of what the system refuses that it was about ``place``; a reader that went away stays what it is."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        where = os.fsdecode(error.filename or place)
        if error.errno in _FULL:
            raise SpaceError(f"no room to write {where}", hint="choose another dest, or make room there") from error
        raise MachineError(f"can't write {where}: {error.strerror}", hint=f"look at dest={place}") from error


def move_into(made: Path, place: Path) -> None:
    """Move all that is in ``made`` into ``place``, file by file; what has the same name there is replaced.

    Links in ``place`` are replaced and never followed. A folder does not give way to a file: MachineError, before
    anything was moved.
    """
    for folder, inner, is_folder in _walk(made):
        target = place / folder / inner
        if not is_folder and target.is_dir() and not target.is_symlink():
            raise MachineError(
                f"{target} is a folder, where the export has a file", hint="remove it, or choose another dest"
            )
    for folder, inner, is_folder in _walk(made):
        _move(made / folder / inner, place / folder / inner, is_folder=is_folder)


def _move(source: Path, target: Path, *, is_folder: bool) -> None:
    if not is_folder:
        source.replace(target)
        return
    if target.is_symlink() or not target.is_dir():
        target.unlink(missing_ok=True)
        target.mkdir()
    target.chmod(source.stat().st_mode & 0o7777)


def _walk(made: Path) -> Iterator[tuple[Path, str, bool]]:
    """Below ``made``: folder (relative), name, whether it is a folder; a folder before its content."""
    for folder, folders, files in os.walk(made):
        relative = Path(folder).relative_to(made)
        links = [name for name in folders if Path(folder, name).is_symlink()]
        for name in folders:
            if name not in links:
                yield relative, name, True
        for name in (*files, *links):
            yield relative, name, False
