"""The same recipes read by BuildKit's own parser (the package ``dockerfile``) and by ours."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import PROJECT

from layerbuild.errors import RecipeError
from layerbuild.recipe.describe import describe
from layerbuild.recipe.instructions.table import KEYWORDS
from layerbuild.recipe.syntax import Statement, parse

dockerfile = pytest.importorskip("dockerfile")

CORPUS = Path(os.environ.get("LAYERBUILD_CORPUS") or PROJECT.parent / "shared" / "corpus")

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
            "trigger": command.sub_cmd or "",
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
    shown = plain.get("trigger", plain)  # the oracle tells the arguments of what is behind ONBUILD, but not its flags
    return {
        "spelling": statement.spelling,
        "trigger": statement.rest.text.split()[0] if "trigger" in plain else "",
        "lines": (statement.span.line, statement.span.end_line),
        "text": statement.text,
        "flags": [flag.text for flag in statement.flags],
        "arguments": shown["arguments"],
        "json": shown["json"],
        "heredocs": [(doc.mark.name, doc.mark.descriptor, doc.body) for doc in statement.heredocs],
    }


def cut_short(each: dict[str, Any]) -> bool:
    """Whether the oracle, an older parser, may see a JSON array at the start of a statement's arguments where something
    stands behind it. Ours, as newer versions of BuildKit do, wants all of them to be one (fact P22)."""
    for bracket in (place for place, char in enumerate(each["text"]) if char == "["):
        try:
            _, end = json.JSONDecoder().raw_decode(each["text"], bracket)
        except (ValueError, RecursionError):
            continue
        if each["text"][end:].strip():
            return True
    return False


def comparable(each: dict[str, Any]) -> dict[str, Any]:
    """A statement without what the oracle does not tell: it gives an unknown keyword one empty value, keeps the
    heredocs of a trigger to itself, and ends a text at a NUL."""
    keyword = (each["trigger"] or each["spelling"]).upper()
    told = keyword in KEYWORDS and not (each["trigger"] and keyword == "ONBUILD")
    arguments = [text.partition("\0")[0] for text in each["arguments"]] if told else []
    return {**each, "arguments": arguments, "heredocs": [] if each["trigger"] else each["heredocs"]}


def same(text: str) -> None:
    """Hold both parsers' views of ``text`` together."""
    expected, found = theirs(text), ours(text)
    if any(map(cut_short, expected or found or ())):
        return
    assert (found is None) == (expected is None)
    assert list(map(comparable, found or ())) == list(map(comparable, expected or ()))


@pytest.mark.parametrize("text", SAMPLES)
def test_samples(text: str) -> None:
    assert ours(text) is not None
    assert ours(text) == theirs(text)


def recipes() -> Iterator[Any]:
    """Every recipe at hand: the project's own, and those of the corpus, as files and as texts in its tables."""
    for path in sorted([*PROJECT.glob("recipes/**/*Dockerfile*"), *CORPUS.glob("**/*Dockerfile*")]):
        if path.is_file() and not path.name.endswith(".dockerignore"):
            yield pytest.param(path.read_text(), id=f"{path.parent.name}/{path.name}")
    for path in sorted(CORPUS.glob("**/*.jsonl")):
        for number, text in enumerate(map(written, path.read_text().splitlines())):
            if text:
                yield pytest.param(text, id=f"{path.parent.name}/{path.stem}#{number}")


def written(line: str) -> str:
    """The recipe that a row holds, if any."""
    row = json.loads(line)
    return next((row[name] for name in ("dockerfile", "dockerfile_contents") if isinstance(row.get(name), str)), "")


@pytest.mark.parametrize("text", list(recipes()))
def test_recipes_at_hand(text: str) -> None:
    same(text)


@given(HEADS, st.lists(PARTS, max_size=14))
@settings(max_examples=1500, deadline=None)
def test_generated_recipes(head: str, parts: list[str]) -> None:
    same(head + "".join(parts))


# Whole instructions, so that deep forms turn up more often than by chance.
BODIES = st.lists(st.sampled_from(["x", "\ty", "$v", "", "# c", "a \\", "E", "\tE", "F"]), max_size=3).map("\n".join)
MARKS = st.sampled_from(["<<E", "<<-E", "<<'E'", '<<"E"', "3<<E", "<< E", "<<-'E'"])
DOCUMENTS = st.builds(
    lambda keyword, flag, mark, tail, body: f"{keyword} {flag}{mark}{tail}\n{body}\nE\n",
    st.sampled_from(["RUN", "COPY", "ADD", "run", "ONBUILD RUN", "ONBUILD COPY", "CMD"]),
    st.sampled_from(["", "--mount=type=cache,target=/x ", "--chown='a b' "]),
    MARKS,
    st.sampled_from(["", " /x", " | sh", " \\\n  /y", " <<F /z"]),
    BODIES,
)
ORDINARY = st.builds(
    lambda keyword, words: f"{keyword} {' '.join(words)}\n",
    st.sampled_from(
        ["RUN", "ENV", "LABEL", "ARG", "COPY", "EXPOSE", "HEALTHCHECK CMD", "VOLUME", "USER", "ONBUILD RUN"]
    ),
    st.lists(
        st.sampled_from(["a", "b=c", "d='e f'", '"g h"', "\\\n", "\\\n\n", "\\\n# c\n", "--f", '["x", "y"]', "i\\ j"]),
        min_size=1,
        max_size=5,
    ),
)


@given(HEADS, st.lists(st.one_of(DOCUMENTS, ORDINARY, st.sampled_from(["\n", "# c\n"])), max_size=6))
@settings(max_examples=800, deadline=None)
def test_generated_instructions(head: str, instructions: list[str]) -> None:
    same(head + "".join(instructions))
