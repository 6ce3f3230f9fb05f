"""Capabilities by name: capabilities(7). Their numbers are their places in the list."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from layerbuild.isolate import linux
from layerbuild.isolate.job import Network

# include/uapi/linux/capability.h
NAMES: Final = (
    *("CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP"),
    *("LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER"),
    *("SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE"),
    *("SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP"),
    *("MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF"),
    "CHECKPOINT_RESTORE",
)

# Docker's default set: oci/caps/defaults.go of moby.
_DOCKERS: Final = frozenset(
    {
        *("CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP", "NET_BIND_SERVICE"),
        *("NET_RAW", "SYS_CHROOT", "MKNOD", "AUDIT_WRITE", "SETFCAP"),
    }
)


def kept(network: Network) -> frozenset[str]:
    """Those of a command in the sandbox. In the machine's own network, raw sockets would hear all that others send."""
    return _DOCKERS - {"NET_RAW"} if network == "host" else _DOCKERS


def held() -> frozenset[str]:
    """Those of this process: proc_pid_status(5). A machine's root need not have all."""
    status = linux.proc_text("/proc/self/status")
    mask = int(status.partition("CapPrm:")[2].split()[0], 16)
    return frozenset(name for number, name in enumerate(NAMES) if mask >> number & 1)


def numbers(names: Iterable[str]) -> frozenset[int]:
    return frozenset(map(NAMES.index, names))
