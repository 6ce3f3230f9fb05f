"""Archives that ADD unpacks: told by their content, whatever their name."""

from __future__ import annotations

from contextlib import ExitStack
from typing import BinaryIO

from layerbuild.build.selecting import Match
from layerbuild.build.tree import StackTree, Tree, changed_meanwhile, file_digest
from layerbuild.errors import FormatError
from layerbuild.frozen import frozen
from layerbuild.layer import codecs
from layerbuild.layer.apply import apply
from layerbuild.layer.entry import Kind
from layerbuild.layer.index import Index
from layerbuild.layer.tarreader import TarReader, is_tar
from layerbuild.layer.tree import remove_tree
from layerbuild.layer.union import LayerView, Union, in_folder
from layerbuild.store.store import Store

_BLOCK = 512  # bytes of a tar header


@frozen
class Archive:
    """An unpacked archive. ``implied`` are the folders that it has only because something lies in them: where such a
    name is a link to a folder in the image, the link holds."""

    tree: Tree
    implied: frozenset[bytes]


def unpacked(match: Match, store: Store, cleaning: ExitStack) -> Archive | None:
    """The tar archive behind ``match`` (plain, gzip, bzip2, xz or zstd), unpacked; None if it is none. SourceError if
    it is not what it was when its digest was taken.

    It is unpacked into a temporary folder, which goes with ``cleaning``.
    """
    if not _is_archive(match):
        return None
    folder = store.temporary_name()
    folder.mkdir()
    cleaning.callback(remove_tree, folder)
    files, index = folder / "files", folder / "index"
    files.mkdir()
    name = f"archive {match.name.decode('utf-8', 'backslashreplace')}"
    with match.tree.open(match.node) as file:
        _, stream = codecs.decompress(file)
        applied = apply(stream, files, index=index, user_xattr=store.user_xattr, layered=False, name=name)
    with match.tree.open(match.node) as file:
        if file_digest(file, match.node.entry.size) != match.tree.digest(match.node):
            raise changed_meanwhile(match.tree.name, match.node.path)
    union = Union([LayerView(Index.open(index), in_folder(files))])
    return Archive(StackTree(lambda: union, name=name), applied.implied)


def newest(file: BinaryIO) -> int | None:
    """The latest modification time of a regular file in the tar archive ``file`` (seconds since 1970), which may be
    compressed; None if it holds none, or is no archive."""
    try:
        _, stream = codecs.decompress(file)
        return max((entry.mtime for entry in TarReader(stream) if entry.kind is Kind.FILE), default=None)
    except (FormatError, EOFError):
        return None


def _is_archive(match: Match) -> bool:
    with match.tree.open(match.node) as file:
        try:
            _, stream = codecs.decompress(file)
            return is_tar(stream.read(_BLOCK))
        except (FormatError, EOFError):
            return False
