"""Which instruction created, changed, hid or deleted each version of a path, and what is shipped though unseen."""

from __future__ import annotations

import difflib
import os
from collections.abc import Sequence
from typing import Any

from layerbuild.frozen import frozen
from layerbuild.layer.entry import Kind
from layerbuild.views.layers import LayerRow
from layerbuild.views.text import count, shorten, size, table
from layerbuild.views.versions import Version, invisible

_LARGEST = 15  # invisible files that the text names


@frozen
class LayerBlame:
    """What one layer did: how many paths it created, changed and deleted, the bytes of content that it ships, and how
    many of them nothing shows."""

    layer: int
    instruction: str
    created: int
    changed: int
    deleted: int
    bytes: int
    invisible: int


def by_layer(rows: Sequence[LayerRow], found: Sequence[Version]) -> list[LayerBlame]:
    """One row for each layer, the lowest first."""
    hidden = {id(version) for version in invisible(found)}
    counts = [dict.fromkeys(("created", "changed", "deleted", "kept", "bytes", "invisible"), 0) for _ in rows]
    for version in found:
        layer = counts[version.layer - 1]
        layer[version.action] += 1
        layer["bytes"] += version.size
        layer["invisible"] += version.size if id(version) in hidden else 0
    return [
        LayerBlame(
            number,
            row.instruction,
            **{name: told[name] for name in ("created", "changed", "deleted", "bytes", "invisible")},
        )
        for number, (row, told) in enumerate(zip(rows, counts, strict=True), start=1)
    ]


def image_json(rows: Sequence[LayerRow], found: Sequence[Version]) -> dict[str, Any]:
    """The whole image as plain data: layers, and every file that is shipped though invisible."""
    hidden = sorted(invisible(found), key=lambda version: -version.size)
    return {
        "layers": [
            {name: getattr(layer, name) for name in LayerBlame.__dataclass_fields__} for layer in by_layer(rows, found)
        ],
        "invisible_bytes": sum(version.size for version in hidden),
        "invisible": [_version_json(rows, version) for version in hidden],
    }


def image_text(rows: Sequence[LayerRow], found: Sequence[Version], *, width: int) -> str:
    """The whole image for people."""
    header = ["LAYER", "INSTRUCTION", "CREATED", "CHANGED", "DELETED", "BYTES", "INVISIBLE"]
    shown = max(24, min(50, width - 54))  # so that a row has room in 80 columns
    cells = [
        [
            str(layer.layer),
            shorten(layer.instruction, shown) or "(no history)",
            *(str(number) for number in (layer.created, layer.changed, layer.deleted)),
            size(layer.bytes),
            size(layer.invisible) if layer.invisible else "-",
        ]
        for layer in by_layer(rows, found)
    ]
    hidden = sorted(invisible(found), key=lambda version: -version.size)
    lines = [table(header, cells, width=width, right=frozenset((0, 2, 3, 4, 5, 6)))]
    if not hidden:
        return "\n".join([*lines, "every byte that is shipped can be seen"])
    total = sum(version.size for version in hidden)
    lines.append(f"{size(total)} in {count(len(hidden), 'file')} are shipped though invisible:")
    lines += [
        f"  {size(version.size):>7}  {_shown(version.path)}  of layer {version.layer}, {_fate(version)}"
        for version in hidden[:_LARGEST]
    ]
    if len(hidden) > _LARGEST:
        lines.append(f"  and {len(hidden) - _LARGEST} more; --format json names them all")
    return "\n".join(lines)


def path_versions(found: Sequence[Version], path: bytes) -> list[Version]:
    """The versions of ``path`` and of all below it, path by path; a folder that a layer merely names is left out."""
    inside = path + b"/"
    below = [version for version in found if not path or version.path == path or version.path.startswith(inside)]
    return sorted(
        (version for version in below if version.action != "kept"),
        key=lambda version: (version.path.replace(b"/", b"\0"), version.layer),
    )


def near_paths(found: Sequence[Version], path: bytes) -> list[bytes]:
    """The paths, of all that there ever were, that ``path`` may have been meant to be: of the same name elsewhere, else
    of a similar one."""
    known = {os.fsdecode(version.path): version.path for version in found}
    wanted = os.fsdecode(path)
    name = wanted.rpartition("/")[2]
    same = sorted(text for text in known if text.rpartition("/")[2] == name)[:3]
    folder = wanted.rpartition("/")[0]
    beside = [text for text in known if text.rpartition("/")[0] == folder]
    return [known[text] for text in same or difflib.get_close_matches(wanted, beside, n=3)]


def path_json(rows: Sequence[LayerRow], found: Sequence[Version]) -> list[dict[str, Any]]:
    """The versions as plain data."""
    return [_version_json(rows, version) for version in found]


def path_text(rows: Sequence[LayerRow], found: Sequence[Version]) -> str:
    """The versions for people: one block for each path."""
    lines: list[str] = []
    last = None
    for version in found:
        if version.path != last:
            lines.append(_shown(version.path) + "/" * (version.entry.kind is Kind.DIRECTORY))
            last = version.path
        row = rows[version.layer - 1]
        what = f"changed ({', '.join(version.facts)})" if version.facts else version.action
        amount = f"  {size(version.size)}" if version.size else ""
        fate = f", {_fate(version)}" if version.hidden_by else ""
        lines.append(f"  layer {version.layer}  {what}{amount}{fate}  {shorten(row.instruction, 70)}")
    return "\n".join(lines)


def _version_json(rows: Sequence[LayerRow], version: Version) -> dict[str, Any]:
    row = rows[version.layer - 1]
    return {
        "path": _shown(version.path),
        "kind": version.entry.kind.value,
        "action": version.action,
        "changed": list(version.facts),
        "layer": version.layer,
        "diff_id": row.diff_id,
        "instruction": row.instruction,
        "bytes": version.size,
        "visible": version.visible,
        "hidden_by": version.hidden_by or None,
        "deleted": version.deleted,
    }


def _fate(version: Version) -> str:
    verb = "deleted" if version.deleted else "replaced"
    return f"{verb} by layer {version.hidden_by}"


def _shown(path: bytes) -> str:
    return "/" + path.decode("utf-8", "backslashreplace")
