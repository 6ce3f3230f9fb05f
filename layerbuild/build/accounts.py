"""Users and groups by name, looked up in the image's own /etc/passwd and /etc/group.

Rules of USER as runtimes apply them: ``name`` must exist; a number need not; ``user:group`` takes that group alone;
without a group the user's primary and supplementary groups count. Sources: Dockerfile reference (USER, COPY --chown),
passwd(5), group(5).
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from layerbuild.build.tree import Tree
from layerbuild.errors import BuildError
from layerbuild.frozen import frozen
from layerbuild.layer.entry import Kind

_LIMIT = 10 << 20  # bytes; a larger passwd file is not read
_LAST_ID = (1 << 32) - 2  # the kernel means "no change" by the next one (chown(2))
_LAST_USER = (1 << 31) - 1  # of those that USER gives by number: BuildKit and runc start nobody beyond it
_MOST_GROUPS = 65536  # NGROUPS_MAX of limits.h
_ID = re.compile(r"\+?[0-9]+", re.ASCII)
_NEGATIVE = re.compile(r"-[0-9]+", re.ASCII)


@frozen
class Account:
    """Who a process runs as: numeric ids, supplementary groups (the primary one among them) and home folder."""

    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str


@frozen
class _User:
    name: str
    uid: int
    gid: int
    home: str


@frozen
class _Group:
    name: str
    gid: int
    members: tuple[str, ...]


def account(tree: Tree, user: str) -> Account:
    """Whom USER ``user`` means in ``tree``; BuildError if a name is not there, or a number is too large."""
    name, colon, group_name = user.partition(":")
    entry = _find_user(tree, name or "root")
    if entry is None and not _is_id(name) and name not in ("", "root"):
        raise BuildError(
            f"unable to find user {name!r} in the image's /etc/passwd",
            hint="create it in an earlier RUN (useradd, adduser), or give its number",
        )
    found = entry or _User("root", _id(name, last=_LAST_USER) if _is_id(name) else 0, 0, "/")
    if colon and group_name:
        gid = _group_id(tree, group_name)
        return Account(found.uid, gid, (gid,), found.home)
    groups = {found.gid}
    if entry is not None:
        groups |= {group.gid for group in _groups(tree) if entry.name in group.members}
    if len(groups) > _MOST_GROUPS:
        raise BuildError(
            f"user {name!r} is in {len(groups)} groups of the image's /etc/group",
            hint=f"the kernel takes {_MOST_GROUPS}; USER {name}:GROUP takes that group alone",
        )
    return Account(found.uid, found.gid, tuple(sorted(groups)), found.home)


def owner(tree: Tree, text: str) -> tuple[int, int]:
    """The uid and gid of ``--chown=text``. As in BuildKit, a user's name that is not in the image counts as 0, and a
    user without a group, or with one that is not in the image, brings its primary group, a number itself; nothing
    behind a colon is group 0. BuildError for a name where the image holds no file at all."""
    if names_account(text) and next(tree.children(b""), None) is None:
        raise BuildError(
            f"--chown={text}: the image is empty, and tells no name", hint="give numbers, such as --chown=1000:1000"
        )
    user, colon, group = text.partition(":")
    if negative := next(filter(_NEGATIVE.fullmatch, (user, group)), None):
        raise BuildError(f"--chown={text}: {negative} is no user or group id", hint="ids are 0 and above")
    if _is_id(user):
        uid = gid = _id(user)
    else:
        entry = _find_user(tree, user) if user else None
        uid, gid = (entry.uid, entry.gid) if entry else (0, 0)
    if _is_id(group):
        gid = _id(group)
    elif colon:
        gid = next((row.gid for row in _groups(tree) if row.name == group), gid if group else 0)
    return uid, gid


def names_account(text: str) -> bool:
    """Whether ``--chown=text`` has a name in it, to be looked up in the image."""
    return not all(_is_id(part) for part in text.split(":") if part)


def _is_id(text: str) -> bool:
    return _ID.fullmatch(text) is not None


def _id(text: str, *, last: int = _LAST_ID) -> int:
    number = _number(text)
    if number is None or number > last:
        raise BuildError(f"{text[:20]} is no user or group id", hint=f"the largest is {last}")
    return number


def _number(text: str) -> int | None:
    if not _is_id(text) or len(text.lstrip("+0")) > 10 or int(text) > _LAST_ID:
        return None
    return int(text)


def _find_user(tree: Tree, name: str) -> _User | None:
    wanted = _id(name) if _is_id(name) else None
    return next((user for user in _users(tree) if user.name == name or user.uid == wanted), None)


def _group_id(tree: Tree, name: str) -> int:
    if _is_id(name):
        return _id(name, last=_LAST_USER)
    for group in _groups(tree):
        if group.name == name:
            return group.gid
    raise BuildError(
        f"unable to find group {name!r} in the image's /etc/group",
        hint="create it in an earlier RUN (groupadd, addgroup), or give its number",
    )


def _users(tree: Tree) -> Iterator[_User]:
    for name, _, uid_text, gid_text, _, home, *_ in _rows(tree, b"etc/passwd", 7):
        uid, gid = _number(uid_text), _number(gid_text)
        if uid is not None and gid is not None:
            yield _User(name, uid, gid, home or "/")


def _groups(tree: Tree) -> Iterator[_Group]:
    for name, _, gid_text, members, *_ in _rows(tree, b"etc/group", 4):
        gid = _number(gid_text)
        if gid is not None:
            yield _Group(name, gid, tuple(member for member in members.split(",") if member))


def _rows(tree: Tree, path: bytes, columns: int) -> Iterator[list[str]]:
    node = tree.get(path)
    if node is None or node.entry.kind is not Kind.FILE or node.entry.size > _LIMIT:
        return
    with tree.open(node) as file:
        text = file.read().decode("utf-8", "surrogateescape")
    for line in text.split("\n"):
        if line and not line.startswith("#"):
            fields = line.strip().split(":")
            yield fields + [""] * (columns - len(fields))
