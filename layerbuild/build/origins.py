"""Where a build context comes from, until it is a folder.

::

    a folder                                         as it is
    a tar file, compressed in any way, or - (stdin)  unpacked
    http(s)://…                                      fetched; a tar is unpacked
    a git repository                                 checked out
    any of them but no tar                           a recipe, whose context is empty

What is unpacked or checked out lies in the store's ``tmp`` as long as the build lasts.
"""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from layerbuild.build.context import ContextTree
from layerbuild.build.remote import Remote, temporary_folder
from layerbuild.errors import RecipeError, SourceError, UsageError
from layerbuild.frozen import frozen
from layerbuild.layer.entry import Kind
from layerbuild.layer.paths import clean
from layerbuild.recipe.git import GitRef, read_git
from layerbuild.recipe.ignore import IgnoreRules
from layerbuild.steps import masked
from layerbuild.store.store import Store

STDIN = "-"

_BLOCK = 512  # bytes of a tar header
_LARGEST_RECIPE = 16 << 20


@frozen
class Origin:
    """A context that has become a folder. ``name`` is what messages call it; ``recipe`` the recipe, where the thing
    itself is one, ``archive`` what was unpacked; ``changed`` is when the server or the commit says that it was last
    changed, in seconds since 1970."""

    folder: Path
    name: str
    recipe: Path | None = None
    archive: Path | None = None
    changed: int | None = None

    @property
    def modified(self) -> int | None:
        """When it was last changed, else the time of the newest file if it is an archive; None: nobody knows."""
        if self.changed is None and self.archive is not None:
            from layerbuild.build.archives import newest

            with self.archive.open("rb") as file:
                return newest(file)
        return self.changed

    def find(self, *names: str) -> Path | None:
        """The first of ``names`` that is a file in the folder, links followed inside it; None: none is."""
        tree = ContextTree(self.folder, IgnoreRules(), name=self.name)
        for name in names:
            path = clean(os.fsencode(name))
            node = tree.get(path)
            if node is not None and node.entry.kind is Kind.FILE:
                return self.folder / os.fsdecode(path)
        return None


class Origins:
    """Opens contexts for one build. What they need of the disk goes with ``cleaning``. ``stdin`` is read for ``-``."""

    def __init__(self, store: Store, remote: Remote, cleaning: ExitStack, *, stdin: BinaryIO) -> None:
        self._store = store
        self._remote = remote
        self._cleaning = cleaning
        self._stdin = stdin

    def open(self, text: str, *, keep_git_dir: bool = False) -> Origin:
        """What ``text`` names, as a folder. SourceError if it can't be had, UsageError if it is nothing of the kind."""
        if text == STDIN:
            return self._of_file(self._spooled(), "stdin")
        path = Path(text)
        if path.is_dir():
            return Origin(path, text)
        if path.is_file():
            return self._of_file(path, text)
        git = repository(text)
        if git is not None:
            keep = keep_git_dir if git.keep_git_dir is None else git.keep_git_dir
            folder, seconds = self._remote.checkout(
                git, checksum=git.checksum, keep_git_dir=keep, cleaning=self._cleaning
            )
            return Origin(folder, masked(text), changed=seconds)
        if is_url(text):
            file, changed = self._remote.download(text)
            return replace(self._of_file(file, masked(text)), changed=changed)
        raise UsageError(f"the context {text!r} is not a folder", hint="the folder that COPY takes files from")

    def _spooled(self) -> Path:
        from shutil import copyfileobj

        path = self._store.temporary_name()
        self._cleaning.callback(path.unlink, missing_ok=True)
        with path.open("xb") as file:
            copyfileobj(self._stdin, file, 1 << 20)
        if not path.stat().st_size:
            raise UsageError("nothing came in on standard input", hint="a recipe, or a tar of a context")
        return path

    def _of_file(self, path: Path, name: str) -> Origin:
        from layerbuild.layer import codecs
        from layerbuild.layer.apply import apply
        from layerbuild.layer.tarreader import is_tar

        top = temporary_folder(self._store, self._cleaning)
        files = top / "files"
        files.mkdir()
        with path.open("rb") as file:
            codec, stream = codecs.decompress(file)
            start = stream.read(_BLOCK)
        if not is_tar(start):
            if codec is not codecs.NONE or path.stat().st_size > _LARGEST_RECIPE:
                raise SourceError(f"{name} is neither a tar nor a recipe", hint="a tar may be compressed in any way")
            return Origin(files, name, recipe=path)
        with path.open("rb") as file:
            _, stream = codecs.decompress(file)
            user_xattr = self._store.user_xattr
            apply(stream, files, index=top / "index", user_xattr=user_xattr, layered=False, name=name)
        return Origin(files, name, archive=path)


def repository(text: str) -> GitRef | None:
    """The git repository that ``text`` names; UsageError for a query that makes no sense."""
    try:
        return read_git(text)
    except RecipeError as error:
        raise UsageError(f"{masked(text)}: {error.message}", hint=error.hint) from error


def is_url(text: str) -> bool:
    """Whether it is fetched over HTTP, unless it names a repository."""
    return text.startswith(("http://", "https://"))
