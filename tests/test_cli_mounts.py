"""``RUN --mount``, ``--network`` and ``--security``, as root and as an ordinary user: what a command sees, and that
nothing of it stays."""

from __future__ import annotations

import fcntl
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support import USER, Layerbuild
from traces import mounts, wait_until

pytestmark = [pytest.mark.memory, pytest.mark.forked]

SECRET = "correct-horse"
NO_LAYER = "no layer: no file changed"


def fill(context: Path) -> None:
    (context / "sub").mkdir()
    (context / "a.txt").write_text("from the context\n")
    (context / "left.txt").write_text("left out\n")
    (context / "sub/b.txt").write_text("b\n")
    (context / "sub/left.txt").write_text("left out\n")


def listed(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def assert_clean(layerbuild: Layerbuild) -> None:
    """Nothing is left where mounts are prepared, and nothing mounted."""
    assert os.listdir(layerbuild.root / "tmp") == []
    wait_until(lambda: not mounts(layerbuild.root), seconds=2)


# -- bind --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ignore", ["", "**/left.txt\n"])
def test_the_context_is_shown_less_what_is_ignored(layerbuild: Layerbuild, context: Path, ignore: str) -> None:
    fill(context)
    (context / ".dockerignore").write_text(ignore)
    recipe = """\
        FROM busybox
        WORKDIR /ctx/of
        RUN --mount=target=. cat a.txt; find . -name left.txt; stat -c 'owner %u %g' a.txt; ! touch x
        RUN --mount=type=bind,source=sub/b.txt,dst=/etc/file,ro cat /etc/file; ! echo >> /etc/file
        """
    before = listed(context)
    said = layerbuild.build(context, recipe, "-t", "x")
    assert "| from the context\n" in said
    assert "| owner 0 0\n" in said
    assert ("left.txt" in said.replace("-name left.txt", "")) == (not ignore)
    assert said.count(NO_LAYER) == 2
    assert listed(context) == sorted({*before, "Dockerfile"})
    assert_clean(layerbuild)


@pytest.mark.parametrize("spelled", [".", "../{name}", "down/.."])
@pytest.mark.parametrize("how", ["ro", "rw"])
def test_a_context_named_by_a_relative_path_is_shown_and_nothing_else(
    layerbuild: Layerbuild, context: Path, spelled: str, how: str
) -> None:
    """The mount is made by a process that works in ``/``: "." bound the whole machine."""
    fill(context)
    (context / "down").mkdir()
    (context / "Dockerfile").write_text(
        f"FROM busybox\nRUN --mount=target=/c,{how} ls /c\nRUN --mount=source=a.txt,target=/f,{how} cat /f\n"
    )
    said = layerbuild.run("build", spelled.format(name=context.name), cwd=context).stderr
    shown = [line.removeprefix("       | ") for line in said.splitlines() if line.startswith("       | ")]
    assert shown == ["Dockerfile", "a.txt", "down", "left.txt", "sub", "from the context"]


def test_what_belongs_to_others_is_roots_in_the_mount(rooted: Layerbuild, context: Path) -> None:
    fill(context)
    os.chown(context / "sub/b.txt", USER, USER)
    said = rooted.build(context, "FROM busybox\nRUN --mount=target=/c stat -c 'owner %u %g' /c/sub/b.txt\n")
    assert "| owner 0 0\n" in said


@pytest.mark.parametrize("ignore", ["", "**/left.txt\n"])
def test_what_is_written_to_the_context_vanishes(layerbuild: Layerbuild, context: Path, ignore: str) -> None:
    fill(context)
    (context / ".dockerignore").write_text(ignore)
    recipe = """\
        FROM busybox
        RUN --mount=target=/c,rw rm -r /c/sub; echo changed > /c/a.txt; touch /c/new; cat /c/a.txt
        RUN --mount=target=/c,rw cat /c/a.txt /c/sub/b.txt; test ! -e /c/new
        RUN --mount=target=/f,source=a.txt,readwrite echo more >> /f; tail -n 1 /f
        """
    said = layerbuild.build(context, recipe)
    assert [line for line in said.splitlines() if line.startswith("       | ")] == [
        f"       | {text}" for text in ("changed", "from the context", "b", "more")
    ]
    assert said.count(NO_LAYER) == 3
    assert (context / "a.txt").read_text() == "from the context\n"
    assert (context / "sub/b.txt").exists()
    assert_clean(layerbuild)


def test_stages_and_images_are_shown_whole_and_stay_what_they_are(layerbuild: Layerbuild, context: Path) -> None:
    recipe = """\
        FROM busybox AS one
        RUN mkdir /d && echo lower > /d/lower && echo gone > /d/gone && ln -s d/lower /link
        RUN rm /d/gone && echo upper > /d/upper
        FROM busybox
        RUN --mount=from=one,target=/one,rw cat /one/d/*; rm -r /one/d /one/bin; touch /one/new
        RUN --mount=from=one,target=/one,source=/d ls /one; ! touch /one/x
        RUN --mount=from=one,target=/file,source=link cat /file
        RUN --mount=from=busybox,target=/b test -x /b/bin/busybox
        """
    said = layerbuild.build(context, recipe, "-t", "x")
    shown = [line.removeprefix("       1 | ") for line in said.splitlines() if line.startswith("       1 | ")]
    assert [line for line in shown if "touch" not in line] == ["lower", "upper", "lower", "upper", "lower"]
    assert said.count(NO_LAYER) == 4
    assert layerbuild.run("run", "--rm", "busybox", "ls", "/bin/busybox").stdout == "/bin/busybox\n"
    assert_clean(layerbuild)


def test_named_contexts_are_shown_too(layerbuild: Layerbuild, context: Path) -> None:
    (context / "lib").mkdir()
    (context / "lib/part").write_text("part\n")
    recipe = """\
        FROM busybox
        RUN --mount=from=lib,target=/l,rw cat /l/part; rm /l/part
        RUN --mount=from=tools,target=/t test -x /t/bin/busybox
        RUN --mount=from=lib,type=cache,target=/c cat /c/part
        """
    named = ("--build-context", f"lib={context / 'lib'}", "--build-context", "tools=docker-image://busybox")
    said = layerbuild.build(context, recipe, *named)
    assert said.count("| part\n") == 2
    assert said.count(NO_LAYER) == 3
    assert (context / "lib/part").exists()


def test_a_source_that_is_missing_is_told_with_its_line(layerbuild: Layerbuild, context: Path) -> None:
    fill(context)
    (context / ".dockerignore").write_text("left*\n")
    (context / "Dockerfile").write_text("FROM busybox\nRUN --mount=target=/c,source=left.txt true\n")
    said = layerbuild.run("build", context, code=1).stderr
    assert "Dockerfile:2:1: 'left.txt' not found: .dockerignore line 1 (`left*`) leaves it out" in said


def test_the_source_is_a_path_and_no_pattern(layerbuild: Layerbuild, context: Path) -> None:
    (context / "[ab]").write_text("brackets\n")
    (context / "a").write_text("a\n")
    assert "| brackets\n" in layerbuild.build(
        context, "FROM busybox\nRUN --mount=target=/f,source=[ab] cat /f\n", "-t", "x"
    )


def test_only_what_is_mounted_counts_for_the_cache(layerbuild: Layerbuild, context: Path) -> None:
    fill(context)
    recipe = "FROM busybox\nRUN --mount=target=/c,source=sub ls /c\n"
    assert "cached" not in layerbuild.build(context, recipe)
    (context / "a.txt").write_text("another\n")
    assert "cached" in layerbuild.build(context, recipe)
    (context / "sub/b.txt").write_text("another\n")
    assert "cached" not in layerbuild.build(context, recipe)


# -- mount points ------------------------------------------------------------------------------------------------------


def test_mounts_hide_what_is_below_and_leave_no_trace(layerbuild: Layerbuild, context: Path) -> None:
    fill(context)
    recipe = """\
        FROM busybox
        RUN mkdir -p /opt/here && echo hidden > /opt/here/hidden
        RUN --mount=target=/opt/here --mount=type=cache,target=/var/deep/cache --mount=type=tmpfs,target=/opt/t \\
            test ! -e /opt/here/hidden && touch /var/deep/cache/x /opt/t/x
        RUN test -f /opt/here/hidden && test ! -e /var/deep && test ! -e /opt/t
        RUN --mount=type=tmpfs,target=/var/deep/t echo 1 > /var/deep/stays
        """
    said = layerbuild.build(context, recipe, "-t", "x")
    assert said.count(NO_LAYER) == 2
    assert layerbuild.names("x") == ["var/", "var/deep/", "var/deep/stays"]


def test_mounts_are_stacked_parents_first(layerbuild: Layerbuild, context: Path) -> None:
    fill(context)
    recipe = """\
        FROM busybox
        RUN --mount=type=tmpfs,target=/srv/sub/deep --mount=target=/srv,rw touch /srv/sub/deep/x; ls /srv/sub
        """
    said = layerbuild.build(context, recipe)
    assert "| deep\n" in said
    assert listed(context / "sub") == ["b.txt", "left.txt"]


def test_a_mount_point_that_can_not_be_made(layerbuild: Layerbuild, context: Path) -> None:
    fill(context)
    recipe = "FROM busybox\nRUN --mount=target=/w --mount=type=cache,target=/w/node_modules true\n"
    (context / "Dockerfile").write_text(recipe)
    said = layerbuild.run("build", context, code=1).stderr
    assert "Dockerfile:2:1: '/w/node_modules' lies in a read-only mount" in said
    assert "hint: make it in what is mounted there, or mount that with rw" in said
    (context / "Dockerfile").write_text("FROM busybox\nRUN --mount=target=/etc/passwd true\n")
    said = layerbuild.run("build", context, code=1).stderr
    assert "'/etc/passwd' is a file there, and what is to be mounted on it a folder" in said


# -- cache -------------------------------------------------------------------------------------------------------------


def test_a_cache_outlives_builds_and_is_in_no_layer(layerbuild: Layerbuild, context: Path) -> None:
    recipe = """\
        FROM busybox
        ARG RUN
        RUN --mount=type=cache,target=/c echo $RUN >> /c/log; cat /c/log
        RUN --mount=type=cache,id=/c,target=/elsewhere,ro test -e /elsewhere/log && ! touch /elsewhere/x
        RUN --mount=type=cache,target=/other test ! -e /other/log
        """
    assert layerbuild.build(context, recipe, "--build-arg", "RUN=1").count(NO_LAYER) == 3
    assert "| 1\n       | 2\n" in layerbuild.build(context, recipe, "--build-arg", "RUN=2")
    layerbuild("prune")
    assert "| 2\n       | 3\n" in layerbuild.build(context, recipe, "--build-arg", "RUN=3")
    apart = layerbuild.build(context, recipe, "--build-arg", "RUN=4", "--build-arg", "BUILDKIT_CACHE_MOUNT_NS=n")
    assert "| 4\n" in apart and "| 3\n" not in apart
    rows = {row["kind"]: row for row in layerbuild.json("df")}
    assert rows["cache mounts"]["count"] == 4
    assert layerbuild.json("prune", "-a")["counts"]["cache mounts"] == 4
    assert {row["kind"]: row["count"] for row in layerbuild.json("df")}["cache mounts"] == 0


def test_a_cache_begins_with_its_owner_its_mode_or_a_seed(rooted: Layerbuild, context: Path) -> None:
    recipe = """\
        FROM busybox AS seed
        RUN mkdir -p /top/seed && echo 1 > /top/seed/one && ln -s seed /top/link
        FROM busybox
        USER 7:8
        RUN --mount=type=cache,target=/c,uid=7,gid=8,mode=0710 stat -c '%u %g %a' /c; touch /c/x
        RUN --mount=type=cache,target=/s,from=seed,source=/top/link,uid=7 cat /s/one; rm /s/one
        RUN --mount=type=cache,target=/s,from=seed,source=/top/seed,uid=7 ls /s
        """
    said = rooted.build(context, recipe)
    assert [line for line in said.splitlines() if line.startswith("       1 | ")] == [
        "       1 | 7 8 710",
        "       1 | 1",
    ]


def test_no_cache_renews_a_cache_that_has_a_mode(layerbuild: Layerbuild, context: Path) -> None:
    # SEMANTICS R12: the fresh one is what later builds share; a plain one persists.
    recipe = """\
        FROM busybox
        ARG FOO
        RUN --mount=type=cache,target=/owned,mode=0773 --mount=type=cache,target=/plain \\
            touch /owned/$FOO /plain/$FOO; echo owned $(ls /owned), plain $(ls /plain)
        """
    layerbuild.build(context, recipe, "--build-arg", "FOO=a")
    said = layerbuild.build(context, recipe, "--build-arg", "FOO=b", "--no-cache")
    assert "| owned b, plain a b\n" in said
    assert "| owned b c, plain a b c\n" in layerbuild.build(context, recipe, "--build-arg", "FOO=c")


def test_a_source_in_a_cache_is_a_folder_of_it(layerbuild: Layerbuild, context: Path) -> None:
    recipe = """\
        FROM busybox
        RUN --mount=type=cache,id=i,target=/c mkdir -p /c/in/ner && touch /c/in/ner/x && ln -s /etc /c/out
        RUN --mount=type=cache,id=i,target=/v,source=in/ner ls /v
        """
    assert "| x\n" in layerbuild.build(context, recipe)
    assert_clean(layerbuild)


def test_a_source_that_leads_out_of_the_cache_fails(layerbuild: Layerbuild, context: Path) -> None:
    # SEMANTICS R13
    recipe = """\
        FROM busybox
        RUN --mount=type=cache,id=i,target=/c ln -s /etc /c/out
        RUN --mount=type=cache,id=i,target=/v,source=out cat /v/hostname
        """
    (context / "Dockerfile").write_text(recipe)
    said = layerbuild.run("build", context, code=1).stderr
    assert "Dockerfile:3:9: 'out' is no folder of the cache" in said
    assert_clean(layerbuild)


def test_a_locked_cache_is_waited_for_and_that_is_said(rooted: Layerbuild, context: Path) -> None:
    recipe = "FROM busybox\nARG N\nRUN --mount=type=cache,target=/c,sharing=locked echo $N; touch /c/x\n"
    rooted.build(context, recipe)
    (lock,) = rooted.root.glob("cache-mounts/*/0.lock")
    with lock.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        waiting = rooted.start(
            "build", "--build-arg", "N=1", context, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL
        )
        assert waiting.stderr is not None
        for line in waiting.stderr:
            if b"cache mount '/c' is in use" in line:
                break
        else:
            pytest.fail("it did not wait")
        assert waiting.poll() is None
    assert b"| 1\n" in waiting.stderr.read()
    assert waiting.wait() == 0


def test_one_step_may_mount_a_locked_cache_twice(layerbuild: Layerbuild, context: Path) -> None:
    recipe = """\
        FROM busybox
        RUN --mount=type=cache,id=i,target=/a,sharing=locked --mount=type=cache,id=i,target=/b,sharing=locked \\
            touch /a/x && ls /b
        """
    assert "| x\n" in layerbuild.build(context, recipe)


# -- tmpfs -------------------------------------------------------------------------------------------------------------


def test_memory_with_a_limit(layerbuild: Layerbuild, context: Path) -> None:
    recipe = """\
        FROM busybox
        RUN --mount=type=tmpfs,target=/t,size=1m ! dd if=/dev/zero of=/t/x bs=1k count=1100 && stat -c %s /t/x
        """
    assert "| 1048576\n" in layerbuild.build(context, recipe)


# -- secrets -----------------------------------------------------------------------------------------------------------


def test_a_secret_is_seen_by_its_step_alone(layerbuild: Layerbuild, context: Path) -> None:
    recipe = """\
        FROM busybox
        ENV TOKEN=of-the-image
        RUN --mount=type=secret,id=s stat -c '%a %u %g %s' /run/secrets/s && cat /run/secrets/s
        RUN --mount=type=secret,id=s,env=TOKEN test ! -e /run && \\
            printf "${TOKEN%-*}" && sleep 0.1 && echo "-${TOKEN#*-}"
        RUN --mount=type=secret,id=s,env=TOKEN,target=/both/s test "$TOKEN" = "$(cat /both/s)"
        RUN test "$TOKEN" = of-the-image && test ! -e /run && test ! -e /both
        """
    said = layerbuild.build(context, recipe, "-t", "x", "--secret", "id=s,env=GIVEN", env={"GIVEN": SECRET})
    assert f"| 400 0 0 {len(SECRET)}\n       | ***\n" in said
    assert SECRET not in said
    assert said.count("| ***\n") == 2
    assert said.count(NO_LAYER) == 4
    assert SECRET not in layerbuild("history", "x") + layerbuild("inspect", "x")
    found = [path for path in layerbuild.root.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()]
    assert found == []


def test_a_secret_has_the_owner_and_mode_that_are_asked_for(layerbuild: Layerbuild, context: Path) -> None:
    (context / "pw").write_text(SECRET)
    recipe = """\
        FROM busybox
        RUN --mount=type=secret,mode=741,uid=100,gid=102,target=/mysecret stat -c '%u %g %f' /mysecret
        """
    said = layerbuild.build(context, recipe, "--secret", f"id=mysecret,src={context / 'pw'}")
    owner = "0 0" if layerbuild.rootless else "100 102"  # an ordinary user's namespace has one id
    assert f"| {owner} 81e1\n" in said


def test_a_failed_step_tells_no_secret(layerbuild: Layerbuild, context: Path) -> None:
    (context / "Dockerfile").write_text("FROM busybox\nRUN --mount=type=secret,id=s,env=S echo $S; false\n")
    done = layerbuild.run("build", "--secret", "id=s,env=GIVEN", context, env={"GIVEN": SECRET}, code=1)
    assert "***" in done.stderr
    assert SECRET not in done.stdout + done.stderr
    found = [path for path in layerbuild.root.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()]
    assert found == []
    workspace = done.stderr.rpartition("shell ")[2].split()[0]
    assert SECRET not in layerbuild.run("shell", workspace, "env", env={"GIVEN": SECRET}).stdout


def test_another_value_of_a_secret_does_not_run_a_step_again(layerbuild: Layerbuild, context: Path) -> None:
    recipe = "FROM busybox\nRUN --mount=type=secret,id=s true\n"
    layerbuild.build(context, recipe, "--secret", "id=s,env=A", env={"A": "1"})
    assert "cached" in layerbuild.build(context, recipe, "--secret", "id=s,env=A", env={"A": "2"})


def test_a_secret_that_is_missing(layerbuild: Layerbuild, context: Path) -> None:
    layerbuild.build(context, "FROM busybox\nRUN --mount=type=secret,id=s test ! -e /run/secrets\n")
    (context / "Dockerfile").write_text("FROM busybox\nRUN --mount=type=secret,id=s,required true\n")
    said = layerbuild.run("build", "--secret", "id=s,env=UNSET", context, code=1).stderr
    assert "Dockerfile:2:1: secret s: not found" in said
    assert "hint: give it to the build: --secret id=s,src=FILE" in said


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("id=s,src=/nowhere", "can't read secret s from '/nowhere': No such file or directory"),
        ("src=/etc/passwd", "has no id"),
        ("id=s,file=/x", "--secret has no key 'file'"),
        ("id=s,type=vault", "--secret can't be of type 'vault'"),
        ("id=s,src=/dev/zero", "secret s is too big"),
    ],
)
def test_wrong_secrets(rooted: Layerbuild, context: Path, option: str, said: str) -> None:
    (context / "Dockerfile").write_text("FROM busybox\n")
    assert said in rooted.run("build", "--secret", option, context, code=2).stderr


