"""The cases of containerd and continuity about layers: changes to a tar, a tar to a folder, paths inside a root.

What changes a folder there by hand is done here to a real overlay, as RUN does it.
"""

from __future__ import annotations

import functools
import io
import os
import stat
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from corpus_rows import Row, corpus, differs, nanoseconds, perform
from known import FRACTIONS
from layer.layer_trees import captured, described, index_of, overlay

from layerbuild.errors import BuildError, FormatError
from layerbuild.layer.apply import apply
from layerbuild.layer.changes import seal
from layerbuild.layer.entry import Entry, sort_key
from layerbuild.layer.index import Index
from layerbuild.layer.paths import resolve
from layerbuild.layer.union import LayerView, Union
from layerbuild.layer.whiteout import TRUSTED, USER, is_whiteout

mounting = pytest.mark.skipif(os.geteuid() != 0, reason="overlay is mounted outside a user namespace: needs root")

# -- paths -------------------------------------------------------------------------------------------------------------


@corpus("continuity/directory_compare")
def test_order_of_paths(row: Row) -> None:
    one, other = (sort_key(row[name].encode()) for name in ("p1", "p2"))
    assert (one > other) - (one < other) == row["r"]


@corpus("continuity/rootpath")
def test_links_inside_a_root(row: Row, tmp_path: Path) -> None:
    perform(tmp_path, row["base"])
    for check in row["checks"]:
        scope = tmp_path / check.get("scope", "")
        readlink = functools.partial(_readlink, scope)
        if "error" in check:
            with pytest.raises(BuildError, match=check["error"]):
                resolve(check["unresolved"].encode(), readlink)
        else:
            assert resolve(check["unresolved"].encode(), readlink) == check["expected"].strip("/").encode()


def _readlink(root: Path, path: bytes) -> bytes | None:
    try:
        return os.readlink(os.fsencode(root) + b"/" + path)
    except OSError:
        return None


# -- what changed ------------------------------------------------------------------------------------------------------

Change = tuple[str, str]


def sealed(row: Row, tmp_path: Path, *, epoch: int | None = None) -> tuple[Path, Path]:
    """The folder below and the sealed upper folder of a row."""
    lower, upper = tmp_path / "lower", tmp_path / "upper"
    lower.mkdir()
    upper.mkdir()
    perform(lower, row["base"])
    raw = row.get("engine", "").startswith("upperdir-only")
    if raw:
        perform(upper, row["change"])
    else:
        with overlay([lower], upper, tmp_path) as merged:
            perform(merged, row["change"])
    seal(upper, [lower], epoch=epoch, spaces=(USER if raw else TRUSTED,))  # that one is of an overlay with userxattr
    return lower, upper


@mounting
@corpus("continuity/diff_changes")
def test_changes(row: Row, tmp_path: Path) -> None:
    lower, upper = sealed(row, tmp_path)
    expected = [change for kind, path in row["changes"] for change in ours(kind, path, lower, upper)]
    found = sorted(changes(lower, upper))
    if found != sorted(expected) and has_fractions(row):
        assert found == rewritten(row)
        differs(FRACTIONS)
    assert found == sorted(expected)


def has_fractions(row: Row) -> bool:
    """Whether the row is about fractions of a second, which no layer of ours has."""
    times = [time for name, *rest in [*row["base"], *row["change"]] if name.endswith("chtimes") for time in rest[1:]]
    return any(nanoseconds(time) % 10**9 for time in times)


def rewritten(row: Row) -> list[Change]:
    """The files that a row writes anew with other content."""
    before = {path: content for name, path, content, *_ in row["base"] if name == "file"}
    after = [(path, content) for name, path, content, *_ in row["change"] if name == "file"]
    return sorted(("modify", path) for path, content in after if before[path] != content)


def changes(lower: Path, upper: Path) -> Iterator[Change]:
    """What the sealed folder says, without the folders that only lead to something."""
    for path in upper.rglob("*"):
        name = path.relative_to(upper)
        if is_whiteout(path.lstat()):
            yield "delete", f"/{name}"
        elif not os.path.lexists(lower / name):
            yield "add", f"/{name}"
        elif not only_leads(lower / name, path):
            yield "modify", f"/{name}"


