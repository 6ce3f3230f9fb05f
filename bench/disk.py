"""Where a benchmark lies: one fresh, journalled ext4 in a loop-mounted file, or a folder that its user names.

An ext4 without a journal, as throw-away virtual machines have it, grows slower after many deletes; on a file system of
its own, made for this run, every builder meets the same.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.peers import run


@contextmanager
def disk(scratch: Path | None, place: Path | None, *, gigabytes: int) -> Iterator[Path]:
    """An empty folder to work in. ``place``: on this very file system; else on a fresh one, whose file is below
    ``scratch``."""
    if place is not None:
        with tempfile.TemporaryDirectory(dir=place, prefix="layerbuild-bench-") as folder:
            yield Path(folder)
        return
    with tempfile.TemporaryDirectory(dir=scratch, prefix="layerbuild-bench-") as folder:
        image, mounted = Path(folder, "disk"), Path(folder, "mounted")
        mounted.mkdir()
        with image.open("wb") as file:
            file.truncate(gigabytes << 30)
        # All inode tables at once: else the kernel writes them in the background, beside what is measured.
        options = ["-E", "lazy_itable_init=0,lazy_journal_init=0", "-O", "has_journal"]
        run(["mkfs.ext4", "-q", *options, image])
        run(["mount", "-o", "loop,noatime", image, mounted])
        try:
            yield mounted
        finally:
            subprocess.run(["umount", "--lazy", mounted], check=True)


def settle() -> None:
    """Have everything on the disk, so that nobody waits for what another one wrote."""
    os.sync()
