"""Caches that travel: what one machine built, another one need not; and what is damaged is a miss."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from registries import Registry
from support import Layerbuild
from upload_server import UploadServer

from layerbuild.digest import BlobDigest

pytestmark = pytest.mark.memory

if TYPE_CHECKING:
    from stores import Templates

ONE_STAGE = """\
FROM busybox
COPY first /first
RUN cp /first /one
RUN cat /one
COPY second /second
LABEL last=1
"""
STAGES = """\
FROM busybox AS compile
COPY first /src/
RUN mkdir /out && cp /src/first /out/program
FROM busybox AS tests
COPY --from=compile /out/program /program
RUN --mount=from=compile,source=/out,target=/mnt cat /mnt/program > /log
FROM busybox
WORKDIR /app
COPY --from=compile /out/program ./
COPY --from=tests /log ./
RUN cat program log > all
"""


Machines = Callable[..., Layerbuild]


@pytest.fixture
def machines(templates: Templates, context: Path) -> Iterator[Machines]:
    """Makes machines with a store of their own, which has nothing but the bases; of root, or of a user."""
    folder = templates.folder / f"machines-{context.name}"
    folder.mkdir()
    yield lambda who="root": templates.copy(who, folder / str(len(list(folder.iterdir()))))
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def one(context: Path) -> Path:
    return fill(context, ONE_STAGE)


@pytest.fixture
def staged(context: Path) -> Path:
    return fill(context, STAGES)


@pytest.fixture(scope="module")
def wholesome(templates: Templates, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """The image of ONE_STAGE, and its cache."""
    folder = templates.folder / "wholesome"
    machine = templates.copy("root", folder)
    context, cache = tmp_path_factory.mktemp("context"), tmp_path_factory.mktemp("cache") / "cache"
    image, _ = build(machine, fill(context, ONE_STAGE), "--cache-to", f"type=local,dest={cache}")
    yield image, cache
    shutil.rmtree(folder, ignore_errors=True)


def fill(context: Path, recipe: str) -> Path:
    (context / "first").write_text("1\n")
    (context / "second").write_text("2\n")
    (context / "Dockerfile").write_text(recipe)
    return context


def build(machine: Layerbuild, context: Path, *arguments: str) -> tuple[str, list[dict[str, Any]]]:
    """The image ID, and what the build told."""
    done = machine.run("build", "--progress", "rawjson", *arguments, context)
    return done.stdout.strip(), [json.loads(line) for line in done.stderr.splitlines()]


def with_program(machine: Layerbuild, program: str, *arguments: str | Path) -> tuple[str, list[dict[str, Any]]]:
    """What ``build`` gives, of one that runs ``program`` before it begins."""
    command = machine.command("build", "--progress", "rawjson", *arguments)
    start = command.index("-m")
    program += "\nfrom layerbuild.cli.main import run\nrun()\n"
    command[start : start + 2] = ["-c", program]
    done = subprocess.run(command, env=machine.environment(), capture_output=True, text=True, check=True)
    return done.stdout.strip(), [json.loads(line) for line in done.stderr.splitlines()]


def ran(told: list[dict[str, Any]]) -> list[str]:
    """The steps that ran, but for those of metadata."""
    return [event["step"] for event in told if event["event"] == "StepStarted"]


def notes(told: list[dict[str, Any]]) -> str:
    texts = [event["text"] for event in told if event["event"] == "Note"]
    return "\n".join(text for text in texts if not text.startswith("owners of files are noted"))


@pytest.mark.parametrize("mode", ["min", "max"])
def test_a_fresh_machine_runs_nothing(machines: Machines, one: Path, tmp_path: Path, mode: str) -> None:
    image, told = build(machines(), one, "--cache-to", f"type=local,dest={tmp_path}/cache,mode={mode}")
    assert len(ran(told)) == 4
    fresh = machines()
    again, told = build(fresh, one, "--cache-from", f"type=local,src={tmp_path}/cache", "-t", "again")
    assert (again, ran(told), notes(told)) == (image, [], "")
    assert f"every input is as it was, says the cache from {tmp_path}/cache" in fresh("explain", "2")
    assert fresh("run", "--rm", "again", "cat", "/one", "/second") == "1\n2\n"
    _, told = build(fresh, one)
    assert ran(told) == []  # what came is the store's own now


def test_a_change_runs_from_there_on(machines: Machines, one: Path, tmp_path: Path) -> None:
    cache = f"{tmp_path}/cache"
    build(machines(), one, "--cache-to", f"type=local,dest={cache}")
    (one / "second").write_text("3\n")
    fresh = machines()
    _, told = build(fresh, one, "--cache-from", f"type=local,src={cache}", "-t", "changed")
    assert ran(told) == ["COPY second /second"]
    assert fresh("run", "--rm", "changed", "cat", "/one", "/second") == "1\n3\n"


def held(machine: Layerbuild) -> set[str]:
    """The blobs in a machine's store."""
    return {path.name for path in (machine.root / "blobs/sha256").iterdir()}


