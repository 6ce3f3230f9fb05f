"""``RUN --mount`` carried out: from what a step asks for to what the sandbox mounts.

::

    bind     what the context, a stage or an image has at a path; writes vanish with the command
    cache    a folder of the store that outlives the build
    tmpfs    memory
    secret   a file in memory, a variable, or both
    ssh      a socket that leads to the caller's agent

All of it is there for one command. Mount points that the image lacks leave no trace (isolate/rootfs.py).
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import field, replace
from pathlib import Path
from typing import cast

from layerbuild.build.agents import relayed
from layerbuild.build.context import ContextTree
from layerbuild.build.extracting import extract
from layerbuild.build.lookup import Lookup, mounted_node
from layerbuild.build.options import Options
from layerbuild.build.tree import Node, StackTree, Tree
from layerbuild.errors import BuildError
from layerbuild.frozen import frozen
from layerbuild.image.config import Pairs
from layerbuild.isolate import linux
from layerbuild.isolate.mounts import Bind, Extra, File, View, tmpfs
from layerbuild.layer.entry import Kind
from layerbuild.layer.paths import clean
from layerbuild.layer.tree import remove_tree
from layerbuild.steps import RunMount, RunStep, StagePlan
from layerbuild.store.cachemounts import CacheName, Sharing
from layerbuild.store.store import Store

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_AS_MADE = (0, 0, 0o755)  # owner and mode of a cache that asks for none


@frozen
class Mounted:
    """What a command gets besides its root: mounts, parents before children; variables; and the secrets that its output
    may not show."""

    mounts: tuple[Extra, ...] = ()
    env: Pairs = ()
    secrets: tuple[bytes, ...] = field(default=(), repr=False)


class Mounter:
    """Prepares the mounts of the steps of one build. ``tell`` is told what a person who waits should know.

    A context manager: what its steps have in common goes when it is left.
    """

    def __init__(self, store: Store, lookup: Lookup, options: Options, *, tell: Callable[[str], None]) -> None:
        self._store = store
        self._lookup = lookup
        self._options = options
        self._tell = tell
        self._renewed: set[str] = set()
        self._extracted: dict[tuple[int, bytes], Path] = {}
        self._extracting = threading.Lock()
        self._common = ExitStack()

    def __enter__(self) -> Mounter:
        return self

    def __exit__(self, *_: object) -> None:
        self._common.close()

    @contextmanager
    def mounted(self, stage: StagePlan, step: RunStep) -> Iterator[Mounted]:
        """All that the mounts of ``step`` bring, for as long as the context lasts. BuildError if one can't be had."""
        with ExitStack() as cleaning:
            wanted = _Wanted(stage, step, cleaning)
            caches = self._caches(wanted)
            parts = [self._mount(wanted, mount, caches) for mount in step.mounts]
            mounts = [mount for part in parts for mount in part.mounts]
            env = [pair for part in parts for pair in part.env]
            yield Mounted(
                tuple(sorted(mounts, key=lambda mount: mount.target.count("/"))),
                tuple(_first_agent(env, step.env)),
                tuple(secret for part in parts for secret in part.secrets),
            )

    def _mount(self, wanted: _Wanted, mount: RunMount, caches: Mapping[str, Path]) -> Mounted:
        match mount.kind:
            case "bind":
                return Mounted((self._bind(wanted, mount),))
            case "cache":
                return Mounted((self._cache(wanted, mount, caches[self._cache_name(wanted, mount).key]),))
            case "tmpfs":
                return Mounted((_tmpfs(mount),))
            case "secret":
                return self._secret(wanted, mount)
            case "ssh":
                return self._agent(wanted, mount)
        raise AssertionError(mount.kind)  # the recipe knows no other

    # -- bind ----------------------------------------------------------------------------------------------------------

    def _bind(self, wanted: _Wanted, mount: RunMount) -> Bind | View:
        tree, node = self._source(wanted, mount)
        is_folder = node.entry.kind is Kind.DIRECTORY
        directory = "/"
        if isinstance(tree, StackTree):
            layers = self._store.ensure_unpacked(tree.chain)
            lowers = tuple(layer.short for layer in reversed(layers)) or (self._temporary(wanted),)
            directory, path = str(self._store.overlay), os.fsdecode(node.path)
        else:
            folder, path = self._folder_of(wanted, tree, node)
            lowers = (str(folder),)
        if mount.read_only and len(lowers) == 1:
            folder = Path(directory, lowers[0]).resolve()  # the store's own short name is a link
            return Bind(str(folder / path), mount.target, read_only=True)
        return View(
            lowers,
            path,
            self._temporary(wanted),
            mount.target,
            is_folder,
            read_only=mount.read_only,
            user_xattr=self._store.user_xattr,
            directory=directory,
        )

    def _folder_of(self, wanted: _Wanted, tree: Tree, node: Node) -> tuple[Path, str]:
        """A folder of this machine, and the path in it that shows ``node``: the context's own if it has nothing to
        hide there, else a copy of what it shows, for all steps of the build."""
        name = "" if node.entry.kind is Kind.DIRECTORY else os.fsdecode(node.path.rpartition(b"/")[2])
        opened = tree.as_it_is(node) if isinstance(tree, ContextTree) else None
        if opened is not None:
            try:
                return self._placed(wanted, opened), name
            finally:
                os.close(opened)
        key = (id(tree), node.path)
        with self._extracting:
            if key not in self._extracted:
                folder = self._store.temporary_name()
                folder.mkdir()
                self._common.callback(remove_tree, folder)
                extract(tree, node, folder)
                self._extracted[key] = folder
        return self._extracted[key], name

    def _source(self, wanted: _Wanted, mount: RunMount) -> tuple[Tree, Node]:
        assert mount.root is not None
        tree = self._lookup.tree(mount.root, wanted.stage.platform)
        assert tree is not None  # what a step at hand reads has been built
        return tree, mounted_node(wanted.step, mount, tree)

    def _temporary(self, wanted: _Wanted) -> str:
        """An empty folder that goes with the step."""
        folder = self._store.temporary_name()
        folder.mkdir()
        wanted.cleaning.callback(remove_tree, folder)
        return str(folder)

    # -- cache ---------------------------------------------------------------------------------------------------------

    def _caches(self, wanted: _Wanted) -> dict[str, Path]:
        """The folders of the step's caches by key, each claimed once however often it is mounted.

        In the order of their keys: two builds that want the same two can't wait for each other.
        """
        mounts = [(self._cache_name(wanted, mount), mount) for mount in wanted.step.mounts if mount.kind == "cache"]
        folders: dict[str, Path] = {}
        # "locked" sorts first: of several wishes for one cache the strictest counts.
        for name, mount in sorted(mounts, key=lambda pair: (pair[0].key, pair[1].sharing)):
            if name.key not in folders:
                folders[name.key] = wanted.cleaning.enter_context(self._claimed(wanted, mount, name))
        return folders

    @contextmanager
    def _claimed(self, wanted: _Wanted, mount: RunMount, name: CacheName) -> Iterator[Path]:
        def fill(folder: Path) -> None:
            if mount.root is None:
                _own(folder, mount)
            else:
                self._seed(wanted, mount, folder)

        renew = self._options.no_cache and _is_owned(mount) and name.key not in self._renewed
        self._renewed.add(name.key)
        with self._store.cache_mounts.claimed(
            name,
            sharing=cast(Sharing, mount.sharing),
            fill=fill,
            waiting=lambda: self._tell(f"cache mount {mount.id!r} is in use by another build: waiting for it"),
            fresh=renew,
        ) as folder:
            yield folder

    def _cache_name(self, wanted: _Wanted, mount: RunMount) -> CacheName:
        """What begins in another way is another cache, as in BuildKit: else it would depend on who came first whether
        a step finds its seed, or may write."""
        made_from = f"{mount.uid}:{mount.gid}:{mount.mode:o}" if _is_owned(mount) else ""
        if mount.root is not None:
            tree, node = self._source(wanted, mount)
            origin = tree.chain if isinstance(tree, StackTree) else tree.name
            made_from = f"{made_from}/{origin}/{os.fsdecode(node.path)}"
        return CacheName(mount.id, self._options.cache_namespace, made_from)

    def _seed(self, wanted: _Wanted, mount: RunMount, folder: Path) -> None:
        tree, node = self._source(wanted, mount)
        if node.entry.kind is not Kind.DIRECTORY:
            raise BuildError(f"{mount.source!r} of {tree.name} is no folder: a cache can't begin with it")
        if isinstance(tree, StackTree):
            self._store.ensure_unpacked(tree.chain)
        extract(tree, node, folder)
        if _is_owned(mount):
            _own(folder, mount)

    def _cache(self, wanted: _Wanted, mount: RunMount, folder: Path) -> Bind:
        inside = clean(mount.source.encode("utf-8", "surrogateescape")) if mount.root is None else b""
        if inside:
            folder = self._held(wanted, folder, inside)
        return Bind(str(folder), mount.target, mount.read_only, shared=mount.sharing == "shared")

    def _held(self, wanted: _Wanted, cache: Path, path: bytes) -> Path:
        """The folder at ``path`` in ``cache``, mounted where no other user of the cache can put a link in its place."""
        folder = os.open(cache, _FOLDER)
        try:
            for name in path.split(b"/"):
                inner = os.open(name, _FOLDER, dir_fd=folder)
                os.close(folder)
                folder = inner
            return self._placed(wanted, folder)
        except OSError as error:
            raise BuildError(
                f"{os.fsdecode(path)!r} is no folder of the cache: {error.strerror}",
                hint="source= names a folder that an earlier step made in the cache; links are not followed there",
            ) from error
        finally:
            os.close(folder)

    def _placed(self, wanted: _Wanted, folder: int) -> Path:
        """Where an open folder is mounted as long as the step lasts, whatever is put in its place meanwhile."""
        place = self._temporary(wanted)
        # Recursive, because in a user namespace a part of a locked tree of mounts is refused (mount_namespaces(7)).
        linux.mount(f"/proc/self/fd/{folder}", place, flags=linux.MS_BIND | linux.MS_REC)
        wanted.cleaning.callback(linux.umount, place, linux.MNT_DETACH)
        return Path(place)

    # -- secret, ssh ---------------------------------------------------------------------------------------------------

    def _secret(self, wanted: _Wanted, mount: RunMount) -> Mounted:
        value = self._options.credentials.secrets.get(mount.id)
        if value is None:
            if mount.required:
                hint = f"give it to the build: --secret id={mount.id},src=FILE or --secret id={mount.id},env=NAME"
                raise BuildError(f"secret {mount.id}: not found", hint=hint)
            return Mounted()
        files: tuple[Extra, ...] = ()
        if mount.target:
            uid, gid = self._owner(mount)
            files = (File(mount.target, value, mode=_mode(mount), uid=uid, gid=gid),)
        return Mounted(files, ((mount.env, _variable(mount, value)),) if mount.env else (), (value,))

    def _agent(self, wanted: _Wanted, mount: RunMount) -> Mounted:
        agent = self._options.credentials.agents.get(mount.id)
        if agent is None:
            if mount.required:
                hint = f"forward an agent to the build: --ssh {mount.id}"
                raise BuildError(f'no SSH key "{mount.id}" forwarded from the client', hint=hint)
            return Mounted()
        uid, gid = self._owner(mount)
        folder = Path(self._temporary(wanted))
        path = wanted.cleaning.enter_context(relayed(agent, folder, uid=uid, gid=gid, mode=_mode(mount)))
        return Mounted((Bind(str(path), mount.target, read_only=True),), (("SSH_AUTH_SOCK", mount.target),))

    def _owner(self, mount: RunMount) -> tuple[int, int]:
        return (0, 0) if self._options.one_id else (mount.uid, mount.gid)