# -- ssh ---------------------------------------------------------------------------------------------------------------


@contextmanager
def agent(layerbuild: Layerbuild, folder: Path, program: Callable[[str], str]) -> Iterator[Path]:
    """The socket of an ssh-agent without keys, of the user who builds; and a base that has ssh-add."""
    layerbuild("base", "host", "--with", f"default,{program('ssh-add')}", "--tag", "ssh")
    folder.chmod(0o777)
    become = (program("setpriv"), f"--reuid={USER}", f"--regid={USER}", "--clear-groups", "--")
    path = folder / "agent"
    running = subprocess.Popen(
        [*(become if layerbuild.rootless and os.geteuid() == 0 else ()), program("ssh-agent"), "-D", "-a", path],
        stdout=subprocess.DEVNULL,
    )
    try:
        wait_until(path.is_socket)
        yield path
    finally:
        running.terminate()
        running.wait()


ANSWER = "| The agent has no identities.\n"


def test_an_agent_is_forwarded(layerbuild: Layerbuild, context: Path, program: Callable[[str], str]) -> None:
    recipe = """\
        FROM ssh
        RUN --mount=type=ssh ssh-add -l; echo $SSH_AUTH_SOCK; stat -c '%a %u' $SSH_AUTH_SOCK
        RUN --mount=type=ssh,id=other,target=/sock ssh-add -l; ssh-add -l; test $? = 1
        RUN test -z "$SSH_AUTH_SOCK" && test ! -e /run
        """
    with agent(layerbuild, context, program) as path:
        options = ("--ssh", "default", "--ssh", f"other={path}")
        said = layerbuild.build(context, recipe, *options, env={"SSH_AUTH_SOCK": str(path)})
    assert f"{ANSWER}       | /run/buildkit/ssh_agent.0\n       | 600 0\n" in said
    assert said.count(ANSWER) == 3
    assert said.count(NO_LAYER) == 3
    assert_clean(layerbuild)


