"""Probes, the way into the build's namespaces, and the table of backends."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import pytest
from isolate_world import World, in_build

from layerbuild.errors import UsageError
from layerbuild.isolate import linux, namespaces, probe
from layerbuild.isolate.backends import BACKENDS, backend
from layerbuild.isolate.mounts import Overlay, tmpfs
from layerbuild.isolate.namespaces import enter_build_namespaces
from layerbuild.isolate.sandbox import Sandbox


@in_build()
def test_a_store_that_will_do(world: World) -> None:
    store = world.base / "not/yet/there"
    before = sorted(os.listdir(world.base))
    findings = {finding.name: finding for finding in probe.examine(store)}
    for name in ("kernel", "namespaces", "file system"):
        assert findings[name].ok, findings[name]
    assert all(finding.ok or finding.remedy for finding in findings.values())
    assert probe.overlay(store).ok
    assert sorted(os.listdir(world.base)) == before


@in_build()
def test_a_trial_leaves_the_working_directory_alone(world: World) -> None:
    """All threads have it in common, and those beside the trial may be reading a context that is called `.`: what lies
    at the new place would be copied."""

    def refuse(path: object) -> None:
        raise AssertionError(f"the working directory becomes {path}")

    kept, os.chdir = os.chdir, refuse
    try:
        assert "works" in probe.try_overlay(world.base / "store", user_xattr=world.identity.user_xattr)
    finally:
        os.chdir = kept


@in_build()
def test_a_store_on_overlay_is_refused_with_its_name(world: World) -> None:
    rootfs = world.rootfs()
    Overlay(rootfs.lowers, rootfs.upper, rootfs.work, rootfs.merged, user_xattr=world.identity.user_xattr).attach()
    found = probe.overlay(Path(rootfs.merged))
    assert not found.ok
    assert "is on overlay, which can't hold overlay's upper folder" in found.detail
    assert "--root" in found.remedy
    assert "ext4" in found.remedy


@in_build()
def test_a_store_on_tmpfs_will_do(world: World) -> None:
    store = world.base / "memory"
    store.mkdir()
    tmpfs(str(store)).attach(str(store), staging="")
    found = probe.overlay(store)
    assert found.ok
    assert "on tmpfs" in found.detail


@in_build("user")
def test_a_store_that_cannot_be_written_is_named(world: World) -> None:
    found = probe.overlay(Path("/usr"))
    assert not found.ok
    assert "can't be written" in found.detail


@in_build()
def test_identity(world: World) -> None:
    identity = world.identity
    assert os.geteuid() == 0
    assert identity.rootless == identity.user_xattr == identity.one_id == (identity.uid != 0)


@in_build()
def test_namespaces_can_be_entered_again_from_within(world: World) -> None:
    if os.fork() == 0:
        enter_build_namespaces()
        os._exit(0)
    assert os.wait()[1] == 0


def test_why_an_overlay_was_refused(tmp_path: Path) -> None:
    said = {
        number: probe.why_no_overlay(tmp_path, OSError(number, os.strerror(number)))
        for number in (errno.ENODEV, errno.EPERM, errno.EINVAL)
    }
    assert said[errno.ENODEV].message == "this kernel has no overlay file system"
    assert "modprobe overlay" in said[errno.ENODEV].hint
    assert "Linux 5.11" in said[errno.EPERM].hint
    assert str(tmp_path.parent) in said[errno.EINVAL].message
    assert "--root" in said[errno.EINVAL].hint


@in_build()
def test_optional_findings_are_marked(world: World) -> None:
    optional = {finding.name for finding in probe.examine(world.base) if not finding.needed}
    assert optional == {"lowerdir+", "ids", "limits", "seccomp"}


@in_build()
def test_a_refused_mount_leads_to_a_remedy(world: World) -> None:
    with pytest.raises(OSError) as caught:
        linux.mount("none", str(world.base / "absent"), "tmpfs")
    assert caught.value.filename == str(world.base / "absent")


def test_threads_come_later() -> None:
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait)
    thread.start()
    try:
        with pytest.raises(RuntimeError, match="thread"):
            enter_build_namespaces()
        with pytest.raises(RuntimeError, match="thread"):
            Sandbox.start(namespaces.Identity(False, False, False, 0, 0))
    finally:
        stop.set()
        thread.join()


def test_the_remedy_for_refused_user_namespaces_is_never_empty() -> None:
    assert "root" in namespaces.user_namespace_remedy()


def test_backends_are_found_by_name() -> None:
    assert [row.name for row in BACKENDS.values()] == list(BACKENDS)
    assert backend("namespaces").summary
    with pytest.raises(UsageError) as caught:
        backend("chroot")
    assert "namespaces" in caught.value.hint
