"""``explain``, ``plan --change``, ``--fail-on-miss`` and ``logs``: each kind of change is made, and its reason read."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import Layerbuild

pytestmark = pytest.mark.memory

RECIPE = """\
FROM busybox AS tools
RUN printf tool > /tool

FROM busybox
ARG VERSION=1
ENV NAME=a
COPY src /src
COPY --from=tools /tool /bin/tool
RUN echo $VERSION $NAME > /said && echo told
RUN --mount=type=bind,source=notes,target=/notes cat /notes/* > /all
RUN --mount=type=cache,target=/c echo end > /end
"""


def fill(context: Path) -> None:
    for name, text in {"src/app.py": "print(1)\n", "src/run.sh": "true\n", "notes/one": "1\n"}.items():
        (context / name).parent.mkdir(exist_ok=True)
        (context / name).write_text(text)
        (context / name).chmod(0o644)
    (context / "Dockerfile").write_text(RECIPE)


def misses(layerbuild: Layerbuild, *arguments: str | Path) -> dict[str, list[str]]:
    """Each step that missed, by its first words, with its reasons."""
    told: dict[str, list[str]] = {}
    for step in layerbuild.json("explain", *arguments)["steps"]:
        if step["verdict"] == "miss":
            reasons = [step["because"] if found["change"] == "below" else shown(found) for found in step["differences"]]
            told[" ".join(step["instruction"].split()[:2])] = reasons or [step["reason"]]
    return told


def shown(found: dict[str, Any]) -> str:
    values = "" if found["change"] == "content" else f" {found['before'][:12]} {found['after'][:12]}"
    return f"{found['subject']} {found['change']}{values}".rstrip()


def edit(name: str, old: str, new: str) -> Callable[[Path], None]:
    return lambda context: (context / name).write_text((context / name).read_text().replace(old, new)) and None


AFTER_COPY = "the layers below changed, because step 3 (COPY src /src) ran again"
COPY_TOOL = "COPY --from=tools"
CHANGES: dict[str, tuple[Callable[[Path], object], tuple[str, ...], dict[str, list[str]]]] = {
    "content": (edit("src/app.py", "1", "2"), (), {"COPY src": ["src/app.py content"], COPY_TOOL: [AFTER_COPY]}),
    "mode": (
        lambda context: (context / "src/run.sh").chmod(0o755),
        (),
        {"COPY src": ["src/run.sh mode 0644 0755"], COPY_TOOL: [AFTER_COPY]},
    ),
    "file added": (
        lambda context: (context / "src/new").write_text(""),
        (),
        {"COPY src": ["src/new added"], COPY_TOOL: [AFTER_COPY]},
    ),
    "file removed": (
        lambda context: (context / "src/new").unlink(),
        (),
        {},  # it is as it was two builds ago
    ),
    "argument": (
        lambda context: None,
        ("--build-arg", "VERSION=2"),
        {
            "RUN echo": ["ARG VERSION value 1 2"],
            "RUN --mount=type=bind,source=notes,target=/notes": ["ARG VERSION value 1 2"],
        },
    ),
    "variable": (edit("Dockerfile", "NAME=a", "NAME=b"), (), {"RUN echo": ["ENV NAME value a b"]}),
    "command": (edit("Dockerfile", "echo told", "echo TOLD"), (), {}),
    "mounted file": (
        edit("notes/one", "1", "2"),
        (),
        {"RUN --mount=type=bind,source=notes,target=/notes": ["/notes/one content"]},
    ),
    "stage": (
        edit("Dockerfile", "printf tool >", "printf TOOL >"),
        (),
        {
            COPY_TOOL: ["/tool content"],
            "RUN echo": ["the layers below changed, because step 4 (COPY --from=tools /tool /bin/tool) ran again"],
        },
    ),
    "destination": (
        edit("Dockerfile", "COPY src /src", "COPY src /source"),
        (),
        {"COPY src": ["destination value /src /source"]},
    ),
    "times": (
        lambda context: None,
        ("--timestamp", "5"),
        {"COPY src": ["times in layers value clamped to 3 clamped to 5"]},
    ),
    "no cache": (lambda context: None, ("--no-cache", "--timestamp", "5"), {"COPY src": ["--no-cache"]}),
}


def test_each_kind_of_change_has_its_reason(rooted: Layerbuild, context: Path) -> None:
    fill(context)
    rooted.build(context)
    assert misses(rooted)["COPY src"] == ["it has not run here before"]
    rooted.build(context)
    assert misses(rooted) == {}
    for name, (change, arguments, wanted) in CHANGES.items():
        change(context)
        planned = misses(rooted, "--plan", context, *arguments)
        rooted.build(context, None, *arguments)
        told = misses(rooted)
        for step, reasons in wanted.items():
            assert told[step][: len(reasons)] == reasons or set(reasons) <= set(told[step]), (name, told)
        if not wanted and name != "command":
            assert told == {}, name
        first = next(iter(told), None)
        if first is not None:  # a plan knows as much of the first step that misses
            assert planned[first] == told[first], name
    between = rooted.json("explain", "--between", "8", "9")["steps"]
    commands = [found for step in between for found in step["differences"] if found["subject"] == "command"]
    assert len(commands) == 1 and "told" in commands[0]["before"] and "TOLD" in commands[0]["after"]


EDITS = {
    "id=tok": ("id=key", ["mount /t id tok → key"]),
    "id=cc": ("id=cd", ["mount /c id cc → cd"]),
    "mode=400": ("mode=440", ["mount /t mode 0o400 → 0o440"]),
    "hello": ("hullo", ["<<EOF content changed"]),
    "<<EOF /h": ("<<EOF src /h/", ["destination /h → /h/; sources <<EOF → src <<EOF; files src added"]),
    "echo hi": ("echo ho", ['command ["/bin/sh","-c","echo hi > /hi\\n"] → ["/bin/sh","-c","echo ho > /hi\\n"]']),
    "--network=none": ("", ["network none → default"]),
    "--chmod=600": ("--chmod=644", ["mode 600 → 644"]),
    "WORKDIR /w": ("WORKDIR /v", ["working directory /w → /v"]),
    "USER 7": ("USER 8", ["user 7 → 8"]),
}


def test_the_parts_of_mounts_sources_and_surroundings(rooted: Layerbuild, context: Path) -> None:
    """Each edit changes one step; what lies below stays as it was, so that its own reason is all that is told."""
    (context / "src").write_text("x\n")
    recipe = (
        "FROM busybox AS a\nRUN --mount=type=secret,id=tok,target=/t,mode=400 true\n"
        "FROM busybox AS b\nRUN --mount=type=cache,id=cc,target=/c true\n"
        "FROM busybox AS c\nCOPY <<EOF /h\nhello\nEOF\n"
        "FROM busybox AS d\nRUN <<EOF\necho hi > /hi\nEOF\n"
        "FROM busybox AS e\nRUN --network=none true\n"
        "FROM busybox AS f\nCOPY --chmod=600 src /src\n"
        "FROM busybox AS g\nWORKDIR /w\nRUN true\n"
        "FROM busybox AS h\nUSER 7\nRUN true\n"
        "FROM busybox\n" + "".join(f"COPY --from={stage} /bin/busybox /{stage}\n" for stage in "abcdefgh")
    )
    rooted.build(context, recipe)
    for old, (new, reasons) in EDITS.items():
        assert recipe.count(old) == 1
        (context / "Dockerfile").write_text(recipe.replace(old, new))
        steps = rooted.json("explain", "--plan", context)["steps"]
        told = {step["reason"] for step in steps if step["verdict"] == "miss"}
        assert set(reasons) <= told, (old, told)


def test_an_argument_that_is_gone_is_told_as_one(rooted: Layerbuild, context: Path) -> None:
    rooted.build(context, "FROM busybox\nARG A=1\nENV B=2\nRUN true\n")
    rooted.build(context, "FROM busybox\nRUN true\n")
    assert "ARG A removed\n        ENV B removed\n" in rooted("explain")


def test_a_step_that_failed_has_run_and_not_to_its_end(rooted: Layerbuild, context: Path) -> None:
    recipe = "FROM busybox\nRUN exit 3\n"
    rooted.build(context, recipe, code=1)
    assert misses(rooted) == {"RUN exit": ["it has not run here before"]}
    rooted.build(context, None, code=1)
    assert misses(rooted) == {"RUN exit": ["it has not run to its end here before"]}


def test_a_step_alone_and_all_as_text(rooted: Layerbuild, context: Path) -> None:
    fill(context)
    rooted.build(context, None, "-t", "one")
    edit("src/app.py", "1", "2")(context)
    rooted.build(context, None, "-t", "two")
    text = rooted("explain")
    assert "hit " in text and "miss" in text
    assert "        src/app.py content changed" in text and "        every input is as it was" in text
    alone = rooted("explain", "3")
    assert "COPY src /src" in alone and "RUN" not in alone.split("\n", 1)[1]
    assert "printf tool" in rooted("explain", "tools:1")
    assert "src/app.py content changed" in rooted("explain", "--between", "one", "two")
    assert "the same inputs everywhere" in rooted("explain", "--between", "1", "1")
    assert rooted.json("explain", "--build", "1")["build"] == 1
    for wrong in (("9",), ("--build", "99"), ("--between", "1", "busybox")):
        assert rooted.run("explain", *wrong, code=2 if "busybox" in wrong else 1).stderr


def test_a_pruned_layer_and_a_base_that_is_another(rooted: Layerbuild, context: Path) -> None:
    recipe = "FROM {}\nRUN echo 1 > /one\nRUN echo 2 > /two\n"
    rooted.build(context, recipe.format("busybox"))
    rooted("prune")  # keeps what the cache needs
    assert misses(rooted, "--plan", context) == {}
    rooted.build(context, recipe.format("base:host"))
    told = misses(rooted)
    assert told["RUN echo"] == ["the layers below changed, because step 1 (RUN echo 1 > /one) ran again"]
    first = rooted.json("explain", "1")["steps"][0]
    assert first["because"] == "the layers below changed: the base is another one (FROM base:host)"
    rooted("prune", "--all")
    assert rooted.run("explain", code=1).stderr.startswith("layerbuild: the store has no record of any build")


def test_a_step_that_never_ran_is_compared_with_no_other(rooted: Layerbuild, context: Path) -> None:
    """Neither with another COPY on the same base, nor with the one that stood in its line and has moved."""
    for name in "abc":
        (context / name).write_text(name)
    rooted.build(context, "FROM busybox AS one\nCOPY a /a\nFROM busybox\nCOPY --from=one /a /all\n")
    assert misses(rooted)["COPY --from=one"] == ["it has not run here before"]
    (context / "Dockerfile").write_text("FROM busybox AS one\nCOPY b /b\nCOPY a /a\nFROM one\nCOPY c /c\n")
    assert misses(rooted, "--plan", context)["COPY b"] == ["it has not run here before"]


def test_steps_taken_out_or_moved_are_not_blamed_on_the_base(rooted: Layerbuild, context: Path) -> None:
    one, two = "RUN echo 1 > /one", "RUN echo 2 > /two"
    moved = "the layers below changed: a step before it was taken out, put in or moved, or hit what an older build made"
    rooted.build(context, f"FROM busybox\n{one}\n{two}\n")
    (context / "Dockerfile").write_text(f"FROM busybox\n{two}\n")
    assert misses(rooted, "--plan", context) == {"RUN echo": [moved]}
    rooted.build(context)
    assert moved in rooted("explain")
    (context / "Dockerfile").write_text(f"FROM base:host\n{two}\n")
    assert misses(rooted, "--plan", context)["RUN echo"][0].endswith("the base is another one (FROM base:host)")


def test_a_file_that_is_again_what_it_was_in_an_older_build(rooted: Layerbuild, context: Path) -> None:
    recipe = "FROM busybox\nARG V\nCOPY a /a\nRUN echo $V > /b\n"
    for number, content in enumerate("121"):
        (context / "a").write_text(content)
        rooted.build(context, recipe, "--build-arg", f"V={number}")
    assert misses(rooted)["RUN echo"] == [
        "ARG V value 1 2",
        "the layers below changed: a step before it was taken out, put in or moved, or hit what an older build made",
    ]


def test_stages_have_their_names_between_builds_and_alone(rooted: Layerbuild, context: Path) -> None:
    (context / "a").write_text("1")
    recipe = "ARG BASE=busybox\nFROM $BASE AS one\nCOPY a /a\nRUN echo > /b\nFROM busybox\nCOPY --from=one /a /c\n"
    assert "stage one: FROM $BASE AS one → busybox (" in rooted.build(context, recipe)
    (context / "a").write_text("2")
    rooted.build(context)
    told = rooted("explain", "--between", "1", "2")
    assert "step one:1  COPY a /a\n        a content changed" in told
    assert "step one:2" in told and "because step 1 (COPY a /a) made another layer" in told
    assert "\nstep 1:1  COPY --from=one" in told
    assert "\none:1  miss" in rooted("explain", "one:1")
    assert rooted("plan", context).startswith("stage one: FROM $BASE AS one → busybox\n")


def test_one_spelling_of_a_step(rooted: Layerbuild, context: Path) -> None:
    for recipe, names in (
        ("FROM busybox\nRUN echo 1\n", ["1"]),
        (
            "FROM busybox AS one\nRUN echo 1 > /a\nFROM busybox\nCOPY --from=one /a /\nRUN echo 2\n",
            ["one:1", "1:1", "1:2"],
        ),
    ):
        rooted.build(context, recipe)
        for command in ("explain", "logs", "shell"):
            words = (command, "--step", "9") if command == "shell" else (command, "9")
            assert f"hint: its steps are {', '.join(names)}\n" in rooted.run(*words, code=1).stderr
        explained = rooted("explain").splitlines()
        assert all([line for line in explained if line.split()[0] == name] for name in names)
        assert f"== {names[-1]}  RUN" in rooted("logs")


def test_a_base_for_another_platform(rooted: Layerbuild, context: Path) -> None:
    """Its layers may be the same; then nothing ran again, and the one who reads is told for which platform it was."""
    (context / "f").write_text("f")
    rooted.build(context, "FROM scratch\nCOPY f /\n", "--platform", "linux/amd64,linux/arm64", "-t", "base:both")
    rooted.build(context, "FROM base:both\nCOPY f /g\n", "--platform", "linux/arm64")
    assert "/Dockerfile for linux/arm64, 2" in rooted("explain")
    rooted.build(context, None, "--platform", "linux/amd64")
    assert "the layers below are the same, though they were made in another way" in rooted("explain", "1")
    assert rooted.json("explain")["platform"] == "linux/amd64"
    said = rooted.build(context, "FROM busybox\nCOPY f /g\n", "--platform", "linux/arm64", code=69)
    assert "is not in the store for linux/arm64, and can't be pulled" in said


def test_a_parent_that_ran_again_and_gave_the_same(rooted: Layerbuild, context: Path) -> None:
    rooted.build(context, "FROM busybox\nRUN echo 1 > /one\nRUN echo 2 > /two\n")
    rooted.build(context, "FROM busybox\nRUN echo 1  > /one\nRUN echo 2 > /two\n")
    assert "an earlier step ran again and gave the same" in rooted("explain", "2")


def test_a_miss_may_end_the_build(layerbuild: Layerbuild, context: Path) -> None:
    fill(context)
    layerbuild.build(context)
    layerbuild.build(context, None, "--fail-on-miss")
    edit("src/app.py", "1", "2")(context)
    said = layerbuild.build(context, None, "--fail-on-miss", code=1)
    assert "COPY would have to run: src/app.py content changed" in said
    assert layerbuild.json("explain")["outcome"] == "failed"
    assert misses(layerbuild, "--plan", context)["COPY src"] == ["src/app.py content"]


def test_what_a_build_will_take(rooted: Layerbuild, context: Path) -> None:
    fill(context)
    assert rooted.json("plan", context)["predicted"]["unknown"] == 6
    rooted.build(context)
    assert rooted.json("plan", context)["predicted"] == {
        "steps": 0,
        "seconds": 0,
        "size": 0,
        "tar_size": 0,
        "unknown": 0,
    }
    made = {step["number"]: step for step in rooted.json("explain")["steps"] if step["stage"] == "1"}
    plan = rooted.json("plan", "--change", "notes/one", context)
    assert [step["number"] for step in plan["steps"] if step["cache"] == "miss"] == [6, 7]
    assert plan["predicted"]["tar_size"] == made[6]["tar_size"] + made[7]["tar_size"]
    assert plan["predicted"]["size"] == made[6]["size"] + made[7]["size"]
    took = sum(made[number]["ended"] - made[number]["began"] for number in (6, 7))
    assert plan["predicted"]["seconds"] == pytest.approx(took, abs=0.05)
    assert "an edit of notes/one: 2 steps run: about" in rooted("plan", "--change", "notes/one", context)
    edit("notes/one", "1", "2")(context)
    assert "2 of them without the edit, too" in rooted("plan", "--change", "notes/one", context)
    assert rooted.json("plan", "--change", "src/app.py", context)["runs_anyway"] == 2
    (context / ".dockerignore").write_text("notes/two\n")
    (context / "notes/two").write_text("")
    for name in ("notes/two", "nothing", "notes"):
        assert name in rooted.run("plan", "--change", name, context, code=2).stderr


def test_logs_are_kept_and_masked(layerbuild: Layerbuild, context: Path) -> None:
    context.joinpath("secret").write_text("sesame\n")
    context.joinpath("secret").chmod(0o644)
    recipe = "FROM busybox\nRUN echo one\nRUN --mount=type=secret,id=s cat /run/secrets/s && echo two && exit 3\n"
    layerbuild.build(context, recipe, "--secret", f"id=s,src={context / 'secret'}", code=1)
    assert layerbuild("logs", "1") == "one\n"
    assert layerbuild("logs", "2") == "***\ntwo\n"
    assert "RUN echo one\none" in layerbuild("logs")
    told = layerbuild.json("logs", "2")["steps"][0]
    assert told["output"] == "***\ntwo\n" and told["dropped_bytes"] == 0
    files = list(layerbuild.root.glob("layerbuild.db*"))
    assert len(files) > 1 and not [file for file in files if b"sesame" in file.read_bytes()]


def test_a_build_that_said_nothing_is_no_empty_answer(rooted: Layerbuild, context: Path) -> None:
    rooted.build(context, "FROM busybox\nRUN echo one\nRUN true\n")
    assert rooted.run("logs", "2").stderr == "the step said nothing in build 1\n"
    rooted.build(context)
    cases = ((("1",), "the step said nothing in build 2: it came"), ((), "in build 2: 2 came from the cache"))
    for arguments, said in cases:
        done = rooted.run("logs", *arguments)
        assert done.stdout == "" and said in done.stderr


def test_of_a_long_output_both_ends_are_kept(rooted: Layerbuild, context: Path) -> None:
    rooted.build(context, "FROM busybox\nRUN seq 1300000\n", "-q")
    told = rooted.json("logs", "1")["steps"][0]
    assert told["output"].startswith("1\n2\n") and told["output"].endswith("\n1300000\n")
    assert len(told["output"]) + told["dropped_bytes"] == sum(len(f"{number}\n") for number in range(1, 1300001))
    assert "left out …" in rooted("logs", "1")


def test_another_user_s_or_machine_s_zone_changes_nothing(rooted: Layerbuild, context: Path) -> None:
    rooted.build(context, "FROM busybox\nRUN true\n")
    assert rooted("explain", env={"TZ": "Asia/Tokyo"}) == rooted("explain", env={"TZ": os.environ.get("TZ", "UTC")})


def test_credentials_in_the_address_of_a_command_are_not_shown(rooted: Layerbuild, context: Path) -> None:
    recipe = "FROM busybox\nRUN echo https://me:{}@host/ > /f\n"
    (context / "Dockerfile").write_text(recipe.format("hunter1"))
    said = [rooted("plan", context), rooted.build(context)]
    (context / "Dockerfile").write_text(recipe.format("hunter2"))
    said += [rooted("explain", "--plan", context), rooted.build(context, None, "--teach")]
    said += [rooted("explain"), rooted("explain", "--format", "json"), rooted("explain", "--between", "1", "2")]
    (context / "Dockerfile").write_text(recipe.format("hunter3") + "RUN false https://me:hunter4@host/\n")
    said += [rooted.build(context, None, "--progress", style, "--no-cache", code=1) for style in ("plain", "rawjson")]
    assert all("xxxxx:xxxxx@host" in text and "hunter" not in text for text in said)
    assert "command changed" in said[2] and "command changed" in said[6]
