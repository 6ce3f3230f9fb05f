"""The rows: which files belong together. SQLite in WAL mode, one connection per process, guarded by a lock.

An ordinary commit costs no fsync (``synchronous=NORMAL``): after a power failure the last rows may be missing, never
wrong, since the files that they named become leftovers. A commit that must not be forgotten, because files are removed
after it or are written in its trust, asks for ``durable``.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from layerbuild.errors import MachineError, SpaceError, StoreError
from layerbuild.store.space import ROOT_HINT, SPACE_HINT

#: Kept in ``user_version``. A change of the tables below raises it.
SCHEMA_VERSION = 6

_BUSY_SECONDS = 30.0
_LONG_WAL = 1 << 20  # bytes; whoever opens the database reads them all, in a millisecond
_RESERVE = 128 << 10  # bytes that are set aside for the commit that frees space
_ROOM = 64 << 10  # bytes; with less a disk is as good as full
_LONGEST_PATH = 504  # MAX_PATHNAME of SQLite's os_unix.c, less "-journal"
_ROOM_HINT = "make a little room there first; `layerbuild prune` then frees more"

Row = tuple[Any, ...]

_left: list[sqlite3.Connection] = []  # neither closed nor forgotten, which would close them

_DOWNLOADS = """
CREATE TABLE download (
    url       TEXT PRIMARY KEY,   -- its sha256: the URL itself may hold credentials
    etag      TEXT NOT NULL,
    modified  TEXT NOT NULL,      -- the header Last-Modified as it came
    digest    TEXT NOT NULL       -- the blob with the content
) WITHOUT ROWID;
"""

_SOURCES = """
CREATE TABLE source (
    digest     TEXT NOT NULL,     -- of a layer's blob
    diff_id    TEXT NOT NULL REFERENCES layer ON DELETE CASCADE,
    size       INTEGER NOT NULL,  -- bytes
    codec      TEXT NOT NULL,
    repository TEXT NOT NULL,     -- registry and name of one that has it
    PRIMARY KEY (digest, repository)
) WITHOUT ROWID;
CREATE INDEX source_diff_id ON source (diff_id);
CREATE TABLE variant (
    reference TEXT NOT NULL,
    platform  TEXT NOT NULL,
    manifest  TEXT NOT NULL REFERENCES image (manifest) ON DELETE CASCADE,
    PRIMARY KEY (reference, platform)
) WITHOUT ROWID;
CREATE INDEX variant_manifest ON variant (manifest);
"""

_FILES = """
CREATE TABLE file (
    device    INTEGER NOT NULL,
    inode     INTEGER NOT NULL,
    size      INTEGER NOT NULL,
    mtime     INTEGER NOT NULL,   -- nanoseconds, as ctime
    ctime     INTEGER NOT NULL,
    digest    BLOB NOT NULL,      -- sha256 of the content
    PRIMARY KEY (device, inode)
) WITHOUT ROWID;
"""
_SELECTIONS = """
CREATE TABLE selection (
    signature TEXT PRIMARY KEY,   -- the states of all its files
    digest    TEXT NOT NULL       -- of its listing
) WITHOUT ROWID;
"""

_OWN_KEY = "ALTER TABLE step ADD COLUMN own_key TEXT NOT NULL DEFAULT '';"
_STEP_KEY = "ALTER TABLE step ADD COLUMN step_key TEXT NOT NULL DEFAULT '';"
_STEP_INDEXES = ("CREATE INDEX step_own ON step (own_key);", "CREATE INDEX step_step ON step (step_key);")

# What the builds of this store were like, and what was found in their layers; see builds.py and findings.py.
_BUILDS = """
CREATE TABLE build (
    number    INTEGER PRIMARY KEY AUTOINCREMENT,
    began     REAL NOT NULL,      -- seconds since 1970
    seconds   REAL NOT NULL,
    outcome   TEXT NOT NULL,
    recipe    TEXT NOT NULL,
    image     TEXT,               -- the manifest of what it made
    data      TEXT NOT NULL       -- JSON
);
CREATE TABLE build_step (
    build     INTEGER NOT NULL REFERENCES build ON DELETE CASCADE,
    position  INTEGER NOT NULL,
    data      TEXT NOT NULL,      -- JSON
    log       BLOB,               -- zstd
    log_kept  INTEGER,            -- bytes before those that were left out
    log_dropped INTEGER,          -- bytes that were left out
    PRIMARY KEY (build, position)
) WITHOUT ROWID;
CREATE TABLE layer_scan (
    diff_id   TEXT PRIMARY KEY REFERENCES layer ON DELETE CASCADE,
    rules     INTEGER NOT NULL,   -- the version of the rules that it was scanned with
    findings  TEXT NOT NULL       -- JSON
) WITHOUT ROWID;
"""

# What is not known to be on the disk; see unsynced.py.
_UNSYNCED = """
CREATE TABLE unsynced (
    path      TEXT PRIMARY KEY,   -- below the store's root
    boot      TEXT NOT NULL,      -- of the machine, when it was written, or empty: it is not there
    since     REAL NOT NULL       -- seconds since 1970
) WITHOUT ROWID;
"""

# What brings a database of that version to the next one: statements, each ended by a semicolon.
_UPGRADES = {
    1: _DOWNLOADS,
    2: _SOURCES,
    # An older record's key is unknown: it counts as one that might match (StepCache.may_know).
    3: " ".join((_FILES, _SELECTIONS, _OWN_KEY, _STEP_KEY, *_STEP_INDEXES)),
    4: _BUILDS,
    5: _UNSYNCED,
}

# References between snapshots are checked at commit, so that a branch can be deleted in any order.
_SCHEMA = """
CREATE TABLE layer (
    diff_id   TEXT PRIMARY KEY,
    tar_size  INTEGER NOT NULL,   -- bytes; -1, and so are the entries: it has not come yet
    entries   INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE layer_blob (
    digest    TEXT PRIMARY KEY,
    diff_id   TEXT NOT NULL REFERENCES layer ON DELETE CASCADE,
    size      INTEGER NOT NULL,   -- bytes
    codec     TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX layer_blob_diff_id ON layer_blob (diff_id);
CREATE TABLE snapshot (
    chain     TEXT PRIMARY KEY,
    parent    TEXT REFERENCES snapshot DEFERRABLE INITIALLY DEFERRED,
    diff_id   TEXT NOT NULL REFERENCES layer,
    id        TEXT NOT NULL UNIQUE,
    link      TEXT NOT NULL UNIQUE,
    created   REAL NOT NULL       -- seconds since 1970
) WITHOUT ROWID;
CREATE INDEX snapshot_parent ON snapshot (parent);
CREATE TABLE workspace (
    id        TEXT PRIMARY KEY,
    link      TEXT NOT NULL UNIQUE,
    parent    TEXT REFERENCES snapshot,
    lease     TEXT NOT NULL,
    created   REAL NOT NULL,
    meta      TEXT                -- JSON of a kept workspace; NULL: its lease decides
) WITHOUT ROWID;
CREATE TABLE image (
    number    INTEGER PRIMARY KEY AUTOINCREMENT,
    manifest  TEXT NOT NULL UNIQUE,
    config    TEXT NOT NULL,      -- the image ID
    descriptor BLOB NOT NULL,     -- JSON: the manifest's, so that no damaged blob stands in the way of index.json
    created   REAL NOT NULL
);
CREATE INDEX image_config ON image (config);
CREATE TABLE name (
    reference TEXT PRIMARY KEY,
    manifest  TEXT NOT NULL REFERENCES image (manifest) ON DELETE CASCADE
) WITHOUT ROWID;
CREATE INDEX name_manifest ON name (manifest);
CREATE TABLE step (
    definition_key TEXT PRIMARY KEY,
    content_key    TEXT NOT NULL,
    parent         TEXT,
    chain          TEXT,          -- after the step
    diff_id        TEXT,          -- NULL: it changed nothing
    instruction    TEXT NOT NULL,
    image          TEXT NOT NULL,
    seconds        REAL NOT NULL,
    created        REAL NOT NULL,
    inputs         TEXT NOT NULL, -- JSON, by name
    own_key        TEXT NOT NULL DEFAULT '', -- sha256 of the inputs besides the parent
    step_key       TEXT NOT NULL DEFAULT ''  -- sha256 of the inputs besides the parent and what is read
) WITHOUT ROWID;
CREATE INDEX step_content ON step (content_key);
CREATE INDEX step_parent ON step (parent);
CREATE INDEX step_instruction ON step (instruction);
CREATE TABLE listing (
    digest    TEXT PRIMARY KEY,
    data      BLOB NOT NULL       -- zstd
);
"""

_PIECE = 1 << 20  # bytes of a large value that are written at once


class Database:
    """The store's rows. Any thread may use it; a transaction belongs to one thread at a time."""

    def __init__(self, path: Path) -> None:
        """Open the file and check that its tables are of this version; ``create`` them where they are absent."""
        self._path = path
        self._lock = threading.RLock()
        self._shared: int | None = None  # a descriptor of the memory that WAL mode shares
        with self._errors():
            self._connection = sqlite3.connect(
                path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
            )
        try:
            self._configure()
        except BaseException:
            self._connection.close()
            raise

    def _configure(self) -> None:
        with self._errors():
            self._connection.execute("PRAGMA synchronous=NORMAL")
            self._connection.execute("PRAGMA foreign_keys=ON")
        self._check_version()

    @property
    def empty(self) -> bool:
        """Whether the tables are still to be created."""
        return self._version() == 0

    def create(self) -> None:
        """Make the tables. One process at a time: switching to WAL takes no turns (sqlite.org/wal.html)."""
        with self._errors():
            self._connection.execute("PRAGMA journal_mode=WAL")
            self._connection.executescript(
                f"BEGIN; {_SCHEMA} {''.join(_STEP_INDEXES)} {_DOWNLOADS} {_SOURCES} {_FILES} {_SELECTIONS} {_BUILDS}"
                f" {_UNSYNCED}"
                f" PRAGMA user_version={SCHEMA_VERSION}; COMMIT;"
            )
        self._set_aside()

    @contextmanager
    def room(self) -> Iterator[None]:
        """For what frees space, and has to commit first: have the bytes that were set aside. A commit appends to the
        WAL before it takes anything away, which a disk that is full to the last block would not allow."""
        self._reserve.unlink(missing_ok=True)
        try:
            yield
        finally:
            self._set_aside()

    def _set_aside(self) -> None:
        with suppress(OSError):  # there will be room after the next prune
            self._reserve.write_bytes(bytes(_RESERVE))

    @property
    def _reserve(self) -> Path:
        return self._path.with_name(f"{self._path.name}-reserve")

    def _upgrade(self) -> None:
        with self.transaction(durable=True):
            while (version := self._version()) in _UPGRADES:  # or another process was faster
                for statement in filter(str.strip, _UPGRADES[version].split(";")):
                    self.execute(statement)
                self.execute(f"PRAGMA user_version={version + 1}")

    def _version(self) -> int:
        row = self.row("PRAGMA user_version")
        return int(row[0]) if row else 0

    def _check_version(self) -> None:
        if self._version() in _UPGRADES:
            self._upgrade()
        version = self._version()
        if version not in (0, SCHEMA_VERSION):
            raise StoreError(
                f"{self._path} is of version {version}; this layerbuild knows version {SCHEMA_VERSION}",
                hint="use the layerbuild that made it, or another folder with --root",
            )

    @contextmanager
    def transaction(self, *, durable: bool = False) -> Iterator[None]:
        """All or nothing. The write lock is taken at once, so what is read inside stays true until the commit.

        ``durable``: on the disk when this returns, at the price of an fsync.
        """
        with self._lock, self._errors():
            self._allocate()
            if durable:
                self._connection.execute("PRAGMA synchronous=FULL")
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                try:
                    yield
                    self._connection.execute("COMMIT")
                except BaseException:
                    if self._connection.in_transaction:  # SQLite itself rolls back on some errors, a full disk say
                        self._connection.execute("ROLLBACK")
                    raise
            finally:
                if durable:
                    self._connection.execute("PRAGMA synchronous=NORMAL")

    def execute(self, sql: str, values: Sequence[object] = ()) -> int:
        """Run one statement; returns the number of rows that it changed."""
        with self._lock, self._errors():
            self._allocate()
            return self._connection.execute(sql, values).rowcount

    def executemany(self, sql: str, rows: Sequence[Sequence[object]]) -> None:
        """Run one statement for each of ``rows``."""
        with self._lock, self._errors():
            self._allocate()
            self._connection.executemany(sql, rows)

    def insert_large(
        self, sql: str, values: Sequence[object], *, into: tuple[str, str], data: bytes | bytearray
    ) -> None:
        """Insert one row with ``zeroblob(?)``, whose size comes after ``values``, in the table and column ``into``, and
        fill that with ``data``: of a value that is bound SQLite makes two copies."""
        with self.transaction():
            done = self._connection.execute(sql, (*values, len(data)))
            if done.rowcount > 0 and done.lastrowid is not None:
                with self._connection.blobopen(*into, done.lastrowid) as blob, memoryview(data) as view:
                    for start in range(0, len(data), _PIECE):
                        blob.write(bytes(view[start : start + _PIECE]))

    def rows(self, sql: str, values: Sequence[object] = ()) -> list[Row]:
        """All rows of a query."""
        with self._lock, self._errors():
            return self._connection.execute(sql, values).fetchall()

    def row(self, sql: str, values: Sequence[object] = ()) -> Row | None:
        """The first row of a query, None where there is none."""
        with self._lock, self._errors():
            found: Row | None = self._connection.execute(sql, values).fetchone()
            return found

    def close(self) -> None:
        """Close it; the last process to do so folds the WAL into the file."""
        with self._lock:
            self._connection.close()
            if self._shared is not None:
                os.close(self._shared)

    def leave(self) -> None:
        """``close`` for a process that ends now: a short WAL stays for the next one to read. To fold it in, and to
        begin a new one, takes four waits for the disk."""
        if self._wal_size() > _LONG_WAL:
            self.close()
        else:
            _left.append(self._connection)

    def _wal_size(self) -> int:
        try:
            return self._path.with_name(f"{self._path.name}-wal").stat().st_size
        except FileNotFoundError:
            return 0

    def _allocate(self) -> None:
        """Have blocks for all of the memory that WAL mode shares, before something is written to it.

        SQLite writes one byte of each 4096; where blocks are smaller that leaves holes, and on a full disk a process
        that writes into one gets SIGBUS (mmap(2)) instead of an error.
        """
        if self._shared is not None:
            return
        try:
            # Closed only after the connection: to close any descriptor of a file lets go of all locks of the process
            # on it (fcntl_locking(2)), and SQLite has some on this one.
            shared = os.open(f"{self._path}-shm", os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:  # nothing has been read yet: SQLite makes it then
            return
        self._shared = shared
        found = os.fstat(shared)
        if found.st_blocks * 512 < found.st_size:
            try:
                os.posix_fallocate(shared, 0, found.st_size)
            except OSError as error:
                raise SpaceError(f"no room to write {self._path}: the disk is full", hint=_ROOM_HINT) from error

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise self._explained(error) from error

    def _explained(self, error: sqlite3.Error) -> SpaceError | MachineError | StoreError:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the low byte is the primary result code
        # The memory that WAL mode shares is a file of 32 KiB: where it finds no room, SQLite speaks of an I/O error.
        if code == sqlite3.SQLITE_IOERR and _free_bytes(self._path.parent) < _ROOM:
            return SpaceError(f"no room to write {self._path}: the disk is full", hint=_ROOM_HINT)
        if code == sqlite3.SQLITE_FULL:
            return SpaceError(f"no room to write {self._path}: {error}", hint=SPACE_HINT)
        if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN):
            if len(os.fsencode(self._path)) > _LONGEST_PATH:
                return MachineError(
                    f"{self._path}: SQLite opens no path of more than {_LONGEST_PATH} bytes", hint=ROOT_HINT
                )
            return MachineError(f"can't write {self._path}: {error}", hint=ROOT_HINT)
        hints = {
            sqlite3.SQLITE_BUSY: "another layerbuild has held the store for long; wait until it has ended",
            sqlite3.SQLITE_IOERR: "WAL mode needs a local file system; put the store on one with --root",
        }
        whole = "remove the store's folder and build again, or use another one with --root"
        return StoreError(f"{self._path}: {error}", hint=hints.get(code, whole))


def _free_bytes(folder: Path) -> int:
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize
