"""The stack as the container's root: where its paths lie, and the init folder.

Mount points that the image lacks are not made in the upper, where they would become part of the layer, but in a lower
of their own on top of the image's: the *init* folder. In it stand also the folders on the way to them, with the
metadata that they have in the image; of a folder that is in several layers overlay shows the topmost's metadata.

A tree that is complete already gets the mount points itself, for as long as the job runs.
"""

from __future__ import annotations

import errno
import functools
import os
import stat
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

from layerbuild.errors import BuildError
from layerbuild.frozen import frozen
from layerbuild.isolate import linux
from layerbuild.isolate.job import Rootfs, WholeTree
from layerbuild.isolate.mounts import Mount
from layerbuild.layer.paths import clean, join, resolve, split
from layerbuild.layer.whiteout import is_opaque, is_whiteout

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@frozen
class MountPoint:
    """A path that the image lacks, all links followed, and what it is to be."""

    path: bytes
    is_folder: bool


class Stack:
    """Diff folders read as one tree, top first, before they are mounted. All but the first don't change any more."""

    def __init__(self, folders: Sequence[str]) -> None:
        self._upper = os.fsencode(folders[0])
        self._found: dict[bytes, bytes | None] = {}
        self._showing: dict[bytes, tuple[bytes, ...]] = {b"": tuple(os.fsencode(folder) for folder in folders)}

    def find(self, path: bytes) -> bytes | None:
        """Where the entry lies that shows at ``path``, whose parents hold no link. None: there is none."""
        if path not in self._found:
            self._found[path] = self._find(path)
        return self._found[path]

    def missing(self, mounts: Iterable[Mount]) -> tuple[MountPoint, ...]:
        """The mount points that the tree lacks.

        One that lies below another mount (/dev/pipes/x) is not among them: it is made there when that is mounted.
        """
        points = [MountPoint(resolve(clean_target(mount), self._readlink), mount.is_folder) for mount in mounts]
        paths = [point.path + b"/" for point in points]
        return tuple(
            point for point in points if not self._has(point.path) and not point.path.startswith(_others(paths, point))
        )

    def _has(self, path: bytes) -> bool:
        if self.find(path) is not None:
            return True
        parent = split(path)[0]
        place = self.find(parent) if parent else None
        if place is not None and not os.path.isdir(place):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), "/" + os.fsdecode(parent))
        return False

    def _readlink(self, path: bytes) -> bytes | None:
        place = self.find(path)
        return os.readlink(place) if place is not None and os.path.islink(place) else None

    def _find(self, path: bytes) -> bytes | None:
        for layer in self._folders(split(path)[0]):
            if not self._may_have(layer, path):
                continue
            place = layer + b"/" + path
            with suppress(FileNotFoundError):
                return None if is_whiteout(os.lstat(place), place) else place
        return None

    def _folders(self, folder: bytes) -> tuple[bytes, ...]:
        """The layers whose content of ``folder`` shows, top first; none if it is no folder."""
        known = self._showing.get(folder)
        if known is None:
            known = self._showing[folder] = tuple(self._cut(folder))
        return known

    def _cut(self, folder: bytes) -> Iterable[bytes]:
        for layer in self._folders(split(folder)[0]):
            if not self._may_have(layer, folder):
                continue
            place = layer + b"/" + folder
            try:
                mode = os.lstat(place).st_mode
            except FileNotFoundError:
                continue
            if not stat.S_ISDIR(mode):
                return
            yield layer
            if is_opaque(place):
                return

    def _may_have(self, layer: bytes, path: bytes) -> bool:
        """Most layers have none of the paths that are looked for: that is known without a call for each."""
        return layer == self._upper or path.partition(b"/")[0] in _top_names(layer)


@functools.cache
def _top_names(layer: bytes) -> frozenset[bytes]:
    """What is in the top folder of a lower, and the empty name of that itself. Each step has the lowers of the last."""
    return frozenset((b"", *os.listdir(layer)))


