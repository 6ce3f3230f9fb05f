"""What a build must not leave behind: processes, mounts, files that no row of the store claims."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from layerbuild.store.store import Store


def processes(mark: str) -> list[int]:
    """The processes whose command line holds ``mark``."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if mark.encode() in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:  # it has ended meanwhile
            continue
    return found


def mounts(root: Path) -> list[str]:
    """All mounts of the store at ``root``, in whichever process's namespace. In a container's own the options alone
    tell: the short names of its lower folders."""
    names = [str(root), *(f"l/{link}" for link in os.listdir(root / "overlay2" / "l"))]
    found = []
    for path in Path("/proc").glob("[0-9]*/mountinfo"):
        try:
            found += [line for line in path.read_text().splitlines() if any(name in line for name in names)]
        except OSError:
            continue
    return found


def wait_until(condition: Callable[[], object], *, seconds: float = 60.0) -> None:
    """Wait until ``condition`` holds; an AssertionError if that takes too long."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds} s"
        time.sleep(0.01)


def assert_whole(root: Path) -> None:
    """The store at ``root`` is what its rows say, every layer has the bytes that its digest says, and nothing else is
    there. Only for a store that nobody will write any more: whoever looks may be another user."""
    with Store.open(root) as store:
        found = store.verify(contents=True)
        assert not found, found
        snapshots = {snapshot.id for snapshot in store.snapshots.all() if snapshot.unpacked}  # some have not come
        kept = {kept.id for kept in store.workspaces.kept()}
    assert set(os.listdir(root / "overlay2")) == snapshots | kept | {"l"}
    assert os.listdir(root / "tmp") == []
    assert os.listdir(root / "builds") == []


def groups_left_behind() -> list[str]:
    """The control groups of builds that have ended: other tests may be building at this moment."""
    names = [(above, name) for above, folders, _ in os.walk("/sys/fs/cgroup") for name in folders]
    return [f"{above}/{name}" for above, name in names if name.startswith("layerbuild-") and not _builds(name)]


def _builds(group: str) -> bool:
    return Path("/proc", group.split("-")[1]).exists()
