"""What each attempt of attempts.c, and each shell line below, must say: the kernel's error, or nothing found.

Where there are several, the first is root's; the others are a user's, whom the file's mode stops already, or for
whom an empty file stands for a device; and that of a kernel that has no such file.
"""

from __future__ import annotations

from typing import Final

REFUSED: Final = "EPERM"

# One container, with the machine's network.
EXPECTED: Final[dict[str, str]] = {
    # mounts and roots
    "mount a tmpfs": REFUSED,
    "mount another proc": REFUSED,
    "make /sys writable": REFUSED,
    "bind /sys elsewhere": REFUSED,
    "uncover /proc/keys": REFUSED,
    "fsopen": REFUSED,
    "fsmount": REFUSED,
    "move_mount": REFUSED,
    "fspick": REFUSED,
    "open_tree": REFUSED,
    "mount_setattr": REFUSED,
    "pivot_root": REFUSED,
    "a mount as an i386 call": REFUSED,
    "a mount as an x32 call": REFUSED,
    "break out of a chroot": "ENOENT",
    "a file of the machine by its name": "ENOENT",
    "the same by way of ..": "ENOENT",
    "the same by way of pid 1": "ENOENT",
    "the same by way of the working directory": "ENOENT",
    "the root of a process of the machine": "ENOENT",
    "open a file by its handle": REFUSED,
    # the file system below the mounts
    "freeze the machine's file system": REFUSED,
    "shut the machine's file system down": "EPERM or ENOTTY",
    "a file that nobody can remove": "EPERM or EOPNOTSUPP",
    "quotas of the machine": REFUSED,
    "a mark that is for the machine's overlays": REFUSED,
    "an open file of a cache by its handle": REFUSED,
    "a link out of a cache": "EXDEV",
    "a name out of a cache": "EXDEV",
    # devices
    "the machine's disk, made in the root": "EACCES or empty",
    "the machine's disk, made in /dev": "EACCES or empty",
    "the machine's disk, made in /dev/shm": "EACCES or empty",
    "the machine's disk, made in a tmpfs mount": "EACCES or empty",
    "the machine's disk, made in a cache mount": "EACCES or empty",
    "the machine's disk, made in a writable context": "EACCES or empty",
    "kernel memory": "EACCES or empty",
    "the kernel's log as a device": "EACCES or empty",
    "an unknown terminal": "EACCES or empty",
    "/dev/mem": "ENOENT",
    "/dev/kmsg": "ENOENT",
    "/dev/fuse": "ENOENT",
    "/dev/loop-control": "ENOENT",
    "/dev/null, as it should be": "works",
    # the kernel's state
    "/proc/kcore": "empty or ENOENT",
    "/proc/keys": "empty",
    "/proc/timer_list": "empty",
    "/proc/interrupts": "empty",
    "/proc/kmsg": "EPERM or EACCES",
    "reboot by /proc/sysrq-trigger": "EROFS or EACCES or ENOENT",
    "a core dump handler on the machine": "EROFS or EACCES",
    "what the machine does when it panics": "EROFS or EACCES",
    "an interrupt's processors": "EROFS or EACCES",
    "an interface's settings in /sys": "EROFS or EACCES",
    "a program that the machine starts for a device": "EROFS or EACCES or ENOENT",
    "a program that the machine starts for a module": "EROFS or EACCES or ENOENT",
    "a program that the machine starts for a format": "EROFS or EACCES or ENOENT",
    "be spared when memory runs short": "EACCES",
    "empty the machine's caches": "EROFS or EACCES",
    "/sys/kernel/debug": "empty",
    "/sys/kernel/tracing": "empty",
    "/sys/fs/bpf": "empty",
    "/sys/firmware": "empty",
    "go before the machine's processes": "EACCES",
    "read and write first": REFUSED,
    "turn the clock": REFUSED,
    "ports of the machine's devices": REFUSED,
    "the kernel's log": REFUSED,
    "set the clock": REFUSED,
    "rename the machine": REFUSED,
    "reboot": REFUSED,
    "load a module": REFUSED,
    "kexec": REFUSED,
    "swapon": REFUSED,
    "process accounting": REFUSED,
    "bpf": REFUSED,
    "perf_event_open": REFUSED,
    "userfaultfd": REFUSED,
    "io_uring": REFUSED,
    "fanotify": REFUSED,
    "no address randomization": REFUSED,
    "a real-time scheduler": REFUSED,
    "a call that nobody knows": "ENOSYS",
    "where the processors look for pages": REFUSED,
    "where pages of a process lie": REFUSED,
    "what two processes share": REFUSED,
    "advice about a process's memory": REFUSED,
    "another program's name for this one": REFUSED,
    "hang the terminal up": REFUSED,
    "remove a module": REFUSED,
    "the file systems' statistics": REFUSED,
    "physical addresses": "none",
    "the kernel's addresses": "none",
    # namespaces of others; ENOTTY where the kernel knows no such way
    "the next mount namespace": "EPERM or ENOTTY",
    "the mount namespace before": "EPERM or ENOTTY",
    "the user namespace around": REFUSED,
    "the pid namespace around": REFUSED,
    "a namespace by its handle": REFUSED,
    "a process by its handle": REFUSED,
    "a copy of a mount with other attributes": "ENOSYS",
    "attributes of a file by its name": "ENOSYS",
    "quotas by a descriptor": REFUSED,
    # namespaces and rights
    "a user namespace by unshare": REFUSED,
    "a user namespace by clone": REFUSED,
    "a user namespace by clone3": "ENOSYS",
    "a mount namespace": REFUSED,
    "enter the namespace of pid 1": REFUSED,
    "more capabilities": REFUSED,
    "an ambient capability": REFUSED,
    "capabilities that a set-user-ID program could bring": "none",
    "core dumps": REFUSED,
    "another map of ids": REFUSED,
    # processes, keys, messages
    "signal a process of the machine": "ESRCH",
    "trace a process of the machine": "ESRCH",
    "a descriptor of a process of the machine": "ESRCH",
    "a parent outside": "none",
    "files of the machine as input and output": "none",
    "read the memory of a process of the machine": "ESRCH",
    "take a descriptor of pid 1": REFUSED,
    "processes of others in /proc": "none",
    "descriptors of the builder": "none",
    "read a key of the caller's session": REFUSED,
    "add a key": REFUSED,
    "ask for a key": REFUSED,
    "System V shared memory of the machine": "ENOENT",
    "a POSIX message queue of the machine": "ENOENT",
    "POSIX shared memory of the machine": "ENOENT",
    "type into the caller's terminal": "ENOTTY",
    "the caller's terminal": "ENXIO",
    "the caller's environment": "none",
    # network
    "an abstract socket of the machine": REFUSED,
    "a socket that lies in the context": "ECONNREFUSED",
    "an address family for virtual machines": REFUSED,
    "the kernel's cryptography": REFUSED,
    "take the loopback down": REFUSED,
    "take the loopback down by netlink": REFUSED,
    "another route": REFUSED,
    "speak to the machine's udev": REFUSED,
    "a mark that the firewall trusts": REFUSED,
    "an address of somebody else": REFUSED,
    "listen to the machine's audit": REFUSED,
    "listen to the machine's firewall": REFUSED,
    "packets past the kernel": REFUSED,
    "listen to the machine's packets": REFUSED,
    "listen to the machine's connections": REFUSED,
    # another container, with --network=none
    "alone: an abstract socket of the machine": "ECONNREFUSED",
    "alone: a socket that lies in the context": "ECONNREFUSED",
    "alone: an address family for virtual machines": REFUSED,
    "alone: the kernel's cryptography": REFUSED,
    "alone: take the loopback down": REFUSED,
    "alone: a service on the machine's loopback": "ECONNREFUSED",
    "alone: another machine": "ENETUNREACH",
    "alone: interfaces besides the loopback": "none",
    # in the shell
    "a name of the machine": "layerbuild",
    "control groups of others": "/",
    "the tree of control groups": "none",
    "a file into a bound context": "Read-only file system",
    "a hard link out of a bound context": "Invalid cross-device link",
    "a file into /proc/sys": "Read-only file system",
    "mounts besides the container's": "none",
    "a signal to everything": "survived",
}

