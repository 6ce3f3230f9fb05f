"""Whether this machine executes programs of another architecture: its kernel does (386 on amd64), or an emulator that
is registered with binfmt_misc.

It is found out by doing it. The smallest program there is, an ELF file with a few instructions that end it, is executed
below a root of its own, as the command of a RUN would be: an emulator that was registered without the flag F is not
found from there (the kernel's admin-guide/binfmt-misc.rst), and would not be found by the RUN either.
"""

from __future__ import annotations

import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

from layerbuild.errors import MachineError
from layerbuild.frozen import frozen

_ADDRESS = 0x10000  # where the program is loaded: above what mmap_min_addr may forbid
_ENDS = {32: "<HHIIIIIHHHHHH", 64: "<HHIQQQIHHHHHH"}
_SECONDS = 30  # for one instruction or three; a loaded machine starts slowly


@frozen
class _Machine:
    """An architecture as elf(5) tells it: bits, ``e_machine``, ``e_flags``; and ``exit``, the instructions that end a
    process with a code (the system call's number and registers: syscall(2))."""

    bits: int
    number: int
    exit: Callable[[int], bytes]
    flags: int = 0
    big: bool = False


def _words(*instructions: int) -> bytes:
    return struct.pack(f"<{len(instructions)}I", *instructions)


_MACHINES = {
    "amd64": _Machine(64, 62, lambda code: b"\xbf" + struct.pack("<I", code) + b"\xb8\x3c\x00\x00\x00\x0f\x05"),
    "386": _Machine(32, 3, lambda code: b"\xbb" + struct.pack("<I", code) + b"\xb8\x01\x00\x00\x00\xcd\x80"),
    "arm64": _Machine(64, 183, lambda code: _words(0xD2800000 | code << 5, 0xD2800BA8, 0xD4000001)),
    "arm": _Machine(32, 40, lambda code: _words(0xE3A00000 | code, 0xE3A07001, 0xEF000000), flags=0x05000000),
    "riscv64": _Machine(64, 243, lambda code: _words(0x00000513 | code << 20, 0x05D00893, 0x00000073)),
    "ppc64le": _Machine(64, 21, lambda code: _words(0x38600000 | code, 0x38000001, 0x44000002), flags=2),
    "s390x": _Machine(64, 22, lambda code: b"\xa7\x29" + struct.pack(">H", code) + b"\x0a\x01", big=True),
    "loong64": _Machine(64, 258, lambda code: _words(0x02C00004 | code << 10, 0x02C1740B, 0x002B0000)),
}


def program(architecture: str, *, exit_code: int = 0) -> bytes | None:
    """A static ELF program that ends with ``exit_code`` (0 to 127); None for an architecture that is not known here."""
    machine = _MACHINES.get(architecture)
    if machine is None:
        return None
    order = ">" if machine.big else "<"
    code = machine.exit(exit_code)
    wide = machine.bits == 64
    head, entry = (64, 56) if wide else (52, 32)
    ident = b"\x7fELF" + bytes((2 if wide else 1, 2 if machine.big else 1, 1)) + bytes(9)
    layout = order + _ENDS[machine.bits][1:]
    start = _ADDRESS + head + entry
    header = struct.pack(layout, 2, machine.number, 1, start, head, 0, machine.flags, head, entry, 1, 0, 0, 0)
    size = head + entry + len(code)
    segment = (
        struct.pack(f"{order}IIQQQQQQ", 1, 5, 0, _ADDRESS, _ADDRESS, size, size, 0x1000)
        if wide
        else struct.pack(f"{order}IIIIIIII", 1, 0, _ADDRESS, _ADDRESS, size, size, 5, 0x1000)
    )
    return ident + header + segment + code


@cache
def executes(architecture: str, *, place: Path) -> bool:
    """Whether programs of ``architecture`` (Go's name for it) can be executed here; for one that is not known, no.

    ``place`` is a folder that programs can be executed in. Call it where a root can be changed: as root, or in a user
    namespace.
    """
    image = program(architecture)
    if image is None:
        return False
    with tempfile.TemporaryDirectory(dir=place) as folder:
        path = Path(folder, "program")
        path.write_bytes(image)
        path.chmod(0o755)
        # A process of its own, and no fork of this one, which may have threads.
        command = "import os, sys; os.chroot(sys.argv[1]); os.execv('/program', ['program'])"
        try:
            done = subprocess.run(
                [sys.executable, "-Sc", command, folder], capture_output=True, timeout=_SECONDS, check=False
            )
        except subprocess.TimeoutExpired:
            return False
    return done.returncode == 0


def require(architecture: str, *, system: str, place: Path) -> None:
    """MachineError unless commands of images for that system and architecture can be executed here."""
    if system != "linux":
        raise MachineError(f"programs for {system} can't be executed here", hint="only COPY, ADD and metadata can be")
    if not executes(architecture, place=place):
        raise MachineError(
            f"programs for {architecture} can't be executed on this machine",
            hint=(
                "register an emulator with binfmt_misc, with the flag F: on Debian and Ubuntu "
                "`apt-get install qemu-user-static binfmt-support`"
            ),
        )
