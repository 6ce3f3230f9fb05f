"""The drivers, best first, and how one of them is chosen. Another one is another row; the tests run over the rows."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

from layerbuild.build.drivers.driver import Driver
from layerbuild.errors import MachineError, UsageError
from layerbuild.frozen import frozen
from layerbuild.isolate import probe
from layerbuild.isolate.namespaces import Identity


@frozen
class Rung:
    """A driver by its name. ``trial`` says what it finds where a store is or will be, in the build's namespaces, and
    raises MachineError with the remedy if the driver can't be used there."""

    name: str
    summary: str
    trial: Callable[[Path, Identity], str]
    make: Callable[[Identity], Driver]


@frozen
class Choice:
    """The driver to use; ``passed`` says of each better one why it is not."""

    driver: Driver
    summary: str
    passed: tuple[str, ...] = ()

    def __str__(self) -> str:
        return "; ".join((f"driver {self.driver.name}: {self.summary}", *self.passed))


def choose(name: str | None, store: Path, identity: Identity) -> Choice:
    """The driver called ``name``, or the first that works where the store is. UsageError for a name that there is not,
    MachineError if it (or, without a name, any) can't be used here. To be called in the build's namespaces."""
    if name is not None:
        rung = _named(name)
        rung.trial(store, identity)
        return Choice(rung.make(identity), rung.summary)
    passed: list[str] = []
    for rung in RUNGS:
        try:
            rung.trial(store, identity)
        except MachineError as error:
            passed.append(f"not {rung.name}: {error.message}")
            refused = error
            continue
        return Choice(rung.make(identity), rung.summary, tuple(passed))
    raise refused


def examine(name: str | None, store: Path) -> tuple[probe.Finding, ...]:
    """What ``doctor`` says of each driver for a store at ``store``, and which of them a build uses: ``name``, or the
    first that works. It forks: see ``probe.rung``."""
    findings = tuple(probe.rung(rung.name, partial(rung.trial, store)) for rung in RUNGS)
    wanted = [found for found in findings if name in (None, found.name)]
    if not wanted:
        raise _unknown(str(name))
    used = next((found for found in wanted if found.ok), None)
    if used is None:
        refused = wanted[0]
        return (*findings, probe.Finding("driver", False, f"none works: {refused.detail}", refused.remedy))
    return (*findings, probe.Finding("driver", True, f"{used.name}: {_named(used.name).summary}"))


def _named(name: str) -> Rung:
    for rung in RUNGS:
        if rung.name == name:
            return rung
    raise _unknown(name)


def _unknown(name: str) -> UsageError:
    return UsageError(f"there is no driver {name!r}", hint=f"there are: {', '.join(rung.name for rung in RUNGS)}")


# -- trials ------------------------------------------------------------------------------------------------------------


def _try_overlay(store: Path, identity: Identity) -> str:
    return probe.try_overlay(store, user_xattr=identity.user_xattr)


def _try_fuse(store: Path, identity: Identity) -> str:
    from layerbuild.build.drivers.stacked import fuse_mounted

    if shutil.which("fuse-overlayfs") is None:
        raise MachineError("fuse-overlayfs is not installed", hint="as root: apt-get install fuse-overlayfs")
    try:
        os.close(os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        raise MachineError(
            f"/dev/fuse can't be opened: {error.strerror}", hint="as root: modprobe fuse; chmod 666 /dev/fuse"
        ) from error
    with probe.scratch(store) as folder:
        for name in ("lower", "upper", "work", "merged"):
            (folder / name).mkdir()
        with fuse_mounted(["lower"], folder / "upper", folder / "work", folder / "merged", directory=folder):
            (folder / "merged/file").touch()
    return f"works on {probe.file_system_of(store)}"


def _try_btrfs(store: Path, identity: Identity) -> str:
    from layerbuild.store import btrfs

    with probe.scratch(store) as folder:
        kind = probe.file_system_of(store)
        if not btrfs.is_btrfs(folder):
            raise MachineError(f"{store} is on {kind}", hint="choose a place on btrfs with --root")
        try:
            btrfs.create(folder / "one")
            btrfs.snapshot(folder / "one", folder / "two")
        except OSError as error:
            raise MachineError(f"no subvolume can be made at {store}: {error.strerror}") from error
        finally:
            for name in ("one", "two"):
                btrfs.delete(folder / name)
    return "works: the store is on btrfs"


def _try_copy(store: Path, identity: Identity) -> str:
    from layerbuild.layer.clone import shares
    from layerbuild.layer.whiteout import make_whiteout

    with probe.scratch(store) as folder:
        make_whiteout(os.fsencode(folder / "gone"))
        (folder / "file").write_bytes(b"content")
        shared = shares(folder / "file", folder / "clone")
    kind = probe.file_system_of(store)
    return f"works on {kind}, which shares the bytes" if shared else f"works on {kind}: all bytes are copied"


def _make_overlay(identity: Identity) -> Driver:
    from layerbuild.build.drivers.stacked import OverlayDriver

    return OverlayDriver()


def _make_fuse(identity: Identity) -> Driver:
    from layerbuild.build.drivers.stacked import FuseOverlayDriver

    return FuseOverlayDriver(user_xattr=identity.user_xattr)


def _make_btrfs(identity: Identity) -> Driver:
    from layerbuild.build.drivers.whole import BtrfsDriver

    return BtrfsDriver()


def _make_copy(identity: Identity) -> Driver:
    from layerbuild.build.drivers.whole import CopyDriver

    return CopyDriver()


RUNGS: Final = (
    Rung("overlay", "the kernel's overlay mount", _try_overlay, _make_overlay),
    Rung("btrfs", "a snapshot of the whole tree for each RUN, compared afterwards", _try_btrfs, _make_btrfs),
    Rung("fuse-overlayfs", "overlay by a program", _try_fuse, _make_fuse),
    Rung("copy", "a copy of the whole tree for each RUN, compared afterwards", _try_copy, _make_copy),
)
