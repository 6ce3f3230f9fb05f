"""The store as a whole: opens the folder, and hands out its parts."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Self

from layerbuild.digest import ChainID, DiffID
from layerbuild.errors import MachineError, StoreError
from layerbuild.image.config import Platform, canonical_json
from layerbuild.image.manifest import Index
from layerbuild.store import lease, overlay
from layerbuild.store.arrivals import Arrivals
from layerbuild.store.blobs import Blobs
from layerbuild.store.builds import Builds
from layerbuild.store.cache import StepCache
from layerbuild.store.cachemounts import CacheMounts
from layerbuild.store.database import Database
from layerbuild.store.digests import Digests
from layerbuild.store.downloads import Downloads
from layerbuild.store.durable import replace_file
from layerbuild.store.findings import Findings
from layerbuild.store.images import Images, StoredImage
from layerbuild.store.layers import BlobRecord, Layers
from layerbuild.store.lease import Lease, SharedLock, folder_lock
from layerbuild.store.snapshots import Snapshot, Snapshots
from layerbuild.store.sources import Sources, Supplier
from layerbuild.store.space import ROOT_HINT, disk_errors
from layerbuild.store.unsynced import Unsynced, boot_id
from layerbuild.store.workspaces import Workspace, Workspaces

if TYPE_CHECKING:
    from layerbuild.layer.entry import Entry
    from layerbuild.layer.union import Union
    from layerbuild.store.verify import Mismatch

# image-spec, image-layout.md
_LAYOUT = canonical_json({"imageLayoutVersion": "1.0.0"})


class Store:
    """State on disk below ``root``. A context manager; a few threads may use it at once.

    ``user_xattr``: overlay's marks are written as ``user.*``, as a mount in a user namespace reads them; so a store
    belongs either to root or to an ordinary user. ``platform`` is what an image's name means where it means several
    images and nobody says which, None: that is an error.
    """

    def __init__(
        self, root: Path, *, user_xattr: bool, platform: Platform | None, lock: SharedLock, database: Database
    ) -> None:
        """Of an existing folder; use ``open``."""
        self.root = root
        self.user_xattr = user_xattr
        self.overlay = root / "overlay2"
        self.leases = root / "builds"
        self.temporary = root / "tmp"
        self.database = database
        self._lock = lock
        self._lease: Lease | None = None
        self._guard = threading.Lock()
        self._counter = itertools.count()
        self.unsynced = Unsynced(database, root, boot=boot_id())
        self.blobs = Blobs(root / "blobs" / "sha256", self.unsynced, temporary=self.temporary_name)
        self.layers = Layers(database, self.blobs, self.unsynced, root / "indexes", temporary=self.temporary_name)
        self.snapshots = Snapshots(database, self.overlay)
        self.workspaces = Workspaces(database, self.snapshots, self.layers, self.unsynced, lease=self.lease)
        self.images = Images(
            database,
            self.blobs,
            self.layers,
            root / "index.json",
            platform=platform,
            temporary=self.temporary_name,
        )
        self.cache = StepCache(database)
        self.builds = Builds(database)
        self.findings = Findings(database)
        self.digests = Digests(database)
        self.downloads = Downloads(database, self.blobs)
        self.arrivals = Arrivals(root / "arriving", self.blobs)
        self.sources = Sources(database, self.snapshots, self.unsynced)
        #: Whether the process ends when the store is closed.
        self.is_last = False
        #: Brings what has not come yet; without one it is a NotFoundError.
        self.supplier: Supplier | None = None
        self.unpacking = threading.RLock()  # held by the thread that fills in what is missing of a stack
        self.cache_mounts = CacheMounts(root / "cache-mounts", temporary=self.temporary_name)

    @classmethod
    def open(cls, root: Path, *, user_xattr: bool = False, platform: Platform | None = None) -> Self:
        """Open the store at ``root``, creating it where it is absent. Waits while another process prunes it.

        StoreError if it is damaged or of another version, MachineError if it can't be written.
        """
        root = root.absolute()
        try:
            with disk_errors(root):
                root.mkdir(parents=True, exist_ok=True)
                _refuse_foreign(root)
                lock = SharedLock(root / "lock")
        except (FileExistsError, NotADirectoryError) as error:
            raise StoreError(f"{root} is not a folder", hint=ROOT_HINT) from error
        except FileNotFoundError as error:  # mkdir(2) in a file system that has no say in its folders, as proc
            raise MachineError(f"{root} can't be made: {error.strerror}", hint=ROOT_HINT) from error
        try:
            database = Database(root / "layerbuild.db")
            if database.empty:
                with disk_errors(root):
                    _create(root, database)
        except BaseException:
            lock.release()
            raise
        store = cls(root, user_xattr=user_xattr, platform=platform, lock=lock, database=database)
        if store.unsynced.is_doubtful:
            from layerbuild.store.recovery import recover

            try:
                with disk_errors(root):
                    recover(store)
            except BaseException:
                store.close()
                raise
        return store

    def close(self) -> None:
        """Remove what this process did not finish, and let go of the store."""
        try:
            self.workspaces.close()
        finally:  # on a full disk, say, a row may stay: without its lease it is a leftover
            if self._lease is not None:
                self._lease.release()
                self._lease = None
            self.unsynced.close()
            if self.is_last:
                self.database.leave()
            else:
                self.database.close()
            self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def claim(self, id_maps: str) -> None:
        """Make sure that layers here are written and read with these maps only; StoreError if they are not.

        ``id_maps``: those of this process's user namespace, in a line each.
        """
        from layerbuild.store.ownership import claim

        claim(self.root, id_maps, temporary=self.temporary_name)

    def restore_layout(self) -> None:
        """Write what makes ``blobs`` an OCI layout: ``oci-layout`` and ``index.json``."""
        _write_layout(self.root)
        with self.database.transaction():
            self.images.write_index()

    # -- what is being written -----------------------------------------------------------------------------------------

    def lease(self) -> str:
        """The id of this process's lease, taken when it first writes; leftovers of dead processes go then."""
        with self._guard:
            if self._lease is None:
                with disk_errors(self.leases):
                    self._lease = Lease(self.leases)
                self._sweep(but=self._lease.id)
            return self._lease.id

    def temporary_name(self) -> Path:
        """A free name in ``tmp`` that bears this process's lease."""
        return self.temporary / f"{self.lease()}-{next(self._counter)}"

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Be the only process in the store; StoreError if it is not."""
        own = self.lease()
        processes = lease.holders(self.leases, but=own)
        others = f" by process {', '.join(map(str, processes))}" if processes else ""
        with self._lock.exclusive(others=others):
            self.workspaces.drop_spares()
            yield

    def _sweep(self, *, but: str) -> None:
        """Remove the workspaces and temporary files of processes that were killed; sweepers take turns."""
        with folder_lock(self.leases):
            self._sweep_dead(but=but)

    def _sweep_dead(self, *, but: str) -> None:
        rows = self.database.rows("SELECT id, link, lease FROM workspace WHERE meta IS NULL")
        written = {path: path.name.partition("-")[0] for path in self.temporary.iterdir()}
        # One that failed while it tidied up has let go of its lease all the same.
        known = lease.lease_ids(self.leases) | {row[2] for row in rows} | set(written.values())
        dead = {found for found in known - {but} if not lease.is_alive(self.leases, found)}
        if not dead:
            return
        for folder, link, owner in rows:
            if owner in dead:
                overlay.remove(overlay.LayerFolder(overlay=self.overlay, id=folder, link=link))
                self.database.execute("DELETE FROM workspace WHERE id = ?", (folder,))
        for path, owner in written.items():
            if owner in dead:
                overlay.remove_any(path)
        for owner in dead:
            lease.forget(self.leases, owner)

    # -- layers as snapshots, and the whole ----------------------------------------------------------------------------

    def add_from_blob(self, parent: ChainID | None, diff_id: DiffID, blob: BlobRecord) -> Snapshot:
        """The snapshot of ``diff_id`` on top of ``parent``, unpacked from ``blob`` unless it is here already."""
        from layerbuild.store.unpack import add_from_blob

        return add_from_blob(self, parent, diff_id, blob)

    def ensure_unpacked(self, chain: ChainID | None) -> tuple[Snapshot, ...]:
        """The stack of ``chain``, bottom first, with every folder and index in its place; what is absent is brought."""
        from layerbuild.store.unpack import ensure_unpacked

        return ensure_unpacked(self, chain)

    def add_indexed(self, parent: ChainID | None, diff_id: DiffID, blob: BlobRecord) -> Snapshot:
        """The snapshot of ``diff_id`` on top of ``parent``, with its index; its folder is for who asks for it."""
        from layerbuild.store.indexing import add_indexed

        return add_indexed(self, parent, diff_id, blob)

    def add_known(self, parent: ChainID | None, diff_id: DiffID) -> Snapshot:
        """The snapshot of a layer that is recorded, on one more parent; without a folder, if it is new."""
        from layerbuild.store.indexing import add_known

        return add_known(self, parent, diff_id)

    def ensure_indexed(self, chain: ChainID | None) -> tuple[Snapshot, ...]:
        """The stack of ``chain``, bottom first, with every index in its place; folders may be absent."""
        from layerbuild.store.indexing import ensure_indexed

        return ensure_indexed(self, chain)

    def index_missing(self, stack: Sequence[Snapshot]) -> None:
        """Put the index of each of ``stack``, bottom first, in its place."""
        from layerbuild.store.indexing import index_missing

        index_missing(self, stack)

    def open_file(self, snapshot: Snapshot, entry: Entry) -> BinaryIO:
        """The content of ``entry``, a FILE of that layer; a large one has the layer unpacked."""
        from layerbuild.store.indexing import open_file

        return open_file(self, snapshot, entry)

    def ensure_below(self, workspace: Workspace) -> None:
        """The same for all that lies below a workspace."""
        from layerbuild.store.unpack import ensure_below

        ensure_below(self, workspace)

    def is_here(self, chain: ChainID | None) -> bool:
        """Whether all layers of a stack have come: nothing needs to be brought to read it."""
        from layerbuild.store.indexing import is_indexed

        if chain is not None and self.snapshots.get(chain) is None:
            return False
        return all(is_indexed(self, snapshot.diff_id) for snapshot in self.snapshots.stack(chain))

    def require_blobs(self, image: StoredImage) -> None:
        """Bring those blobs of an image that are not here, and its layers with them."""
        if all(self.blobs.has(layer.digest) for layer in image.manifest.layers):
            return
        from layerbuild.store.unpack import require_blobs

        require_blobs(self, image)

    def open_stack(self, chain: ChainID | None) -> AbstractContextManager[Union]:
        """The merged tree of a stack, to read without a mount."""
        from layerbuild.store.unpack import open_stack

        return open_stack(self, chain)

    def verify(self, *, contents: bool = False) -> tuple[Mismatch, ...]:
        """Every disagreement between rows and files; none: the store is whole."""
        from layerbuild.store.verify import verify

        return verify(self, contents=contents)


def _create(root: Path, database: Database) -> None:
    """Make the folders, the layout and the tables. Processes that come at the same time take turns."""
    with folder_lock(root):
        if not database.empty:
            return
        for name in ("blobs/sha256", "indexes", "builds", "overlay2/l", "tmp"):
            (root / name).mkdir(parents=True, exist_ok=True)
        # Layers and writable mounts hold set-user-ID programs; nobody else on this machine should reach them.
        for name in ("overlay2", "tmp"):
            (root / name).chmod(0o700)
        _write_layout(root)
        database.create()
        Unsynced(database, root, boot=boot_id()).begin()


def _write_layout(root: Path) -> None:
    """``index.json`` is that of a store without images."""
    for name, data in (("oci-layout", _LAYOUT), ("index.json", Index(()).to_json())):
        temporary = root / "tmp" / name
        temporary.unlink(missing_ok=True)  # of a process killed right here
        replace_file(root / name, data, temporary=temporary, synced=False)


def _refuse_foreign(root: Path) -> None:
    """A store may not settle among other files: ``prune`` would take an OCI layout's blobs for its own leftovers."""
    names = {path.name for path in root.iterdir()} - {"lost+found"}
    if names and "lock" not in names:
        raise StoreError(f"{root} is not empty and no store of layerbuild", hint=ROOT_HINT)
