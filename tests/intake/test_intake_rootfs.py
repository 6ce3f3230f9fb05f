"""A root file system becomes an image of one layer."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard
from intake_samples import sha256, tar_of

from layerbuild.errors import FormatError, NotFoundError
from layerbuild.image.config import DEFAULT_PATH, History, Platform, RuntimeConfig
from layerbuild.intake.rootfs import import_folder, import_tar
from layerbuild.layer.entry import Entry, Kind
from layerbuild.layer.index import Index
from layerbuild.store.images import StoredImage
from layerbuild.store.store import Store

PLATFORM = Platform("linux", "amd64")
HISTORY = History(created="2001-02-03T04:05:06Z", created_by="made by a test")
TAR = tar_of({"./": None, "./zeta": b"z", "./etc": None, "./etc/name": b"alpha\n"})


def entries(store: Store, image: StoredImage) -> dict[str, Entry]:
    with Index.open(store.layers.index_path(image.config.diff_ids[0])) as index:
        return {os.fsdecode(entry.path): entry for entry in index if entry.path}


@pytest.mark.parametrize(
    ("pack", "kept"),
    [(bytes, ""), (gzip.compress, "gzip"), (zstandard.compress, "zstd"), (bz2.compress, ""), (lzma.compress, "")],
    ids=["plain", "gzip", "zstd", "bzip2", "xz"],
)
@pytest.mark.parametrize("streamed", [True, False])
def test_the_tars_bytes_are_the_layer(
    store: Store, tmp_path: Path, pack: Callable[[bytes], bytes], kept: str, streamed: bool
) -> None:
    data = pack(TAR)
    (tmp_path / "rootfs").write_bytes(data)
    source = io.BytesIO(data) if streamed else tmp_path / "rootfs"
    image = import_tar(store, source, platform=PLATFORM, history=HISTORY)
    assert list(image.config.diff_ids) == [sha256(TAR)]
    (layer,) = image.manifest.layers
    assert layer.media_type.endswith(f"+{kept or 'gzip'}")
    assert (store.blobs.path(layer.digest).read_bytes() == data) == bool(kept)
    assert not store.snapshots.stack(image.top)[0].unpacked
    assert (store.ensure_unpacked(image.top)[0].diff / "etc/name").read_text() == "alpha\n"
    assert store.verify(contents=True) == ()


def test_history_and_configuration(store: Store) -> None:
    plain = import_tar(store, io.BytesIO(TAR), platform=PLATFORM, history=HISTORY)
    assert plain.config.history == (HISTORY,)
    assert plain.config.created == HISTORY.created
    assert plain.config.config.env == (("PATH", DEFAULT_PATH),)
    config = RuntimeConfig(cmd=("/bin/app",))
    assert import_tar(store, io.BytesIO(TAR), platform=PLATFORM, history=HISTORY, config=config).config.config == config


@pytest.mark.parametrize("name", ["etc/.wh.name", "etc/.wh..wh..opq"])
def test_a_layer_is_no_root_file_system(store: Store, name: str) -> None:
    tar = tar_of({"etc": None, name: b""})
    with pytest.raises(FormatError, match="no root file system"):
        import_tar(store, io.BytesIO(tar), platform=PLATFORM, history=HISTORY)
    assert store.images.list() == ()


@pytest.mark.parametrize(
    "data", [b"<html>not found</html>" * 100, gzip.compress(b"text" * 500)], ids=["page", "compressed"]
)
def test_what_is_no_tar_is_refused(store: Store, data: bytes) -> None:
    with pytest.raises(FormatError):
        import_tar(store, io.BytesIO(data), platform=PLATFORM, history=HISTORY)


def test_no_file(store: Store, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        import_tar(store, tmp_path / "absent", platform=PLATFORM, history=HISTORY)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with one of each thing that an ordinary user can make."""
    root = tmp_path / "rootfs"
    (root / "bin").mkdir(parents=True)
    (root / "bin/app").write_text("#!/bin/sh\n")
    (root / "bin/app").chmod(0o4755)
    os.link(root / "bin/app", root / "bin/again")
    (root / "empty").mkdir(mode=0o700)
    (root / "link").symlink_to("/bin/app")
    (root / "bin-2").write_text("after the folder bin in a layer's order, before it in bytes")
    os.mkfifo(root / "pipe")
    for path in root.rglob("*"):
        os.utime(path, ns=(10**18, 5 * 10**17 + 123), follow_symlinks=False)
    os.utime(root / "bin-2", (1000, 1000))
    return root


def test_a_folder(store: Store, folder: Path) -> None:
    # A path of a socket is limited to some 100 characters, and pytest's folders are long.
    with socket.socket(socket.AF_UNIX) as listening:
        here = Path.cwd()
        os.chdir(folder)
        listening.bind("socket")
        os.chdir(here)
    image = import_folder(store, folder, platform=PLATFORM, history=HISTORY, epoch=10**8)
    found = entries(store, image)
    assert list(found) == ["bin", "bin/again", "bin/app", "bin-2", "empty", "link", "pipe"]
    assert (found["bin/again"].kind, found["bin/app"].kind) == (Kind.FILE, Kind.HARDLINK)
    assert found["bin/app"].target == b"bin/again"
    assert (found["bin/again"].mode, found["empty"].mode) == (0o4755, 0o700)
    assert (found["bin"].mtime, found["bin-2"].mtime) == (10**8, 1000)
    unpacked = store.snapshots.stack(image.top)[0].diff
    assert (unpacked / "bin/app").stat().st_ino == (unpacked / "bin/again").stat().st_ino
    assert store.verify(contents=True) == ()


def test_a_folder_gives_the_same_bytes_wherever_and_whenever(store: Store, folder: Path, tmp_path: Path) -> None:
    first = import_folder(store, folder, platform=PLATFORM, history=HISTORY, epoch=10**8)
    moved = folder.rename(tmp_path / "elsewhere")
    os.utime(moved / "bin/app")
    assert import_folder(store, moved, platform=PLATFORM, history=HISTORY, epoch=10**8).image_id == first.image_id
    kept = import_folder(store, moved, platform=PLATFORM, history=HISTORY, epoch=None)
    assert entries(store, kept)["link"].mtime == 5 * 10**8
    assert entries(store, kept)["link"].mtime_ns == 0


def test_a_folder_with_a_name_that_means_deletion(store: Store, folder: Path) -> None:
    (folder / "bin/.wh.app").write_text("")
    with pytest.raises(FormatError, match=r"\.wh\.app"):
        import_folder(store, folder, platform=PLATFORM, history=HISTORY, epoch=None)
    assert store.snapshots.all() == ()
    assert not list(store.temporary.iterdir())
