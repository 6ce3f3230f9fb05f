"""Mounts as values: described first, carried out later.

::

    Overlay       the stack of layers, with its upper
    Whole         in its place a tree that is complete already
    Filesystem    one that the kernel makes: proc, sysfs, tmpfs, mqueue, devpts
    Bind          a folder or file from elsewhere
    View          a folder or file of a stack of folders, which nothing written to it reaches
    File          a file whose content is at hand
    Mask          a path of /proc or /sys that a container should not see

``str(mount)`` is the line of shell that would do the same; ``attach`` does it. ``target`` is the path that the
container sees; ``attach`` is told where that is for the one who mounts.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shlex
import stat
from pathlib import Path
from typing import Final, Protocol

from layerbuild.errors import MachineError
from layerbuild.frozen import frozen
from layerbuild.isolate import linux
from layerbuild.layer.entry import RootMetadata

# fs/overlayfs/params.h, OVL_MAX_STACK.
MAX_LOWERS: Final = 500
# mount(2) copies one page of options; the last byte is the NUL.
MAX_OPTIONS: Final = 4095
# fs/fsopen.c: a string option is copied with strndup_user(value, 256), the NUL included.
MAX_VALUE: Final = 255


class Mount(Protocol):
    """What can be mounted at a path of the container."""

    @property
    def target(self) -> str: ...

    @property
    def is_folder(self) -> bool:
        """Whether its mount point is a folder (else a file)."""

    def attach(self, at: str, *, staging: str) -> None:
        """Mount at the path ``at``, which may be the name in /proc of a descriptor of what is there. ``staging`` is a
        folder in memory where files may be put to mount them from."""


# -- the stack of layers -----------------------------------------------------------------------------------------------


@frozen
class Overlay:
    """A stack of folders as one tree at ``target``. ``lowers`` has the topmost first.

    Paths below ``directory`` are given to the kernel relative to it: so a stack of short links (``l/ABC…``) fits into
    the page of options, and a comma or colon in the path of the store does not matter. Only with ``devices`` can a
    device file in it be opened; what real root makes with mknod would else lead to the machine's disks.
    """

    lowers: tuple[str, ...]
    upper: str
    work: str
    target: str
    user_xattr: bool = False
    volatile: bool = False
    directory: str = "/"
    devices: bool = False

    @property
    def flags(self) -> tuple[tuple[str, str], ...]:
        """The options other than the folders; an empty value: a bare word.

        redirect_dir, metacopy and index would put into the upper what can be read only together with these very lowers;
        a layer must stand alone. "nofollow", because "off" still means "follow" where the kernel was built so, and that
        conflicts with userxattr (fs/overlayfs/params.c). volatile leaves out all syncs: a crashed step is
        discarded whole.
        """
        common = (("redirect_dir", "nofollow"), ("metacopy", "off"), ("index", "off"))
        marks = (("userxattr", ""),) if self.user_xattr else ()
        return common + marks + ((("volatile", ""),) if self.volatile else ())

    @property
    def options(self) -> str:
        """All options as one text, as mount(2) takes them."""
        folders = (
            "lowerdir=" + ":".join(_escape(self._name(lower)) for lower in self.lowers),
            "upperdir=" + _escape(self._name(self.upper)),
            "workdir=" + _escape(self._name(self.work)),
        )
        return ",".join((*folders, *(f"{key}={value}" if value else key for key, value in self.flags)))

    def __str__(self) -> str:
        go = "" if self.directory == "/" else f"cd {shlex.quote(self.directory)} && "
        options = self.options if self.devices else f"nodev,{self.options}"
        return f"{go}mount -t overlay overlay -o {shlex.quote(options)} {shlex.quote(self.target)}"

    def attach(self) -> None:
        """Mount it. OSError from the kernel; MachineError where the stack is higher than the kernel can take.

        With a ``directory`` only in a process of one thread: it becomes the working directory meanwhile, which all
        threads have in common. A context that is named by a relative path would be looked for there.
        """
        if len(self.lowers) > MAX_LOWERS:
            raise MachineError(
                f"{len(self.lowers)} lower folders: the kernel's overlay stacks at most {MAX_LOWERS}",
                hint="join some RUN, COPY and ADD steps, or start from a base with fewer layers",
            )
        with contextlib.nullcontext() if self.directory == "/" else contextlib.chdir(self.directory):
            if not self._attach_one_by_one():
                self.attach_by_options()

    def _attach_one_by_one(self) -> bool:
        """With one call per lower (``lowerdir+``, Linux 6.8): False where the kernel has no such thing."""
        names = [self._name(path) for path in (*self.lowers, self.upper, self.work)]
        if max(len(os.fsencode(_escape(name))) for name in names) > MAX_VALUE:
            return False
        try:
            fd = linux.fsopen("overlay")
        except OSError as error:
            if error.errno == errno.ENOSYS:
                return False
            raise
        try:
            return self._configure(fd)
        finally:
            os.close(fd)

    def _configure(self, fd: int) -> bool:
        for lower in self.lowers:
            try:
                # Unlike upperdir and workdir, from which the kernel takes backslashes away, this is a plain path.
                linux.fsconfig_string(fd, "lowerdir+", self._name(lower))
            except OSError as error:
                if error.errno == errno.EINVAL:  # an unknown option; a folder that is missing gives ENOENT
                    return False
                raise
        linux.fsconfig_string(fd, "upperdir", _escape(self._name(self.upper)))
        linux.fsconfig_string(fd, "workdir", _escape(self._name(self.work)))
        for key, value in self.flags:
            if value:
                linux.fsconfig_string(fd, key, value)
            else:
                linux.fsconfig_flag(fd, key)
        linux.fsconfig_create(fd)
        mounted = linux.fsmount(fd, 0 if self.devices else linux.MOUNT_ATTR_NODEV)
        try:
            linux.move_mount(mounted, self.target)
        finally:
            os.close(mounted)
        return True

    def attach_by_options(self) -> None:
        """As ``attach``, with one mount(2) for all: the way of kernels without ``lowerdir+``."""
        size = len(os.fsencode(self.options))
        if size > MAX_OPTIONS:
            raise MachineError(
                f"the options of an overlay mount of {len(self.lowers)} lower folders take {size} bytes; "
                f"this kernel takes {MAX_OPTIONS}",
                hint=f"Linux 6.8 and later takes up to {MAX_LOWERS} folders one by one, if no path is longer than "
                f"{MAX_VALUE} bytes; else choose a shorter --root, or make fewer layers",
            )
        linux.mount("overlay", self.target, "overlay", 0 if self.devices else linux.MS_NODEV, data=self.options)

    def _name(self, path: str) -> str:
        below = self.directory.rstrip("/") + "/"
        return path.removeprefix(below) if self.directory != "/" else path


def _escape(path: str) -> str:
    """As overlay wants a path in its options (fs/overlayfs/params.c, ovl_parse_param_split_lowerdirs)."""
    return path.replace("\\", "\\\\").replace(":", "\\:").replace(",", "\\,")


@frozen
class Whole:
    """A tree that is complete already, at ``target``. ``devices`` as for ``Overlay``."""

    tree: str
    target: str
    devices: bool = False

    def attach(self) -> None:
        """Mount it. OSError from the kernel."""
        linux.mount(self.tree, self.target, flags=linux.MS_BIND | linux.MS_REC)
        if not self.devices:
            linux.set_mount_attributes(self.target, linux.MOUNT_ATTR_NODEV, recursive=True)

    def __str__(self) -> str:
        option = "" if self.devices else " -o nodev=recursive"
        return f"mount --rbind{option} {shlex.quote(self.tree)} {shlex.quote(self.target)}"


# -- all the others ----------------------------------------------------------------------------------------------------

_FLAGS: Final = {
    linux.MS_NOSUID: "nosuid",
    linux.MS_NODEV: "nodev",
    linux.MS_NOEXEC: "noexec",
    linux.MS_STRICTATIME: "strictatime",
    linux.MS_RDONLY: "ro",
}


@frozen
class Filesystem:
    """A file system that the kernel makes. ``flags`` are MS_…, ``options`` its own."""

    kind: str
    target: str
    flags: int = linux.MS_NOSUID | linux.MS_NODEV | linux.MS_NOEXEC
    options: str = ""

    @property
    def is_folder(self) -> bool:
        return True

    @property
    def words(self) -> tuple[str, ...]:
        """Flags and options as mount(8) spells them."""
        flags = (name for flag, name in _FLAGS.items() if self.flags & flag)
        return (*flags, *filter(None, self.options.split(",")))

    def attach(self, at: str, *, staging: str) -> None:
        try:
            linux.mount(self.kind, at, self.kind, self.flags, data=self.options)
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            # mount(2) refuses a file system where it is mounted already, though it would show another part of it: all
            # of cgroup2 is one, and a bound /sys brings the machine's. What is mounted elsewhere may be moved there.
            aside = f"{staging}/{self.kind}"
            Path(aside).mkdir()
            linux.mount(self.kind, aside, self.kind, self.flags, data=self.options)
            tree = linux.open_tree(aside)
            try:
                linux.move_mount(tree, at)
            finally:
                os.close(tree)
            linux.umount(aside)

    def __str__(self) -> str:
        return f"mount -t {self.kind} -o {','.join(self.words)} {self.kind} {shlex.quote(self.target)}"


def tmpfs(target: str, *, size: int = 0, mode: int = 0o1777) -> Filesystem:
    """A file system in memory; ``size`` in bytes, 0: the kernel's own limit (half of the memory)."""
    limit = f",size={size}" if size else ""
    flags = linux.MS_NOSUID | linux.MS_NODEV
    return Filesystem("tmpfs", target, flags, f"mode={mode:o}{limit}")


