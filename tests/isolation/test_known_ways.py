"""Ways out that other builders and runtimes had, by the number under which each is known: as root and as a user."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest
from support import USER, Layerbuild
from traces import assert_whole, processes, wait_until

from layerbuild.isolate import rootfs
from layerbuild.isolate.mounts import tmpfs

pytestmark = pytest.mark.machine

TOKEN = "canary-of-the-machine"


@pytest.fixture
def outside(context: Path) -> Iterator[Path]:
    """A folder of the machine, open to everybody, in which nothing may change."""
    folder = context.with_name(f"{context.name}-outside")
    (folder / "empty").mkdir(parents=True)
    (folder / "canary").write_text(TOKEN)
    (folder / "passwd").write_text(f"evil:x:0:0:{TOKEN}:/:/bin/sh\n")
    for path in (folder, folder / "empty", folder / "canary", folder / "passwd"):
        path.chmod(0o777)
    before = state(folder)
    yield folder
    assert state(folder) == before
    subprocess.run(["rm", "-r", folder], check=True)


def state(folder: Path) -> list[tuple[object, ...]]:
    found = [(path, path.stat()) for path in sorted((folder, *folder.rglob("*")))]
    return [(path.name, status.st_mode, status.st_uid, status.st_size, status.st_mtime_ns) for path, status in found]


# What a recipe tries, after "FROM busybox AS first"; OUT is the folder of the machine. And what is said then.
WAYS: Final[dict[str, tuple[str, str]]] = {
    # A working directory by way of a descriptor that the builder left open.
    **{
        f"CVE-2024-21626 descriptor {number}": (
            f'RUN ln -s /proc/self/fd/{number} /w\nWORKDIR /w\nRUN ["/bin/busybox", "ls", "../../../../../../OUT"]',
            "the working directory",
        )
        for number in range(3, 16)
    },
    # What lies on the paths that the sandbox covers or writes.
    "CVE-2025-31133 /dev/null": (
        "RUN mkdir -p /x/dev && ln -s /proc/sysrq-trigger /x/dev/null\nFROM busybox\nCOPY --from=0 /x /\n"
        "RUN head -c1 /proc/keys; stat -c 'null is %F' /dev/null; cat /dev/null",
        "null is character special file",
    ),
    "CVE-2025-52565 /dev/console": (
        "RUN mkdir -p /x/dev/pts && ln -s OUT/canary /x/dev/console && ln -s OUT/canary /x/dev/pts/0\n"
        "FROM busybox\nCOPY --from=0 /x /\nRUN ls /dev/console /dev/pts/0; echo x > /dev/pts/0; true",
        "No such file or directory",
    ),
    "CVE-2025-52881 /proc": (
        "RUN mkdir -p /x /fake/sys/kernel && ln -s /fake /x/proc && ln -s OUT /x/sys\nFROM busybox\n"
        "COPY --from=0 /x /\nCOPY --from=0 /fake /fake\nRUN echo 1 > /proc/sys/kernel/panic; head -c1 /proc/keys",
        "",
    ),
    "/dev is a link": (
        "RUN mkdir /x && ln -s OUT /x/dev\nFROM busybox\nCOPY --from=0 /x /\nRUN echo hello > /dev/null; echo over",
        "| over",
    ),
    "/etc is a link": (
        "RUN mkdir /x && ln -s OUT/passwd /x/resolv.conf && ln -s OUT/canary /x/hosts\nFROM scratch\n"
        "COPY --from=0 /bin /bin\nCOPY --from=0 /x /etc\nRUN cat /etc/hosts; echo x > /etc/hosts; echo over",
        "| over",
    ),
    # Mounts through links.
    "CVE-2024-1753": (
        "RUN ln -s / /link && ln -s OUT /out\nFROM busybox\n"
        "RUN --mount=type=bind,from=first,source=/link,target=/m,rw cat /m/OUT/canary; touch /m/new; echo over",
        "| over",
    ),
    "CVE-2024-1753 a link to the machine": (
        "RUN ln -s OUT /out\nFROM busybox\nRUN --mount=type=bind,from=first,source=/out,target=/m,rw cat /m/canary",
        "not found",
    ),
    "CVE-2024-9675": (
        "RUN --mount=type=cache,id=../../../../../../../../OUT,target=/m ls /m; touch /m/new; echo over",
        "| over",
    ),
    "CVE-2024-9407": ("RUN --mount=type=bind,target=/m,bind-propagation=shared true", "bind-propagation"),
    "CVE-2024-23651": (
        "RUN --mount=type=cache,id=ID,target=/c ln -s OUT /c/x\n"
        "RUN --mount=type=cache,id=ID,target=/c --mount=type=tmpfs,target=/c/x/new echo over",
        "leads nowhere there",
    ),
    "CVE-2024-23651 source": (
        "RUN --mount=type=cache,id=ID,target=/c ln -s OUT /c/x\n"
        "RUN --mount=type=cache,id=ID,source=x,target=/c cat /c/canary",
        "is no folder of the cache",
    ),
    "CVE-2024-23652": (
        "RUN --mount=type=tmpfs,target=/made/empty mv /made /other && ln -s OUT /made; echo over",
        "| over",
    ),
    # A folder that is moved out of what is mounted, while a process is in it: its ".." has nowhere to lead.
    "CVE-2015-2925": (
        "RUN --mount=type=cache,id=ID,target=/c mkdir -p /c/in/deep\n"
        "RUN --mount=type=cache,id=ID,target=/c --mount=type=cache,id=ID,source=in,target=/m \\\n"
        " cd /m/deep && mv /c/in/deep /c/out && cat ../../../../../../../../../..OUT/canary; ls .. ; echo over",
        "| over",
    ),
    "dots in a source": (
        "RUN --mount=type=bind,source=../../../../../../../..OUT,target=/m cat /m/canary",
        "not found",
    ),
    "dots in a stage's source": (
        "FROM busybox\nRUN --mount=type=bind,from=first,source=../../../../../../..OUT,target=/m cat /m/canary",
        "not found",
    ),
    "dots in a target": (
        "RUN --mount=type=tmpfs,target=/../../../../../..OUT/empty touch OUT/empty/x; echo over",
        "| over",
    ),
    "dots in a COPY": ("COPY ../../../../../../../..OUT/canary /stolen", "not found"),
    "dots in a destination": ("COPY Dockerfile ../../../../../../../..OUT/new\nRUN echo over", "| over"),
    "dots in a working directory": ("WORKDIR ../../../../../../../..OUT/new\nRUN echo x > x; echo over", "| over"),
    "a target through a link": (
        "RUN ln -s OUT /d\nRUN --mount=type=tmpfs,target=/d/empty touch /d/empty/x; echo over",
        "| over",
    ),
    "a secret's target": (
        "RUN ln -s OUT /run/secrets || { mkdir -p /run && ln -s OUT /run/secrets; }\n"
        "RUN --mount=type=secret,id=s cat /run/secrets/s; echo over",
        "| ***over",
    ),
    "a script's name": ("RUN <<../../OUT/new\ntrue\n../../OUT/new", ""),
    # Files that the builder reads itself.
    "CVE-2024-9676 a link": (
        "RUN rm /etc/passwd && ln -s OUT/passwd /etc/passwd\nUSER evil\nRUN id",
        "evil",
    ),
    "CVE-2024-9676 a fifo": ("RUN rm /etc/passwd && mkfifo /etc/passwd\nUSER evil\nRUN id", "evil"),
    "a link in a stage": ("RUN ln -s OUT /d\nFROM busybox\nCOPY --from=0 /d/canary /stolen", "not found"),
    "a link as a destination": ("RUN ln -s OUT /d\nCOPY Dockerfile /d/\nRUN echo over", "| over"),
    "a working directory that is a link": ("RUN ln -s OUT /d\nWORKDIR /d/new\nRUN pwd; echo over", "| over"),
    # Rights that were not given.
    "CVE-2024-23653": ("RUN --security=insecure true", "security.insecure is not allowed"),
    # Words for git.
    "an option in place of a ref": ("ADD https://localhost:1/x.git#--upload-pack=touch${IFS}OUT/new /", "localhost"),
    "ssh's own options": ("ADD ssh://-oProxyCommand=touch${IFS}OUT/new/x.git /", ""),
    "a program as a remote": ("ADD ext::sh${IFS}-c${IFS}touch${IFS}OUT/new.git /", ""),
}


@pytest.mark.parametrize("name", WAYS)
def test_known_way(layerbuild: Layerbuild, context: Path, outside: Path, name: str) -> None:
    recipe, wanted = WAYS[name]
    text = recipe.replace("/OUT", str(outside)).replace("OUT", str(outside)).replace("ID", context.name)
    (context / "Dockerfile").write_text(f"FROM busybox AS first\n{text}\n")
    command = layerbuild.command("build", "--secret", "id=s,env=LENT", context)
    done = subprocess.run(
        command,
        env={**layerbuild.environment(), "LENT": "lent"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode in (0, 1, 3), done.stderr
    assert wanted in done.stderr
    assert TOKEN not in done.stderr.replace(text, "")
    assert "Traceback" not in done.stderr


def test_the_name_of_a_mount_point_changes_its_meaning_meanwhile(tmp_path: Path) -> None:
    """CVE-2024-23651: a folder of a shared cache that another build replaces with a link, again and again."""
    outside, cache = tmp_path / "outside", tmp_path / "root/cache"
    outside.mkdir()
    over = threading.Event()

    def prepare() -> None:
        (cache / "x").mkdir(parents=True)
        (cache / "link").symlink_to(outside)

    def swap() -> None:
        while not over.is_set():
            try:
                (cache / "x").rename(cache / "folder")
                (cache / "link").rename(cache / "x")
                (cache / "x").rename(cache / "link")
                (cache / "folder").rename(cache / "x")
            except OSError:  # a mount point was made in the moment in which the name was free
                shutil.rmtree(tmp_path / "root/cache", ignore_errors=True)
                with suppress(FileExistsError):
                    prepare()

    prepare()

    thread = threading.Thread(target=swap)
    thread.start()
    top = os.open(tmp_path / "root", os.O_PATH)
    made = 0
    try:
        for number in range(3000):
            try:
                os.close(rootfs.mount_point(top, tmpfs(f"/cache/x/{number}")))
                made += 1
            except (OSError, rootfs.BuildError):
                continue
    finally:
        over.set()
        thread.join()
        os.close(top)
    assert made
    assert list(outside.iterdir()) == []


def test_a_workspace_that_is_entered_again(layerbuild: Layerbuild, context: Path, outside: Path) -> None:
    """Its working directory is made anew if the failed command took it away, but not through what it put there."""
    recipe = (
        f"FROM busybox\nWORKDIR /a/empty/new\nRUN mkdir -p /b && cd / && rm -rf /a && ln -s {outside} /a && exit 3\n"
    )
    layerbuild.build(context, recipe, code=1)
    layerbuild.run("shell", "--failed", "true", code=1)
    assert list((outside / "empty").iterdir()) == []


def test_links_in_a_cache_are_not_followed_when_it_goes(layerbuild: Layerbuild, context: Path, outside: Path) -> None:
    """Nor when it is measured, or renewed."""
    line = f"RUN --mount=type=cache,id={context.name},mode=777,target=/c ln -s {outside} /c/out"
    plant = f"{line} && mkdir -p /c/d && ln -s {outside}/canary /c/d/file && cp -a /c/out /c/d/again"
    layerbuild.build(context, f"FROM busybox\n{plant}\n")
    layerbuild.build(context, f"FROM busybox\n{line}; ls -l /c\n", "--no-cache")
    layerbuild("df")
    layerbuild("prune", "--all", "--force")
    assert not any((layerbuild.root / "cache-mounts").iterdir())


@pytest.mark.parametrize("driver", ["overlay", "copy"])
def test_no_other_user_comes_to_a_program_that_gives_rights(rooted: Layerbuild, context: Path, driver: str) -> None:
    """Set-user-ID programs of layers, caches, contexts, kept workspaces and steps that run now."""
    program = context / "program"
    program.write_text("")
    program.chmod(0o4755)
    (context / ".dockerignore").write_text("ignored")  # so that what is mounted is a copy
    layerbuild = replace(rooted, env={**rooted.env, "LAYERBUILD_DRIVER": driver})
    make = "cp /bin/busybox /c/s; cp /bin/busybox /s; chmod 6755 /c/s /s"
    recipe = f"FROM busybox\nCOPY program /\nRUN --mount=type=cache,target=/c {make}\n"
    layerbuild.build(context, f"{recipe}RUN cp /s /t; chmod 4755 /t; exit 3\n", code=1)
    mark = f"71{os.getpid()}"
    slow = (
        f"{recipe}RUN --mount=type=bind,target=/m --mount=type=bind,rw,target=/w chmod 4755 /w/program; sleep {mark}\n"
    )
    (context / "Dockerfile").write_text(slow)
    with layerbuild.start("build", context, stderr=subprocess.DEVNULL) as build:
        try:
            wait_until(lambda: processes(mark), seconds=20)
            look = ["find", layerbuild.root, "-perm", "/6000"]
            everything = subprocess.run(look, capture_output=True, text=True, check=False).stdout.split()
            become = {"user": USER + 1, "group": USER + 1, "extra_groups": ()}
            others = subprocess.run(look, capture_output=True, text=True, check=False, **become).stdout
        finally:
            build.terminate()
    assert len(everything) >= 5
    assert others == ""


def test_a_base_whose_trigger_wants_more(layerbuild: Layerbuild, context: Path) -> None:
    layerbuild.build(context, "FROM busybox\nONBUILD RUN --security=insecure true\n", "-t", "base")
    said = layerbuild.build(context, "FROM base\n", code=1)
    assert "security.insecure is not allowed" in said


def test_a_folder_under_a_name_of_its_own(layerbuild: Layerbuild, context: Path, outside: Path) -> None:
    named = context / "named"
    named.mkdir()
    (named / "out").symlink_to(outside)
    for line in (
        "COPY --from=named out/canary /",
        "RUN --mount=type=bind,from=named,source=out,target=/m cat /m/canary",
    ):
        (context / "Dockerfile").write_text(f"FROM busybox\n{line}\n")
        done = layerbuild.run("build", "--build-context", f"named={named}", context, code=1)
        assert TOKEN not in done.stderr


def test_who_has_no_umask_makes_nothing_that_others_can_write(rooted: Layerbuild, context: Path) -> None:
    (context / "Dockerfile").write_text("FROM busybox\nRUN --mount=type=cache,target=/c touch /c/x /x\n")
    subprocess.run(rooted.command("build", context), env=rooted.environment(), umask=0, check=True, capture_output=True)
    paths = [path for path in rooted.root.rglob("*") if not path.is_symlink() and path.name != "tmp"]
    assert [path for path in paths if path.stat().st_mode & 0o002] == []


def test_folders_to_which_no_path_leads(layerbuild: Layerbuild, context: Path) -> None:
    """A command makes them, in its own tree and in a cache: the build says so at its place, and the store works on."""
    dive = "i=0; while [ $i -lt 250 ]; do mkdir $deep; cd -P $deep; i=$((i+1)); done"
    deep = "f" * 20
    lines = {
        f"RUN deep={deep}; {dive}": 1,
        f"RUN --mount=type=cache,id={context.name},target=/c cd /c; deep={deep}; {dive}": 0,
    }
    for line, code in lines.items():
        (context / "Dockerfile").write_text(f"FROM busybox\n{line}\n")
        done = layerbuild.run("build", context, code=code)
        assert ("Dockerfile:2:1: a path of the files that this step leaves is longer" in done.stderr) == bool(code)
    layerbuild("df")
    layerbuild("prune", "--all", "--force")
    assert_whole(layerbuild.root)
    assert not any((layerbuild.root / "cache-mounts").iterdir())


def test_a_program_that_another_command_may_replace(layerbuild: Layerbuild, context: Path) -> None:
    """CVE-2019-5736, between the look at a program in a cache and execve: by a link to /proc/self/exe, or such an
    interpreter or loader, that another stage puts there. What can't be replaced, or is a shell's to start, is fine."""
    cache = f"RUN --mount=type=cache,id={context.name},target=/c"
    make = (
        "cp /bin/busybox /c/echo && printf '#!/c/echo\\n' > /script && ln -s /c /link && chmod +x /script && mkdir /d"
    )
    layerbuild.build(context, f"FROM busybox\n{cache} {make} && ln -s ../link/../c/echo /d/e\n", "-t", "base")
    refused = ('["/c/echo"]', '["/script"]', '["/d/e"]', '["/link/../c/echo"]', '["echo", "from the cache"]')
    fine = ('["ash", "-c", "/c/echo x"]', "/script", '["/bin/busybox", "true"]')
    for words in (*refused, *fine):
        recipe = f"FROM base\nENV PATH=/c:/bin\n{cache} {words}\n"
        said = layerbuild.build(context, recipe, code=int(words in refused))
        assert ("lies in a cache, where another command may replace it" in said) == (words in refused), words
    locked = cache.replace("target", "sharing=locked,target")
    assert "| alone\n" in layerbuild.build(context, f'FROM base\n{locked} ["/c/echo", "alone"]\n')
    covered = 'RUN --mount=type=tmpfs,target=/proc ["/bin/busybox", "true"]'
    assert "a mount covers /proc/self" in layerbuild.build(context, f"FROM base\n{covered}\n", code=1)


@pytest.mark.parametrize("folder", ["/a" * 3000, f"/{'a' * 300}", "/a\0b"])
def test_a_base_whose_working_directory_can_not_be(rooted: Layerbuild, context: Path, folder: str) -> None:
    rooted.build(context, "FROM busybox\nWORKDIR /x\n", "-t", "base")
    layout = context / "base"
    rooted.build(context, None, "-t", "base", "-o", f"type=oci,dest={layout},tar=false")
    (described,) = json.loads((layout / "index.json").read_text())["manifests"]
    manifest = json.loads(blob(layout, described).read_text())
    config = json.loads(blob(layout, manifest["config"]).read_text())
    config["config"]["WorkingDir"] = folder
    manifest["config"] |= put(layout, config)
    (layout / "index.json").write_text(
        json.dumps({"schemaVersion": 2, "manifests": [described | put(layout, manifest)]})
    )
    rooted("import", "--tag", "odd", layout)
    (context / "Dockerfile").write_text("FROM odd\nRUN true\n")
    done = rooted.run("build", context, code=1)
    assert "Dockerfile:2:1: the working directory 'a" in done.stderr
    assert len(done.stderr) < 1000
    rooted.build(context, "FROM odd\nWORKDIR /x\nRUN true\n")


def blob(layout: Path, described: Mapping[str, str]) -> Path:
    return layout / "blobs" / Path(*described["digest"].split(":"))


def put(layout: Path, document: object) -> dict[str, object]:
    data = json.dumps(document).encode()
    described = {"digest": f"sha256:{hashlib.sha256(data).hexdigest()}", "size": len(data)}
    (layout / "blobs/sha256" / hashlib.sha256(data).hexdigest()).write_bytes(data)
    return described
