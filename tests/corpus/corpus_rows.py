"""The corpus of other builders' cases: where it is, its rows as test parameters, and trees made from its operations."""

from __future__ import annotations

import datetime
import errno
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest
from known import KNOWN
from support import PROJECT

CORPUS = Path(os.environ.get("LAYERBUILD_CORPUS") or PROJECT.parent / "shared" / "corpus")

Row = dict[str, Any]
Test = Callable[..., None]


def corpus(family: str) -> Callable[[Test], Test]:
    """Run a test, which takes ``row``, once for each row of a family: a file of JSON lines, or a folder of cases.

    A family that is not there is one skipped test. A row in the table of known differences must fail.
    """

    def decorate(test: Test) -> Test:
        cases = [_case(family, row) for row in rows(family)]
        return pytest.mark.parametrize("row", cases or [_absent(family)])(test)

    return decorate


def rows(family: str) -> list[Row]:
    """The rows of a family; none if it is absent."""
    path = CORPUS / family
    if path.is_dir():
        return [{"name": case.name, "folder": str(case)} for case in sorted(path.iterdir()) if case.is_dir()]
    file = path.with_name(path.name + ".jsonl")
    return [json.loads(line) for line in file.read_text().splitlines() if line] if file.is_file() else []


def key(row: Row) -> str:
    """What tells a row from others of its family, in whichever part of the suite it stands: its name, or a digest of
    what it says; behind its id, which several may share, a short one."""
    if "name" in row:
        return str(row["name"])
    plain = json.dumps(row, sort_keys=True, ensure_ascii=False).encode()
    digest = hashlib.sha256(plain).hexdigest()
    return f"{row['id'].rpartition('/')[2]}-{digest[:4]}" if "id" in row else digest[:10]


def _case(family: str, row: Row) -> Any:
    name = f"{family}#{key(row)}"
    marks: list[pytest.MarkDecorator] = [pytest.mark.corpus(family)]
    if name in KNOWN:
        marks.append(pytest.mark.xfail(reason=f"known difference: {KNOWN[name]}", strict=True))
    return pytest.param(row, id=name, marks=marks)


def _absent(family: str) -> Any:
    marks = [pytest.mark.corpus(family), pytest.mark.skip(reason=f"corpus absent: {family}")]
    return pytest.param({}, id=f"{family}#absent", marks=marks)


def differs(cause: str) -> NoReturn:
    """End a test whose row differs for a reason that holds for all rows of its like."""
    pytest.xfail(f"known difference: {cause}")


# -- trees -------------------------------------------------------------------------------------------------------------

T = 1_577_882_096  # the time that rows call T, in seconds


def perform(root: Path, operations: list[list[Any]]) -> None:
    """Carry out the operations of a row on the folder ``root``."""
    for name, *arguments in operations:
        _OPERATIONS[name](root, *arguments)


def inside(root: Path, path: str) -> Path:
    """The path below ``root`` that a row means."""
    return root / path.strip("/")


def _mkdir(root: Path, path: str, mode: str) -> None:
    folder = inside(root, path)
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    for each in reversed(missing):
        each.mkdir()
        each.chmod(int(mode, 8))
    folder.chmod(int(mode, 8))


def _file(root: Path, path: str, content: str | None, mode: str) -> None:
    file = inside(root, path)
    file.write_bytes((content or "").encode("latin-1"))
    file.chmod(int(mode, 8))


def _symlink(root: Path, target: str, path: str) -> None:
    link = inside(root, path)
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(target)


def _rmtree(root: Path, path: str) -> None:
    target = inside(root, path)
    shutil.rmtree(target) if target.is_dir() and not target.is_symlink() else target.unlink()


def _rename(root: Path, old: str, new: str) -> None:
    try:
        inside(root, old).rename(inside(root, new))
    except OSError as error:
        # As mv(1) does it where overlay refuses to rename a folder of a lower layer.
        if error.errno != errno.EXDEV:
            raise
        shutil.copytree(inside(root, old), inside(root, new), symlinks=True)
        shutil.rmtree(inside(root, old))


def _chtimes(root: Path, path: str, atime: str, mtime: str) -> None:
    os.utime(inside(root, path), ns=(nanoseconds(atime), nanoseconds(mtime)))


def _lchtimes(root: Path, path: str, atime: str, mtime: str) -> None:
    os.utime(inside(root, path), ns=(nanoseconds(atime), nanoseconds(mtime)), follow_symlinks=False)


def nanoseconds(text: str) -> int:
    """A time as rows write it: ``T+5ns``, ``now``, seconds, or ISO 8601."""
    if text == "now":
        return time.time_ns()
    if text.startswith("T"):
        return T * 10**9 + int(text.removeprefix("T").removesuffix("ns") or 0)
    whole, dot, fraction = text.partition(".")
    if whole.isdecimal():
        return int(whole) * 10**9 + int(fraction.ljust(9, "0") if dot else 0)
    return int(datetime.datetime.fromisoformat(text).timestamp()) * 10**9


_OPERATIONS: dict[str, Callable[..., object]] = {
    "mkdir": _mkdir,
    "file": _file,
    "symlink": _symlink,
    "link": lambda root, old, new: os.link(inside(root, old), inside(root, new), follow_symlinks=False),
    "remove": _rmtree,
    "rmtree": _rmtree,
    "rename": _rename,
    "rename_or_copy": _rename,
    "chmod": lambda root, path, mode: inside(root, path).chmod(int(mode, 8)),
    "chtimes": _chtimes,
    "lchtimes": _lchtimes,
    "setxattr": lambda root, path, name, value: os.setxattr(inside(root, path), name, value.encode()),
    "chardev": lambda root, path, major, minor: os.mknod(inside(root, path), 0o20600, os.makedev(major, minor)),
    "socket": lambda root, path, *_mode: os.mknod(inside(root, path), 0o140755),
}
