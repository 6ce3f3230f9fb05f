"""The folders of layers, as Docker's overlay2 driver lays them out.

::

    overlay2/<id>/diff      what the layer holds: overlay's upperdir while a step writes it, a lowerdir ever after
    overlay2/<id>/work      overlay's workdir, on the same file system as diff; empty but during a mount
    overlay2/<id>/merged    where the stack is mounted for a step; empty otherwise
    overlay2/<id>/link      the layer's short name
    overlay2/<id>/lower     the short names of what lies below, top first: "l/AAA:l/BBB"; absent in a bottom layer
    overlay2/l/<SHORT>      → ../<id>/diff

mount(2) takes one page (4096 bytes) of options: 64 digits per layer would fill it with some 50 layers, 26 letters take
more than 120. Source: moby, daemon/graphdriver/overlay2.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from layerbuild.frozen import frozen
from layerbuild.layer.entry import RootMetadata
from layerbuild.layer.owners import note_file
from layerbuild.layer.tree import remove_tree

LINKS = "l"


@frozen(kw_only=True)
class LayerFolder:
    """``overlay2/<id>``; ``overlay`` is the folder overlay2, and ``link`` the short name."""

    overlay: Path
    id: str
    link: str

    @property
    def folder(self) -> Path:
        return self.overlay / self.id

    @property
    def diff(self) -> Path:
        return self.overlay / self.id / "diff"

    @property
    def work(self) -> Path:
        return self.overlay / self.id / "work"

    @property
    def merged(self) -> Path:
        return self.overlay / self.id / "merged"

    @property
    def short(self) -> str:
        """``l/<SHORT>``: the diff folder as seen from ``overlay``."""
        return f"{LINKS}/{self.link}"

    @property
    def unpacked(self) -> bool:
        """Whether its diff folder is here."""
        return self.diff.is_dir()


@frozen(kw_only=True)
class StackedFolder(LayerFolder):
    """A folder with the layers that it lies on: ``below``, top first."""

    below: tuple[LayerFolder, ...]

    @property
    def lower(self) -> str:
        """The short names of ``below``, as in the file ``lower``: relative to ``overlay``, top first."""
        return lower_text(self.below)


def lower_text(below: Sequence[LayerFolder]) -> str:
    """What the file ``lower`` says for a layer on ``below`` (top first)."""
    return ":".join(folder.short for folder in below)


def new_id() -> str:
    """64 random hexadecimal digits."""
    return os.urandom(32).hex()


def new_link() -> str:
    """26 random letters and digits of base 32: 16 bytes without the padding."""
    return base64.b32encode(os.urandom(16)).decode()[:26]


def make(folder: LayerFolder, below: Sequence[LayerFolder]) -> None:
    """Create the folder on top of ``below`` (top first).

    The root of a mounted overlay shows the metadata of the upper's own root, so the new diff folder gets that of the
    layer below: a step sees the same ``/`` wherever it stands in the stack.
    """
    folder.folder.mkdir()
    for made in (folder.work, folder.merged):
        made.mkdir()
    make_diff(folder, below)
    (folder.folder / "link").write_text(folder.link)
    if below:
        write_lower(folder, below)
    link_to(folder)


def make_diff(folder: LayerFolder, below: Sequence[LayerFolder]) -> None:
    """Create its diff folder. Below, a layer may not have come yet; then ``match_root`` is for later."""
    folder.diff.mkdir()
    note_file(folder.diff).unlink(missing_ok=True)  # of the step before, that left this folder empty
    if below and below[0].unpacked:
        match_root(folder, below[0])
    else:
        RootMetadata().put(folder.diff)


def match_root(folder: LayerFolder, below: LayerFolder) -> None:
    """Give the root of its diff folder the metadata of the one below."""
    RootMetadata.of(below.diff).put(folder.diff)


def write_lower(folder: LayerFolder, below: Sequence[LayerFolder]) -> None:
    """Say in ``lower`` what the folder lies on; nothing says nothing."""
    file = folder.folder / "lower"
    if below:
        file.write_text(lower_text(below))
    else:
        file.unlink(missing_ok=True)


def link_to(folder: LayerFolder) -> None:
    """Make the short name lead to the folder."""
    (folder.overlay / folder.short).symlink_to(_target(folder.id))


def clear_work(folder: LayerFolder) -> None:
    """Empty ``work``: overlay leaves folders there, and after a ``volatile`` mount a mark that forbids the next."""
    for left in folder.work.iterdir():
        remove_any(left)


def remove(folder: LayerFolder) -> None:
    """Remove the folder and its short name, as much as is there."""
    (folder.overlay / folder.short).unlink(missing_ok=True)
    remove_tree(folder.folder)


def remove_any(path: Path) -> None:
    """Remove a file or a folder, as much as is there."""
    if path.is_dir() and not path.is_symlink():
        remove_tree(path)
    else:
        path.unlink(missing_ok=True)


def is_linked(folder: LayerFolder) -> bool:
    """Whether the short name leads to the folder."""
    link = folder.overlay / folder.short
    return link.is_symlink() and str(link.readlink()) == _target(folder.id)


def ids(overlay: Path) -> Iterator[str]:
    """The ids of all folders that are here, claimed or not."""
    return (path.name for path in overlay.iterdir() if path.name != LINKS)


def links(overlay: Path) -> dict[str, str]:
    """Every short name that is here, with the id that it leads to."""
    found = (overlay / LINKS).iterdir()
    return {path.name: path.readlink().parent.name for path in found}


def _target(folder: str) -> str:
    return f"../{folder}/diff"