def test_an_agent_answers_the_user_that_the_mount_names(
    rooted: Layerbuild, context: Path, program: Callable[[str], str]
) -> None:
    recipe = """\
        FROM ssh
        USER 7
        RUN --mount=type=ssh,uid=7 ssh-add -l; true
        RUN --mount=type=ssh ssh-add -l; true
        """
    with agent(rooted, context, program) as path:
        said = rooted.build(context, recipe, "--ssh", f"default={path}")
    assert said.count(ANSWER) == 1
    assert "Permission denied" in said


def test_an_agent_that_is_missing(layerbuild: Layerbuild, context: Path) -> None:
    layerbuild.build(context, "FROM busybox\nRUN --mount=type=ssh test -z $SSH_AUTH_SOCK\n")
    (context / "Dockerfile").write_text("FROM busybox\nRUN --mount=type=ssh,required true\n")
    assert '2:1: no SSH key "default" forwarded' in layerbuild.run("build", context, code=1).stderr
    assert "SSH_AUTH_SOCK is set" in layerbuild.run("build", "--ssh", "default", context, code=2).stderr
    said = layerbuild.run("build", "--ssh", f"default={context / 'Dockerfile'}", context, code=2).stderr
    assert "it is no private key" in said and "--ssh ID=KEYFILE" in said


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory, program: Callable[[str], str]) -> dict[str, bytes]:
    """Private keys: two that can be used, called by the comments of their public halves, and one with a passphrase."""
    folder = tmp_path_factory.mktemp("keys")
    for name, passphrase in (("first", ""), ("second", ""), ("locked", "secret")):
        words = ("-q", "-t", "ed25519", "-N", passphrase, "-C", name, "-f", folder / name)
        subprocess.run([program("ssh-keygen"), *words], check=True, stdin=subprocess.DEVNULL)
    return {path.name: path.read_bytes() for path in folder.iterdir() if not path.suffix}


