"""Where the dynamic loader finds a shared library: ld.so(8) for glibc, ldso/dynlink.c for musl.

The order for glibc: DT_RPATH of the file and of those that loaded it (unless it has a DT_RUNPATH), DT_RUNPATH, the
cache, the default folders. The cache holds nothing but what ldconfig found in the folders of ``/etc/ld.so.conf``, so
these folders are searched in its place, and no binary format needs to be read. LD_LIBRARY_PATH is left out: it belongs
to a shell, not to a machine.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import cache
from glob import glob
from pathlib import Path

from layerbuild.errors import FormatError
from layerbuild.frozen import frozen
from layerbuild.intake.elf import Elf, read_elf

_MUSL_OWN = re.compile(r"lib(?:c|pthread|rt|m|dl|util|xnet)\.")


@frozen
class Library:
    """A library found: ``path`` as the loader opens it.

    ``configured`` is true where only the machine's configuration led to it. An image has no loader cache, so such a
    library must be reachable from a default folder there.
    """

    path: Path
    configured: bool


class Loader:
    """The search on one machine. ``root`` is ``/`` but in tests."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root
        self._read = cache(read_elf)

    def find(self, name: str, wanted_by: Sequence[tuple[Path, Elf]], *, interpreter: str) -> Library | None:
        """The library ``name`` as the last of ``wanted_by`` needs it.

        ``wanted_by`` begins with the program (its real path) and goes on with each library down to the one that names
        ``name``. None if no folder holds one of the same class and machine.
        """
        asker, elf = wanted_by[-1]
        if "/" in name:
            path = Path(_expand(name, asker, elf))
            return Library(path, configured=False) if self._fits(path, elf) else None
        for folder in self._recorded(wanted_by):
            if self._fits(Path(folder) / name, elf):
                return Library(Path(folder) / name, configured=False)
        for folder, configured in self._machine_folders(interpreter, elf):
            if self._fits(Path(folder) / name, elf):
                return Library(Path(folder) / name, configured)
        return None

    def read(self, path: Path) -> Elf | None:
        """The ELF facts of a path on this machine, remembered."""
        return self._read(self._host(path))

    def _recorded(self, wanted_by: Sequence[tuple[Path, Elf]]) -> Iterator[str]:
        asker, elf = wanted_by[-1]
        if not elf.runpath:
            for path, loaded in reversed(wanted_by):
                # A loader of the asker that has a RUNPATH contributes nothing: its RPATH is ignored (ld.so(8)).
                yield from () if loaded.runpath else (_expand(folder, path, loaded) for folder in loaded.rpath)
        yield from (_expand(folder, asker, elf) for folder in elf.runpath)

    def _machine_folders(self, interpreter: str, elf: Elf) -> Iterator[tuple[str, bool]]:
        if "ld-musl" in interpreter:
            yield from ((folder, True) for folder in self._musl_path(interpreter))
            yield from ((folder, False) for folder in ("/lib", "/usr/local/lib", "/usr/lib"))
            return
        yield from ((folder, True) for folder in self._configured())
        wide = ("/lib64", "/usr/lib64") if elf.is_64bit else ("/lib32", "/usr/lib32")
        yield from ((folder, False) for folder in (*wide, "/lib", "/usr/lib"))

    def _musl_path(self, interpreter: str) -> list[str]:
        """``/etc/ld-musl-ARCH.path``: folders between colons or line ends, in place of the default ones."""
        file = self._host(Path("/etc") / (Path(interpreter).name.removesuffix(".so.1") + ".path"))
        return file.read_text().replace("\n", ":").split(":") if file.is_file() else []

    def _configured(self) -> tuple[str, ...]:
        """The folders of ``/etc/ld.so.conf``, in order."""
        return tuple(self._folders_of(self._host(Path("/etc/ld.so.conf")), set()))

    def _folders_of(self, file: Path, seen: set[Path]) -> Iterator[str]:
        """What a configuration file says, an include in its place (ldconfig(8)); each file is read once."""
        if file in seen or not file.is_file():
            return
        seen.add(file)
        for line in file.read_text(errors="surrogateescape").splitlines():
            words = line.partition("#")[0].replace(",", " ").replace(":", " ").split()
            if words[:1] == ["include"]:
                patterns = [self._below(file.parent, word) for word in words[1:]]
                for match in (match for pattern in patterns for match in sorted(glob(str(pattern)))):
                    yield from self._folders_of(Path(match), seen)
            elif words[:1] != ["hwcap"]:
                yield from (word for word in words if word.startswith("/"))

    def _below(self, base: Path, pattern: str) -> Path:
        return self._host(Path(pattern)) if pattern.startswith("/") else base / pattern

    def _fits(self, path: Path, wanted: Elf) -> bool:
        """The loader passes over a file of another class or machine, and over what it can't read."""
        try:
            found = self._read(self._host(path))
        except (OSError, FormatError):
            return False
        return found is not None and found.kind == wanted.kind

    def _host(self, path: Path) -> Path:
        return self._root / path.relative_to("/") if path.is_absolute() else path


def is_built_in(name: str, interpreter: str) -> bool:
    """Whether the loader is itself this library: musl's holds libc, libm, libpthread and others under any suffix."""
    return "ld-musl" in interpreter and _MUSL_OWN.match(name) is not None


def _expand(text: str, owner: Path, elf: Elf) -> str:
    """Replace ``$ORIGIN`` and ``$LIB``; ``$PLATFORM`` stays, and then leads nowhere, as on most machines."""
    for form, value in (("ORIGIN", str(owner.parent)), ("LIB", "lib64" if elf.is_64bit else "lib")):
        text = text.replace("${" + form + "}", value).replace("$" + form, value)
    return text
