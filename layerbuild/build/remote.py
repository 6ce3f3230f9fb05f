"""What ADD takes from elsewhere: a file behind a URL, or a git repository.

``content`` tells what is there now, as cheaply as it can be told: a checksum or a commit by heart, else by asking the
server. Only ``match`` needs the files themselves.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from layerbuild.build.context import ContextTree
from layerbuild.build.credentials import Credentials
from layerbuild.build.selecting import Match, select
from layerbuild.digest import BlobDigest
from layerbuild.errors import SourceError
from layerbuild.layer.entry import Kind
from layerbuild.layer.tree import remove_tree
from layerbuild.recipe.git import GitRef, read_git
from layerbuild.recipe.ignore import IgnoreRules
from layerbuild.steps import CopyStep, GitSource, PathSource, UrlSource, masked
from layerbuild.store.store import Store

if TYPE_CHECKING:
    from layerbuild.build.fetching import Fetcher
    from layerbuild.build.repositories import Repositories
    from layerbuild.store.downloads import Download


class Remote:
    """Fetches for one build. ``environment`` is the caller's: proxies are looked up there, and git sees it, and what
    of the ``credentials`` is meant for it."""

    def __init__(self, store: Store, environment: Mapping[str, str], credentials: Credentials) -> None:
        self._store = store
        self._environment = environment
        self._credentials = credentials
        self._guard = threading.Lock()
        self._made_fetcher: Fetcher | None = None
        self._made_repositories: Repositories | None = None

    @property
    def _fetcher(self) -> Fetcher:
        from layerbuild.build.fetching import Fetcher

        with self._guard:
            if self._made_fetcher is None:
                self._made_fetcher = Fetcher(self._store, self._environment)
            return self._made_fetcher

    @property
    def _repositories(self) -> Repositories:
        from layerbuild.build.repositories import Repositories

        with self._guard:
            if self._made_repositories is None:
                self._made_repositories = Repositories(self._environment, self._credentials)
            return self._made_repositories

    def content(self, source: UrlSource | GitSource) -> str:
        """What a cache key knows of the files: the digest of a URL's content, the commit of a repository."""
        match source:
            case UrlSource(url, checksum):
                return checksum or self._fetcher.fetch(url).digest
            case GitSource(repository, _, checksum):
                return self._repositories.commit(_read(repository), checksum=checksum).name

    def match(self, step: CopyStep, source: UrlSource | GitSource, cleaning: ExitStack) -> Match:
        """The files themselves. What has to be unpacked for it goes with ``cleaning``."""
        from layerbuild.build.repositories import shown

        match source:
            case UrlSource(url, checksum):
                return self._file(url, checksum)
            case GitSource(repository, keep_git_dir, checksum):
                git = _read(repository)
                folder, _ = self.checkout(git, checksum=checksum, keep_git_dir=keep_git_dir, cleaning=cleaning)
                tree = ContextTree(folder, IgnoreRules(), name=f"repository {shown(git)}")
                (found,) = select(replace(step, parents=False), PathSource("/"), tree)
                return found

    def modified(self, source: UrlSource | GitSource) -> int | None:
        """When ``source`` was last changed, in seconds since 1970: when its commit was made, else what the server says,
        else the time of the newest file if it is an archive. None: nobody knows."""
        from layerbuild.build.fetching import modified

        match source:
            case UrlSource(url, checksum):
                download = self._fetcher.fetch(url, checksum=checksum)
                return self._newest(download) if modified(download) is None else modified(download)
            case GitSource(repository, _, checksum):
                git = _read(repository)
                commit = self._repositories.commit(git, checksum=checksum)
                with ExitStack() as cleaning:
                    return self._repositories.committed(git, commit, temporary_folder(self._store, cleaning))

    def download(self, url: str) -> tuple[Path, int | None]:
        """A file with what is behind ``url``, and when the server says that it was last changed, if it does."""
        from layerbuild.build.fetching import modified

        download = self._fetcher.fetch(url)
        return self._store.blobs.path(download.digest), modified(download)

    def _newest(self, download: Download) -> int | None:
        from layerbuild.build.archives import newest

        with self._store.blobs.path(download.digest).open("rb") as file:
            return newest(file)

    def checkout(self, git: GitRef, *, checksum: str, keep_git_dir: bool, cleaning: ExitStack) -> tuple[Path, int]:
        """A folder with the part of a repository that ``git`` names, and when its commit was made (seconds since 1970).
        It goes with ``cleaning``."""
        from layerbuild.build.repositories import shown

        commit = self._repositories.commit(git, checksum=checksum)
        top = temporary_folder(self._store, cleaning)
        seconds = self._repositories.checkout(git, commit, top, keep_git_dir=keep_git_dir)
        node = ContextTree(top, IgnoreRules()).get(os.fsencode(git.subdir))  # links in it lead nowhere outside
        if node is None or node.entry.kind is not Kind.DIRECTORY:
            raise SourceError(f"repository {shown(git)} has no folder {git.subdir!r}")
        return top / os.fsdecode(node.path), seconds

    def _file(self, url: str, checksum: str) -> Match:
        from layerbuild.build.fetching import file_name, modified

        download = self._fetcher.fetch(url, checksum=checksum)
        tree = ContextTree(self._store.blobs.folder, IgnoreRules(), name=masked(url))
        node = tree.look(BlobDigest(download.digest).hex.encode())
        assert node is not None, download  # fetched, and nothing is pruned while the store is open
        entry = replace(node.entry, mode=0o600, mtime=modified(download) or 0, mtime_ns=0, xattrs=())
        return Match(tree, replace(node, entry=entry, inode=None), os.fsencode(file_name(url)), True)


def temporary_folder(store: Store, cleaning: ExitStack) -> Path:
    """A fresh folder in the store that goes with ``cleaning``, or, after a kill, with the next process that writes."""
    folder = store.temporary_name()
    folder.mkdir()
    cleaning.callback(remove_tree, folder)
    return folder


def _read(repository: str) -> GitRef:
    git = read_git(repository)
    assert git is not None, repository  # the recipe took it for one
    return git