def ours(kind: str, path: str, lower: Path, upper: Path) -> Iterator[Change]:
    """A change as our layers say it: an opaque folder is a deletion for each name that it hides (fact D6), and a folder
    whose only change is its time is none (D9)."""
    folder, name = os.path.split(path)
    if name == ".wh..opq":
        kept = {each.name for each in (upper / folder[1:]).iterdir() if not is_whiteout(each.lstat())}
        yield from (
            ("delete", f"{folder}/{each.name}") for each in (lower / folder[1:]).iterdir() if each.name not in kept
        )
    elif kind != "modify" or not only_leads(lower / path[1:], upper / path[1:]):
        yield kind, path


def only_leads(below: Path, above: Path) -> bool:
    if not (os.path.lexists(below) and os.path.lexists(above)):
        return stat.S_ISDIR(below.lstat().st_mode)  # sealing dropped it, having nothing to lead to
    one, other = below.lstat(), above.lstat()
    same = (one.st_mode, one.st_uid, one.st_gid) == (other.st_mode, other.st_uid, other.st_gid)
    return same and stat.S_ISDIR(one.st_mode)


@mounting
@corpus("containerd/diff_tar")
def test_tar_of_a_change(row: Row, tmp_path: Path) -> None:
    epoch = nanoseconds(row["source_date_epoch"]) // 10**9 if "source_date_epoch" in row else None
    expected = with_first_names(row["tar"])
    made = set()
    for number in range(min(row.get("reproducible_runs", 1), 3)):
        folder = tmp_path / str(number)
        folder.mkdir()
        _, upper = sealed(row, folder, epoch=epoch)
        done = captured(upper, folder)
        made.add(done.diff_id)
        found = list(members(folder / "layer.tar"))
        assert [member["name"] for member in found] == [entry["name"] for entry in expected]
        for member, entry in zip(found, expected, strict=True):
            assert member | entry == member
    assert len(made) == 1


_TYPES = {tarfile.DIRTYPE: "dir", tarfile.SYMTYPE: "symlink", tarfile.LNKTYPE: "hardlink", tarfile.REGTYPE: "file"}


def members(path: Path) -> Iterator[Row]:
    with tarfile.open(path) as tar:
        for member in tar:
            content = tar.extractfile(member) if member.isreg() else None
            yield {
                "type": "whiteout" if ".wh." in member.name else _TYPES.get(member.type, "other"),
                "name": member.name + "/" * member.isdir(),
                "content": content.read().decode("latin-1") if content else "",
                "mode": oct(member.mode),
                "target": member.linkname,
                "mtime": int(member.mtime) * 10**9,
            }


def with_first_names(entries: list[Row]) -> list[Row]:
    """The expected members in our order. Of the names of one file the first in order is the file (fact D20 leaves open
    which one is), so the roles of the others may change."""
    groups: dict[str, list[Row]] = {}
    for entry in entries:
        groups.setdefault(entry["target"] if entry["type"] == "hardlink" else entry["name"], []).append(entry)
    found = [member for group in groups.values() for member in _by_first_name(group)]
    for entry in found:
        if "mtime" in entry:
            entry["mtime"] = nanoseconds(entry["mtime"])
    return sorted(found, key=lambda entry: sort_key(entry["name"].replace(".wh.", "").encode()))


def _by_first_name(group: list[Row]) -> list[Row]:
    file = next(entry for entry in group if entry["type"] != "hardlink")
    names = sorted((entry["name"] for entry in group), key=lambda name: sort_key(name.encode()))
    links = [{"type": "hardlink", "name": name, "target": names[0]} for name in names[1:]]
    return [{**file, "name": names[0]}, *links]


# -- there and back ----------------------------------------------------------------------------------------------------


@mounting
@corpus("containerd/roundtrip")
def test_unpacked_layers_show_what_the_steps_left(row: Row, tmp_path: Path) -> None:
    built: list[Path] = []
    unpacked: list[Path] = []
    for number, operations in enumerate(row["steps"]):
        scratch = tmp_path / str(number)
        upper = scratch / "upper"
        empty = scratch / "empty"
        empty.mkdir(parents=True)
        upper.mkdir()
        with overlay([*reversed(built), empty], upper, scratch) as merged:
            perform(merged, operations)
            left = seen(merged)
        seal(upper, list(reversed(built)), epoch=None)
        captured(upper, scratch)
        built.append(upper)
        unpacked.append(unpack((scratch / "layer.tar").read_bytes(), scratch / "unpacked", unpacked))
        with stacked(unpacked, scratch) as merged:
            assert seen(merged) == left
        assert described(unpacked[-1]) == described(upper)


