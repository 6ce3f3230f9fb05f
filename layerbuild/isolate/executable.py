"""Which file of the image a command is, and why it can't be executed."""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final, NoReturn

from layerbuild.errors import BuildError, StepFailed
from layerbuild.layer.paths import resolve

_DEFAULT_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
NOT_EXECUTABLE: Final = 126
NOT_FOUND: Final = 127


def check(argv: tuple[str, ...], env: dict[str, str], *, shared: tuple[str, ...] = ()) -> tuple[str, ...]:
    """What ``execute`` may try in the place of the first word of ``argv``, as execvp(3) does. BuildError if that is
    this very program, the machine's Python, because the image says so. To be asked while this process may still read
    every file of the image, and nothing tells of its calls.

    ``/proc/self/exe`` names it until execve has taken place, and is a way to a file of the machine that no mount of the
    container shows: what runs as root could write to it (CVE-2019-5736). In the folders ``shared`` another command may
    change a program into such a way between this look and execve: none is executed from there.
    """
    try:
        own = os.stat("/proc/self/exe")
    except OSError as error:
        raise BuildError("a mount covers /proc/self", hint="mount it elsewhere") from error
    places = tuple(os.fsencode(os.path.realpath(folder)) + b"/" for folder in shared)
    programs: list[str] = []
    for candidate in _candidates(argv[0], env.get("PATH", _DEFAULT_PATH)):
        chain = list(_chain(candidate))
        for file in chain:
            if os.path.samestat(os.stat(file), own):
                raise BuildError(f'"{file}" is no program of the image, but a way to one of the machine that builds it')
        unsure = next((file for file in (candidate, *chain) if _passes(file, places)), None)
        if unsure is None:
            programs.append(candidate)
        elif chain and not any(map(os.path.isfile, programs)):
            raise BuildError(
                f'"{unsure}" lies in a cache, where another command may replace it just now',
                hint="have a shell start it (RUN without brackets), or give the cache sharing=locked",
            )
    return tuple(programs)


def execute(programs: tuple[str, ...], argv: tuple[str, ...], env: dict[str, str]) -> NoReturn:
    """Become the first of ``programs`` that is there, with ``argv``. StepFailed if that can't be."""
    path = env.get("PATH", _DEFAULT_PATH)
    denied = ""
    for candidate in programs:
        try:
            os.execve(candidate, argv, env)
        except (FileNotFoundError, NotADirectoryError) as error:
            if Path(candidate).exists():
                raise _no_interpreter(candidate) from error
        except PermissionError:
            denied = denied or candidate
        except OSError as error:
            raise _unusable(candidate, error) from error
    if denied:
        raise StepFailed(f'"{denied}" is not executable', exit_code=NOT_EXECUTABLE, hint="chmod +x, in an earlier step")
    raise _not_found(argv[0], path)


def _candidates(name: str, path: str) -> list[str]:
    """The files that ``name`` can mean; an empty entry of PATH is the working directory."""
    return [name] if "/" in name else [f"{folder or '.'}/{name}" for folder in path.split(":")]


def _passes(file: str, places: tuple[bytes, ...]) -> bool:
    """Whether the way to ``file`` leads through one of ``places``, wherever it ends."""
    if not places:
        return False
    seen: list[bytes] = []

    def readlink(path: bytes) -> bytes | None:
        seen.append(b"/" + path + b"/")
        try:
            return os.readlink(b"/" + path)
        except OSError:  # no link, or nothing there
            return None

    resolve(os.fsencode(os.path.join(os.getcwd(), file)), readlink)
    return any(path.startswith(places) for path in seen)


# -- what the kernel will execute --------------------------------------------------------------------------------------

_CHAIN: Final = 6  # a script's interpreter may be a script, and so on; the kernel follows five (fs/exec.c)
_HEAD: Final = 256  # bytes of a file by which the kernel knows its kind (BINPRM_BUF_SIZE)
_ELF_HEADER: Final = 64
_PT_INTERP: Final = 3
_PATH_MAX: Final = 4096


def _chain(path: str) -> Iterator[str]:
    """``path``, what the kernel executes to start it, what it executes for that, …"""
    for _ in range(_CHAIN):
        if not os.path.isfile(path):
            return
        yield path
        path = _starter(path)


def _starter(path: str) -> str:
    """A script's interpreter, or a program's dynamic loader; else empty."""
    try:
        with open(path, "rb") as file:
            head = file.read(_HEAD)
            found = _interpreter(head) if head.startswith(b"#!") else _loader(file, head)
    except (OSError, struct.error):
        return ""  # what can't be read here, execve will tell about
    return os.fsdecode(found)


def _interpreter(head: bytes) -> bytes:
    """What the first line of a script names."""
    words = head.split(b"\n")[0][2:].split()
    return words[0] if words else b""


def _loader(file: BinaryIO, head: bytes) -> bytes:
    """The PT_INTERP of a 32- or 64-bit ELF file that begins with ``head``: elf(5)."""
    if not head.startswith(b"\x7fELF") or len(head) < _ELF_HEADER:
        return b""
    wide, order = head[4] == 2, "<" if head[5] == 1 else ">"
    (table,) = struct.unpack_from(order + ("Q" if wide else "I"), head, 32 if wide else 28)
    size, count = struct.unpack_from(f"{order}HH", head, 54 if wide else 42)
    for number in range(count):
        file.seek(table + number * size)
        header = file.read(size)
        if struct.unpack_from(f"{order}I", header)[0] == _PT_INTERP:
            offset, length = struct.unpack_from(order + ("Q16xQ" if wide else "I8xI"), header, 8 if wide else 4)
            file.seek(offset)
            return file.read(min(length, _PATH_MAX)).rstrip(b"\0")
    return b""


# -- why it can't ------------------------------------------------------------------------------------------------------


def _not_found(name: str, path: str) -> StepFailed:
    if "/" in name:
        return StepFailed(f'"{name}": no such file or directory in the image', exit_code=NOT_FOUND)
    return StepFailed(
        f'"{name}" is not in the image: not found in PATH', exit_code=NOT_FOUND, hint=f"PATH is {path or 'empty'}"
    )


def _no_interpreter(path: str) -> StepFailed:
    """A file that is there, and of which execve(2) says ENOENT all the same: what its first line names is not."""
    with open(path, "rb") as file:
        head = file.read(_HEAD)
    name = _interpreter(head) if head.startswith(b"#!") else b""
    if name:
        return StepFailed(
            f'"{path}" wants "{name.decode(errors="replace")}", which is not in the image', exit_code=NOT_FOUND
        )
    return StepFailed(
        f'"{path}" is in the image, but not the dynamic loader that it needs',
        exit_code=NOT_FOUND,
        hint="a program that uses shared libraries needs them, and the loader, in the image; or link it statically",
    )


def _unusable(path: str, error: OSError) -> StepFailed:
    hint = ""
    if error.errno == errno.ENOEXEC:
        hint = "it is for another architecture, or a script whose first line does not name its interpreter (#!)"
    if error.errno == errno.E2BIG:
        hint = "arguments and environment together are larger than the kernel takes"
    return StepFailed(f'"{path}": {os.strerror(error.errno or 0)}', exit_code=NOT_EXECUTABLE, hint=hint)