def clean_target(mount: Mount) -> bytes:
    """A mount's target as a path inside the root."""
    return clean(os.fsencode(mount.target))


def _others(paths: list[bytes], point: MountPoint) -> tuple[bytes, ...]:
    return tuple(path for path in paths if path != point.path + b"/")


def make_points(root: Rootfs | WholeTree, mounts: Iterable[Mount], *, init: str) -> bool:
    """Make a mount point for each of ``mounts`` that ``root`` lacks. ``init`` is a free name beside it, for what
    ``take_down`` will need to know. True: it is a folder that is to be the topmost lower."""
    if isinstance(root, Rootfs):
        return _make_init_folder(root, mounts, init=init)
    points = Stack((root.tree,)).missing(mounts)
    if points:
        _make_points(os.fsencode(root.tree), points, note=Path(init))
    return False


def take_down(root: Rootfs | WholeTree, *, init: str) -> None:
    """Remove what a job, which has ended, needed in the folders of ``root`` besides its mounts."""
    if isinstance(root, WholeTree):
        _remove_points(os.fsencode(root.tree), note=Path(init))
    else:
        remove_init(init)
    forget_work(root.work)


def _make_init_folder(root: Rootfs, mounts: Iterable[Mount], *, init: str) -> bool:
    """Whether the folder ``init`` was made. Most images have all mount points. For the others it becomes the topmost
    lower, so that nothing of that is in the upper; it is also the only one of an empty stack."""
    stack = Stack((root.upper, *root.lowers))
    missing = stack.missing(mounts)
    if missing or not root.lowers:
        _make_init(os.fsencode(init), stack, missing)
        return True
    return False


def _make_init(init: bytes, stack: Stack, points: Iterable[MountPoint]) -> None:
    remove_init(os.fsdecode(init))  # a job that was killed may have left one
    os.mkdir(init, 0o755)
    folders: set[bytes] = set()
    for point in points:
        folders |= set(_parents(point.path)) | ({point.path} if point.is_folder else set())
    for folder in sorted(folders):
        os.mkdir(init + b"/" + folder, 0o755)
    for point in points:
        if not point.is_folder:
            os.close(os.open(init + b"/" + point.path, os.O_CREAT | os.O_WRONLY, 0o644))
    for folder in sorted(folders, reverse=True):  # children first: what is made in a folder changes its times
        place = stack.find(folder)
        if place is not None:
            _copy_metadata(place, init + b"/" + folder)


def _make_points(tree: bytes, points: Iterable[MountPoint], *, note: Path) -> None:
    """Make mount points in a complete tree, and write down in ``note`` what was not there before."""
    made = []
    for point in points:
        for folder in [*_parents(point.path), *([point.path] if point.is_folder else [])]:
            place = tree + b"/" + folder
            parent = os.path.dirname(place)
            before = os.stat(parent)
            with suppress(FileExistsError):
                os.mkdir(place, 0o755)
                made.append(folder + b"/")
                os.utime(parent, ns=(before.st_atime_ns, before.st_mtime_ns))
        if not point.is_folder:
            os.close(os.open(tree + b"/" + point.path, os.O_CREAT | os.O_WRONLY | os.O_NOFOLLOW, 0o644))
            made.append(point.path)
    note.write_bytes(b"\0".join(made))


def _remove_points(tree: bytes, *, note: Path) -> None:
    """Remove what ``_make_points`` made, unless the job put something there. The tree is the job's: it may have put a
    link anywhere, so none is followed."""
    if not note.is_file():
        return
    for path in reversed(note.read_bytes().split(b"\0")):
        with suppress(OSError):
            _remove_empty(tree, path)
    note.unlink()