@frozen
class Bind:
    """The folder or file ``source`` (an absolute path), with all that is mounted below it; no device in it can be
    opened. ``shared``: other commands may change what is in it meanwhile."""

    source: str
    target: str
    read_only: bool = False
    shared: bool = False

    @property
    def is_folder(self) -> bool:
        return Path(self.source).is_dir()

    def attach(self, at: str, *, staging: str) -> None:
        assert self.source.startswith("/"), f"{self.source!r} would be looked for wherever the mounter works"
        # Recursive, because in a user namespace a part of a locked tree of mounts is refused (mount_namespaces(7)).
        tree = linux.open_tree(self.source)
        try:
            read_only = linux.MOUNT_ATTR_RDONLY if self.read_only else 0
            linux.set_mount_attributes(tree, linux.MOUNT_ATTR_NODEV | read_only, recursive=True)
            linux.move_mount(tree, at)
        finally:
            os.close(tree)

    def __str__(self) -> str:
        options = "nodev=recursive,ro=recursive" if self.read_only else "nodev=recursive"
        return f"mount --rbind -o {options} {shlex.quote(self.source)} {shlex.quote(self.target)}"


@frozen
class View:
    """What is at ``path`` (no link on the way; empty: the root) of the stack ``lowers``, topmost first.

    Writes go to ``scratch``, an empty folder that overlay can write to and that is its maker's to remove; so the stack
    stays what it is. ``user_xattr`` and ``directory`` as for ``Overlay``.
    """

    lowers: tuple[str, ...]
    path: str
    scratch: str
    target: str
    is_folder: bool
    read_only: bool = False
    user_xattr: bool = False
    directory: str = "/"

    def attach(self, at: str, *, staging: str) -> None:
        upper, work, merged = (f"{self.scratch}/{name}" for name in ("upper", "work", "merged"))
        for folder in (upper, work, merged):
            Path(folder).mkdir()
        # The root of an overlay shows the metadata of the upper's own root.
        RootMetadata.of(Path(self.directory, self.lowers[0])).put(Path(upper))
        Overlay(
            self.lowers,
            upper,
            work,
            merged,
            user_xattr=self.user_xattr,
            volatile=True,
            directory=self.directory,
        ).attach()
        Bind(f"{merged}/{self.path}", self.target, self.read_only).attach(at, staging=staging)

    def __str__(self) -> str:
        lowers = shlex.quote("lowerdir=" + ":".join(map(_escape, self.lowers)))
        merged = f"{self.scratch}/merged"
        bind = Bind(f"{merged}/{self.path}", self.target, self.read_only)
        return f"mount -t overlay overlay -o {lowers} {shlex.quote(merged)} && {bind}"