@frozen
class _Wanted:
    """The step whose mounts are prepared, and what takes them down again."""

    stage: StagePlan
    step: RunStep
    cleaning: ExitStack


def _tmpfs(mount: RunMount) -> Extra:
    made = tmpfs(mount.target, mode=0o1777, size=mount.size)
    return replace(made, flags=made.flags | linux.MS_RDONLY) if mount.read_only else made


def _mode(mount: RunMount) -> int:
    assert mount.mode is not None  # the recipe gives secrets, agents and caches one
    return mount.mode


def _variable(mount: RunMount, value: bytes) -> str:
    if b"\0" in value:
        hint = "give it a target= and read the file"
        raise BuildError(f"secret {mount.id} holds a NUL byte, which no variable can", hint=hint)
    return value.decode("utf-8", "surrogateescape")


def _first_agent(env: list[tuple[str, str]], known: Pairs) -> Iterator[tuple[str, str]]:
    """SSH_AUTH_SOCK names the first agent, unless the recipe sets it itself."""
    names = {name for name, _ in known if name == "SSH_AUTH_SOCK"}
    for name, value in env:
        if name not in names:
            yield name, value
        if name == "SSH_AUTH_SOCK":
            names.add(name)


def _is_owned(mount: RunMount) -> bool:
    return (mount.uid, mount.gid, mount.mode) != _AS_MADE


def _own(folder: Path, mount: RunMount) -> None:
    try:
        os.chown(folder, mount.uid, mount.gid)
    except OSError:  # an id that this user namespace does not have
        pass
    folder.chmod(_mode(mount))
