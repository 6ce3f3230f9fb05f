"""Downloads: found by URL while their blob is there, pruned with the cache; and stores from before there were any."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from layerbuild.store.downloads import Download
from layerbuild.store.prune import prune
from layerbuild.store.store import Store


def test_found_while_the_blob_is_there(tmp_path: Path) -> None:
    with Store.open(tmp_path / "store") as store:
        download = Download(store.blobs.add(b"content"), '"tag"', "a day")
        store.downloads.put("https://me:pw@host/x", download)
        assert store.downloads.get("https://me:pw@host/x") == download
        assert store.downloads.get("https://host/x") is None
        changed = Download(store.blobs.add(b"other"))
        store.downloads.put("https://me:pw@host/x", changed)
        assert store.downloads.get("https://me:pw@host/x") == changed
        store.blobs.path(changed.digest).unlink()
        assert store.downloads.get("https://me:pw@host/x") is None


def test_pruned_with_the_step_cache_and_not_before(tmp_path: Path) -> None:
    with Store.open(tmp_path / "store") as store:
        download = Download(store.blobs.add(b"content"))
        store.downloads.put("https://host/x", download)
        assert store.verify() == ()
        prune(store)
        assert store.downloads.get("https://host/x") == download
        prune(store, all=True)
        assert store.downloads.keys() == () and not store.blobs.has(download.digest)


def test_an_older_store_gets_its_table(tmp_path: Path) -> None:
    with Store.open(tmp_path / "store"):
        pass
    database = sqlite3.connect(tmp_path / "store" / "layerbuild.db")
    tables = dict(database.execute("SELECT name, sql FROM sqlite_schema WHERE type = 'table'"))
    older = "\n".join(
        line for line in tables["step"].splitlines() if not line.strip().startswith(("own_key", "step_key"))
    ).replace("NOT NULL, -- JSON", "NOT NULL -- JSON")
    newer = "DROP TABLE download; DROP TABLE source; DROP TABLE variant; DROP TABLE file; DROP TABLE selection;"
    newer += " DROP TABLE step; DROP TABLE build_step; DROP TABLE build; DROP TABLE layer_scan; DROP TABLE unsynced;"
    database.executescript(f"{newer} {older}; PRAGMA user_version=1;")
    database.close()
    for _ in range(2):
        with Store.open(tmp_path / "store") as store:
            assert store.downloads.keys() == ()
            assert not store.cache.may_know("", {})
