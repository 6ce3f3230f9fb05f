"""Stores that begin with a base or two, made once and copied for each test."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from support import USER, Layerbuild


@dataclass(frozen=True)
class Templates:
    """Stores that hold the bases ``busybox`` and ``base:host``, made once for each kind of user, to be copied."""

    folder: Path
    make: Mapping[str, Callable[[Path], Layerbuild]]
    busybox_tar: Path

    def copy(self, who: str, to: Path) -> Layerbuild:
        template = self.folder / who / "store"
        if not template.exists():
            self._fill(who)
        to.mkdir()
        os.chown(to, *((USER, USER) if who != "root" and os.geteuid() == 0 else (-1, -1)))
        subprocess.run(["cp", "-a", template, to / "store"], check=True)
        return self.make[who](to / "store")

    def _fill(self, who: str) -> None:
        folder = self.folder / who
        folder.mkdir()
        if who != "root" and os.geteuid() == 0:
            os.chown(folder, USER, USER)
        layerbuild = self.make[who](folder / "store")
        layerbuild("import", "--tag", "busybox", "-", stdin=self.busybox_tar.read_bytes())
        layerbuild("base", "host")
