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
    "none 0": "98f587321b5fededb370ededf5785e271a5580735f11ddaf3aa7a43dc30c878a",
    "gzip 0": "339eb596c93d10992141dc1b20f26fc15bf20f3c60c83342f43f1a6d967b04c1",
    "gzip 1": "15ebe80e41b4101777ecd329febc31465fbc9f5d25a4ef9f0e503197fe0a525a",
    "gzip 6": "c8d86a59cb514882a2aa7b98cd49d41ebe997ca62ec0d15b3d0313d0842ea5fb",
    "gzip 9": "d3f8c5799cb9273716bfebab0ffd026f66e2e8e414ad585ffc3c1c9caa57727a",
    "gzip 12": "4a473848462cf79fd10ac2416260acd5c961372b310bc79572e8baf1843a093e",
    "zstd 1": "f845705aa06147f3f2aff8404b9642b366884751eaea089c0f29a155028a9e0e",
    "zstd 3": "908b4cafab0783efe4284f900a8c8c79d69d8be4fb2a5aad8913a4d9d49f99b4",
    "zstd 9": "a3bd86c7a1e892f4328f8bcb899bb50907a0cfdc78bfe5b3fe189fc6e2105ecd",
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
