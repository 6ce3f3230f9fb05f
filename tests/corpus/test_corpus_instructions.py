"""BuildKit's tables of instructions: flags, heredocs, devices, comments, errors, ports, git, times, plans."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest
from corpus_rows import Row, corpus

from layerbuild.errors import LayerbuildError, RecipeError
from layerbuild.image.config import Healthcheck, ImageConfig, Pairs, Platform, RuntimeConfig
from layerbuild.recipe.git import GitRef, read_git
from layerbuild.recipe.instructions import flags
from layerbuild.recipe.instructions.base import Instruction
from layerbuild.recipe.instructions.copy import Copy
from layerbuild.recipe.instructions.devices import read_device
from layerbuild.recipe.instructions.expose import read_ports
from layerbuild.recipe.instructions.run import Run
from layerbuild.recipe.instructions.spelling import duration
from layerbuild.recipe.instructions.table import read_instruction
from layerbuild.recipe.instructions.variables import Arg
from layerbuild.recipe.planner import plan, recipe_epoch
from layerbuild.recipe.scope import Scope, with_pair
from layerbuild.recipe.stages import read_stages
from layerbuild.recipe.syntax import parse
from layerbuild.recipe.words import Word
from layerbuild.steps import ConfigStep

PLATFORM = Platform("linux", "amd64")


def only(dockerfile: str) -> Instruction:
    """The instruction of a recipe that has one."""
    statements = parse(dockerfile).statements
    assert len(statements) == 1
    return read_instruction(statements[0])


@corpus("buildkit/instructions/bflags")
def test_flags(row: Row) -> None:
    if not row["ok"]:
        with pytest.raises(RecipeError):
            given(row)
        return
    found = given(row)
    for name, expected in row.get("values", {}).items():
        assert value(found, row["defs"][name], name) == expected
    assert sorted(found.values) == sorted(row.get("used", found.values))


def given(row: Row) -> flags.Flags:
    kinds = {name: kind for name, (kind, *_) in row["defs"].items()}
    known = flags.FlagSet(
        frozenset(name for name, kind in kinds.items() if kind == "string"),
        frozenset(name for name, kind in kinds.items() if kind == "bool"),
        frozenset(name for name, kind in kinds.items() if kind not in ("string", "bool")),
    )
    words = [Word(word, 0) for word in itertools.takewhile(lambda word: word != "--", row["args"])]
    if any(not word.text.startswith("--") for word in words):
        raise RecipeError("the parser takes such a word for an argument")
    return flags.read(replace(parse("RUN x").statements[0], flags=tuple(words)), known)


def value(found: flags.Flags, definition: list[Any], name: str) -> Any:
    kind, *default = definition
    if kind not in ("string", "bool"):
        return [word.text for word in found.words(name)]
    if name not in found.values:
        return default[0]
    word = found.word(name)
    assert word is not None
    return found.switch(name) if kind == "bool" else word.text


@corpus("buildkit/instructions/copy_heredoc")
def test_heredocs_of_copy(row: Row) -> None:
    instruction = only(row["dockerfile"])
    assert isinstance(instruction, Copy)
    assert instruction.dest.text == row["dest"]
    assert [word.text for word in instruction.sources] == row["sources"]
    contents = [
        {"path": document.mark.name, "data": document.content, "expand": document.mark.expand}
        for document in instruction.documents
    ]
    assert contents == row["contents"]


@corpus("buildkit/instructions/run_heredoc")
def test_heredocs_of_run(row: Row) -> None:
    instruction = only(row["dockerfile"])
    assert isinstance(instruction, Run)
    assert instruction.arguments.json is not row["shell"]
    assert list(instruction.arguments.texts) == row["command"]
    found = [
        {"name": heredoc.mark.name, "data": heredoc.body, "chomp": heredoc.mark.chomp}
        for heredoc in instruction.statement.heredocs
    ]
    assert found == row["files"]


@corpus("buildkit/instructions/device")
def test_devices(row: Row) -> None:
    if "error" in row or "error_contains" in row:
        with pytest.raises(RecipeError):
            read_device(row["input"])
        return
    device = read_device(row["input"])
    assert (device.name, device.required) == (row["name"], row["required"])


@corpus("buildkit/instructions/doc_comments")
def test_comments_that_describe(row: Row) -> None:
    outline = read_stages(parse(row["dockerfile"]))
    assert described(outline.arguments) == row.get("meta_args", {})
    for index, stage in enumerate(outline.stages):
        start = stage.start.statement.description(stage.name)
        assert start == row.get(f"stage{index}", start)
        own = described(tuple(each for each in stage.instructions if isinstance(each, Arg)))
        assert own == row.get(f"stage{index}_args", own)


def described(arguments: tuple[Arg, ...]) -> dict[str, str]:
    return {name: each.statement.description(name) for each in arguments for name, _ in each.defaults}


@corpus("buildkit/instructions/errors")
def test_instructions_that_are_wrong(row: Row) -> None:
    with pytest.raises(RecipeError) as raised:
        recipe = parse(row["dockerfile"])
        for statement in recipe.statements:
            read_instruction(statement)
        read_stages(recipe)
    assert raised.value.span is not None
    if "error" in row:
        assert raised.value.message == row["error"]
    else:
        assert row["error_contains"] in raised.value.message


@corpus("buildkit/instructions/expose_ports")
def test_ports(row: Row) -> None:
    if "error" in row:
        with pytest.raises(RecipeError) as raised:
            [read_ports(spec) for spec in row["specs"]]
        assert row["error"] in (True, raised.value.message)
        return
    assert [port for spec in row["specs"] for port in read_ports(spec)] == row["ports"]


@corpus("buildkit/instructions/fuzz_no_crash")
def test_no_text_is_more_than_a_recipe_error(row: Row) -> None:
    try:
        plan(parse(row["dockerfile"]), bases=bases, platform=PLATFORM)
    except RecipeError as error:
        assert error.span is not None


# What the facts about a repository are called in the rows.
GIT = {
    "remote": "Remote",
    "name": "ShortName",
    "ref": "Ref",
    "subdir": "SubDir",
    "checksum": "Checksum",
    "keep_git_dir": "KeepGitDir",
    "submodules": "Submodules",
    "mtime": "MTime",
    "fetch_by_commit": "FetchByCommit",
    "like_local": "IndistinguishableFromLocal",
    "unencrypted": "UnencryptedTCP",
}


@corpus("buildkit/instructions/git_refs")
def test_git_references(row: Row) -> None:
    if "error" in row:
        with pytest.raises(RecipeError) as raised:
            read_git(row["ref"])
        assert row["error"] is True or row["error"] in raised.value.message
        return
    found = read_git(row["ref"])
    assert (None if found is None else facts(found)) == row["expected"]


def facts(found: GitRef) -> dict[str, Any]:
    """What is said about a repository, without what is not."""
    unset = GitRef("", "")
    return {GIT[name]: getattr(found, name) for name in GIT if getattr(found, name) != getattr(unset, name)}


@corpus("buildkit/instructions/healthcheck_interval")
def test_intervals(row: Row) -> None:
    recipe = f"HEALTHCHECK --interval={row['value']} CMD x"
    if row.get("ok"):
        only(recipe)
        return
    with pytest.raises(RecipeError) as raised:
        only(recipe)
    assert row["error_contains"] in raised.value.message


def bases(_name: str, platform: Platform) -> ImageConfig:
    return ImageConfig(platform, RuntimeConfig())


@corpus("buildkit/instructions/convert_misc")
def test_plans(row: Row) -> None:
    if "dockerfile" in row:
        planned(row)
    elif "env" in row:
        pairs: Pairs = tuple(entry.partition("=")[::2] for entry in row["env"])
        changed = with_pair(pairs, *row["add_env"])
        assert [f"{name}={text}" for name, text in changed] == row["result"]
    elif "healthcheck" in row:
        assert spelled(row["healthcheck"]) == row["history_created_by"]
    else:
        epoch(row)


def planned(row: Row) -> None:
    arguments: dict[str, Any] = {"bases": bases, "platform": PLATFORM, "target": row.get("target")}
    if row.get("ok"):
        plan(parse(row["dockerfile"]), **arguments)
        return
    with pytest.raises(LayerbuildError) as raised:
        plan(parse(row["dockerfile"]), **arguments)
    assert row.get("error", raised.value.message) == raised.value.message
    assert row.get("error_contains", "") in raised.value.message


def spelled(check: Row) -> str | None:
    """The history line of a HEALTHCHECK with these values."""
    names = ("Interval", "Timeout", "StartPeriod", "StartInterval")
    times = [duration(check.get(name, "0s")) for name in names]
    instruction = only("HEALTHCHECK CMD x")
    wanted = Healthcheck(tuple(check["Test"]), *times, retries=check.get("Retries", 0))
    step = replace(instruction, check=wanted).lower(Scope(RuntimeConfig())).step  # type: ignore[call-arg]
    assert isinstance(step, ConfigStep)
    return step.created_by


def epoch(row: Row) -> None:
    arguments: dict[str, Any] = {"platform": PLATFORM, "build_args": {"SOURCE_DATE_EPOCH": row["source_date_epoch"]}}
    if "unix" in row:
        assert recipe_epoch(parse("FROM scratch"), **arguments) == row["unix"]
        return
    with pytest.raises(LayerbuildError) as raised:
        recipe_epoch(parse("FROM scratch"), **arguments)
    assert row["error_contains"] in raised.value.message
