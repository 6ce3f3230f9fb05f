"""Whether programs of an architecture can be executed is found out with a program of that architecture."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from layerbuild.errors import MachineError
from layerbuild.isolate import emulation
from layerbuild.isolate.emulation import executes, require

EMULATORS = {
    "amd64": "qemu-x86_64",
    "386": "qemu-i386",
    "arm64": "qemu-aarch64",
    "arm": "qemu-arm",
    "riscv64": "qemu-riscv64",
    "ppc64le": "qemu-ppc64le",
    "s390x": "qemu-s390x",
    "loong64": "qemu-loongarch64",
}
OWN = {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()]


@pytest.mark.parametrize("architecture", EMULATORS)
@pytest.mark.parametrize("code", [0, 42, 127])
def test_the_program_ends_with_its_code(
    architecture: str, code: int, tmp_path: Path, program: Callable[[str], str]
) -> None:
    path = tmp_path / "program"
    path.write_bytes(emulation.program(architecture, exit_code=code) or b"")
    path.chmod(0o755)
    assert subprocess.run([program(EMULATORS[architecture]), path], check=False).returncode == code


def test_this_machine_executes_its_own(tmp_path: Path) -> None:
    require(OWN, system="linux", place=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_what_it_does_not_execute_is_told_with_the_remedy(tmp_path: Path) -> None:
    assert not executes("pdp11", place=tmp_path)
    with pytest.raises(MachineError, match="programs for pdp11") as raised:
        require("pdp11", system="linux", place=tmp_path)
    assert "binfmt_misc" in raised.value.hint
    with pytest.raises(MachineError, match="programs for windows"):
        require(OWN, system="windows", place=tmp_path)
