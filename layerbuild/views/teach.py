"""What happens in a step, in plain words and with the real names, for `build --teach`.

Before a RUN: the mount. After it: what the upper folder holds, before anything is made of it. Then the entries of the
layer's tar, and the lines by which its names can be computed by hand. Terms are the kernel's
(filesystems/overlayfs.rst) and the OCI image specification's (layer.md, config.md).
"""

from __future__ import annotations

import os
import shlex
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import assert_never

from layerbuild import events
from layerbuild.errors import NotFoundError
from layerbuild.layer.entry import Entry, Kind
from layerbuild.layer.index import Index
from layerbuild.layer.whiteout import is_opaque, is_whiteout, tar_name
from layerbuild.steps import ConfigStep, CopyStep, EmptyDirectory, RunStep
from layerbuild.store.store import Store
from layerbuild.views.plan import metadata_effect
from layerbuild.views.text import printable
from layerbuild.views.where import entering

_MOST = 40  # entries that are shown of a folder or a tar
_DECOMPRESS = {"gzip": "gzip -dc", "zstd": "zstd -dc", "none": "cat"}


def before(step: RunStep | CopyStep) -> str:
    """What a step that has to run is about to do."""
    match step:
        case RunStep():
            return (
                "A command will run. It sees the layers so far as its root, with an empty folder on top that takes all "
                "that it writes: the layers below are only read."
            )
        case CopyStep(sources=(EmptyDirectory(),)):
            return f"Nothing runs. If {step.dest} is not there yet, it is made, and that is a layer."
        case CopyStep():
            return (
                "Nothing runs and nothing is mounted: the files are written into a fresh folder, and into the tar of "
                f"the layer, in one read. Where {step.dest} leads is looked up in the layers so far."
            )
        case _:
            assert_never(step)


def metadata(step: ConfigStep) -> str:
    """Why a step makes no layer."""
    what = metadata_effect(step)
    return f"Only the image's configuration changes ({what}). No file is written, so there is no layer."


def cached(event: events.CacheHit) -> str:
    """Why a step need not run."""
    return (
        "The step, the files that it reads and the stack below it are those of an earlier build, so what that one made "
        f"counts again: the stack {event.chain or 'without layers'}."
    )


def mounting(store: Store, event: events.RootMounting) -> str:
    """The root of a command, as the kernel is told it."""
    lines = ["Its root is put together from these folders:"]
    lines += [f"  lowerdir  {lower}" for lower in event.lowers] or ["  lowerdir  (none: the image is empty so far)"]
    lines += [f"  upperdir  {event.upper}", f"  workdir   {event.work}", f"  merged    {event.merged}"]
    if event.mount:
        lines += [
            "by",
            *([f"  {entering(store)}"] if store.user_xattr else []),
            f"  {event.mount}",
            "The l/… are short names of the same folders: all options must fit into one page.",
            # The kernel's mark of a volatile mount: filesystems/overlayfs.rst, "Volatile mount".
            "Once the step is done, the line only serves to look: the upper folder is the layer, and what is written "
            "through the mount changes it. After each such mount the kernel leaves a mark that forbids the next, until "
            "you unmount and",
            f"  (cd {shlex.quote(event.work)} && rm -r work/incompat)",
        ]
    else:
        lines.append(f"The driver {event.driver} shows them as one tree.")
    return "\n".join(lines)


def written(event: events.UpperWritten) -> str:
    """What a command left in the upper folder."""
    found = list(_upper(Path(event.upper), [Path(lower) for lower in event.lowers]))
    if not found:
        return "The upper folder is empty: the command changed no file, so there will be no layer."
    lines = ["The upper folder now holds what the command changed:", *found[:_MOST]]
    if len(found) > _MOST:
        lines.append(f"  … and {len(found) - _MOST} more")
    return "\n".join(lines)


def layer(store: Store, event: events.LayerSealed) -> str:
    """The tar of a layer, and how its names are computed."""
    with Index.open(store.layers.index_path(event.diff_id)) as index:
        names = [_in_tar(entry) for entry in index]
    lines = [f"A tar is made of it, {event.tar_size} bytes, with these entries:"]
    lines += [f"  {name}" for name in names[:_MOST]]
    if len(names) > _MOST:
        lines.append(f"  … and {len(names) - _MOST} more")
    return "\n".join([*lines, "Its names can be computed by hand:", *(f"  {line}" for line in recompute(store, event))])


def recompute(store: Store, event: events.LayerSealed) -> list[str]:
    """Shell lines, each of which prints one of a layer's names: digest, diff ID and chain ID."""
    blob = shlex.quote(str(store.blobs.path(event.digest)))
    record = store.layers.get(event.diff_id)
    snapshot = store.snapshots.get(event.chain)
    if record is None or snapshot is None:
        raise NotFoundError(f"layer {event.diff_id} is not in the store")
    codec = next(found.codec for found in record.blobs if found.digest == event.digest)
    lines = [f"sha256sum < {blob}  # digest {event.digest.hex}"]
    lines.append(f"{_DECOMPRESS[codec]} < {blob} | sha256sum  # diff ID {event.diff_id.hex}")
    if snapshot.parent is None:
        return [*lines, f"echo {event.diff_id}  # the lowest layer: its chain ID is its diff ID"]
    pair = f"printf '%s %s' {snapshot.parent} {event.diff_id}"
    return [*lines, f"{pair} | sha256sum  # chain ID {event.chain.hex}"]


def _upper(upper: Path, lowers: list[Path]) -> Iterator[str]:
    for folder, folders, files in os.walk(upper):
        folders.sort()
        for name in sorted((*folders, *files)):
            place = Path(folder, name)
            yield f"  {_mode(place)}  {printable(str(place.relative_to(upper)))}{_remark(place, upper, lowers)}"


def _mode(place: Path) -> str:
    found = place.lstat()
    number = f" {os.major(found.st_rdev)},{os.minor(found.st_rdev)}" if stat.S_ISCHR(found.st_mode) else ""
    return stat.filemode(found.st_mode) + number


def _remark(place: Path, upper: Path, lowers: list[Path]) -> str:
    status, name = place.lstat(), os.fsencode(place)
    if is_whiteout(status, name):
        return "   a whiteout: the name below is deleted"
    below = _is_below(place.relative_to(upper), [upper, *lowers])
    if stat.S_ISDIR(status.st_mode):
        if is_opaque(name):
            return "   opaque: nothing of the folder below shows through"
        return "   there below as well: the two are merged" if below else "   a new folder"
    return "   copied up: the file below stays as it was, and is hidden" if below else "   new"


def _is_below(path: Path, stack: list[Path]) -> bool:
    """Whether the layers below the topmost of ``stack`` show something at ``path``."""
    for number, layer in enumerate(stack):
        closed = False  # whether the folders of this layer let those below shine through
        for folder in reversed(path.parents[:-1]):
            place = layer / folder
            if not os.path.lexists(place):
                break
            if not stat.S_ISDIR(place.lstat().st_mode):  # a whiteout, or a file
                return False
            closed = closed or is_opaque(os.fsencode(place))
        else:
            place = layer / path
            if number and os.path.lexists(place):
                return not is_whiteout(place.lstat(), os.fsencode(place))
        if closed:
            return False
    return False


def _in_tar(entry: Entry) -> str:
    name = tar_name(entry.path) if entry.kind is Kind.WHITEOUT else entry.path
    return printable(os.fsdecode(name + b"/" if entry.kind is Kind.DIRECTORY else name))
