"""Users and groups by name, looked up in the image's own /etc/passwd and /etc/group.

Rules of USER as runtimes apply them: ``name`` must exist; a number need not; ``user:group`` takes that group alone;
without a group the user's primary and supplementary groups count. Sources: Dockerfile reference (USER, COPY --chown),
passwd(5), group(5).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from layerbuild.build.tree import Tree
from layerbuild.errors import BuildError
from layerbuild.layer.entry import Kind

_LIMIT = 10 << 20  # bytes; a larger passwd file is not read


@dataclass(frozen=True, slots=True)
class Account:
    """Who a process runs as: numeric ids, supplementary groups (the primary one among them) and home folder."""

    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str


@dataclass(frozen=True, slots=True)
class _User:
    name: str
    uid: int
    gid: int
    home: str


@dataclass(frozen=True, slots=True)
class _Group:
    name: str
    gid: int
    members: tuple[str, ...]


def account(tree: Tree, user: str) -> Account:
    """Whom USER ``user`` means in ``tree``; BuildError if a name is not there."""
    name, colon, group_name = user.partition(":")
    entry = _find_user(tree, name or "root")
    if entry is None and not _is_id(name) and name not in ("", "root"):
        raise BuildError(
            f"unable to find user {name!r} in the image's /etc/passwd",
            hint="create it in an earlier RUN (useradd, adduser), or give its number",
        )
    found = entry or _User("root", int(name or 0) if _is_id(name) or not name else 0, 0, "/")
    if colon and group_name:
        gid = _group_id(tree, group_name)
        return Account(found.uid, gid, (gid,), found.home)
    groups = {found.gid}
    if entry is not None:
        groups |= {group.gid for group in _groups(tree) if entry.name in group.members}
    return Account(found.uid, found.gid, tuple(sorted(groups)), found.home)


def owner(tree: Tree, text: str) -> tuple[int, int]:
    """The uid and gid of ``--chown=text``. A name that is not in the image counts as 0, as in BuildKit; a user alone
    brings its primary group, a bare number itself as the group."""
    user, colon, group = text.partition(":")
    if _is_id(user):
        uid = gid = int(user)
    else:
        entry = _find_user(tree, user) if user else None
        uid, gid = (entry.uid, entry.gid) if entry else (0, 0)
    if colon and group:
        gid = int(group) if _is_id(group) else next((row.gid for row in _groups(tree) if row.name == group), 0)
    return uid, gid


def _is_id(text: str) -> bool:
    return text.isascii() and text.isdigit()


def _find_user(tree: Tree, name: str) -> _User | None:
    wanted = int(name) if _is_id(name) else None
    return next((user for user in _users(tree) if user.name == name or user.uid == wanted), None)


def _group_id(tree: Tree, name: str) -> int:
    if _is_id(name):
        return int(name)
    for group in _groups(tree):
        if group.name == name:
            return group.gid
    raise BuildError(
        f"unable to find group {name!r} in the image's /etc/group",
        hint="create it in an earlier RUN (groupadd, addgroup), or give its number",
    )


def _users(tree: Tree) -> Iterator[_User]:
    for fields in _rows(tree, b"etc/passwd", 7):
        if _is_id(fields[2]) and _is_id(fields[3]):
            yield _User(fields[0], int(fields[2]), int(fields[3]), fields[5] or "/")


def _groups(tree: Tree) -> Iterator[_Group]:
    for fields in _rows(tree, b"etc/group", 4):
        if _is_id(fields[2]):
            yield _Group(fields[0], int(fields[2]), tuple(member for member in fields[3].split(",") if member))


def _rows(tree: Tree, path: bytes, columns: int) -> Iterator[list[str]]:
    node = tree.get(path)
    if node is None or node.entry.kind is not Kind.FILE or node.entry.size > _LIMIT:
        return
    with tree.open(node) as file:
        text = file.read().decode("utf-8", "surrogateescape")
    for line in text.splitlines():
        fields = line.strip().split(":")
        if line.startswith("#") or len(fields) < columns - 1:
            continue
        yield fields + [""] * (columns - len(fields))