def seen(root: Path) -> dict[str, tuple[Any, ...]]:
    """A tree without its times, and without which names are one file: an overlay parts the names of a lower file when
    one of them is written (fact D20)."""
    return {name: entry[:-1] for name, entry in described(root, times=False).items()}


@contextmanager
def stacked(folders: list[Path], scratch: Path) -> Iterator[Path]:
    """A mount of layers, the topmost last."""
    place = scratch / "look"
    (place / "empty").mkdir(parents=True)
    with overlay([*reversed(folders), place / "empty"], place / "upper", place) as merged:
        yield merged


def unpack(tar: bytes, folder: Path, below: list[Path]) -> Path:
    """Unpack a layer over others (the topmost last), whose indexes lie beside them."""
    folder.mkdir()
    indexes = [Index.open(index_of(each)) for each in reversed(below)]
    union = Union([LayerView(index) for index in indexes])

    def entry(path: bytes) -> Entry | None:
        found = union.lookup(path)
        return found.entry if found else None

    try:
        apply(io.BytesIO(tar), folder, index=index_of(folder), below=entry)
    finally:
        for index in indexes:
            index.__exit__(None, None, None)
    return folder


# -- unpacking ---------------------------------------------------------------------------------------------------------


@mounting
@corpus("containerd/tar_apply")
def test_unpacking(row: Row, tmp_path: Path) -> None:
    base = based(row["base"], tmp_path)
    tar = archive(row["tar"])
    if "error" in row:
        with pytest.raises(FormatError):
            unpack(tar, tmp_path / "layer", [base])
        return
    layer = unpack(tar, tmp_path / "layer", [base])
    with stacked([base, layer], tmp_path) as root:
        for name, *arguments in row["check"]:
            assert CHECKS[name](root, *arguments), (name, arguments)


def based(operations: list[list[Any]], tmp_path: Path) -> Path:
    made = tmp_path / "made"
    made.mkdir()
    perform(made, operations)
    seal(made, (), epoch=None)
    captured(made, tmp_path, "base")
    return unpack((tmp_path / "base.tar").read_bytes(), tmp_path / "base", [])


def archive(entries: list[Row]) -> bytes:
    out = io.BytesIO()
    types = {name: kind for kind, name in _TYPES.items()}
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for entry in entries:
            content = entry.get("content", "").encode("latin-1")
            member = tarfile.TarInfo(entry["name"])
            member.type, member.size = types[entry["type"]], len(content)
            member.mode, member.linkname = int(entry.get("mode", "0o777"), 8), entry.get("target", "")
            member.uid, member.gid = entry.get("uid", 0), entry.get("gid", 0)
            tar.addfile(member, io.BytesIO(content))
    return out.getvalue()


def within(root: Path, path: str) -> Path:
    """The file that a path means in ``root``, links followed inside it."""
    return root / os.fsdecode(resolve(path.encode(), functools.partial(_readlink, root)))


def same_inode(root: Path, one: str, other: str) -> bool:
    return within(root, one).lstat().st_ino == within(root, other).lstat().st_ino


def both_links(root: Path, one: str, other: str) -> bool:
    texts = [os.readlink(root / path.strip("/")) for path in (one, other)]
    return texts[0] == texts[1]


CHECKS: dict[str, Callable[..., bool]] = {
    "content": lambda root, path, text: within(root, path).read_bytes() == text.encode("latin-1"),
    "absent": lambda root, path: not os.path.lexists(root / path.strip("/")),
    "exists": lambda root, path: os.path.lexists(root / path.strip("/")),
    "mode": lambda root, path, mode: stat.S_IMODE((root / path.strip("/")).lstat().st_mode) == int(mode, 8),
    "link": lambda root, path, text: os.readlink(root / path.strip("/")) == text,
    "same_inode_in_root": same_inode,
    "not_same_inode_in_root": lambda *arguments: not same_inode(*arguments),
    "both_symlinks_same_target": both_links,
}
