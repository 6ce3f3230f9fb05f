"""What rows name and nobody has seen on the disk yet: names are given at once, and the disk follows.

::

    written ─▶ marked, with the boot ─┬─▶ named, used      no fsync: until the machine goes down all read the same bytes
                                      ├─▶ ``confirm``      a later command syncs, and takes the mark away
                                      └─▶ ``recover``      another boot: what is still marked is checked or made anew

A file that was written stays whole when its process dies; only the end of the machine can take some of it. So what is
named without an fsync bears a mark with the id of the boot in which it was written. Marks are rows: a row that names a
file is committed after, or together with, the file's mark, and SQLite's log keeps that order, so that after a power
failure no row is there whose mark is not. What is in a folder of the store without a row may be anything then; that
there is such a thing at all, the mark of the store itself tells, which is on the disk before the first name of a boot.
"""

from __future__ import annotations

import threading
import time
from functools import cache
from pathlib import Path

from layerbuild.errors import LayerbuildError
from layerbuild.store.database import Database
from layerbuild.store.durable import sync_file, sync_filesystem, sync_folder

#: The path that stands for the store as a whole.
WHOLE = "."
#: In place of a boot: the path is not there, and gets its mark before it comes.
ABSENT = ""
#: The same, of what went with an earlier boot: it is synced when it comes again, so that where each command has a boot
#: of its own (a virtual machine for each job, with a disk that stays) nothing is made anew more than once.
AGAIN = "again"

_SETTLED = 40.0  # seconds; the kernel begins to write what has been dirty for 30 (vm.dirty_expire_centisecs)
_BOOT = Path("/proc/sys/kernel/random/boot_id")


class Unsynced:
    """The marks of the store at ``root``. ``boot`` is the id of this boot, empty where the kernel has none to tell:
    there everything is synced before it gets its name."""

    def __init__(self, database: Database, root: Path, *, boot: str) -> None:
        self._database = database
        self._root = root
        self.boot = boot
        self._begun = False
        self._confirming: threading.Thread | None = None

    def begin(self) -> None:
        """Before the first mark of a process, and outside of transactions: have it on the disk that names of this boot
        need not be."""
        if self._begun:
            return
        if self.boot and self._boot_of(self._root) != self.boot:
            with self._database.transaction(durable=True):
                self._put(WHOLE, self.boot)
        self._begun = True

    def rename(self, temporary: Path, path: Path) -> None:
        """Give a finished file its name in the store. A name that is on the disk already stays so at every moment."""
        known = self._boot_of(path)
        if self.boot and known != AGAIN and (known is not None or not path.exists()):
            self.mark(path)
            temporary.replace(path)
            return
        sync_file(temporary)
        temporary.replace(path)
        sync_folder(path.parent)
        self.forget((path,))

    def settle(self, folder: Path, *, name: Path) -> None:
        """Mark the folder ``name``, which ``folder`` is to become; have it on the disk instead if that name is recorded
        without a mark, or comes again. For the transaction that records it; ``begin`` comes before."""
        known = self._boot_of(name)
        if self.boot and known != AGAIN and (known is not None or name == folder):
            self.mark(name)
            return
        sync_filesystem(folder)
        self.forget((name,))

    def mark(self, path: Path) -> None:
        """Note that ``path`` is not known to be on the disk."""
        self.begin()
        self._put(self._name(path), self.boot)

    def expect(self, path: Path) -> None:
        """Mark what has not come, so that it bears its mark already when it does; inside the transaction that names
        it."""
        self._put(self._name(path), ABSENT)

    def expects(self, path: Path) -> bool:
        """Whether ``path`` is to come, or to come again."""
        return self._boot_of(path) in (ABSENT, AGAIN)

    @property
    def is_doubtful(self) -> bool:
        """Whether the machine went down since something was marked."""
        query = "SELECT 1 FROM unsynced WHERE boot NOT IN (?, ?, ?) LIMIT 1"
        return self._database.row(query, (ABSENT, AGAIN, self.boot)) is not None

    def marked(self) -> frozenset[Path]:
        """All that bears a mark, but the store itself."""
        rows = self._database.rows("SELECT path FROM unsynced WHERE path != ?", (WHOLE,))
        return frozenset(self._root / path for (path,) in rows)

    def confirm(self, *, older: float = 0.0) -> None:
        """Take the marks away that are older than ``older`` seconds, once all they were put on is on the disk."""
        until = time.time() - older
        query = "SELECT path FROM unsynced WHERE boot = ? AND path != ? AND since <= ?"
        marked = [path for (path,) in self._database.rows(query, (self.boot, WHOLE, until))]
        here = [(path, until) for path in marked if (self._root / path).exists()]
        if here:
            sync_filesystem(self._root)
            with self._database.transaction():
                self._database.executemany("DELETE FROM unsynced WHERE path = ? AND since <= ?", here)

    def confirm_earlier(self) -> None:
        """Confirm behind the work what earlier commands left; the kernel has written most of it by now. Starts a
        thread: not before a fork."""
        if self._confirming is None:
            # A daemon: who interrupts the command need not wait for the disk.
            self._confirming = threading.Thread(target=self._confirm_settled, name="confirm", daemon=True)
            self._confirming.start()

    def forget(self, paths: tuple[Path, ...]) -> None:
        """Take the marks of what is removed away; inside the transaction that removes it."""
        self._database.executemany("DELETE FROM unsynced WHERE path = ?", [(self._name(path),) for path in paths])

    def close(self) -> None:
        """Wait for what goes on behind."""
        if self._confirming is not None:
            self._confirming.join()

    def _confirm_settled(self) -> None:
        try:
            self.confirm(older=_SETTLED)
        except (OSError, LayerbuildError):
            pass  # the marks stay: a failing or full disk is told of by whoever needs it

    def _put(self, path: str, boot: str) -> None:
        self._database.execute(
            "INSERT OR REPLACE INTO unsynced (path, boot, since) VALUES (?, ?, ?)", (path, boot, time.time())
        )

    def _boot_of(self, path: Path) -> str | None:
        """What its mark says, None: it bears none."""
        row = self._database.row("SELECT boot FROM unsynced WHERE path = ?", (self._name(path),))
        return row[0] if row else None

    def _name(self, path: Path) -> str:
        return str(path.relative_to(self._root))


@cache
def boot_id() -> str:
    """The id of this boot of the machine (random(4)); empty where there is none."""
    try:
        return _BOOT.read_text().strip()
    except OSError:
        return ""