def test_keys_are_lent_through_an_agent(
    layerbuild: Layerbuild, context: Path, program: Callable[[str], str], keys: dict[str, bytes]
) -> None:
    layerbuild("base", "host", "--with", f"default,{program('ssh-add')}", "--tag", "ssh")
    for name, key in keys.items():
        (context / name).write_bytes(key)
    recipe = """\
        FROM ssh
        RUN --mount=type=ssh ssh-add -l; ssh-add -D; ssh-add -L | wc -l
        RUN --mount=type=ssh ! ssh-add -x < /dev/null
        """
    said = layerbuild.build(context, recipe, "--ssh", f"default={context}/first,{context}/second")
    assert " first (ED25519)" in said and " second (ED25519)" in said
    assert "Failed to remove all identities" in said and "| 2\n" in said
    assert keys["first"].splitlines()[1].decode() not in said
    for places, complaint in (
        (f"{context}/locked", "it is protected by a passphrase"),
        (f"{context}/nothing", "No such file"),
        (f"{context}/first,/dev/log.sock", "No such file"),
    ):
        assert complaint in layerbuild.run("build", "--ssh", f"default={places}", context, code=2).stderr


# -- network, security -------------------------------------------------------------------------------------------------


def test_networks(layerbuild: Layerbuild, context: Path) -> None:
    recipe = """\
        FROM busybox
        RUN --network=none grep -c : /proc/net/dev; ping -c 1 127.0.0.1 > /dev/null && echo loopback
        RUN --network=host readlink /proc/self/ns/net
        RUN readlink /proc/self/ns/net  # as above, and another step
        """
    said = layerbuild.build(context, recipe)
    assert "| 1\n       | loopback\n" in said
    host = os.readlink("/proc/self/ns/net")
    assert said.count(f"| {host}\n") == 2
    said = layerbuild.build(context, None, "--no-cache", "--network", "none")
    assert said.count(f"| {host}\n") == 1


