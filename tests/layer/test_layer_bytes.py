"""A blob has the same bytes on every machine: with one core and several, with and without SIMD, of any architecture.

The digests below were seen on x86-64 with AVX-512, AVX2, SSE 4.2 and SSE 3 alone, and on arm64. A change of a codec, or
of the library behind it, changes them: then every layer that is built anew gets another digest than before.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path

import codec_digests
import pytest
from support import PROJECT, missing

DIGESTS = {
    "none 0": "f2635c3fbbf6a7a1ec7311a4d5a17668efc31f22f4afe5814260e8e884785ed7",
    "gzip 0": "137f949b8c4bdc47ea26eb38f643fc4d5bdb8a0a8014d9d24f8de2aba479f942",
    "gzip 1": "88b3bc1a9af46b5bffc4198f9495f0ea1e3be28674b855fa20d1f27689567876",
    "gzip 6": "6648099c777b47481d3fd5407ed8eeabdcfed4c7d29a141214dfa7a92199afe9",
    "gzip 9": "36ae594cd03a8ce616f6fddd80e15c01805e40b0a1b36305418a6f2c2106480a",
    "gzip 12": "83c58f7b6a8d853e63d81880dfa32339502182fe5bb4bb0598f8accaf20d5a92",
    "zstd 1": "08aa42a90dc248bb4034d5464a44b1db8c3dd0fd78b9abf94da9033f104291bd",
    "zstd 3": "53464aacb93dedfc18081255c5e7e8e970ad885d8b40e0e805e21aa5bda7f238",
    "zstd 9": "bd4a5c051a5ed8e77e0da1ae55cbeed6e0a37479ab72024346c85e6ba860c517",
}
# Processors without what the libraries would like to use: SSE 4.2 and AVX there, the CRC and crypto extensions here.
PLAIN = {"x86_64": ("qemu-x86_64", "qemu64"), "aarch64": ("qemu-aarch64", "cortex-a53")}


def test_on_this_machine(capsys: pytest.CaptureFixture[str]) -> None:
    codec_digests.main()
    assert json.loads(capsys.readouterr().out) == DIGESTS


def test_with_one_core(capsys: pytest.CaptureFixture[str]) -> None:
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        test_on_this_machine(capsys)
    finally:
        os.sched_setaffinity(0, cores)


def test_without_simd(program: Callable[[str], str]) -> None:
    machine = platform.machine()
    if machine not in PLAIN:
        missing(f"no emulated processor is known for {machine}")
    emulator, processor = PLAIN[machine]
    script = Path(codec_digests.__file__)
    done = subprocess.run(
        [program(emulator), "-cpu", processor, os.path.realpath(sys.executable), "-S", script],
        env={"PYTHONPATH": f"{PROJECT}:{sysconfig.get_path('purelib')}", "LD_LIBRARY_PATH": f"{sys.base_prefix}/lib"},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    assert json.loads(done.stdout) == DIGESTS
