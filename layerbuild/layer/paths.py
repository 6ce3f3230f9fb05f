"""Paths inside a root: made clean, taken apart, and resolved without ever leaving it.

A link's text is never given to the kernel. ``resolve`` follows links itself, on whatever tells it what a path holds:
an index, a stack of them, or a folder. ``..`` stops at the root, as it does for a process in a chroot.
"""

from __future__ import annotations

from collections.abc import Callable

from layerbuild.errors import BuildError

LONGEST = 4094  # bytes of a path below "/" that the kernel takes: PATH_MAX of limits.h, less the slash and a NUL
MAX_LINKS = 255  # as containerd; the kernel stops at 40, which real images have been seen to pass


def clean(path: bytes) -> bytes:
    """``path`` without leading, trailing and doubled slashes, ``.`` and ``..``; the root stops every ``..``.

    Purely by its text: links are not looked at.

    >>> clean(b"./a//b/../../../etc/")
    b'etc'
    """
    if path and path[0] not in b"/." and path[-1] != 47 and b"//" not in path and b"/." not in path:
        return path
    parts: list[bytes] = []
    for part in path.split(b"/"):
        if part == b"..":
            del parts[-1:]
        elif part not in (b"", b"."):
            parts.append(part)
    return b"/".join(parts)


def split(path: bytes) -> tuple[bytes, bytes]:
    """The folder and the name: ``a/b/c`` is ``(a/b, c)``, and ``c`` is ``("", c)``."""
    parent, _, name = path.rpartition(b"/")
    return parent, name


def join(parent: bytes, name: bytes) -> bytes:
    """The inverse of ``split``."""
    return parent + b"/" + name if parent else name


def resolve(path: bytes, readlink: Callable[[bytes], bytes | None], *, follow_last: bool = True) -> bytes:
    """Follow the links in ``path`` inside the root.

    ``readlink`` gets a path whose parents hold no link, and gives a link's text, or None for all that is no link or
    does not exist. What does not exist is taken as it is spelled, so the path of something to be created comes out of
    a dangling link. More than 255 links: BuildError.
    """
    todo = [part for part in reversed(path.split(b"/")) if part not in (b"", b".")]
    done = b""
    links = 0
    while todo:
        part = todo.pop()
        if part == b"..":
            done = split(done)[0]
            continue
        done = join(done, part)
        text = readlink(done) if todo or follow_last else None
        if text is None:
            continue
        links += 1
        if links > MAX_LINKS:
            name = path.decode(errors="replace")
            raise BuildError(f"{name}: too many links", hint="a symbolic link on the way points back to itself")
        done = b"" if text.startswith(b"/") else split(done)[0]
        todo.extend(part for part in reversed(text.split(b"/")) if part not in (b"", b"."))
    return done
