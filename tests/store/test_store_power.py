"""The plug is pulled: what the block device has been told by then is mounted elsewhere, and the store opened in it."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from layerbuild.digest import ChainID
from layerbuild.errors import NotFoundError
from layerbuild.store.prune import prune
from layerbuild.store.store import Store

# Tells of each layer that is named, and of each time when all before is confirmed.
_WORK = """
import os, sys, time
from pathlib import Path
from store_filling import Fill
from test_store_unsynced import a_layer
from layerbuild.store.store import Store

with Store.open(Path(sys.argv[1])) as store:
    for turn in range(1000):
        parent = None
        for number in range(4):
            parent = a_layer(store, parent, f"{turn}-{number} " + os.urandom(20000).hex())
            print(parent.chain, flush=True)
        Fill(store).image(f"image {turn}", names=(f"image{turn % 3}",))
        if turn % 4 == 1:
            store.unsynced.confirm()
            print("confirmed", flush=True)
        time.sleep(0.2)
"""


@contextmanager
def mounted(image: Path, place: Path) -> Iterator[Path]:
    place.mkdir()
    # Commits each second, so that metadata is on the disk long before the data that it speaks of.
    subprocess.run(["mount", "-o", "loop,commit=1", image, place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", place], check=True)


def as_it_is(image: Path, copy: Path) -> None:
    """Copy what the file system has written so far, while it writes nothing."""
    while True:
        before = image.stat().st_mtime_ns
        shutil.copyfile(image, copy)
        if image.stat().st_mtime_ns == before:
            return


def names_of(text: str) -> tuple[set[str], set[str]]:
    """All chains that a worker told of, and those that it told of before it confirmed."""
    words = text.split()
    last = max((number for number, word in enumerate(words) if word == "confirmed"), default=0)
    return set(words) - {"confirmed"}, set(words[:last]) - {"confirmed"}


@pytest.mark.root
@pytest.mark.machine
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to mount a file system")
def test_a_power_failure_at_any_time_leaves_a_store_that_tells_the_truth(tmp_path: Path) -> None:
    image, told = tmp_path / "image", tmp_path / "told"
    with image.open("wb") as file:
        file.truncate(256 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-O", "has_journal", image], check=True)
    dropped = 0
    with mounted(image, tmp_path / "place") as place, told.open("wb") as output:
        command = [sys.executable, "-c", _WORK, place / "store"]
        path = os.pathsep.join(sys.path)
        with subprocess.Popen(command, stdout=output, env={**os.environ, "PYTHONPATH": path}) as work:
            try:
                for number in range(4):
                    time.sleep(1.7)
                    work.send_signal(signal.SIGSTOP)
                    known, confirmed = names_of(told.read_text())
                    # A name of its own: what was mounted before may write to its file until it is quite gone.
                    copy = tmp_path / f"copy{number}"
                    as_it_is(image, copy)
                    assert work.poll() is None and known
                    with mounted(copy, tmp_path / f"after{number}") as after:
                        dropped += assert_true(after / "store", known, confirmed)
                    work.send_signal(signal.SIGCONT)
            finally:
                work.kill()
    assert dropped  # else nothing was lost, and this test has shown nothing


def assert_true(root: Path, known: set[str], confirmed: set[str]) -> int:
    """Hold the store against what its maker told; how many layers the failure took."""
    database = sqlite3.connect(root / "layerbuild.db")
    with database:
        database.execute("UPDATE unsynced SET boot = 'before' WHERE boot != ''")
    database.close()
    lost = 0
    with Store.open(root) as store:
        assert [found for found in store.verify(contents=True) if "no row" not in found.text] == []
        chains = {str(snapshot.chain) for snapshot in store.snapshots.all()}
        assert confirmed <= chains
        for chain in chains & known:
            try:
                top = store.ensure_unpacked(ChainID(chain))[-1]
            except NotFoundError:
                assert chain not in confirmed
                lost += 1
                continue
            (file,) = top.diff.iterdir()
            assert (text := file.read_text()).startswith(f"{file.name} ") and len(text) > 40_000
        prune(store)
        assert store.verify(contents=True) == ()
    return lost + len(known - chains)
