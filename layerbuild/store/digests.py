"""What is known of files outside the store without reading them again: digests, for as long as a file's state stays.

A file's state is its device, inode, size, modification time and change time, the latter two in nanoseconds. A program
can set the first of the times, never the second. A file that changed while the clock stood at the time of its digest
would look the same: so what changed within ``GRAIN`` before it was looked at is not remembered, and read again.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence

from layerbuild.digest import BlobDigest
from layerbuild.store.database import Database

#: Nanoseconds. Far more than a local clock's tick (some milliseconds): FAT counts in steps of two seconds, and a file
#: server has a clock of its own.
GRAIN = 2_000_000_000

_BATCH = 4096  # rows that are written at once
_WRAP = 1 << 64  # SQLite's integers are signed, inode numbers are not


class Digests:
    """The remembered digests of a store. ``remember`` takes effect with ``flush``."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock = threading.Lock()
        self._files: list[tuple[int, int, int, int, int, bytes]] = []

    def file(self, found: os.stat_result) -> str | None:
        """The sha256 (hex) of the file whose stat this is, None if it is not known for this state."""
        device, inode, size, mtime, ctime = _state(found)
        row = self._database.row(
            "SELECT digest FROM file WHERE device = ? AND inode = ? AND size = ? AND mtime = ? AND ctime = ?",
            (device, inode, size, mtime, ctime),
        )
        return row[0].hex() if row else None

    def files(self, found: Sequence[os.stat_result]) -> list[str | None]:
        """``file`` for some hundred files."""
        states = list(map(_state, found))
        known: dict[tuple[int, ...], str] = {}
        for device in {state[0] for state in states}:
            inodes = [state[1] for state in states if state[0] == device]
            marks = ",".join("?" * len(inodes))
            rows = self._database.rows(
                f"SELECT inode, size, mtime, ctime, digest FROM file WHERE device = ? AND inode IN ({marks})",
                (device, *inodes),
            )
            known.update(((device, *state), digest.hex()) for *state, digest in rows)
        return [known.get(state) for state in states]

    def remember_file(self, found: os.stat_result, digest: str, *, looked: int) -> None:
        """Note the digest of a file that was read after its stat was taken, at ``looked`` (nanoseconds since 1970)."""
        if is_settled(max(found.st_mtime_ns, found.st_ctime_ns), looked):
            with self._lock:
                self._files.append((*_state(found), bytes.fromhex(digest)))
            if len(self._files) >= _BATCH:
                self.flush()

    def selection(self, signature: str) -> BlobDigest | None:
        """The digest of a listing whose files all had the states that ``signature`` stands for."""
        row = self._database.row("SELECT digest FROM selection WHERE signature = ?", (signature,))
        return BlobDigest(row[0]) if row else None

    def remember_selection(self, signature: str, digest: str) -> None:
        """Note the digest of a listing; the caller has seen that all its files are settled."""
        self._database.execute(
            "INSERT OR REPLACE INTO selection (signature, digest) VALUES (?, ?)", (signature, digest)
        )

    def flush(self) -> None:
        """Write what was noted. Costs no fsync: what a power failure takes is only read again."""
        with self._lock:
            files, self._files = self._files, []
        if files:
            with self._database.transaction():
                # What is known already is not written again: of a large context that would be megabytes.
                self._database.executemany(
                    "INSERT INTO file (device, inode, size, mtime, ctime, digest) VALUES (?, ?, ?, ?, ?, ?)"
                    " ON CONFLICT (device, inode) DO UPDATE SET"
                    " size = excluded.size, mtime = excluded.mtime, ctime = excluded.ctime, digest = excluded.digest"
                    " WHERE (size, mtime, ctime, digest)"
                    " IS NOT (excluded.size, excluded.mtime, excluded.ctime, excluded.digest)",
                    files,
                )

    def forget(self) -> None:
        """Drop everything: it is only a help."""
        with self._database.transaction():
            for table in ("file", "selection"):
                self._database.execute(f"DELETE FROM {table}")


def is_settled(changed: int, looked: int) -> bool:
    """Whether what changed last at ``changed`` would show another time, had it changed again after ``looked``."""
    return changed < looked - GRAIN


def _state(found: os.stat_result) -> tuple[int, int, int, int, int]:
    return (_signed(found.st_dev), _signed(found.st_ino), found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def _signed(number: int) -> int:
    return number - _WRAP if number >= _WRAP // 2 else number
