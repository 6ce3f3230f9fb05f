"""C, the process that becomes the command: mounts, changes its root, drops its rights, executes.

It is forked by the helper into fresh namespaces, as a rule before there is a job for it (spares.py), is pid 1 there,
and has no way back: it ends in execve, or tells through ``report`` (a socket that execve closes) why it could not come
so far.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import socket
import stat
import termios
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn, Protocol

from layerbuild.errors import BuildError, LayerbuildError, MachineError, SpaceError, StepFailed
from layerbuild.isolate import cgroups, linux, rootfs, seccomp
from layerbuild.isolate.capabilities import kept, numbers
from layerbuild.isolate.executable import NOT_FOUND, check, execute
from layerbuild.isolate.job import Job, Process, WholeTree
from layerbuild.isolate.mounts import Bind, Extra, Overlay, Whole
from layerbuild.isolate.namespaces import Identity
from layerbuild.isolate.rlimits import forbid_core_dumps, set_rlimit
from layerbuild.isolate.standard import Surroundings


class Entering(Protocol):
    """What a fork of the helper does to become a command. ``doing`` is the step that goes on, for the report."""

    doing: object

    def enter(self) -> NoReturn: ...


class Container:
    """The steps from a job to execve. ``doing`` is the one that goes on, for the report if it fails.

    ``root`` has its mount points (rootfs.py), and ``surroundings`` are what is mounted in it besides. ``staged`` is a
    descriptor of a tree with these, mounted nowhere; or why there is none. ``filter``, of system calls, is None where
    the machine can compile none; ``notices``, a filter whose listener goes through ``report``, is None where there is
    nothing to pretend (pretender.py).
    """

    def __init__(
        self,
        job: Job,
        identity: Identity,
        stdio: tuple[int, ...],
        connection: socket.socket,
        report: socket.socket,
        *,
        root: Overlay | Whole,
        surroundings: Surroundings,
        staged: int | LayerbuildError,
        filter: bytes | None,
        notices: bytes | None,
    ) -> None:
        self._job = job
        self._identity = identity
        self._stdio = stdio
        self._connection = connection
        self._report = report
        self._root = root
        self._surroundings = surroundings
        self._staged = staged
        self._filter = filter
        self._notices = notices
        self._programs: tuple[str, ...] = ()  # that may be executed
        self.doing: object = "start the container"  # anything with a text

    def enter(self) -> NoReturn:
        """Become the command; OSError or LayerbuildError if that can't be."""
        if self._notices is None:
            check_ids(self._job.process, self._identity)
        self.doing = "enter its control group"
        cgroups.enter(self._job.cgroup)
        linux.unshare(linux.CLONE_NEWCGROUP)  # here and not in the fork: its root is the group that this process is in
        if isinstance(self._staged, LayerbuildError):
            raise self._staged
        self._mount_all(self._staged)
        self._change_root()
        self._take_descriptors()
        self._set_limits()
        self._drop_rights()
        self._execute()

    # -- what it sees --------------------------------------------------------------------------------------------------

    def _mount_all(self, staged: int) -> None:
        folders = self._job.rootfs
        self.doing = self._root
        self._root.attach()
        # On top of the work folder: the overlay has its own hold on it, and this path leaves with the old root.
        linux.move_mount(staged, folders.work)
        os.close(staged)
        top = os.open(folders.merged, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        for mount in self._surroundings.tops:
            with self._mount_point(mount, top) as at:
                # Not moved: mountinfo has mounts in the order in which they were made, and a root comes first.
                linux.mount(folders.work + mount.target, at, flags=linux.MS_BIND | linux.MS_REC)
        for further in (*self._surroundings.groups, *self._job.mounts):
            with self._mount_point(further, top) as at:
                further.attach(at, staging=folders.work)
        os.close(top)

    @contextlib.contextmanager
    def _mount_point(self, mount: Extra, top: int) -> Iterator[str]:
        self.doing = mount
        place = rootfs.mount_point(top, mount)
        yield f"/proc/self/fd/{place}"
        os.close(place)

    def _change_root(self) -> None:
        self.doing = "change the root"
        socket.sethostname(self._job.process.hostname)
        if self._job.network == "none":
            linux.loopback_up()
        # The old root lands on top of the new one and is taken off again: no folder is needed for it (pivot_root(2)).
        os.chdir(self._job.rootfs.merged)
        linux.pivot_root(".", ".")
        linux.umount(".", linux.MNT_DETACH)
        process = self._job.process
        self.doing = "enter the working directory"
        try:
            os.chdir(process.cwd)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise BuildError(f'the working directory "{process.cwd}" is not a folder of the image') from error
        if not _is_inside():
            raise BuildError(f'the working directory "{process.cwd}" leads out of the image')
        shared = tuple(mount.target for mount in self._job.mounts if isinstance(mount, Bind) and mount.shared)
        self._programs = check(process.argv, dict(process.env), shared=shared)

    # -- what it is ----------------------------------------------------------------------------------------------------

    def _take_descriptors(self) -> None:
        self.doing = "set up standard input and output"
        os.setsid()
        stdio = self._stdio
        if self._job.terminal is not None:
            # From the container's own devpts, so that the command can find its terminal's name.
            master, slave = os.openpty()
            termios.tcsetwinsize(slave, self._job.terminal)
            socket.send_fds(self._connection, [b"terminal"], [master])
            fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
            stdio = (slave, slave, slave)
        for number, fd in enumerate(stdio):
            os.dup2(os.open(os.devnull, os.O_RDWR) if _is_null(fd) else fd, number)
            others = bool(self._job.process.uid) and not self._identity.one_id
            if others and (self._job.terminal is not None or stat.S_ISFIFO(os.fstat(fd).st_mode)):
                # So that another user than root may open /dev/stdout. (Somebody else's, from outside, stays as it is.)
                with contextlib.suppress(PermissionError):
                    os.fchown(fd, self._job.process.uid, -1)

    def _set_limits(self) -> None:
        limits = [limit for limit in self._job.limits.rlimits if not (self._job.private and limit.name == "core")]
        if not any(limit.name == "core" for limit in limits):
            forbid_core_dumps()
        for limit in limits:
            self.doing = f"set the limit {limit}"
            set_rlimit(limit)

    def _drop_rights(self) -> None:
        """System calls, capabilities and ids. The filter comes first: to set it takes CAP_SYS_ADMIN."""
        process, held = self._job.process, numbers(kept(self._job.network))
        if self._notices is not None:
            self.doing = "have system calls told of"
            listener = seccomp.load(self._notices, listen=True)
            assert listener is not None
            socket.send_fds(self._report, [b"listener"], [listener])
            os.close(listener)
        if self._job.security == "sandbox":
            self.doing = "restrict system calls"
            if self._job.network == "host":
                linux.keep_from_abstract_sockets()  # their names belong to the network namespace: unix(7)
            if self._filter is not None:
                seccomp.load(self._filter)
        self.doing = f"become user {process.uid}:{process.gid}"
        if self._job.security == "sandbox":
            linux.drop_from_bounding_set(held)
        _become(process, self._identity)
        if self._job.security == "sandbox" and process.uid == 0:
            linux.capset(held)

    # -- what it does --------------------------------------------------------------------------------------------------

    def _execute(self) -> NoReturn:
        process = self._job.process
        self.doing = f"execute {process.argv[0]}"
        linux.close_on_exec_from(3)
        execute(self._programs, process.argv, dict(process.env))


def root_mount(job: Job, identity: Identity, *, has_init: bool = False) -> Overlay | Whole:
    """The mount that becomes the root of ``job``; ``has_init`` says whether there is an init folder."""
    folders = job.rootfs
    if isinstance(folders, WholeTree):
        return Whole(folders.tree, folders.merged, devices=job.security == "insecure")
    return Overlay(
        (init_folder(folders.merged), *folders.lowers) if has_init else folders.lowers,
        folders.upper,
        folders.work,
        folders.merged,
        user_xattr=identity.user_xattr,
        volatile=folders.volatile,
        directory=folders.link_dir or "/",
        devices=job.security == "insecure",
    )


def init_folder(merged: str) -> str:
    """Where the init folder of a job stands: beside its merged folder."""
    return str(Path(merged).with_name("init"))


def check_ids(process: Process, identity: Identity) -> None:
    """MachineError if the ids of ``process`` do not exist in this namespace."""
    if identity.one_id and (process.uid or process.gid):
        raise MachineError(
            f"user {process.uid}:{process.gid} of the image does not exist here: "
            "an ordinary user's namespace has the id 0 alone",
            hint="run layerbuild as root, or let the recipe stay with root",
        )


def _become(process: Process, identity: Identity) -> None:
    if identity.one_id:
        return  # setgroups is given up in such a namespace, and 0:0 is what it is already
    os.setgroups(process.groups)
    os.setresgid(process.gid, process.gid, process.gid)
    os.setresuid(process.uid, process.uid, process.uid)


def _is_inside() -> bool:
    """Whether the working directory is below the root, and was not come to by an open descriptor (CVE-2024-21626)."""
    try:
        return os.getcwd().startswith("/")
    except FileNotFoundError:  # getcwd(3), "(unreachable)"
        return False


def _is_null(fd: int) -> bool:
    """The machine's own /dev/null would be the command's to change, through /proc/self/fd: it gets the container's."""
    found = os.fstat(fd)
    return stat.S_ISCHR(found.st_mode) and found.st_rdev == os.makedev(1, 3)


# -- the report --------------------------------------------------------------------------------------------------------


def start(container: Entering, report: socket.socket) -> NoReturn:
    """``container.enter()`` in a new mount namespace, and the reason through ``report`` if that failed.

    The first message in ``report`` is a hold on that namespace, for the helper to let go of at the end.
    """
    try:
        # A copy of what is mounted in the build's now: some drivers mount a job's tree there.
        linux.unshare(linux.CLONE_NEWNS)
        mounts = os.open("/proc/self/ns/mnt", os.O_RDONLY)
        socket.send_fds(report, [b"mounts"], [mounts])
        os.close(mounts)
        container.enter()
    except BaseException as error:  # whatever it is: this process must not go on as a second helper
        give_up(report, container.doing, error)


def give_up(report: socket.socket, doing: object, error: BaseException) -> NoReturn:
    """End this process, which has not become a command, and say why."""
    with contextlib.suppress(OSError):
        report.send(json.dumps(failure(doing, error)).encode())
    os._exit(NOT_FOUND)


def failure(doing: object, error: BaseException) -> dict[str, object]:
    """``error`` as plain values; ``doing`` says at what."""
    if isinstance(error, LayerbuildError):
        code = error.exit_code if isinstance(error, StepFailed) else 0
        return {"kind": type(error).__name__, "message": error.message, "hint": error.hint, "code": code}
    if not isinstance(error, OSError):
        return {"kind": "BuildError", "message": f"{doing}: {error!r}", "hint": "", "code": 0}
    path = f": {error.filename}" if error.filename else ""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return {
        "kind": "SpaceError" if full else "MachineError",
        "message": f"{doing}: {os.strerror(error.errno or 0)}{path}",
        "hint": "" if full else "layerbuild doctor tells what this machine can do",
        "code": 0,
    }


def as_error(failure: dict[str, object]) -> LayerbuildError:
    """The error that ``failure`` took apart."""
    message, hint = str(failure["message"]), str(failure["hint"])
    match failure["kind"]:
        case "StepFailed":
            return StepFailed(message, exit_code=int(str(failure["code"])), hint=hint)
        case "SpaceError":
            return SpaceError(message, hint=hint)
        case "MachineError":
            return MachineError(message, hint=hint)
    return BuildError(message, hint=hint)