def test_the_name_of_the_machine(layerbuild: Layerbuild, context: Path) -> None:
    recipe = "FROM busybox\nRUN hostname; grep -c localhost.*$(hostname) /etc/hosts\n"
    assert "| layerbuild\n       | 1\n" in layerbuild.build(context, recipe)
    said = layerbuild.build(context, None, "--build-arg", "BUILDKIT_SANDBOX_HOSTNAME=here.example")
    assert "| here.example\n       | 1\n" in said


def test_all_rights_are_for_those_who_allow_them(layerbuild: Layerbuild, context: Path) -> None:
    recipe = """\
        FROM busybox
        RUN echo first
        RUN --security=insecure grep CapEff /proc/self/status
        RUN grep CapEff /proc/self/status
        """
    (context / "Dockerfile").write_text(recipe)
    said = layerbuild.run("build", context, code=1).stderr
    assert "Dockerfile:3:9: entitlement security.insecure is not allowed" in said
    assert "hint: build --allow security.insecure" in said
    assert "| first" not in said
    said = layerbuild.build(context, None, "--allow", "security.insecure")
    insecure, sandboxed = [int(line.split()[-1], 16) for line in said.splitlines() if "| CapEff" in line]
    sys_admin = 1 << 21
    assert insecure & sys_admin and not sandboxed & sys_admin
    assert "--allow can't be 'all'" in layerbuild.run("build", "--allow", "all", context, code=2).stderr
