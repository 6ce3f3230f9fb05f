"""Diff folders as one tree, before they are mounted."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from layerbuild.isolate import rootfs
from layerbuild.isolate.mounts import Filesystem
from layerbuild.isolate.rootfs import MountPoint, Stack


def layers(base: Path, count: int) -> list[str]:
    """An empty upper on so many lowers with a file each, the lowest of which has the folders /dev and /etc."""
    folders = [base / str(number) for number in range(count + 1)]
    for folder in folders:
        folder.mkdir()
    for folder in folders[1:]:
        (folder / f"file-{folder.name}").touch()
    for name in ("dev", "etc"):
        (folders[-1] / name).mkdir()
    return [str(folder) for folder in folders]


def test_what_is_asked_of_lower_layers_does_not_grow_with_the_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = layers(tmp_path, 100)
    mounts = [Filesystem("proc", "/proc"), Filesystem("tmpfs", "/dev"), Filesystem("tmpfs", "/etc/one")]
    expected = (MountPoint(b"proc", True), MountPoint(b"etc/one", True))
    Stack(folders[1:]).missing(mounts)
    looks: list[object] = []
    lstat = os.lstat
    monkeypatch.setattr(rootfs.os, "lstat", lambda path: looks.append(path) or lstat(path))
    assert Stack(folders).missing(mounts) == expected
    assert 0 < len(looks) < 30


def test_what_a_step_has_made_counts_at_once(tmp_path: Path) -> None:
    folders = layers(tmp_path, 2)
    proc = [Filesystem("proc", "/proc")]
    assert Stack(folders).missing(proc)
    (tmp_path / "0" / "proc").mkdir()
    assert not Stack(folders).missing(proc)
    assert not Stack([str(tmp_path / "new"), *folders]).missing(proc), "as a lower too"
