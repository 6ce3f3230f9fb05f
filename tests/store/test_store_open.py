"""Opening: a new folder, an old one, one that is something else; alone and together with others."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from store_filling import Fill

from layerbuild.errors import MachineError, SpaceError, StoreError
from layerbuild.reference import Reference
from layerbuild.store.prune import prune
from layerbuild.store.store import Store


def test_a_new_store_is_an_empty_oci_layout(store: Store) -> None:
    assert json.loads((store.root / "oci-layout").read_text()) == {"imageLayoutVersion": "1.0.0"}
    assert json.loads((store.root / "index.json").read_text())["manifests"] == []
    assert store.verify() == ()


def test_what_was_stored_is_there_again(root: Path) -> None:
    with Store.open(root) as store:
        Fill(store).image("a", "b", names=("app",))
    with Store.open(root) as store:
        assert len(store.snapshots.stack(store.images.resolve("app").top)) == 2
        assert store.verify(contents=True) == ()


# A process that ends with its store, and has put some listings of 10,000 bytes into it.
LAST = """
import os, sys
from pathlib import Path
from layerbuild.digest import BlobDigest
from layerbuild.store.store import Store
with Store.open(Path(sys.argv[1])) as store:
    store.is_last = True
    for number in range(int(sys.argv[2]), int(sys.argv[3])):
        store.cache.put_listing(BlobDigest.of(b"%d" % number), os.urandom(10_000))
os._exit(0)
"""


def test_what_a_process_wrote_that_ended_with_its_store_is_there(root: Path) -> None:
    """A short log stays, a long one does not: so it can't grow from process to process."""
    log = root / "layerbuild.db-wal"
    sizes = []
    for number in range(0, 200, 20):
        subprocess.run([sys.executable, "-c", LAST, root, str(number), str(number + 20)], check=True)
        sizes.append(log.stat().st_size if log.exists() else 0)
    assert 0 in sizes and max(sizes) <= 1 << 20
    assert sum(size > 0 for size in sizes) >= 5
    with Store.open(root) as store:
        assert store.database.row("SELECT count(*) FROM listing") == (200,)
        assert store.verify() == ()
    assert not log.exists()


def test_layer_folders_are_closed_to_other_users(store: Store) -> None:
    assert store.overlay.stat().st_mode & 0o777 == 0o700


def test_a_store_of_a_newer_version_is_refused(root: Path) -> None:
    Store.open(root).close()
    with sqlite3.connect(root / "layerbuild.db") as connection:
        connection.execute("PRAGMA user_version=99")
    with pytest.raises(StoreError, match="version 99") as caught:
        Store.open(root)
    assert "--root" in caught.value.hint


def test_a_damaged_database_is_refused(root: Path) -> None:
    Store.open(root).close()
    (root / "layerbuild.db").write_bytes(b"this is no database" * 1000)
    with pytest.raises(StoreError, match=r"layerbuild\.db"):
        Store.open(root)


def test_a_folder_of_other_files_is_left_alone(root: Path) -> None:
    root.mkdir()
    (root / "thesis.tex").write_text("x")
    with pytest.raises(StoreError, match="no store"):
        Store.open(root)
    assert [path.name for path in root.iterdir()] == ["thesis.tex"]


def test_a_file_is_no_store(root: Path) -> None:
    root.write_text("x")
    with pytest.raises(StoreError, match="not a folder"):
        Store.open(root)


def test_a_killed_first_open_is_mended_by_the_next(root: Path) -> None:
    (root / "tmp").mkdir(parents=True)
    (root / "lock").touch()
    (root / "tmp" / "oci-layout").write_text("ha")
    with Store.open(root) as store:
        assert store.verify() == ()


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become another user")
def test_a_store_that_may_not_be_written_says_so(root: Path) -> None:
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(12345)
            os.setuid(12345)
            Store.open(root)
        except MachineError as error:
            os._exit(0 if "--root" in error.hint else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_prune_refuses_while_another_process_uses_the_store(root: Path, store: Store) -> None:
    code = "import sys; from pathlib import Path; from layerbuild.store.store import Store\n"
    code += "s = Store.open(Path(sys.argv[1])); s.lease(); print('open', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", code, str(root)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout and other.stdout.readline() == "open\n"
        with pytest.raises(StoreError, match=f"in use by process {other.pid}"):
            prune(store)
        other.communicate("")
    prune(store)


def test_processes_that_come_at_once_agree(root: Path) -> None:
    """Each opens the new folder, writes the same blob and layer, and takes the same name and one of its own."""
    code = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from store_filling import Fill
from layerbuild.store.store import Store
number = sys.argv[2]
sys.stdin.readline()
with Store.open(Path(sys.argv[1])) as store:
    for turn in range(5):
        store.blobs.add(b"the same" * 100_000)
        Fill(store).image("a", f"turn {turn}", names=("shared", f"own-{number}"), label=number)
"""
    here = str(Path(__file__).parent)
    children = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(root), str(number), here], stdin=subprocess.PIPE, stderr=subprocess.PIPE
        )
        for number in range(6)
    ]
    for child in children:
        assert child.stdin
        child.stdin.write(b"\n")
        child.stdin.flush()
    errors = [child.communicate(timeout=120)[1] for child in children]
    assert [child.returncode for child in children] == [0] * 6, errors
    with Store.open(root) as store:
        problems = [found for found in store.verify(contents=True) if "no row" not in found.text]
        assert problems == []
        assert len(store.snapshots.all()) == 6
        listed = json.loads((root / "index.json").read_text())["manifests"]
        assert len(listed) == 7
        prune(store)
        assert store.verify(contents=True) == ()


def test_threads_share_a_store(store: Store) -> None:
    errors: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for turn in range(10):
                image = Fill(store).image("base", f"{number}", names=(f"thread{number}",), label=str(turn))
                assert store.images.resolve(f"thread{number}").image_id == image.image_id
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len(store.images.list()) == 40
    assert store.images.resolve(str(Reference.parse("thread0"))).names == ("docker.io/library/thread0:latest",)


@pytest.mark.root
@pytest.mark.machine
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to mount a small file system")
def test_a_full_file_system_is_a_space_error_and_leaves_the_store_whole(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", small], check=True)
    try:
        with Store.open(small / "store") as store:
            Fill(store).image("a", names=("app",))
            with pytest.raises(SpaceError) as caught:
                store.blobs.add(os.urandom(4 << 20))
            assert "prune" in caught.value.hint
            with pytest.raises(SpaceError):
                for number in range(10_000):
                    Fill(store).image("a", names=(f"name{number}",), label=os.urandom(4000).hex())
            prune(store)
            found = [problem for problem in store.verify(contents=True) if "no row" not in problem.text]
            assert found == []
            assert store.images.resolve("app").names
    finally:
        subprocess.run(["umount", "-l", small], check=True)
