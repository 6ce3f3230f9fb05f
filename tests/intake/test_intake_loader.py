"""The order in which ld.so(8) looks for a library."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from intake_samples import elf

from layerbuild.intake.elf import Elf, read_elf
from layerbuild.intake.loader import Loader, is_built_in

GLIBC = "/lib64/ld-linux-x86-64.so.2"
MUSL = "/lib/ld-musl-x86_64.so.1"


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A root with libraries ``libx.so`` in many places."""
    for folder in ("usr/lib", "lib", "opt/conf", "opt/more", "opt/rpath", "opt/runpath", "app/lib"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "libx.so").write_bytes(elf())
    (tmp_path / "etc/ld.so.conf.d").mkdir(parents=True)
    (tmp_path / "etc/ld.so.conf").write_text("include ld.so.conf.d/*.conf\n/opt/more # last\n")
    (tmp_path / "etc/ld.so.conf.d/first.conf").write_text("# a comment\n/opt/conf\n")
    return tmp_path


def asker(root: Path, path: str, **facts: Any) -> tuple[Path, Elf]:
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(elf(**facts))
    found = read_elf(file)
    assert found is not None
    return Path("/", path), found


def find(machine: Path, *chain: tuple[Path, Elf], interpreter: str = GLIBC) -> str | None:
    found = Loader(machine).find("libx.so", chain, interpreter=interpreter)
    return str(found.path.parent) if found else None


def test_configured_folders_come_before_the_usual_ones(machine: Path) -> None:
    program = asker(machine, "app/program")
    assert find(machine, program) == "/opt/conf"
    (machine / "opt/conf/libx.so").unlink()
    assert find(machine, program) == "/opt/more"
    (machine / "opt/more/libx.so").unlink()
    assert find(machine, program) == "/lib"


def test_rpath_of_the_loaders_counts_until_one_has_a_runpath(machine: Path) -> None:
    program = asker(machine, "app/program", rpath="/opt/rpath")
    assert find(machine, program) == "/opt/rpath"
    assert find(machine, program, asker(machine, "lib/liby.so")) == "/opt/rpath"
    assert find(machine, program, asker(machine, "lib/liby.so", runpath="/opt/runpath")) == "/opt/runpath"
    runpath = asker(machine, "app/program", rpath="/opt/rpath", runpath="/opt/runpath")
    assert find(machine, runpath) == "/opt/runpath"
    assert find(machine, runpath, asker(machine, "lib/liby.so")) == "/opt/conf", "a RUNPATH is not inherited"


@pytest.mark.parametrize("spelling", ["$ORIGIN/lib", "${ORIGIN}/lib", "/app/$LIB:/app/lib"])
def test_origin(machine: Path, spelling: str) -> None:
    assert find(machine, asker(machine, "app/program", runpath=spelling)) == "/app/lib"


def test_a_library_for_another_machine_is_passed_over(machine: Path) -> None:
    program = asker(machine, "app/program", machine=183)
    assert find(machine, program) is None
    (machine / "usr/lib/libx.so").write_bytes(elf(machine=183))
    assert find(machine, program) == "/usr/lib"
    (machine / "lib/libx.so").write_text("/* GNU ld script */")
    assert find(machine, program) == "/usr/lib"


def test_a_name_with_a_slash_is_a_path(machine: Path) -> None:
    chain = [asker(machine, "app/program")]
    found = Loader(machine).find("/opt/more/libx.so", chain, interpreter=GLIBC)
    assert found is not None
    assert (str(found.path), found.configured) == ("/opt/more/libx.so", False)


def test_musl_has_a_path_file_and_brings_its_own_libraries(machine: Path) -> None:
    program = asker(machine, "app/program")
    assert find(machine, program, interpreter=MUSL) == "/lib"
    (machine / "etc/ld-musl-x86_64.path").write_text("/opt/more\n/opt/conf")
    assert find(machine, program, interpreter=MUSL) == "/opt/more"
    assert is_built_in("libc.musl-x86_64.so.1", MUSL)
    assert is_built_in("libpthread.so.0", MUSL)
    assert not is_built_in("libcrypto.so.3", MUSL)
    assert not is_built_in("libc.so.6", GLIBC)


def test_an_include_that_names_itself_ends(machine: Path) -> None:
    (machine / "etc/ld.so.conf").write_text("include ld.so.conf\n/opt/more\n")
    assert find(machine, asker(machine, "app/program")) == "/opt/more"