def _remove_empty(tree: bytes, path: bytes) -> None:
    *parents, name = path.rstrip(b"/").split(b"/")
    folder = os.open(tree, _FOLDER)
    try:
        for parent in parents:
            inner = os.open(parent, _FOLDER, dir_fd=folder)
            os.close(folder)
            folder = inner
        if path.endswith(b"/"):
            os.rmdir(name, dir_fd=folder)
        elif os.stat(name, dir_fd=folder, follow_symlinks=False).st_size == 0:
            os.unlink(name, dir_fd=folder)
    finally:
        os.close(folder)


def _parents(path: bytes) -> list[bytes]:
    names = path.split(b"/")
    return [b"/".join(names[:depth]) for depth in range(1, len(names))]


def _copy_metadata(source: bytes, target: bytes) -> None:
    info = os.lstat(source)
    os.chown(target, info.st_uid, info.st_gid)
    os.chmod(target, stat.S_IMODE(info.st_mode))
    for name in os.listxattr(source):
        if name.startswith(("user.", "system.posix_acl_")) and not name.startswith("user.overlay."):
            os.setxattr(target, name, os.getxattr(source, name))
    os.utime(target, ns=(info.st_atime_ns, info.st_mtime_ns))


def mount_point(root: int, mount: Mount) -> int:
    """A descriptor of the place of ``mount`` in the complete tree ``root``: no link leads out of that, even one that
    somebody else puts into a shared folder (a cache) meanwhile.

    It is made if it is missing, which in a fresh upper can be only within a mount that came before. (In an upper that
    is entered again, an opaque folder can hide the init folder; nothing of such an upper becomes a layer.) BuildError
    if it can't be made, or is a file where a folder is to be mounted.
    """
    try:
        place = linux.open_in_root(root, clean_target(mount), os.O_PATH)
    except FileNotFoundError:
        place = _made_place(root, mount)
    if stat.S_ISDIR(os.fstat(place).st_mode) != mount.is_folder:
        kinds = ("a file", "a folder") if mount.is_folder else ("a folder", "a file")
        raise BuildError(f"{mount.target!r} is {kinds[0]} there, and what is to be mounted on it {kinds[1]}")
    return place


def _made_place(root: int, mount: Mount) -> int:
    *parents, name = clean_target(mount).split(b"/")
    path = b""
    with ExitStack() as stack:
        try:
            folder = root
            for parent in parents:
                path = join(path, parent)
                folder = _folder_on_the_way(root, path, folder)
                stack.callback(os.close, folder)
            if mount.is_folder:
                os.mkdir(name, 0o755, dir_fd=folder)
            else:
                os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o644, dir_fd=folder))
            return os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
        except FileExistsError as error:
            raise BuildError(f"{mount.target!r} leads nowhere there: a link without an end is on the way") from error
        except OSError as error:
            if error.errno != errno.EROFS:
                raise
            raise BuildError(
                f"{mount.target!r} lies in a read-only mount that has no such mount point",
                hint="make it in what is mounted there, or mount that with rw",
            ) from error


def _folder_on_the_way(root: int, path: bytes, parent: int) -> int:
    try:
        return linux.open_in_root(root, path, os.O_PATH | os.O_DIRECTORY)
    except FileNotFoundError:
        name = split(path)[1]
        os.mkdir(name, 0o755, dir_fd=parent)
        return os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)


def forget_work(work: str) -> None:
    """Remove what overlay left in its work folder.

    It has no content of ours, only marks. One of them, incompat/volatile, would forbid to mount the same upper again
    (overlayfs.rst, "Volatile mount"); and all has mode 0, which hinders an ordinary user in removing the workspace.
    """
    _empty(work)


def remove_init(init: str) -> None:
    """Remove the init folder if there is one."""
    with suppress(FileNotFoundError):
        _empty(init)
        os.rmdir(init)


def _empty(top: str) -> None:
    """Remove all below the folder ``top``: no job has access to it any more (shutil.rmtree looks at everything three
    times, lest somebody changes it meanwhile)."""
    with os.scandir(top) as found:
        entries = list(found)
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            _empty(entry.path)
            os.rmdir(entry.path)
        else:
            os.unlink(entry.path)
