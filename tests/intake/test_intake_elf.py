"""What an ELF file needs, in all four shapes of the format."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from intake_samples import elf

from layerbuild.errors import FormatError
from layerbuild.intake.elf import read_elf


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("order", ["<", ">"])
def test_both_classes_and_byte_orders(tmp_path: Path, bits: int, order: str) -> None:
    program = tmp_path / "program"
    program.write_bytes(
        elf(
            bits=bits,
            order=order,
            machine=8,
            interpreter="/lib/ld.so.1",
            needed=["libc.so.6", "libm.so.6"],
            runpath="/a:/b",
        )
    )
    found = read_elf(program)
    assert found is not None
    assert found.kind == (bits // 32, 1 if order == "<" else 2, 8)
    assert (found.interpreter, found.needed) == ("/lib/ld.so.1", ("libc.so.6", "libm.so.6"))
    assert (found.rpath, found.runpath) == ((), ("/a", "/b"))


def test_a_static_program_needs_nothing(tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_bytes(elf())
    found = read_elf(program)
    assert found is not None
    assert (found.interpreter, found.needed) == ("", ())


def test_a_script_is_no_elf_file(tmp_path: Path) -> None:
    (tmp_path / "script").write_text("#!/bin/sh\n")
    assert read_elf(tmp_path / "script") is None


def test_the_machines_own_shell() -> None:
    found = read_elf(Path("/bin/sh").resolve())
    assert found is not None
    assert not found.interpreter or Path(found.interpreter).exists()


@given(st.integers(4, 400), st.binary(min_size=1, max_size=8))
def test_damage_is_a_format_error_or_nothing_worse(
    tmp_path_factory: pytest.TempPathFactory, at: int, noise: bytes
) -> None:
    data = elf(interpreter="/lib/ld.so.1", needed=["libc.so.6"], rpath="$ORIGIN")
    path = tmp_path_factory.getbasetemp() / "damaged"
    for damaged in (data[:at], data[:at] + noise + data[at + len(noise) :]):
        path.write_bytes(damaged)
        try:
            assert read_elf(path) is not None
        except FormatError as error:
            assert str(path) in error.message
