"""The same recipes read by BuildKit's own parser (the package ``dockerfile``) and by ours."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layerbuild.errors import RecipeError
from layerbuild.recipe.describe import describe
from layerbuild.recipe.syntax import Statement, parse

dockerfile = pytest.importorskip("dockerfile")

SAMPLES = [
    "FROM a AS b\nRUN --mount=type=cache,target=/x make\nCOPY --from=b --chown=1:2 x y /z/\n",
    "# syntax=x\n# escape=`\nFROM a\nRUN dir `\n  c:\\x\\\nRUN b\n",
    "FROM a\nENV A=1 B='x y' C=d\\ e\nENV OLD the rest  of it\nLABEL \"a b\"=c\nARG x y=z\n",
    'FROM a\nCMD ["x", "y"]\nENTRYPOINT []\nSHELL ["/bin/bash", "-c"]\nVOLUME /a /b\nVOLUME ["/c"]\n',
    'FROM a\nHEALTHCHECK --interval=1s --retries=3 CMD ["a"]\nHEALTHCHECK none\nSTOPSIGNAL 9\nUSER a b\n',
    "FROM a\nRUN <<A cat <<-'B' 3<<C\nx\nA\n\ty\n\tB\nz\nC\nADD <<E <<F /x\n$a\nE\nF\nEXPOSE 80  90/udp\n",
    "FROM a\nRUN a \\\n\n  # c\n  && b \\\n\n# d\n\n && c\nWORKDIR /a  b\nMAINTAINER me <x@y>\n",
    "FROM a\nRUN a \\\n\n# end\n\n",
]

PARTS = st.one_of(
    st.sampled_from(
        [
            *("RUN ", "COPY ", "ADD ", "ENV a=", "CMD ", "EXPOSE ", "WORKDIR ", "HEALTHCHECK CMD ", "ARG ", "RUN"),
            *("\n", "\n", "\n", " \\\n", "\\\n", "\\ \t\n", "\\\\\n", "\\\\\\\n", "`\n", "\r\n", " ", "\t", "  "),
            *("# c", "\n# c\n", "\n\n", "#", "--f=g ", "--f='g h' ", "-- ", "<<E", "<<-E", "<<'E'", "<<", "\nE\n"),
            *("\n\tE\n", "E", "'", '"', "\\", "$x", "${x}", "=", "[", "]", '"a"', ",", "\x0b", "\u2003", "é"),
        ]
    ),
    st.text("abE \n\\#'\"<", max_size=3),
)
HEADS = st.sampled_from(["FROM a\n", "# escape=`\nFROM a\n", "\n# escape=`\nFROM a\n", "# c\n# escape=`\nFROM a\n"])


def theirs(text: str) -> list[dict[str, Any]] | None:
    try:
        commands = dockerfile.parse_string(text)
    except dockerfile.GoParseError:
        return None
    return [
        {
            "spelling": command.cmd or "",  # None for a line that holds only an escape
            "lines": (command.start_line, command.end_line),
            "text": (command.original or "") if not command.heredocs else command.original.split("\n", 1)[0],
            "flags": list(command.flags),
            "arguments": list(command.value),
            "json": command.json,
            "heredocs": [(doc.name, doc.file_descriptor, doc.content) for doc in command.heredocs],
        }
        for command in commands
    ]


def ours(text: str) -> list[dict[str, Any]] | None:
    try:
        recipe = parse(text)
        described = describe(recipe)["statements"]
    except RecipeError:
        return None
    assert isinstance(described, list)
    return [_like_theirs(statement, plain) for statement, plain in zip(recipe.statements, described, strict=True)]


def _like_theirs(statement: Statement, plain: Any) -> dict[str, Any]:
    return {
        "spelling": statement.spelling,
        "lines": (statement.span.line, statement.span.end_line),
        "text": statement.text,
        "flags": [flag.text for flag in statement.flags],
        "arguments": plain["arguments"],
        "json": plain["json"],
        "heredocs": [(doc.mark.name, doc.mark.descriptor, doc.body) for doc in statement.heredocs],
    }


def comparable(text: str, statements: list[dict[str, Any]] | None) -> list[dict[str, Any]] | None:
    """Leave out what the oracle, an older parser, does not tell or does otherwise.

    It gives an unknown keyword one empty value, and takes the start of a text for a JSON array where ours, as newer
    versions of BuildKit do, wants all of it.
    """
    if statements is None or any("[" in each["text"] for each in statements):
        return None
    known = ("RUN", "COPY", "ADD", "ENV", "CMD", "EXPOSE", "WORKDIR", "HEALTHCHECK", "ARG", "FROM")
    return [each if each["spelling"].upper() in known else {**each, "arguments": []} for each in statements]


@pytest.mark.parametrize("text", SAMPLES)
def test_samples(text: str) -> None:
    assert ours(text) is not None
    assert ours(text) == theirs(text)


@given(HEADS, st.lists(PARTS, max_size=14))
@settings(max_examples=1500, deadline=None)
def test_generated_recipes(head: str, parts: list[str]) -> None:
    text = head + "".join(parts)
    expected, found = theirs(text), ours(text)
    if (comparable(text, expected) is None) or (comparable(text, found) is None):
        assert (expected is None) == (found is None) or "[" in text
        return
    assert comparable(text, found) == comparable(text, expected)