def layers(cache: Path) -> dict[str, str]:
    """The blobs of a cache's layers, by the instruction that made them."""
    manifest = document(cache, json.loads((cache / "index.json").read_text())["manifests"][-1]["digest"])
    records = document(cache, manifest["config"]["digest"])
    blobs = dict(zip(records["layers"], (layer["digest"] for layer in manifest["layers"]), strict=True))
    return {
        step["instruction"]: blobs[step["diffID"]].partition(":")[2] for step in records["steps"] if "diffID" in step
    }


def document(cache: Path, digest: str) -> Any:
    return json.loads((cache / "blobs/sha256" / digest.partition(":")[2]).read_text())


def rewrite(cache: Path, change: Callable[[dict[str, Any], dict[str, Any]], None]) -> None:
    """Let ``change`` loose on a cache's manifest and records; all digests up to the index are made right again."""
    index = json.loads((cache / "index.json").read_text())
    manifest = document(cache, index["manifests"][-1]["digest"])
    records = document(cache, manifest["config"]["digest"])
    change(manifest, records)
    manifest["config"].update(put(cache, records))
    index["manifests"][-1].update(put(cache, manifest))
    (cache / "index.json").write_text(json.dumps(index))


def put(cache: Path, value: Any) -> dict[str, Any]:
    data = json.dumps(value).encode()
    digest = BlobDigest.of(data)
    (cache / "blobs/sha256" / digest.hex).write_bytes(data)
    return {"digest": digest, "size": len(data)}


