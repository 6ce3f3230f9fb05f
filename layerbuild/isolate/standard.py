"""What every container gets: /proc, /sys and a small /dev, and what of them it may not see.

The lists are those of the OCI runtime specification (config-linux.md, "Default Devices", "Default Filesystems") and of
runc's and Docker's default configuration.
"""

from __future__ import annotations

import functools
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from layerbuild.frozen import frozen
from layerbuild.isolate import linux
from layerbuild.isolate.job import Kind, Network, Security
from layerbuild.isolate.mounts import Bind, File, Filesystem, Mask, tmpfs
from layerbuild.isolate.namespaces import Identity

_DEVICES: Final = (("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0))
_LINKS: Final = (
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
)
_CGROUP2: Final = Path("/sys/fs/cgroup/cgroup.controllers")  # there where version 2 alone is mounted
_PROCESSORS: Final = "/sys/devices/system/cpu"

_HIDDEN: Final = (
    *("acpi", "asound", "interrupts", "kcore", "keys", "latency_stats", "sched_debug", "scsi", "timer_list"),
    "timer_stats",
)
_FIXED: Final = ("bus", "fs", "irq", "sys", "sysrq-trigger")


@frozen
class Surroundings:
    """What a container finds around its files: ``mounts``, in their order, what of them is masked, and at last
    ``groups``, which shows the control group of whoever mounts it."""

    mounts: tuple[Filesystem | Bind, ...]
    masks: tuple[Mask, ...]
    groups: tuple[Filesystem, ...]

    @property
    def tops(self) -> tuple[Filesystem | Bind, ...]:
        """Those of ``mounts`` that all others lie in."""
        return tuple(mount for mount in self.mounts if mount.target.count("/") == 1)


@functools.cache
def surroundings(kind: Kind) -> Surroundings:
    """Those of the containers of ``kind``."""
    return Surroundings(_own_mounts(kind), standard_masks(kind.security), _cgroups(kind.security))


def standard_mounts(kind: Kind) -> tuple[Filesystem | Bind, ...]:
    """The file systems of the container besides its root, in the order in which they are mounted."""
    return (*_own_mounts(kind), *_cgroups(kind.security))


def _own_mounts(kind: Kind) -> tuple[Filesystem | Bind, ...]:
    # The id of group tty; the kernel refuses it where it is not mapped.
    tty = "" if kind.identity.rootless else ",gid=5"
    return (
        Filesystem("proc", "/proc"),
        Filesystem("tmpfs", "/dev", linux.MS_NOSUID | linux.MS_STRICTATIME, "mode=755,size=65536k"),
        Filesystem(
            "devpts", "/dev/pts", linux.MS_NOSUID | linux.MS_NOEXEC, f"newinstance,ptmxmode=0666,mode=0620{tty}"
        ),
        Filesystem("tmpfs", "/dev/shm", options=f"mode=1777,size={kind.shm_size}"),
        Filesystem("mqueue", "/dev/mqueue"),
        _sys(kind.identity, kind.network, kind.security),
    )


def _sys(identity: Identity, network: Network, security: Security) -> Filesystem | Bind:
    read_only = security == "sandbox"
    # sysfs shows a network namespace, and may be mounted by its owner only: in a user namespace the host's isn't ours.
    if identity.rootless and network == "host":
        return Bind("/sys", "/sys", read_only=read_only)
    flags = linux.MS_NOSUID | linux.MS_NODEV | linux.MS_NOEXEC | (linux.MS_RDONLY if read_only else 0)
    return Filesystem("sysfs", "/sys", flags)


def _cgroups(security: Security) -> tuple[Filesystem, ...]:
    """What programs ask for their limits: in a cgroup namespace it shows their own group as the root."""
    if not _CGROUP2.exists():
        return ()
    flags = linux.MS_NOSUID | linux.MS_NODEV | linux.MS_NOEXEC | (linux.MS_RDONLY if security == "sandbox" else 0)
    return (Filesystem("cgroup2", "/sys/fs/cgroup", flags),)


def standard_masks(security: Security) -> tuple[Mask, ...]:
    """What of the host's state is hidden or fixed: kernel memory, keys, timers, firmware, settings."""
    if security == "insecure":
        return ()
    # How often a processor grew hot tells what its neighbours do.
    heat = [f"{_PROCESSORS}/{name}/thermal_throttle" for name in sorted(os.listdir(_PROCESSORS)) if name[3:].isdigit()]
    # The host's /sys, where it is bound as a whole, brings the host's groups with it.
    groups = () if _CGROUP2.exists() else ("/sys/fs/cgroup",)
    return (
        *(Mask(f"/proc/{name}", hidden=True) for name in _HIDDEN),
        *(Mask(path, hidden=True) for path in ("/sys/firmware", "/sys/devices/virtual/powercap", *groups)),
        *(Mask(path, hidden=True) for path in heat),
        *(Mask(f"/proc/{name}") for name in _FIXED),
    )


def stage(around: Surroundings, at: str, *, rootless: bool) -> Iterator[Filesystem | Bind | Mask]:
    """Mount all of ``around``, its groups apart, below the folder ``at``, as it would be below a root. What comes next
    is told before it is done."""
    staging(at).attach(at, staging="")
    for mount in around.mounts:
        yield mount
        place = at + mount.target
        os.mkdir(place, 0o755)
        mount.attach(place, staging=at)
        if mount.target == "/dev":
            make_devices(place, rootless=rootless)
    for mask in around.masks:
        yield mask
        # Nothing of an image is on the way: /proc and /sys are the kernel's, and their paths hold no links.
        mask.attach(at + mask.target, staging=at)


def make_devices(dev: str, *, rootless: bool) -> None:
    """Fill the /dev that is mounted at ``dev``; these devices, and no others that a command makes there, will open.

    Real root makes nodes of its own: a chmod of the host's, bound here, would reach the host. In a user namespace no
    node can be made (mknod(2)), and the host's are safe from a chmod, since their owner is not mapped.
    """
    for name, major, minor in _DEVICES:
        path = f"{dev}/{name}"
        if rootless:
            os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o666))
        else:
            os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(major, minor))
            os.chmod(path, 0o666)  # whatever the umask was
        linux.mount(f"/dev/{name}" if rootless else path, path, flags=linux.MS_BIND)
    for name, target in _LINKS:
        os.symlink(target, f"{dev}/{name}")
    # Of the folder, not of the mounts on the nodes in it.
    linux.set_mount_attributes(dev, linux.MOUNT_ATTR_NODEV)


def name_files(
    hostname: str,
    *,
    network: Network,
    hosts: tuple[tuple[str, str], ...] = (),
    resolv_conf: Path = Path("/etc/resolv.conf"),
) -> tuple[File, ...]:
    """/etc/hosts, with further names and their addresses, and /etc/resolv.conf, to be mounted over the image's own.

    With the host's network its list of name servers holds as it is, local ones included; without one there is none.
    """
    known = f"127.0.0.1\tlocalhost {hostname}\n::1\tlocalhost ip6-localhost ip6-loopback\n"
    known += "".join(f"{address}\t{name}\n" for name, address in hosts)
    servers = resolv_conf.read_bytes() if network == "host" and resolv_conf.exists() else b""
    return (File("/etc/hosts", known.encode()), File("/etc/resolv.conf", servers))


def staging(at: str) -> Filesystem:
    """A small file system in memory for the contents of ``File`` mounts."""
    return tmpfs(at, mode=0o755)
