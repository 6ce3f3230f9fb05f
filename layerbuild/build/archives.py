"""Archives that ADD unpacks: told by their content, whatever their name."""

from __future__ import annotations

from contextlib import ExitStack

from layerbuild.build.selecting import Match
from layerbuild.build.tree import StackTree, Tree
from layerbuild.errors import FormatError
from layerbuild.layer import codecs
from layerbuild.layer.apply import apply
from layerbuild.layer.index import Index
from layerbuild.layer.tar import is_tar
from layerbuild.layer.tree import remove_tree
from layerbuild.layer.union import LayerView, Union
from layerbuild.store.store import Store

_BLOCK = 512  # bytes of a tar header


def unpacked(match: Match, store: Store, cleaning: ExitStack) -> Tree | None:
    """The contents of the tar archive behind ``match`` (plain, gzip, bzip2, xz or zstd) as a tree; None if it is none.

    It is unpacked into a temporary folder, which goes with ``cleaning``.
    """
    if not _is_archive(match):
        return None
    folder = store.temporary_name()
    folder.mkdir()
    cleaning.callback(remove_tree, folder)
    files, index = folder / "files", folder / "index"
    files.mkdir()
    with match.tree.open(match.node) as file:
        _, stream = codecs.decompress(file)
        apply(stream, files, index=index, user_xattr=store.user_xattr, layered=False)
    name = match.name.decode("utf-8", "backslashreplace")
    return StackTree(Union([LayerView(Index.open(index), files)]), name=f"archive {name}")


def _is_archive(match: Match) -> bool:
    with match.tree.open(match.node) as file:
        try:
            _, stream = codecs.decompress(file)
            return is_tar(stream.read(_BLOCK))
        except (FormatError, EOFError):
            return False