def test_stages_that_nobody_looks_into_are_not_fetched(machines: Machines, staged: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    image, _ = build(machines(), staged, "--cache-to", f"type=local,dest={cache},mode=max")
    fresh = machines()
    again, told = build(fresh, staged, "--cache-from", f"type=local,src={cache}", "-t", "again")
    assert (again, ran(told), notes(told)) == (image, [], "")
    blobs = layers(cache)
    own = {"WORKDIR /app", "COPY --from=compile /out/program ./", "COPY --from=tests /log ./", STAGES.splitlines()[-1]}
    assert len(blobs) == 8
    assert held(fresh) & set(blobs.values()) == {blobs[text] for text in own}
    # A step that runs brings what it reads, and no more.
    (staged / "Dockerfile").write_text(STAGES + "COPY --from=compile /src/first .\n")
    _, told = build(fresh, staged, "--cache-from", f"type=local,src={cache}", "-t", "more")
    assert ran(told) == ["COPY --from=compile /src/first ."]
    assert fresh("run", "--rm", "more", "cat", "/app/first") == "1\n"
    assert blobs["RUN --mount=from=compile,source=/out,target=/mnt cat /mnt/program > /log"] not in held(fresh)


def skipped(told: list[dict[str, Any]]) -> list[str]:
    """The stages that another machine's cache made unneeded."""
    return [event["stage"] for event in told if event["event"] == "StageSkipped"]


def test_min_holds_the_own_stages_only(machines: Machines, staged: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    image, _ = build(machines(), staged, "--cache-to", f"type=local,dest={cache}")
    assert "COPY first /src/" not in layers(cache)
    fresh = machines()
    again, told = build(fresh, staged, "--cache-from", f"type=local,src={cache}", "--fail-on-miss", "-t", "again")
    assert (again, ran(told), skipped(told)) == (image, [], ["compile", "tests"])
    assert fresh("run", "--rm", "again", "cat", "/app/all") == "1\n1\n"
    shown = machines().run("build", "--progress", "plain", "--cache-from", f"type=local,src={cache}", staged).stderr
    assert "stage tests: skipped, what is read of it is known from another machine's cache" in shown
    # What is passed on holds as much; all stages can only be passed on by who has them.
    passed, whole = tmp_path / "passed", tmp_path / "whole"
    build(machines(), staged, "--cache-from", f"type=local,src={cache}", "--cache-to", f"type=local,dest={passed}")
    again, told = build(machines(), staged, "--cache-from", f"type=local,src={passed}")
    assert (again, ran(told)) == (image, [])
    options = ("--cache-from", f"type=local,src={cache}", "--cache-to", f"type=local,dest={whole},mode=max")
    _, told = build(machines(), staged, *options)
    assert skipped(told) == [] and "COPY first /src/" in layers(whole)


def test_a_step_behind_what_is_told_runs_alone(machines: Machines, staged: Path, tmp_path: Path) -> None:
    build(machines(), staged, "--cache-to", f"type=local,dest={tmp_path}/cache")
    fill(staged, STAGES.replace("program log > all", "log program > all"))
    _, told = build(machines(), staged, "--cache-from", f"type=local,src={tmp_path}/cache")
    assert (ran(told), skipped(told)) == (["RUN cat log program > all"], ["compile", "tests"])


def test_a_source_stage_that_changed_runs(machines: Machines, staged: Path, tmp_path: Path) -> None:
    build(machines(), staged, "--cache-to", f"type=local,dest={tmp_path}/cache")
    (staged / "first").write_text("3\n")
    fresh = machines()
    _, told = build(fresh, staged, "--cache-from", f"type=local,src={tmp_path}/cache", "-t", "changed")
    assert skipped(told) == [] and "COPY first /src/" in ran(told)
    assert fresh("run", "--rm", "changed", "cat", "/app/all") == "3\n3\n"


RANDOM = """\
FROM busybox AS base
RUN cat /proc/sys/kernel/random/uuid > /base
FROM base AS source
RUN cat /proc/sys/kernel/random/uuid > /id && cat /proc/sys/kernel/random/uuid > /other
FROM busybox AS made
COPY --from=source /id /from-source
FROM busybox
COPY --from=source /id /one
RUN --mount=from=source,target=/mnt cat /mnt/id > /two
COPY --from=made /from-source /three
COPY --from=base /base /four
"""


def ids(machine: Layerbuild) -> set[str]:
    return set(machine("run", "--rm", "it", "cat", "/one", "/two", "/three").split())


def test_random_results_are_told(machines: Machines, context: Path, tmp_path: Path) -> None:
    first, fresh, cache = machines(), machines(), f"{tmp_path}/cache"
    image, _ = build(first, fill(context, RANDOM), "--cache-to", f"type=local,dest={cache}", "-t", "it")
    again, told = build(fresh, context, "--cache-from", f"type=local,src={cache}", "-t", "it")
    assert (again, ran(told), skipped(told)) == (image, [], ["base", "source", "made"])
    assert ids(fresh) == ids(first)


@pytest.mark.parametrize(
    ("recipe", "options"),
    [
        (RANDOM + "COPY --from=source /other /\n", ()),
        (RANDOM + "COPY --from=base /base /\n", ()),
        (RANDOM + "COPY --from=made /from-source /\n", ()),
        (RANDOM, ("--no-cache-filter", "source")),
        (RANDOM, ("--no-cache-filter", "base")),
        (RANDOM, ("--no-cache-filter", "made")),
        (RANDOM, ("--no-cache",)),
    ],
    ids=["reader", "reader-of-base", "reader-of-made", "filter", "filter-base", "filter-made", "no-cache"],
)
def test_an_image_never_mixes_two_results(
    machines: Machines, context: Path, tmp_path: Path, recipe: str, options: tuple[str, ...]
) -> None:
    first, fresh, cache = machines(), machines(), f"{tmp_path}/cache"
    build(first, fill(context, RANDOM), "--cache-to", f"type=local,dest={cache}", "-t", "it")
    fill(context, recipe)
    _, told = build(fresh, context, "--cache-from", f"type=local,src={cache}", "-t", "it", *options)
    assert skipped(told) == []
    assert len(ids(fresh)) == 1 and ids(fresh) != ids(first)


def test_two_caches_are_not_mixed(machines: Machines, context: Path, tmp_path: Path) -> None:
    recipe = RANDOM.replace(RANDOM[RANDOM.index("RUN --mount") :], "")
    fill(context, recipe)
    build(machines(), context, "--cache-to", f"type=local,dest={tmp_path}/a", "--target", "made")
    build(machines(), context, "--cache-to", f"type=local,dest={tmp_path}/b")
    fill(context, recipe + "COPY --from=made /from-source /two\n")
    fresh = machines()
    sources = [word for name in "ab" for word in ("--cache-from", f"type=local,src={tmp_path}/{name}")]
    build(fresh, context, *sources, "-t", "it")
    assert len(set(fresh("run", "--rm", "it", "cat", "/one", "/two").split())) == 1


def test_what_lies_on_a_stage_that_runs_is_not_told(machines: Machines, context: Path, tmp_path: Path) -> None:
    plain = "FROM busybox AS plain\nRUN echo > /plain\n"
    recipe = plain + RANDOM + "COPY --from=plain /plain /\n"
    build(machines(), fill(context, recipe), "--cache-to", f"type=local,dest={tmp_path}/cache")
    fill(context, recipe + "COPY --from=source /other /\n")
    _, told = build(machines(), context, "--cache-from", f"type=local,src={tmp_path}/cache")
    assert skipped(told) == [] and "after all" not in notes(told)


def test_what_was_left_out_in_vain_is_carried_out(machines: Machines, staged: Path, tmp_path: Path) -> None:
    cache = f"{tmp_path}/cache"
    image, _ = build(machines(), staged, "--cache-to", f"type=local,dest={cache}")
    # Something changes between the walk and the step: the definitions are not those any more.
    program = """
from dataclasses import replace
from layerbuild.build import unneeded as module
found = module.unneeded
module.unneeded = lambda *plan, **known: {
    index: replace(progress, definition="0") for index, progress in found(*plan, **known).items()
}
"""
    again, told = with_program(machines(), program, "--cache-from", f"type=local,src={cache}", staged)
    assert again == image
    assert "needs a stage that was skipped; it is carried out after all" in notes(told)
    assert "COPY first /src/" in ran(told)


def test_contexts_are_looked_through_once(machines: Machines, staged: Path, tmp_path: Path) -> None:
    cache, count = f"type=local,src={tmp_path}/cache", tmp_path / "count"
    build(machines(), staged, "--cache-to", f"type=local,dest={tmp_path}/cache,mode=max")
    program = f"""
from layerbuild.build.context import ContextTree as Tree
found = Tree.state
def state(self, node, feed):
    print(node.path, file=open({str(count)!r}, "a"))
    return found(self, node, feed)
Tree.state = state
"""
    _, told = with_program(machines(), program, "--cache-from", cache, staged)
    assert ran(told) == []
    assert count.read_text().splitlines() == ["b'first'"]


def test_a_file_that_changes_after_the_first_look(machines: Machines, context: Path, tmp_path: Path) -> None:
    recipe = "FROM busybox AS one\nRUN echo 1 > /one\nFROM busybox\nCOPY --from=one /one /\n"
    recipe += "RUN echo {}\nRUN --mount=target=/c cat /c/first > /first\n"
    build(machines(), fill(context, recipe.format(1)), "--cache-to", f"type=local,dest={tmp_path}/cache,mode=max")
    (context / "Dockerfile").write_text(recipe.format(2))
    program = f"""
from layerbuild.build.loop import Build
found = Build._decide
def decide(self):
    found(self)
    open({str(context / "first")!r}, "w").write("changed")
Build._decide = decide
"""
    machine = machines()
    with_program(machine, program, "--cache-from", f"type=local,src={tmp_path}/cache", "-t", "it", context)
    assert machine("run", "--rm", "it", "cat", "/first") == "changed"
    (context / "first").write_text("1\n")
    build(machine, context, "-t", "it")
    assert machine("run", "--rm", "it", "cat", "/first") == "1\n"


def test_what_is_here_counts_more_than_what_is_told(machines: Machines, context: Path, tmp_path: Path) -> None:
    first, second, cache = machines(), machines(), f"{tmp_path}/cache"
    build(first, fill(context, RANDOM), "--cache-to", f"type=local,dest={cache}", "-t", "it")
    build(second, context, "--target", "source")
    _, told = build(second, context, "--cache-from", f"type=local,src={cache}", "-t", "it")
    assert "source" not in skipped(told) and "made" not in skipped(told)
    assert len(ids(second)) == 1 and ids(second) != ids(first)


def test_three_stages_in_a_row(machines: Machines, context: Path, tmp_path: Path) -> None:
    recipe = """\
FROM busybox AS a
ARG WORD=one
RUN echo $WORD > /a
FROM a AS b
COPY first /
RUN cat /first >> /a
FROM scratch AS c
COPY --from=b /a /a
FROM busybox
COPY --from=c / /out/
"""
    cache = f"type=local,dest={tmp_path}/cache"
    image, _ = build(machines(), fill(context, recipe), "--cache-to", cache)
    wanted = ("--cache-from", f"type=local,src={tmp_path}/cache")
    again, told = build(machines(), context, *wanted)
    assert (again, ran(told), skipped(told)) == (image, [], ["a", "b", "c"])
    _, told = build(machines(), context, *wanted, "--build-arg", "WORD=two")
    assert skipped(told) == [] and len(ran(told)) == 5


def test_a_base_of_the_target_and_of_what_it_copies(machines: Machines, context: Path, tmp_path: Path) -> None:
    recipe = (
        RANDOM.split("FROM busybox AS made")[0]
        + "FROM base\nCOPY --from=source /id /\nCOPY --from=source /base /copy\n"
    )
    image, _ = build(machines(), fill(context, recipe), "--cache-to", f"type=local,dest={tmp_path}/cache")
    fresh = machines()
    again, told = build(fresh, context, "--cache-from", f"type=local,src={tmp_path}/cache", "-t", "it")
    assert (again, ran(told), skipped(told)) == (image, [], ["source"])
    other = machines()  # it has a result of its own of the common base
    build(other, context, "--target", "base")
    _, told = build(other, context, "--cache-from", f"type=local,src={tmp_path}/cache", "-t", "it")
    assert skipped(told) == []
    assert len(set(other("run", "--rm", "it", "cat", "/base", "/copy").split())) == 1


def test_several_platforms(machines: Machines, context: Path, tmp_path: Path) -> None:
    recipe = """\
FROM --platform=$BUILDPLATFORM busybox AS tools
RUN cat /proc/sys/kernel/random/uuid > /id
FROM scratch
ARG TARGETARCH
COPY --from=tools /id /
COPY for-$TARGETARCH /which
"""
    fill(context, recipe)
    for architecture in ("arm64", "riscv64"):
        (context / f"for-{architecture}").write_text(architecture)
    both = ("--platform", "linux/arm64,linux/riscv64")
    index, told = build(machines(), context, *both, "--cache-to", f"type=local,dest={tmp_path}/both")
    assert ran(told).count("RUN cat /proc/sys/kernel/random/uuid > /id") == 1
    again, told = build(machines(), context, *both, "--cache-from", f"type=local,src={tmp_path}/both")
    assert (again, ran(told), skipped(told)) == (index, [], ["tools", "tools"])
    # The second platform needs what the first one left out; and the first one carries out what the second one needs.
    for order, times in (("linux/arm64,linux/riscv64", 1), ("linux/riscv64,linux/arm64", 0)):
        one = f"{tmp_path}/{times}"
        build(machines(), context, "--platform", "linux/arm64", "--cache-to", f"type=local,dest={one}")
        _, told = build(machines(), context, "--platform", order, "--cache-from", f"type=local,src={one}")
        assert skipped(told) == ["tools"] * times
        assert ran(told).count("RUN cat /proc/sys/kernel/random/uuid > /id") == 1


def _other_content(manifest: dict[str, Any], records: dict[str, Any]) -> None:
    for step in records["steps"]:
        for read in step.get("stacks", {}).values():
            read["content"] = "0" * 64


def _no_stacks(manifest: dict[str, Any], records: dict[str, Any]) -> None:
    for step in records["steps"]:
        step.pop("stacks", None)


def _other_version(manifest: dict[str, Any], records: dict[str, Any]) -> None:
    records.update(keyFormat="0")


@pytest.mark.parametrize("change", [_other_content, _no_stacks, _other_version])
def test_what_was_read_is_damaged(
    machines: Machines, staged: Path, tmp_path: Path, change: Callable[[dict[str, Any], dict[str, Any]], None]
) -> None:
    image, _ = build(machines(), staged, "--cache-to", f"type=local,dest={tmp_path}/cache")
    rewrite(tmp_path / "cache", change)
    again, told = build(machines(), staged, "--cache-from", f"type=local,src={tmp_path}/cache")
    assert (again, skipped(told)) == (image, []) and "COPY first /src/" in ran(told)


def test_a_layer_of_what_was_told_is_damaged(machines: Machines, staged: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    build(machines(), staged, "--cache-to", f"type=local,dest={cache}")
    (cache / "blobs/sha256" / layers(cache)["COPY --from=tests /log ./"]).write_bytes(b"x")
    fill(staged, STAGES + "RUN cat all > more\n")
    fresh = machines()
    _, told = build(fresh, staged, "--cache-from", f"type=local,src={cache}", "-t", "it")
    assert "is of no use" in notes(told) and "COPY first /src/" in ran(told)
    assert fresh("run", "--rm", "it", "cat", "/app/more") == "1\n1\n"


def test_no_argument_of_another_stage_travels(machines: Machines, context: Path, tmp_path: Path) -> None:
    recipe = "FROM busybox AS one\nARG TOKEN\nRUN echo $TOKEN | wc -c > /size\nFROM busybox\nCOPY --from=one /size /\n"
    fill(context, recipe)
    target = f"type=local,dest={tmp_path}/cache,mode=max"
    build(machines(), context, "--build-arg", "TOKEN=hunter2-hunter2", "--cache-to", target)
    files = [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert files and not [path for path in files if b"hunter2" in path.read_bytes()]


def test_inline_tells_what_was_copied(machines: Machines, staged: Path, tmp_path: Path) -> None:
    target = ("--cache-to", "type=inline")
    image, _ = build(machines(), staged, *target, "-t", "it", "-o", f"type=oci,dest={tmp_path}/image/")
    again, told = build(machines(), staged, *target, "--cache-from", f"type=local,src={tmp_path}/image")
    assert (again, ran(told), skipped(told)) == (image, [], ["compile", "tests"])


def test_inline(machines: Machines, one: Path, tmp_path: Path) -> None:
    first = machines()
    image, _ = build(first, one, "--cache-to", "type=inline", "-t", "it", "-o", f"type=oci,dest={tmp_path}/image/")
    plain, _ = build(first, one)
    assert plain != image  # the records are in the configuration
    same, _ = build(first, one, "--build-arg", "BUILDKIT_INLINE_CACHE=1")
    assert same == image
    again, told = build(
        machines(), one, "--cache-from", f"type=local,src={tmp_path}/image", "--cache-to", "type=inline"
    )
    assert (again, ran(told), notes(told)) == (image, [], "")
    # An image built on it does not pass the records on.
    (one / "Dockerfile").write_text("FROM it\nLABEL a=b\n")
    build(first, one, "-t", "child", "-o", f"type=oci,dest={tmp_path}/child/")
    assert not [
        path for path in (tmp_path / "child").rglob("*") if path.is_file() and b"keyFormat" in path.read_bytes()
    ]


def test_caches_are_asked_in_turn(machines: Machines, one: Path, tmp_path: Path) -> None:
    build(machines(), one, "--cache-to", f"type=local,dest={tmp_path}/cache,tag=main")
    wanted = [f"type=local,src={tmp_path}/{place}" for place in ("none", "cache,tag=branch", "cache,tag=main")]
    _, told = build(machines(), one, *(word for text in wanted for word in ("--cache-from", text)))
    assert ran(told) == []
    assert "there is no cache yet" in notes(told) and "nothing tagged 'branch'" in notes(told)


def test_compression(machines: Machines, one: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    options = "compression=zstd,compression-level=5,oci-mediatypes=true,image-manifest=true"
    image, _ = build(machines(), one, "--cache-to", f"type=local,dest={cache},{options}")
    for digest in layers(cache).values():
        assert (cache / "blobs/sha256" / digest).read_bytes().startswith(b"\x28\xb5\x2f\xfd")
    again, told = build(machines(), one, "--cache-from", f"type=local,src={cache}")
    assert (again, ran(told)) == (image, [])


# -- in a registry ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("who", "mode"), [("root", "min"), ("root", "max"), ("user", "max")])
def test_in_a_registry(machines: Machines, staged: Path, registry: Registry, who: str, mode: str) -> None:
    name = registry.name(f"caches/staged-{who}:{mode}")
    options = f"type=registry,ref={name},mode={mode},compression=zstd"
    image, _ = build(machines(who), staged, "--cache-to", options)
    fresh = machines(who)
    start = registry.position
    again, told = build(fresh, staged, "--cache-from", name, "-t", "again")
    assert again == image and "the cache from" not in notes(told)  # of a user's ids there may be one
    assert ran(told) == []
    fetched = [line for line in registry.requests(start) if line.startswith("GET") and "/blobs/" in line]
    assert len(fetched) == 1 + 4  # the records, and the layers of the image's own stage
    moved = [event for event in told if event["event"] == "BlobMoved" and event["done"] == event["size"]]
    assert [(event["way"], event["place"]) for event in moved] == [("pull", name)] * 4
    assert fresh("run", "--rm", "again", "cat", "/app/all") == "1\n1\n"
    # To the same place again: the registry has all of it.
    start = registry.position
    build(fresh, staged, "--cache-from", name, "--cache-to", f"type=registry,ref={name},mode={mode}")
    assert not [line for line in registry.requests(start) if line.startswith("PUT") and "/blobs/" in line]


def test_on_a_base_that_has_not_come(machines: Machines, one: Path, registry: Registry, tmp_path: Path) -> None:
    first, base, cache = machines(), registry.name("caches/base:1"), registry.name("caches/on-base:cache")
    first("tag", "busybox", base)
    first("push", base)
    (one / "Dockerfile").write_text(ONE_STAGE.replace("busybox", base))
    image, _ = build(first, one, "--cache-to", cache)
    fresh = Layerbuild(tmp_path / "fresh")
    start = registry.position
    again, told = build(fresh, one, "--cache-from", cache, "-t", registry.name("caches/on-base:1"), "--push")
    assert (again, ran(told), notes(told)) == (image, [], "")
    (layer, *_) = first.layers("busybox")
    assert not [line for line in registry.requests(start) if line.startswith("GET") and layer["digest"] in line]
    assert fresh("run", "--rm", registry.name("caches/on-base:1"), "cat", "/one", "/second") == "1\n2\n"


def test_inline_in_a_registry(machines: Machines, one: Path, registry: Registry) -> None:
    name = registry.name("caches/inline:1")
    image, _ = build(machines(), one, "--cache-to", "type=inline", "-t", name, "--push")
    again, told = build(machines(), one, "--cache-from", name, "--cache-to", "type=inline")
    assert (again, ran(told), notes(told)) == (image, [], "")


def test_inline_in_each_image_of_an_index(machines: Machines, context: Path, registry: Registry) -> None:
    name = registry.name("caches/inline-index:1")
    fill(context, "FROM scratch\nARG TARGETARCH\nCOPY first /$TARGETARCH\n")
    both = ("--platform", "linux/arm64,linux/riscv64", "-t", name)
    first = machines()
    index, told = build(first, context, *both, "--cache-to", "type=inline", "--push")
    assert len(ran(told)) == 2
    _, told = build(machines(), context, *both, "--cache-from", name)
    assert (ran(told), notes(told)) == ([], "")
    # So does an index of the store, and nobody is asked for one.
    first("save", "--format", "oci", "-o", context.parent / f"{context.name}.tar", name)
    fresh, start = machines(), registry.position
    fresh("load", "-i", context.parent / f"{context.name}.tar")
    again, told = build(fresh, context, *both, "--cache-from", name, "--cache-to", "type=inline")
    assert (again, ran(told), notes(told), registry.requests(start)) == (index, [], "", [])


def test_what_is_no_cache_in_a_registry(
    machines: Machines, one: Path, registry: Registry, closed_registry: Registry
) -> None:
    plain = registry.name("caches/plain:1")
    build(machines(), one, "-t", plain, "--push")
    places = [plain, registry.name("caches/none:1"), closed_registry.name("caches/none:1")]
    _, told = build(machines(), one, *(word for place in places for word in ("--cache-from", place)))
    assert len(ran(told)) == 4
    for said in ("an image without a build cache", "there is no cache yet", "answered 401"):
        assert said in notes(told)


def test_a_registry_that_gives_other_bytes(machines: Machines, one: Path) -> None:
    with UploadServer() as server:
        name = f"{server.host}/cache:1"
        image, _ = build(machines(), one, "--cache-to", name)
        stored = server.blobs["cache"]
        largest = max(stored, key=lambda digest: len(stored[digest]) * stored[digest].startswith(b"\x1f\x8b"))
        stored[largest] = stored[largest][:-1] + b"x"
        again, told = build(machines(), one, "--cache-from", name)
        assert again == image
        assert "is of no use" in notes(told) and "has digest" in notes(told)


def test_a_registry_that_refuses(machines: Machines, one: Path, closed_registry: Registry) -> None:
    name = closed_registry.name("caches/closed:1")
    machine = machines()
    refused = machine.run("build", "--cache-to", name, one, code=69)
    assert f"layerbuild login {closed_registry.host}" in refused.stderr
    _, told = build(machine, one, "--cache-to", f"type=registry,ref={name},ignore-error=true")
    assert "the cache was not written" in notes(told)


def test_of_an_image_in_the_store(machines: Machines, one: Path, tmp_path: Path) -> None:
    archive = tmp_path / "image.tar"
    image, _ = build(machines(), one, "--cache-to", "type=inline", "-o", f"type=oci,dest={archive},name=it")
    fresh = machines()
    fresh("import", archive)
    again, told = build(fresh, one, "--cache-from", "it", "--cache-from", "busybox", "--cache-to", "type=inline")
    assert (again, ran(told), notes(told)) == (image, [], "")


# -- what is asked for in vain -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--cache-to", "type=registry,ref=a,mod=max", "did you mean mode?"),
        ("--cache-to", "type=regsitry,ref=a", "did you mean registry?"),
        ("--cache-to", "type=local,mode=max", "has no dest"),
        ("--cache-to", "type=local,dest=a,mode=most", "unknown mode 'most'"),
        ("--cache-to", "type=inline,mode=max", "the image's own layers only"),
        ("--cache-to", "type=registry,ref=a,image-manifest=false", "an OCI image manifest"),
        ("--cache-to", "type=registry,ref=a,compression=lzma", "unknown compression 'lzma'"),
        ("--cache-to", "type=registry,ref=a@sha256:" + "0" * 64, "a digest names one content only"),
        ("--cache-from", "type=local,dest=a", "unknown key 'dest'"),
        ("--cache-from", "type=local", "has no src"),
        ("--cache-from", "type=local,src=a,digest=x", "is not a sha256 digest"),
        ("--cache-from", "type=gha", "type=gha: a service of its own"),
        ("--cache-from", "type=folder", "unknown type 'folder'"),
        ("--cache-from", "UPPER", "repository names are lower case"),
    ],
)
def test_options(rooted: Layerbuild, one: Path, option: str, value: str, said: str) -> None:
    assert said in rooted.run("build", option, value, one, code=2).stderr


def test_a_folder_with_other_things(rooted: Layerbuild, one: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("precious")
    refused = rooted.run("build", "--cache-to", f"type=local,dest={tmp_path}", one, code=2)
    assert "no OCI layout" in refused.stderr


# -- what is wrong with it ---------------------------------------------------------------------------------------------


def _cut_layer(cache: Path) -> None:
    path = cache / "blobs/sha256" / layers(cache)["RUN cp /first /one"]
    path.write_bytes(path.read_bytes()[:-5])


def _other_bytes(cache: Path) -> None:
    path = cache / "blobs/sha256" / layers(cache)["RUN cp /first /one"]
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def _no_layer(cache: Path) -> None:
    (cache / "blobs/sha256" / layers(cache)["COPY first /first"]).unlink()


def _device(cache: Path) -> None:
    path = cache / "blobs/sha256" / layers(cache)["RUN cp /first /one"]
    path.unlink()
    path.symlink_to("/dev/zero")


def _fifo(cache: Path) -> None:
    (entry,) = json.loads((cache / "index.json").read_text())["manifests"]
    path = cache / "blobs/sha256" / entry["digest"].partition(":")[2]
    path.unlink()
    os.mkfifo(path)


def _swapped_layers(cache: Path) -> None:
    # Every digest is right, but the blobs are not those of the diff IDs.
    rewrite(cache, lambda manifest, records: manifest["layers"].reverse())


def _wrong_chains(cache: Path) -> None:
    def change(manifest: dict[str, Any], records: dict[str, Any]) -> None:
        for step in records["steps"]:
            step["diffID"] = records["steps"][-1]["diffID"]

    rewrite(cache, change)


def _other_keys(cache: Path) -> None:
    rewrite(cache, lambda manifest, records: records.update(keyFormat="0"))


def _later_version(cache: Path) -> None:
    rewrite(cache, lambda manifest, records: records.update(version=2))


def _no_records(cache: Path) -> None:
    rewrite(cache, lambda manifest, records: records.update(steps=[{"definition": 1}]))


def _not_a_number(cache: Path) -> None:
    rewrite(cache, lambda manifest, records: records["steps"][0].update(seconds=float("nan")))


def _buildkits(cache: Path) -> None:
    rewrite(
        cache, lambda manifest, records: manifest["config"].update(mediaType="application/vnd.buildkit.cacheconfig.v0")
    )


def _no_json(cache: Path) -> None:
    (cache / "index.json").write_text("{")


def _cut_records(cache: Path) -> None:
    index = json.loads((cache / "index.json").read_text())
    manifest = document(cache, index["manifests"][-1]["digest"])
    path = cache / "blobs/sha256" / manifest["config"]["digest"].partition(":")[2]
    path.write_bytes(path.read_bytes()[:100])


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (_cut_layer, "bytes instead of"),
        (_other_bytes, "has digest"),
        (_no_layer, "has no file blobs/sha256/"),
        (_device, "has no file blobs/sha256/"),
        (_fifo, "has no file blobs/sha256/"),
        (_swapped_layers, "instead of"),
        (_wrong_chains, "records that contradict themselves"),
        (_other_keys, "another version of layerbuild made it"),
        (_later_version, "are of version 2"),
        (_no_records, "its records are damaged"),
        (_not_a_number, "its records are damaged"),
        (_buildkits, "which only BuildKit can read"),
        (_no_json, "no valid image index"),
        (_cut_records, "bytes instead of"),
    ],
)
def test_what_is_damaged_is_a_miss(
    machines: Machines,
    wholesome: tuple[str, Path],
    one: Path,
    tmp_path: Path,
    damage: Callable[[Path], None],
    said: str,
) -> None:
    image, cache = wholesome
    shutil.copytree(cache, tmp_path / "cache")
    damage(tmp_path / "cache")
    fresh = machines()
    again, told = build(fresh, one, "--cache-from", f"type=local,src={tmp_path}/cache", "-t", "it")
    assert again == image
    assert said in notes(told)
    assert "RUN cp /first /one" in ran(told)
    assert fresh("run", "--rm", "it", "cat", "/one", "/second") == "1\n2\n"
