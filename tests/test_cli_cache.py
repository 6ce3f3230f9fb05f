"""The step cache, seen from the command line: what runs again, and what does not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support import Layerbuild

pytestmark = pytest.mark.memory

RECIPE = """\
FROM busybox
COPY first /first
RUN echo ran-one && cp /first /one
COPY second /second
RUN echo ran-two && cp /second /two
LABEL last=1
"""


def make_context(context: Path) -> None:
    (context / "first").write_text("1")
    (context / "second").write_text("2")
    (context / "Dockerfile").write_text(RECIPE)


def test_a_second_build_runs_nothing(layerbuild: Layerbuild, context: Path) -> None:
    make_context(context)
    first = layerbuild.run("build", "-t", "one", context)
    assert "ran-one" in first.stderr and "ran-two" in first.stderr
    second = layerbuild.run("build", "-t", "two", context)
    assert "ran-" not in second.stderr.replace("echo ran-", "")
    assert second.stderr.count("cached") == 4
    assert second.stdout == first.stdout


def test_a_changed_file_runs_from_its_copy_on(layerbuild: Layerbuild, context: Path) -> None:
    make_context(context)
    layerbuild.build(context)
    (context / "second").write_text("changed")
    said = layerbuild.build(context)
    assert said.count("cached") == 2
    assert "| ran-two" in said and "| ran-one" not in said


def test_touching_a_file_changes_nothing(layerbuild: Layerbuild, context: Path) -> None:
    make_context(context)
    first = layerbuild("build", context)
    os.utime(context / "first", (1, 1))
    os.utime(context / "second")
    assert layerbuild.build(context).count("cached") == 4
    assert layerbuild("build", context) == first


def test_a_changed_mode_counts(layerbuild: Layerbuild, context: Path) -> None:
    make_context(context)
    layerbuild.build(context)
    (context / "second").chmod(0o755)
    assert layerbuild.build(context).count("cached") == 2


def test_metadata_does_not_invalidate(layerbuild: Layerbuild, context: Path) -> None:
    make_context(context)
    layerbuild.build(context)
    text = RECIPE.replace("FROM busybox\n", 'FROM busybox\nLABEL early=1\nEXPOSE 80\nCMD ["sh"]\n')
    assert layerbuild.build(context, text).count("cached") == 4


def test_an_environment_variable_does(layerbuild: Layerbuild, context: Path) -> None:
    make_context(context)
    layerbuild.build(context)
    said = layerbuild.build(context, RECIPE.replace("FROM busybox\n", "FROM busybox\nENV A=1\n"))
    # Both RUNs run again; they make the same bytes, so the COPY between them is found by content.
    assert "| ran-one" in said and "| ran-two" in said
    assert said.count("cached") == 2


def test_a_parent_that_ran_again_and_made_the_same_bytes_hits_by_content(layerbuild: Layerbuild, context: Path) -> None:
    layerbuild.build(context, "FROM busybox\nRUN echo same > /file\nRUN echo ran && cp /file /copy\n")
    said = layerbuild.build(context, "FROM busybox\nRUN echo 'same' > /file\nRUN echo ran && cp /file /copy\n")
    assert "| ran" not in said
    assert "the layers below came out the same" in said


def test_no_cache_runs_all_and_makes_the_same(layerbuild: Layerbuild, context: Path) -> None:
    make_context(context)
    first = layerbuild("build", context)
    again = layerbuild.run("build", "--no-cache", context)
    assert "cached" not in again.stderr
    assert again.stdout == first


def test_no_cache_for_some_stages(layerbuild: Layerbuild, context: Path) -> None:
    recipe = """\
FROM busybox AS One
RUN echo same > /one; echo ran-one
FROM busybox AS two
RUN echo ran-two
FROM one
COPY --from=two /etc/passwd /p
RUN echo ran-three
"""
    first = layerbuild.build(context, recipe)
    assert first.count("| ran-") == 3
    for names, ran in ((("one",), "one"), (("TWO,nosuch",), "two"), (("one", "two"), "one two"), (("0",), "")):
        words = [word for name in names for word in ("--no-cache-filter", name)]
        said = layerbuild.build(context, None, *words)
        assert [name for name in ("one", "two", "three") if f"| ran-{name}" in said] == ran.split()
        assert ("note: --no-cache-filter 0: no stage has this name\n" in said) == ("0" in names)
        assert ("note: --no-cache-filter nosuch: " in said) == ("TWO,nosuch" in names)
    plan = layerbuild.json("plan", context, "--no-cache-filter", "two")
    assert plan["notes"] == []
    assert [step["cache"] for step in plan["steps"]][:2] == ["hit", "miss"]
    assert "leave one of them out" in layerbuild.build(context, None, "--no-cache", "--no-cache-filter", "a", code=2)


def test_records_keep_their_inputs_by_name(rooted: Layerbuild, context: Path) -> None:
    from layerbuild.store.store import Store

    make_context(context)
    rooted.build(context)
    with Store.open(rooted.root) as store:
        by_instruction = {record.instruction: record for record in store.cache.all()}
    copy = by_instruction["COPY first /first"].inputs
    assert copy["kind"] == "copy" and copy["destination"] == "/first" and copy["files first"].startswith("sha256:")
    run = by_instruction["RUN echo ran-one && cp /first /one"].inputs
    assert run["env SOURCE_DATE_EPOCH"] == "315532800" and run["user"] == "" and "parent" in run


def test_the_plan_tells_hits_and_runs_nothing(layerbuild: Layerbuild, context: Path) -> None:
    make_context(context)
    before = layerbuild.json("plan", context)
    assert [step["cache"] for step in before["steps"]] == ["miss", "miss", "miss", "miss", ""]
    assert layerbuild.json("images") == layerbuild.json("images")
    layerbuild.build(context)
    after = layerbuild.json("plan", context)
    assert [step["cache"] for step in after["steps"]] == ["hit", "hit", "hit", "hit", ""]
    assert [step["makes"] for step in after["steps"]] == ["layer", "layer", "layer", "layer", "metadata"]
    (context / "second").write_text("3")
    changed = layerbuild.json("plan", context)
    assert [step["cache"] for step in changed["steps"]] == ["hit", "hit", "miss", "miss", ""]
