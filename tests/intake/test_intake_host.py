"""A base from this machine's programs: what is in it, and that it runs."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from intake_samples import elf, need_root

from layerbuild.errors import MachineError
from layerbuild.image.config import History, Platform
from layerbuild.intake.elf import read_elf
from layerbuild.intake.host import DEFAULT_PROGRAMS, HostBase, collect
from layerbuild.intake.items import Item
from layerbuild.intake.loader import Loader
from layerbuild.intake.rootfs import import_items
from layerbuild.layer.entry import Kind, sort_key
from layerbuild.store.store import Store

EPOCH = 315532800


def paths(base: HostBase) -> dict[str, Item]:
    return {"/" + os.fsdecode(item.entry.path): item for item in base.items}


def unpacked(store: Store, base: HostBase) -> Path:
    """The base's folder, to be run in with chroot, which only root may."""
    need_root()
    image = import_items(
        store, base.items, platform=Platform("linux", "amd64"), history=History(created_by=base.command)
    )
    return store.snapshots.stack(image.top)[-1].diff


def run(root: Path, *command: str) -> str:
    done = subprocess.run(
        ["chroot", root, *command], capture_output=True, text=True, check=False, env={"PATH": "/usr/sbin:/usr/bin:/bin"}
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def make_executable(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    path.chmod(0o755)
    return path


def test_the_default_is_what_the_machine_has_of_the_usual_programs() -> None:
    base = collect(epoch=EPOCH)
    assert {"sh", "ls", "cat"} <= set(base.programs) <= set(DEFAULT_PROGRAMS)
    assert base.command == "layerbuild base host"
    assert base.config.cmd == ("/bin/sh",)


def test_items_are_in_a_layers_order_with_each_parent_before() -> None:
    found = [item.entry for item in collect(["sh", "ls"], epoch=EPOCH).items]
    assert [entry.path for entry in found] == sorted((entry.path for entry in found), key=sort_key)
    folders = {entry.path for entry in found if entry.kind is Kind.DIRECTORY} | {b""}
    assert all(entry.path.rpartition(b"/")[0] in folders for entry in found)


def test_nothing_tells_of_this_machines_users_and_clocks() -> None:
    for item in collect(["sh", "ls"], epoch=EPOCH).items:
        assert (item.entry.uid, item.entry.gid) == (0, 0)
        assert item.entry.mtime <= EPOCH
    assert paths(collect(["sh"], epoch=EPOCH))["/etc/passwd"].content == (
        b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/bin/false\n"
    )


def test_links_on_the_way_stay_links() -> None:
    found = paths(collect(["sh"], epoch=EPOCH))
    for name in ("/bin", "/lib", "/bin/sh", str(Path("/bin").resolve() / "sh")):
        if Path(name).is_symlink() and Path(name).parent.resolve() == Path(name).parent:
            assert found[name].entry.target == os.fsencode(os.readlink(name))
    assert str(Path("/bin/sh").resolve()) in found


@pytest.mark.root
def test_it_runs(store: Store) -> None:
    root = unpacked(store, collect(["sh", "ls", "sort", "id", "env"], epoch=EPOCH))
    assert run(root, "/bin/sh", "-c", "id -un; ls -d /tmp | sort; echo $0").split() == ["root", "/tmp", "/bin/sh"]
    assert (root / "tmp").stat().st_mode & 0o7777 == 0o1777
    assert (root / "root").stat().st_mode & 0o7777 == 0o700


@pytest.mark.root
def test_python_brings_its_standard_library(store: Store, program: Callable[[str], str]) -> None:
    program("python3")
    base = collect(["python3"], epoch=EPOCH)
    assert ("PYTHONDONTWRITEBYTECODE", "1") in base.config.env
    assert not [path for path in paths(base) if "__pycache__" in path or "/site-packages/" in path or "/test/" in path]
    asked = "import json, hashlib, ctypes, subprocess, zoneinfo; print(json.dumps(hashlib.md5(b'').hexdigest()))"
    name = next(path for path in paths(base) if path.endswith("/bin/python3"))
    assert run(unpacked(store, base), name, "-c", asked).strip() == '"d41d8cd98f00b204e9800998ecf8427e"'


def test_the_same_programs_give_the_same_layer(store: Store, tmp_path: Path) -> None:
    history, platform = History(created_by="x"), Platform("linux", "amd64")
    ids = set()
    for number in range(2):
        with Store.open(tmp_path / str(number)) as other:
            base = collect(["sh", "cat"], epoch=EPOCH)
            ids.add(import_items(other, base.items, platform=platform, history=history).manifest_digest)
    assert len(ids) == 1


def test_a_script_brings_its_interpreter_and_what_env_starts(tmp_path: Path) -> None:
    make_executable(tmp_path / "hello", b"#!/usr/bin/env -S sort -r\n")
    found = paths(collect(["hello"], search=[str(tmp_path)], epoch=EPOCH))
    assert {str(Path(f"/usr/bin/{name}").resolve()) for name in ("env", "sort")} <= set(found)


def test_a_program_outside_the_images_path_is_linked_into_it(tmp_path: Path) -> None:
    script = make_executable(tmp_path / "hello", b"#!/bin/sh\n")
    found = paths(collect([str(script)], epoch=EPOCH))
    assert found["/usr/local/bin/hello"].entry.target == os.fsencode(script)
    assert found[str(script)].content == script


def test_folders_are_open_whatever_they_are_here(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0o700)
    script = make_executable(tmp_path / "closed/hello", b"#!/bin/sh\n")
    assert paths(collect([str(script)], epoch=EPOCH))[str(script.parent)].entry.mode == 0o755


def test_a_library_that_only_the_configuration_finds_is_linked_beside_libc(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shell = read_elf(Path("/bin/sh").resolve())
    if shell is None or "libc.so.6" not in shell.needed:
        pytest.skip("the shell of this machine is not linked with glibc")
    bits, order, machine = shell.kind
    facts = {"bits": bits * 32, "order": "<" if order == 1 else ">", "machine": machine}
    (tmp_path / "libown.so.1").write_bytes(elf(**facts))
    make_executable(
        tmp_path / "program", elf(**facts, interpreter=shell.interpreter, needed=["libown.so.1", "libc.so.6"])
    )
    configured = Loader._configured
    monkeypatch.setattr(Loader, "_configured", lambda self: (str(tmp_path), *configured(self)))
    found = paths(collect([str(tmp_path / "program")], epoch=EPOCH))
    libc = next(Path(path) for path in found if path.endswith("/libc.so.6"))
    assert found[str(libc.parent / "libown.so.1")].entry.target == os.fsencode(tmp_path / "libown.so.1")


def test_a_missing_library_is_named(tmp_path: Path) -> None:
    shell = read_elf(Path("/bin/sh").resolve())
    assert shell is not None
    make_executable(tmp_path / "program", elf(needed=["libnowhere.so.7"]))
    with pytest.raises(MachineError, match=r"program needs the shared library libnowhere.so.7"):
        collect([str(tmp_path / "program")], epoch=EPOCH)


def test_an_unknown_program_names_the_nearest() -> None:
    with pytest.raises(MachineError, match="'slepe' is not on this machine") as raised:
        collect(["slepe"], epoch=EPOCH)
    assert "sleep" in raised.value.hint


def test_a_link_that_leads_in_a_circle_is_no_program(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(MachineError, match="not on this machine"):
        collect([str(tmp_path / "loop")], epoch=EPOCH)


def test_set_user_id_only_stays_where_root_is_the_owner(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a file to another user")
    for name, owner in (("roots", 0), ("others", 12345)):
        path = make_executable(tmp_path / name, b"#!/bin/sh\n")
        os.chown(path, owner, 0)
        path.chmod(0o4755)
    found = paths(collect([str(tmp_path / "roots"), str(tmp_path / "others")], epoch=EPOCH))
    assert found[str(tmp_path / "roots")].entry.mode == 0o4755
    assert found[str(tmp_path / "others")].entry.mode == 0o755