@frozen
class File:
    """A read-only file with ``content``, held in memory and gone with the container: hosts, a script, a secret."""

    target: str
    content: bytes
    mode: int = 0o644
    uid: int = 0
    gid: int = 0

    @property
    def is_folder(self) -> bool:
        return False

    def attach(self, at: str, *, staging: str) -> None:
        path = f"{staging}/{len(os.listdir(staging))}"
        with open(path, "wb") as file:
            file.write(self.content)
            os.fchown(file.fileno(), self.uid, self.gid)
            os.fchmod(file.fileno(), self.mode)
        Bind(path, self.target, read_only=True).attach(at, staging=staging)

    def __str__(self) -> str:
        return f"mount --bind -o ro <{len(self.content)} bytes> {shlex.quote(self.target)}"


# What a job brings besides its root.
Extra = Bind | View | File | Filesystem


@frozen
class Mask:
    """``target``, a path of /proc or /sys, becomes read-only, and with ``hidden`` empty as well.

    A machine need not have the path; then there is nothing to do.
    """

    target: str
    hidden: bool = False

    def attach(self, at: str, *, staging: str) -> None:
        try:
            is_folder = stat.S_ISDIR(os.stat(at).st_mode)
        except FileNotFoundError:
            return
        linux.mount(self._cover(at, staging, is_folder=is_folder), at, flags=linux.MS_BIND)
        linux.set_mount_attributes(at, linux.MOUNT_ATTR_RDONLY)

    def _cover(self, at: str, staging: str, *, is_folder: bool) -> str:
        if not self.hidden:
            return at
        if not is_folder:
            return "/dev/null"
        empty = f"{staging}/empty"
        with contextlib.suppress(FileExistsError):
            os.mkdir(empty)
        return empty

    def __str__(self) -> str:
        cover = "<nothing>" if self.hidden else shlex.quote(self.target)
        return f"mount --bind -o ro {cover} {shlex.quote(self.target)}"
