"""Trees as values, overlay mounts and tars, for the tests of layers."""

from __future__ import annotations

import io
import os
import stat
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from layerbuild.errors import FormatError
from layerbuild.layer.apply import Applied, apply
from layerbuild.layer.capture import Captured, LayerWriter, capture
from layerbuild.layer.codecs import NONE
from layerbuild.layer.entry import kept_xattrs
from layerbuild.layer.index import Index

EPOCH = 315532800


def described(folder: Path, *, times: bool = True) -> dict[str, tuple[object, ...]]:
    """All below ``folder`` by path: kind and mode, owner, content or target, time, attributes, and the first name of
    its inode. The root is in it as ``.``, without its time."""
    first: dict[tuple[int, int], str] = {}
    tree: dict[str, tuple[object, ...]] = {}
    for path in [folder, *sorted(folder.rglob("*"))]:
        found = path.lstat()
        name = str(path.relative_to(folder))
        link = stat.S_ISLNK(found.st_mode)
        content: object = path.readlink() if link else path.read_bytes() if path.is_file() else found.st_rdev
        device = stat.S_ISCHR(found.st_mode) and found.st_rdev == 0
        inode = name if path.is_dir() or device else first.setdefault((found.st_dev, found.st_ino), name)
        tree[name] = (
            stat.S_IFMT(found.st_mode) if device else oct(found.st_mode),
            (found.st_uid, found.st_gid),
            content,
            found.st_mtime_ns if times and name != "." and not device else None,
            () if link else kept_xattrs(os.fsencode(path)),
            inode,
        )
    return tree


@contextmanager
def overlay(lowers: list[Path], upper: Path, scratch: Path) -> Iterator[Path]:
    """Mount ``lowers`` (top first) with ``upper`` on top, as RUN does; needs root."""
    work, merged = scratch / "work", scratch / "merged"
    for folder in (upper, work, merged):
        folder.mkdir(exist_ok=True)
    options = f"lowerdir={':'.join(map(str, lowers))},upperdir={upper},workdir={work}"
    options += ",redirect_dir=off,metacopy=off,index=off"
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, merged], check=True)
    try:
        yield merged
    finally:
        subprocess.run(["umount", merged], check=True)


def captured(folder: Path, scratch: Path, name: str = "layer") -> Captured:
    """Capture a sealed folder to ``scratch``/NAME.tar and NAME.index."""
    with LayerWriter(scratch / f"{name}.tar", scratch / f"{name}.index", codec=NONE) as writer:
        return capture(folder, writer)


def applied(tar: bytes, folder: Path, *, layered: bool = True) -> Applied:
    """Unpack ``tar`` into a new ``folder``; the index lies beside it, and is the one that is made without a folder, if
    that can be."""
    folder.mkdir()
    found = apply(io.BytesIO(tar), folder, index=index_of(folder), layered=layered, user_xattr=os.geteuid() != 0)
    alone = folder.with_name(folder.name + ".alone")
    with suppress(FormatError):
        assert apply(io.BytesIO(tar), None, index=alone, layered=layered) == found
        assert alone.read_bytes() == index_of(folder).read_bytes()
    return found


def index_of(folder: Path) -> Path:
    return folder.with_name(folder.name + ".index")


def entries(index: Path) -> dict[bytes, str]:
    """Path and kind of all entries, opaque folders marked with a star."""
    with Index.open(index) as opened:
        return {entry.path: entry.kind + "*" * entry.opaque for entry in opened}
