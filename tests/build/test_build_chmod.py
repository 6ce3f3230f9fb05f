"""--chmod in both spellings. The expectations of the letters are those of chmod(1) with an umask of 0."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from layerbuild.build.chmod import Chmod
from layerbuild.errors import BuildError, Span

SPAN = Span("Dockerfile", 3)


def applied(text: str, mode: int, *, is_folder: bool = False) -> int:
    return Chmod.parse(text, span=SPAN).apply(mode, is_folder=is_folder)


@pytest.mark.parametrize(
    ("text", "before", "after"),
    [
        ("755", 0o600, 0o755),
        ("0", 0o777, 0),
        ("00004755", 0o600, 0o4755),
        ("7777", 0o600, 0o7777),
        ("g-w", 0o664, 0o644),
        ("o+r", 0o640, 0o644),
        ("a-x", 0o755, 0o644),
        ("+x", 0o644, 0o755),
        ("=r", 0o755, 0o444),
        ("u=rwx,go=", 0o644, 0o700),
        ("u=rwX,go=rX", 0o600, 0o644),
        ("u=rwX,go=rX", 0o711, 0o755),
        ("g=u", 0o640, 0o660),
        ("o=g-w", 0o660, 0o664),
        ("o+u", 0o700, 0o707),
        ("u+s,g+s", 0o755, 0o6755),
        ("a+t", 0o777, 0o1777),
        ("u=rw", 0o4755, 0o655),
        ("g-s", 0o6755, 0o4755),
        ("u+r-w+x", 0o200, 0o500),
    ],
)
def test_files(text: str, before: int, after: int) -> None:
    assert oct(applied(text, before)) == oct(after)


def test_big_x_means_folders_and_what_somebody_may_run() -> None:
    assert applied("a+X", 0o600, is_folder=True) == 0o711
    assert applied("a+X", 0o600) == 0o600
    assert applied("a+X", 0o610) == 0o711


def test_big_x_asks_the_mode_before_the_first_change() -> None:
    assert applied("u=rw,go=r,a+X", 0o751) == 0o755
    assert applied("a=,u+X", 0o711) == 0o100
    assert applied("a+x,o=X", 0o600) == 0o710


@pytest.mark.parametrize("text", ["", "8", "10000", "-1", "u", "u+y", "u=rwx,", "z+r", "u+rg", "0x1", "u =r"])
def test_malformed(text: str) -> None:
    with pytest.raises(
        BuildError, match=r"invalid chmod parameter: .* it should be octal string and between 0 and 07777"
    ):
        Chmod.parse(text, span=SPAN)


CLAUSES = st.from_regex(r"\A[ugoa]{0,2}([-+=]([rwxXst]{0,3}|[ugo])){1,2}\Z")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(clauses=st.lists(CLAUSES, min_size=1, max_size=2), mode=st.integers(0, 0o777), is_folder=st.booleans())
def test_as_chmod_does_it(tmp_path: Path, clauses: list[str], mode: int, is_folder: bool) -> None:
    # Only the nine ordinary bits: what chmod(1) does with a folder's set-id bits differs from its rule for files.
    text = ",".join(clauses).replace("s", "").replace("t", "")
    text = text.replace("X", "")  # GNU's chmod asks the mode after the changes before it
    path = tmp_path / ("folder" if is_folder else "file")
    path.mkdir(exist_ok=True) if is_folder else path.touch()
    path.chmod(mode)
    command = ["sh", "-c", 'umask 0; exec chmod -- "$1" "$2"', "sh", text, str(path)]
    subprocess.run(command, check=True, capture_output=True)
    assert oct(applied(text, mode, is_folder=is_folder)) == oct(path.stat().st_mode & 0o7777)
