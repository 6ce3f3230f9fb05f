"""What an image is, read from its OCI layout and from nothing else: none of layerbuild's own code takes part."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import re
import stat
import tarfile
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_NOW = 1_500_000_000  # whatever is younger was made by the build
_TIME = re.compile(r" time=\S+")
_KINDS = {
    tarfile.REGTYPE: "file",
    tarfile.AREGTYPE: "file",
    tarfile.DIRTYPE: "folder",
    tarfile.SYMTYPE: "symlink",
    tarfile.FIFOTYPE: "fifo",
    tarfile.CHRTYPE: "char",
    tarfile.BLKTYPE: "block",
}


@dataclass(eq=False)
class _Node:
    """An inode; ``told`` is all that is compared."""

    told: dict[str, Any]


class Layout:
    """An OCI layout in a folder, of one image."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        manifest = self._json(json.loads((folder / "index.json").read_text())["manifests"][0]["digest"])
        if "manifests" in manifest:
            manifest = self._json(manifest["manifests"][0]["digest"])
        self.config = self._json(manifest["config"]["digest"])
        self.layers = [layer["digest"] for layer in manifest["layers"] or []]

    def _json(self, digest: str) -> Any:
        return json.loads(self._blob(digest))

    def _blob(self, digest: str) -> bytes:
        return (self._folder / "blobs" / digest.replace(":", "/")).read_bytes()

    def tree(self) -> dict[str, dict[str, Any]]:
        """All paths of the merged root file system."""
        nodes: dict[str, _Node] = {}
        for digest in self.layers:
            with tarfile.open(fileobj=io.BytesIO(_plain(self._blob(digest)))) as tar:
                _lay(nodes, tar)
        names: dict[_Node, list[str]] = defaultdict(list)
        for path, node in nodes.items():
            names[node].append(path)
        return {
            path: node.told | ({"names": sorted(names[node])} if len(names[node]) > 1 else {})
            for path, node in sorted(nodes.items())
        }


def _lay(nodes: dict[str, _Node], tar: tarfile.TarFile) -> None:
    members = [(member, _path(member.name)) for member in tar]
    for _, path in members:  # whiteouts first: they hide what is below, never what is in their own layer
        folder, _, name = path.rpartition("/")
        if name == ".wh..wh..opq":
            _remove(nodes, folder, itself=False)
        elif name.startswith(".wh."):
            _remove(nodes, f"{folder}/{name[4:]}", itself=True)
    for member, path in members:
        if path.rpartition("/")[2].startswith(".wh."):
            continue
        if member.islnk():
            nodes[path] = nodes[_path(member.linkname)]
            continue
        if not member.isdir():
            _remove(nodes, path, itself=True)
        nodes[path] = _Node(_told(member, tar))


def _plain(blob: bytes) -> bytes:
    return gzip.decompress(blob) if blob.startswith(b"\x1f\x8b") else blob


def _path(name: str) -> str:
    return "/" + name.strip("/").removeprefix("./") if name.strip("/") not in ("", ".") else ""


def _remove(nodes: dict[str, _Node], path: str, *, itself: bool) -> None:
    for other in [other for other in nodes if other.startswith(f"{path}/") or (itself and other == path)]:
        del nodes[other]


def _told(member: tarfile.TarInfo, tar: tarfile.TarFile) -> dict[str, Any]:
    told: dict[str, Any] = {
        "kind": _KINDS[member.type],
        "owner": f"{member.uid}:{member.gid}",
        "time": "now" if member.mtime > _NOW else int(member.mtime),
    }
    if not member.issym():
        told["mode"] = oct(stat.S_IMODE(member.mode))
    if member.isfile():
        file = tar.extractfile(member)
        assert file is not None
        told |= {"size": member.size, "sha256": hashlib.sha256(file.read()).hexdigest()[:16]}
    if member.issym():
        told["link"] = member.linkname
    if member.ischr() or member.isblk():
        told["device"] = f"{member.devmajor}:{member.devminor}"
    attributes = {
        name.removeprefix("SCHILY.xattr."): value.encode("utf-8", "surrogateescape").hex()
        for name, value in member.pax_headers.items()
        if name.startswith("SCHILY.xattr.") and not name.startswith("SCHILY.xattr.user.")  # a decided difference
    }
    return told | ({"attributes": attributes} if attributes else {})


def facts(layout: Layout, base: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """What is compared: the configuration without empty fields, what history says of each step, and the paths in which
    the tree differs from that of the base."""
    config = {key: value for key, value in (layout.config.get("config") or {}).items() if value}
    # Later BuildKits spell HEALTHCHECK in another way than Docker 28.5's, and layerbuild as they do.
    spelled = [entry.get("created_by", "") for entry in layout.config.get("history") or []]
    history = [text.split(" ")[0] if text.startswith("HEALTHCHECK ") else text for text in spelled]
    tree = layout.tree()
    changed = {path: _line(node) for path, node in tree.items() if not _same(base.get(path), node)}
    gone = [path for path in base if path not in tree]
    top = [path for path in gone if path.rpartition("/")[0] not in gone]
    return {"config": config, "history": history, "tree": changed, "gone": top}


def _same(below: Mapping[str, Any] | None, node: Mapping[str, Any]) -> bool:
    """A folder of the base bears another time as soon as something is made in it: that is no change."""
    if below is None or below["kind"] != "folder":
        return below == node
    return {**below, "time": None} == {**node, "time": None}


def _line(node: Mapping[str, Any]) -> str:
    return " ".join(f"{key}={value}" for key, value in node.items())


def differences(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> list[str]:
    """A line for each fact that is not the same."""
    if "fails" in theirs or "fails" in ours:
        same = ("fails" in theirs) == ("fails" in ours)
        return [] if same else [f"theirs {_outcome(theirs)}, ours {_outcome(ours)}"]
    lines = []
    for part in ("config", "tree"):
        for key in sorted(theirs[part].keys() | ours[part].keys()):
            one, other = theirs[part].get(key), ours[part].get(key)
            if one != other and not (part == "tree" and _but_for_time(one, other)):
                lines.append(f"{part} {key}: theirs {one}, ours {other}")
    for part in ("history", "gone"):
        if theirs[part] != ours[part]:
            lines.append(f"{part}: theirs {theirs[part]}, ours {ours[part]}")
    return lines


def _but_for_time(theirs: str | None, ours: str | None) -> bool:
    """A folder that BuildKit copies has now and then the time at which that was, not that of the source."""
    if theirs is None or ours is None or not theirs.startswith("kind=folder") or " time=now" not in theirs:
        return False
    return _TIME.sub("", theirs) == _TIME.sub("", ours)


def _outcome(found: Mapping[str, Any]) -> str:
    return f"fails ({found['fails']})" if "fails" in found else "builds"
