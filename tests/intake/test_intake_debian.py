"""mmdebstrap: how it is called, from where it takes packages, what is said when it fails, and one real run."""

from __future__ import annotations

import hashlib
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from layerbuild.errors import MachineError
from layerbuild.intake.debian import DebianBase, machine_mirrors, make_debian_tar, mmdebstrap_arguments

EPOCH = 315532800


def apt(folder: Path, **files: str) -> Path:
    (folder / "sources.list.d").mkdir(parents=True)
    for name, text in files.items():
        place = folder / "sources.list" if name == "list" else folder / "sources.list.d" / name.replace("__", ".")
        place.write_text(text)
    return folder


def fake_mmdebstrap(folder: Path, script: str) -> dict[str, str]:
    path = folder / "mmdebstrap"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return {"PATH": f"{folder}:{os.environ['PATH']}"}


ONE_LINE = """\
# old
deb http://a/debian bookworm main contrib
deb [ arch=amd64 signed-by=/keys/debian-archive-keyring.gpg ] http://s/debian-security bookworm-security main
deb-src http://a/debian bookworm main
"""
DEB822 = """\
Types: deb deb-src
URIs: http://b/debian
  http://c/debian
Suites: bookworm bookworm-updates
# a comment in between
Components: main

Enabled: no
Types: deb
URIs: http://off
Suites: bookworm
Components: main
"""


def test_mirrors_of_both_spellings(tmp_path: Path) -> None:
    found = machine_mirrors("bookworm", apt=apt(tmp_path, list=ONE_LINE, d__sources=DEB822))
    assert found == (
        "deb http://a/debian bookworm main",
        "deb http://s/debian-security bookworm-security main",
        "deb http://b/debian bookworm main",
        "deb http://b/debian bookworm-updates main",
        "deb http://c/debian bookworm main",
        "deb http://c/debian bookworm-updates main",
    )


@pytest.mark.parametrize(
    "line",
    [
        "deb http://vendor/linux/debian bookworm stable",
        "deb [signed-by=/keys/vendor.gpg] http://vendor/debian bookworm main",
        "deb http://a/debian trixie main",
        "deb http://s/debian-security bookworm-security main",
    ],
    ids=["other component", "other key", "other suite", "security alone"],
)
def test_what_is_not_the_distributions_archive_is_left_out(tmp_path: Path, line: str) -> None:
    assert machine_mirrors("bookworm", apt=apt(tmp_path, list=line)) == ()


def test_a_machine_without_apt_has_no_mirrors(tmp_path: Path) -> None:
    assert machine_mirrors("bookworm", apt=tmp_path / "nothing") == ()


def test_the_call(tmp_path: Path) -> None:
    base = DebianBase("trixie", ("make", "python3"), ("http://mirror/debian",))
    arguments = mmdebstrap_arguments(base, tmp_path / "out.tar")
    assert arguments[-4:] == ["--", "trixie", str(tmp_path / "out.tar"), "http://mirror/debian"]
    assert "--include=make,python3" in arguments
    assert base.command == "layerbuild base debian --suite trixie --include make,python3"


def test_it_runs_with_the_epoch_and_its_lines_are_passed_on(tmp_path: Path) -> None:
    environment = fake_mmdebstrap(tmp_path, 'echo "epoch $SOURCE_DATE_EPOCH" >&2; : > "$7"; echo done >&2')
    lines: list[str] = []
    make_debian_tar(DebianBase(), tmp_path / "o.tar", epoch=7, environment=environment, progress=lines.append)
    assert lines == ["epoch 7", "done"]
    assert (tmp_path / "o.tar").exists()


def test_a_missing_program_tells_how_to_install_it(tmp_path: Path) -> None:
    with pytest.raises(MachineError, match=r"mmdebstrap.*not installed") as raised:
        make_debian_tar(DebianBase(), tmp_path / "o.tar", epoch=EPOCH, environment={"PATH": str(tmp_path)})
    assert "apt-get install mmdebstrap" in raised.value.hint


@pytest.mark.parametrize(
    ("said", "hint"),
    [
        ("E: unable to pick chroot mode automatically", "subordinate ids"),
        ("E: Unable to locate package maek", "--include"),
        ("Temporary failure resolving 'deb.debian.org'", "--mirror"),
        ("E: something else", ""),
    ],
)
def test_a_failure_shows_its_last_lines_and_a_remedy(tmp_path: Path, said: str, hint: str) -> None:
    environment = fake_mmdebstrap(tmp_path, f'seq 100 >&2; echo "{said}" >&2; : > "$7"; exit 25')
    with pytest.raises(MachineError, match="exit code 25") as raised:
        make_debian_tar(DebianBase(), tmp_path / "o.tar", epoch=EPOCH, environment=environment)
    assert raised.value.message.endswith(said)
    assert "\n90\n" in raised.value.message
    assert "\n80\n" not in raised.value.message
    assert hint in raised.value.hint
    assert not (tmp_path / "o.tar").exists()


@pytest.mark.slow
def test_two_real_runs_give_the_same_bytes(tmp_path: Path, program: Callable[[str], str]) -> None:
    program("mmdebstrap")
    base = DebianBase(include=("make",), mirrors=machine_mirrors("bookworm"))
    digests = set()
    for name in ("one.tar", "two.tar"):
        try:
            make_debian_tar(base, tmp_path / name, epoch=EPOCH, environment=dict(os.environ))
        except MachineError as error:
            if "--mirror" in error.hint or "subordinate ids" in error.hint:
                pytest.skip(error.hint)
            raise
        digests.add(hashlib.sha256((tmp_path / name).read_bytes()).hexdigest())
    assert len(digests) == 1
    with tarfile.open(tmp_path / "one.tar") as tar:
        members = {member.name.removeprefix("./"): member for member in tar}
    assert "usr/bin/make" in members
    assert not {"etc/hostname", "etc/resolv.conf", "etc/machine-id", "dev/null"} & set(members)
    assert max(member.mtime for member in members.values()) == EPOCH
