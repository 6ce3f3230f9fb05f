"""A bench for cases that build: a store with their bases, the folders they describe, and what a build came to."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import re
import socket
import tarfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zstandard
from support import Layerbuild

File = dict[str, Any]

_COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    "none": bytes,
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zstd": lambda data: zstandard.ZstdCompressor().compress(data),
}
_MEMBERS = {
    "file": tarfile.REGTYPE,
    "dir": tarfile.DIRTYPE,
    "symlink": tarfile.SYMTYPE,
    "hardlink": tarfile.LNKTYPE,
}


@dataclass(frozen=True)
class Outcome:
    """What a build came to. ``text`` is all that it said."""

    code: int
    image_id: str
    text: str

    def says(self, text: str) -> bool:
        """Whether it said ``text``, where other builders have the line in words, and hints in parentheses."""
        found = re.fullmatch(r"(?:dockerfile )?parse error on line (\d+): (.*)", text)
        if found:
            return self.shows(int(found[1])) and self.says(found[2])
        return text.lower() in re.sub(r"\nhint: (.*)", r" (\1)", self.text).lower()

    def misses(self, context: Path) -> str:
        """The source that made it fail and that is not in ``context``; empty if none did."""
        found = re.search(r"'(.*)' not found: it is not in the context", self.text)
        return found[1] if found and not (context / found[1].strip("/")).exists() else ""

    def shows(self, line: int) -> bool:
        """Whether it tells of, or quotes, this line of the recipe."""
        return re.search(rf":{line}:|\bline {line}\b|^ *{line} \|", self.text, re.MULTILINE) is not None


@dataclass(frozen=True)
class Bench:
    """A fresh store with the bases, and a folder to work in."""

    layerbuild: Layerbuild
    folder: Path

    def build(self, *arguments: str | Path) -> Outcome:
        """Build, whatever comes of it; but never may the program itself fall over."""
        done = self.layerbuild.attempt("build", "--progress", "plain", *arguments)
        out, text = done.stdout.decode("utf-8", "replace"), done.stderr.decode("utf-8", "replace")
        assert "Traceback" not in text, text
        return Outcome(done.returncode, out.strip(), text)

    def context(self, name: str, files: Iterable[File]) -> Path:
        """A fresh folder with ``files``."""
        folder = self.folder / name
        folder.mkdir()
        fill(folder, files)
        return folder

    def config(self, image_id: str) -> dict[str, Any]:
        """The configuration of an image, as OCI has it."""
        found: dict[str, Any] = json.loads(self.blob(image_id))
        return found

    def history(self, name: str) -> list[dict[str, Any]]:
        """The history of the image ``name``, oldest entry first."""
        found: list[dict[str, Any]] = self.config(self.layerbuild.json("layers", name)["image_id"])["history"]
        return found

    def times(self, digest: str) -> list[float]:
        """The times of a layer's entries, in seconds since 1970."""
        with tarfile.open(fileobj=io.BytesIO(self.blob(digest))) as tar:
            return [member.mtime for member in tar]

    def blob(self, digest: str) -> bytes:
        return (self.layerbuild.root / "blobs" / "sha256" / digest.partition(":")[2]).read_bytes()


def fill(folder: Path, files: Iterable[File]) -> None:
    """Make ``files`` below ``folder``; times last, as what is put into a folder changes the folder's."""
    made = [(folder / file["path"], file) for file in files]
    for path, file in made:
        path.parent.mkdir(parents=True, exist_ok=True)
        _WRITERS[file["type"]](path, file, folder)
        if "uid" in file:
            os.chown(path, file["uid"], file["gid"], follow_symlinks=False)
        if "mode" in file and file["type"] not in ("symlink", "hardlink"):
            path.chmod(int(file["mode"], 8))
        for name, value in file.get("xattrs", {}).items():
            os.setxattr(path, name, value.encode(), follow_symlinks=False)
    for path, file in made:
        if "mtime" in file:
            os.utime(path, (file["mtime"], file["mtime"]), follow_symlinks=False)


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(path))


_WRITERS: dict[str, Callable[[Path, File, Path], object]] = {
    "file": lambda path, file, _: path.write_bytes(content(file)),
    "dir": lambda path, _file, _folder: path.mkdir(exist_ok=True),
    "symlink": lambda path, file, _: path.symlink_to(file["target"]),
    "hardlink": lambda path, file, folder: path.hardlink_to(folder / file["target"]),
    "socket": lambda path, _file, _folder: _socket(path),
    "tar": lambda path, file, _: path.write_bytes(_COMPRESSORS[file.get("compress") or ""](archive(file["entries"]))),
}


def content(file: File) -> bytes:
    return str(file.get("content") or "").encode(file.get("encoding", "utf-8"))


def archive(entries: Iterable[File]) -> bytes:
    """The tar that a row describes."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for entry in entries:
            data = content(entry)
            member = tarfile.TarInfo(entry["name"])
            member.type, member.linkname = _MEMBERS[entry["type"]], entry.get("target", "")
            member.mode, member.size, member.mtime = int(entry["mode"], 8), len(data), entry.get("mtime", 0)
            member.uid, member.gid = entry.get("uid", 0), entry.get("gid", 0)
            member.pax_headers = {f"SCHILY.xattr.{name}": value for name, value in entry.get("xattrs", {}).items()}
            tar.addfile(member, io.BytesIO(data) if data else None)
    return out.getvalue()
