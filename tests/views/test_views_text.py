"""Tables as a terminal has room for them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from layerbuild.views.text import table

HEADER = ["LAYER", "INSTRUCTION", "SIZE", "DIFF ID", "FOLDER"]
ROWS = [["1", "layerbuild base host", "4.77MB", "859726bd710c", "overlay2/fc07"], ["-", "LABEL a=b", "", "", ""]]


def test_a_table_that_has_room() -> None:
    assert table(HEADER, ROWS, width=64, right=frozenset((0, 2))) == (
        "LAYER  INSTRUCTION             SIZE  DIFF ID       FOLDER\n"
        "    1  layerbuild base host  4.77MB  859726bd710c  overlay2/fc07\n"
        "    -  LABEL a=b"
    )


def test_columns_without_room_go_below() -> None:
    assert table(HEADER, ROWS, width=63, right=frozenset((0, 2))) == (
        "LAYER  INSTRUCTION             SIZE  DIFF ID\n"
        "       FOLDER\n"
        "    1  layerbuild base host  4.77MB  859726bd710c\n"
        "       overlay2/fc07\n"
        "    -  LABEL a=b"
    )
    assert table(HEADER, ROWS[:1], width=36, right=frozenset((0, 2))) == (
        "LAYER  INSTRUCTION             SIZE\n"
        "       DIFF ID       FOLDER\n"
        "    1  layerbuild base host  4.77MB\n"
        "       859726bd710c  overlay2/fc07"
    )


@given(st.lists(st.lists(st.text("ab", max_size=12), min_size=4, max_size=4), max_size=4), st.integers(21, 80))
def test_nothing_is_lost_and_no_line_is_too_wide(rows: list[list[str]], width: int) -> None:
    lines = table(["A", "B", "C", "D"], rows, width=width).splitlines()
    assert max(map(len, lines)) <= width
    assert " ".join(lines).split() == ["A", "B", "C", "D", *(cell for row in rows for cell in row if cell)]
