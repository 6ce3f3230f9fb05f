"""Files that were fetched over HTTP: what the server said to recognise them by, and which blob has their content."""

from __future__ import annotations

import hashlib
from collections.abc import Collection

from layerbuild.digest import BlobDigest
from layerbuild.frozen import frozen
from layerbuild.store.blobs import Blobs
from layerbuild.store.database import Database


@frozen
class Download:
    """A file as it was fetched. ``etag`` and ``modified`` are the headers ETag and Last-Modified, empty: not sent."""

    digest: BlobDigest
    etag: str = ""
    modified: str = ""


class Downloads:
    """The downloads of a store, by URL. A record whose blob is gone is not found."""

    def __init__(self, database: Database, blobs: Blobs) -> None:
        self._database = database
        self._blobs = blobs

    def get(self, url: str) -> Download | None:
        """What was last fetched from ``url``."""
        row = self._database.row("SELECT digest, etag, modified FROM download WHERE url = ?", (_key(url),))
        if row is None or not self._blobs.has(BlobDigest(row[0])):
            return None
        return Download(BlobDigest(row[0]), row[1], row[2])

    def put(self, url: str, download: Download) -> None:
        """Remember it, in place of what was fetched from there before; its blob is in the store. Costs no fsync."""
        self._database.execute(
            "INSERT OR REPLACE INTO download (url, etag, modified, digest) VALUES (?, ?, ?, ?)",
            (_key(url), download.etag, download.modified, download.digest),
        )

    def keys(self) -> tuple[str, ...]:
        """What the rows are found by."""
        return tuple(key for (key,) in self._database.rows("SELECT url FROM download"))

    def digests(self, *, but: Collection[str] = ()) -> frozenset[BlobDigest]:
        """The blobs of all downloads, save of those with the keys ``but``."""
        rows = self._database.rows("SELECT url, digest FROM download")
        return frozenset(BlobDigest(digest) for key, digest in rows if key not in but)


def _key(url: str) -> str:
    return hashlib.sha256(url.encode("utf-8", "surrogateescape")).hexdigest()
