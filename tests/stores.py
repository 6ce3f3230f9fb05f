"""Stores that begin with a base or two, made once and copied for each test."""

from __future__ import annotations

import os
import subprocess
import tarfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from support import USER, Layerbuild, add_member


@dataclass(frozen=True)
class Templates:
    """Stores with the base ``busybox``, and with ``base:host`` where it is wanted: one for each kind of user, made when
    it is first asked for, and copied. ``folder`` is on the disk, ``memory`` in memory."""

    folder: Path
    memory: Path
    make: Mapping[str, Callable[[Path], Layerbuild]]
    busybox_tar: Path

    def copy(self, who: str, to: Path, *, in_memory: bool = False, host: bool = False) -> Layerbuild:
        """A copy in the folder ``to``, which is made; ``in_memory`` if that lies there, too."""
        template = (self.memory if in_memory else self.folder) / (f"{who}-host" if host else who)
        if not template.exists():
            self._fill(who, template, in_memory=in_memory, host=host)
        _own(who, to)
        subprocess.run(["cp", "-a", template / "store", to / "store"], check=True)
        return self.make[who](to / "store")

    def _fill(self, who: str, template: Path, *, in_memory: bool, host: bool) -> None:
        if host:
            self.copy(who, template, in_memory=in_memory)("base", "host")
        else:
            _own(who, template)
            self.make[who](template / "store")("import", "--tag", "busybox", "-", stdin=self.busybox_tar.read_bytes())


def _own(who: str, folder: Path) -> None:
    folder.mkdir()
    os.chown(folder, *((USER, USER) if who != "root" and os.geteuid() == 0 else (-1, -1)))


def write_busybox(busybox: str, path: Path) -> None:
    """A tar of the root file system of a small image: ``busybox`` with a link for each of its programs, and a few
    users."""
    listed = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True).stdout.split()
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for folder, mode in (("bin", 0o755), ("etc", 0o755), ("root", 0o700), ("tmp", 0o1777), ("home", 0o755)):
            add_member(tar, folder, tarfile.DIRTYPE, mode=mode)
        add_member(tar, "bin/busybox", content=Path(busybox).read_bytes(), mode=0o755)
        for name in sorted(set(listed) - {"busybox"}):
            add_member(tar, f"bin/{name}", tarfile.SYMTYPE, link="busybox")
        users = (
            "root:x:0:0:root:/root:/bin/sh",
            "daemon:x:1:1:daemon:/usr/sbin:/bin/false",
            "nobody:x:65534:65534::/:/bin/false",
        )
        add_member(tar, "etc/passwd", content="\n".join((*users, "")).encode())
        add_member(tar, "etc/group", content=b"root:x:0:\ndaemon:x:1:\nwheel:x:10:root\nnobody:x:65534:\n")