SHELL: Final = r"""
try() { echo "$1: $(sh -c "$2" 2>&1 | tail -n 1 | sed 's/.*: //')"; }
try 'a name of the machine' 'uname -n'
try 'control groups of others' 'cut -d: -f3 /proc/self/cgroup | sort -u'
try 'the tree of control groups' 'ls -d /sys/fs/cgroup/*.slice /sys/fs/cgroup/systemd 2>/dev/null | grep . || echo none'
try 'a file into a bound context' 'touch /mounted/context/new'
try 'a hard link out of a bound context' 'ln /mounted/context/attempts /stolen'
try 'a file into /proc/sys' 'echo 1 > /proc/sys/kernel/panic'
try 'mounts besides the container'\''s' 'cut -d" " -f5 /proc/self/mountinfo |
  grep -v -e "^/\$" -e "^/proc" -e "^/sys" -e "^/dev" -e "^/etc/" -e "^/mounted/" || echo none'
echo plan > /written-to-a-copy; echo changed >> /etc/passwd
cp /bin/busybox /setuid; chmod 4755 /setuid
ln -s "$CANARY" /link; mkdir /links; ln -s "$(dirname "$CANARY")" /links/folder
kill -9 -1 2>/dev/null; echo 'a signal to everything: survived'
"""
