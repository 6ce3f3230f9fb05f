"""The command line and registries: pull, login, logout, and bases that are fetched when they are needed."""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import stat
import subprocess
import termios
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from loopback import Reply
from registries import PASSWORD, USER, Registry
from registry_faults import Image, layer_tar
from registry_faults import Registry as FaultyRegistry
from support import USER as USER_ID
from support import Layerbuild
from traces import assert_whole, wait_until

from layerbuild.cli.bars import Blobs
from layerbuild.digest import BlobDigest
from layerbuild.events import BlobMoved


def push(program: Callable[[str], str], archive: Path, registry: Registry, name: str, *options: str) -> str:
    """Put the image in an archive into a registry; its name there."""
    words = [program("skopeo"), "copy", "--quiet", "--dest-tls-verify=false", *options]
    subprocess.run([*words, f"oci-archive:{archive}", f"docker://{registry.name(name)}"], check=True)
    return registry.name(name)


@pytest.fixture(scope="session")
def archive(templates: object, tmp_path_factory: pytest.TempPathFactory, as_user: Callable[[Path], Layerbuild]) -> Path:
    """An image of three layers, the first of which is that of busybox, as an archive."""
    folder = tmp_path_factory.mktemp("archive")
    place = templates.folder / "archive"  # type: ignore[attr-defined]
    who = "root" if os.geteuid() == 0 else "user"
    layerbuild = templates.copy(who, place)  # type: ignore[attr-defined]
    recipe = "FROM busybox\nRUN echo one > /one\nRUN echo two > /two && rm /one\nENV WHO=registry\n"
    layerbuild.build(folder / "context", recipe, "-t", "app", "-o", f"type=oci,dest={folder / 'app.tar'}")
    shutil.rmtree(place)
    return folder / "app.tar"


@pytest.fixture(scope="session")
def app(archive: Path, registry: Registry, program: Callable[[str], str]) -> str:
    """The name of that image in the open registry."""
    return push(program, archive, registry, "app:1")


@pytest.fixture
def settings(layerbuild: Layerbuild) -> Iterator[Path]:
    """A folder for DOCKER_CONFIG that the user of ``layerbuild`` may write."""
    folder = layerbuild.root.parent / "docker"
    folder.mkdir()
    if layerbuild.rootless and os.geteuid() == 0:
        os.chown(folder, USER_ID, USER_ID)
    yield folder


def layers_asked(registry: Registry, position: int) -> list[str]:
    """The blobs that were fetched, without the image's configuration, which is always the first."""
    found = [line for line in registry.requests(position) if line.startswith("GET") and "/blobs/" in line]
    return found[1:]


def test_pull_and_run(layerbuild: Layerbuild, app: str) -> None:
    done = layerbuild.run("pull", app)
    assert re.fullmatch(rf"{app}: sha256:[0-9a-f]{{64}}\n", done.stdout)
    assert done.stderr.count("pulled ") == 2  # busybox is here already
    assert layerbuild("run", app, "sh", "-c", "echo $WHO; cat /two; ls /one 2>&1; true") == (
        "registry\ntwo\nls: /one: No such file or directory\n"
    )
    again = layerbuild.run("pull", "-q", app)
    assert again.stderr == "" and again.stdout.strip() in done.stdout
    assert_whole(layerbuild.root)


def test_what_a_build_does_not_need_stays_where_it_is(
    layerbuild: Layerbuild, app: str, registry: Registry, context: Path
) -> None:
    (context / "file").write_text("new")
    position = registry.position
    layerbuild.build(context, f"FROM {app}\nLABEL by=test\nCOPY --link --chown=7:8 file /there/\n", "-t", "mine")
    assert layers_asked(registry, position) == []
    assert layerbuild("layers", "mine").count("(in the registry only)") == 2
    sizes = [row["size"] for row in layerbuild.json("history", "mine") if not row["empty_layer"]]
    assert sizes.count(None) == 2 and layerbuild("history", "mine").count("  ?  ") == 2
    assert json.loads(layerbuild("inspect", "mine"))[0]["GraphDriver"]["Data"] is None
    position = registry.position
    assert layerbuild("run", "mine", "cat", "/there/file", "/two") == "newtwo\n"
    assert len([line for line in registry.requests(position) if "/blobs/" in line]) == 2
    assert "registry only" not in layerbuild("layers", "mine")
    assert_whole(layerbuild.root)


def test_an_export_brings_what_it_needs(
    rooted: Layerbuild, app: str, context: Path, program: Callable[[str], str]
) -> None:
    out = context / "out"
    rooted.build(context, f"FROM {app}\nLABEL by=test\n", "-t", "mine", "-o", f"type=oci,dest={out}/")
    run = subprocess.run([program("skopeo"), "inspect", f"oci:{out}"], capture_output=True, text=True, check=True)
    assert len(json.loads(run.stdout)["Layers"]) == 3
    rooted("build", "-q", "-o", f"type=local,dest={context}/tree", context)
    assert (context / "tree/two").read_text() == "two\n"


def test_a_build_brings_what_a_run_or_a_lookup_needs(layerbuild: Layerbuild, app: str, context: Path) -> None:
    recipe = f"FROM {app} AS base\nRUN cat /two > /three\n"
    recipe += f"FROM scratch\nCOPY --from={app} /two /a\nCOPY --from=base /three /b\n"
    said = layerbuild.build(context, recipe, "-t", "mine")
    assert said.count("pulled ") == 2
    assert layerbuild.names("mine") == ["b"] and layerbuild.names("mine", 0) == ["a"]
    assert "cached" in layerbuild.build(context, recipe, "-t", "mine")


def test_plan_and_lint_fetch_no_layer(layerbuild: Layerbuild, app: str, registry: Registry, context: Path) -> None:
    (context / "Dockerfile").write_text(f"FROM {app}\nWORKDIR /srv\nCOPY --from={app} /two /two\nRUN true\n")
    position = registry.position
    plan = layerbuild.json("plan", context)
    assert [step["cache"] for step in plan["steps"]] == ["miss", "miss", "miss"]
    assert layerbuild("lint", context) == "no warnings\n"
    assert layers_asked(registry, position) == []


def test_when_to_ask(layerbuild: Layerbuild, app: str, registry: Registry, context: Path) -> None:
    (context / "Dockerfile").write_text(f"FROM {app}\n")

    def asked(*options: str, code: int = 0) -> int:
        position = registry.position
        layerbuild.run("build", *options, context, code=code)
        return len([line for line in registry.requests(position) if "/manifests/" in line])

    assert asked("--pull=never", code=1) == 0
    assert asked("--pull=missing") == 1
    assert asked() == asked("--pull=never") == asked("--pull=false") == 0
    assert asked("--pull") == asked("--pull=always") == asked("--pull=true") == 1
    assert "--pull can't be 'often'" in layerbuild.run("build", "--pull=often", context, code=2).stderr


def test_a_base_that_no_registry_has(rooted: Layerbuild, registry: Registry, context: Path) -> None:
    (context / "Dockerfile").write_text(f"FROM busybox\nRUN true\nFROM {registry.name('absent')}\n")
    said = rooted.run("build", context, code=69).stderr
    assert f":3:6: base image '{registry.name('absent')}' is not in the store" in said and "MANIFEST_UNKNOWN" in said
    (context / "Dockerfile").write_text("FROM base:host\n")
    other = rooted.run("build", "--platform", "linux/s390x", context, code=69).stderr
    assert "hint: it is there for linux/" in other and "makes it" not in other
    rooted("rmi", "base:host")
    said = rooted.run("build", context, code=69).stderr
    assert "hint: `layerbuild base host` makes it of this machine's programs" in said
    said = rooted.run("pull", registry.name("absent"), code=69).stderr
    assert "answered 404" in said and "hint: are the repository and the tag spelled so there?" in said


def test_a_pinned_base(rooted: Layerbuild, app: str, context: Path) -> None:
    image = rooted("pull", "-q", app).strip()
    digest = rooted.json("layers", app)["manifest_digest"]
    recipe = f"FROM {app}@{digest}\nLABEL a=b\n"
    assert "image sha256:" in rooted.build(context, recipe)
    assert rooted("build", "-q", "--pull", context) and rooted("inspect", f"{app}@{digest}").count(image) == 1


def test_two_pulls_at_once_fetch_once(
    rooted: Layerbuild, archive: Path, registry: Registry, program: Callable[[str], str]
) -> None:
    name = push(program, archive, registry, "twice:1")
    position = registry.position
    pulls = [rooted.start("pull", "-q", name, stdout=-1, stderr=-1) for _ in range(3)]
    outputs = {pull.communicate() for pull in pulls}
    assert len(outputs) == 1 and outputs.pop()[1] == b""
    fetched = [line for line in registry.requests(position) if "/blobs/" in line]
    layers = {row["digest"] for row in rooted.layers(name)[1:]}
    assert sorted(line.rpartition("/")[2] for line in fetched if line.rpartition("/")[2] in layers) == sorted(layers)
    assert_whole(rooted.root)


def test_a_killed_pull_goes_on_where_it_was(rooted: Layerbuild, faulty: FaultyRegistry) -> None:
    source = Image(layer_tar(1, size=3 << 20))
    faulty.add("app", source)
    (layer,) = source.layers
    faulty.first[f"/v2/app/blobs/{layer}"] = [Reply(source.blobs[layer], stall=True)]
    part = rooted.root / "arriving" / BlobDigest(layer).hex
    with rooted.start("pull", f"{faulty.host}/app", stdout=-3, stderr=-3) as pull:
        wait_until(lambda: part.is_file() and part.stat().st_size >= 1 << 20)
        pull.kill()
    size = part.stat().st_size
    rooted("pull", f"{faulty.host}/app")
    assert faulty.asked(layer)[-1].headers["range"].startswith(f"bytes={size}-")
    assert_whole(rooted.root)


def test_a_pull_that_is_stopped(rooted: Layerbuild, faulty: FaultyRegistry) -> None:
    source = Image(layer_tar(1), layer_tar(2))
    faulty.add("app", source)
    for layer in source.layers:
        faulty.first[f"/v2/app/blobs/{layer}"] = [Reply(source.blobs[layer], stall=True)]
    with rooted.start("pull", f"{faulty.host}/app", stdout=-3, stderr=subprocess.PIPE) as pull:
        wait_until(lambda: len(faulty.asked("/blobs/")) == 3)
        pull.terminate()
        assert b"Traceback" not in pull.communicate(timeout=20)[1]
    assert pull.returncode == 143
    rooted("prune")
    assert_whole(rooted.root)


# -- credentials -------------------------------------------------------------------------------------------------------


def test_login_and_logout(
    layerbuild: Layerbuild, closed_registry: Registry, archive: Path, settings: Path, program: Callable[[str], str]
) -> None:
    name = push(program, archive, closed_registry, "app:1", "--dest-creds", f"{USER}:{PASSWORD}")
    host, file = closed_registry.host, settings / "config.json"
    env = {"DOCKER_CONFIG": str(settings)}
    said = layerbuild.run("pull", name, code=69, env=env).stderr
    assert f"layerbuild login {host}" in said
    words = ("login", host, "--username", USER, "--password-stdin")
    said = layerbuild.run(*words, code=69, stdin=b"a wrong one\n", env=env).stderr
    assert f"{host} does not take this user and password" in said and "nothing was kept" in said
    assert "a wrong one" not in said and not file.exists()
    said = layerbuild.run(*words, stdin=PASSWORD.encode() + b"\n", env=env).stderr
    assert "login succeeded" in said and str(file) in said and PASSWORD not in said
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert "pulled" in layerbuild.run("pull", name, env=env).stderr
    assert str(file) in layerbuild.run("logout", host, env=env).stderr
    assert json.loads(file.read_text()) == {"auths": {}}
    layerbuild.run("pull", name, code=69, env=env)
    assert "nothing was kept" in layerbuild.run("logout", host, env=env).stderr


def test_a_password_that_is_typed_is_not_shown(rooted: Layerbuild, closed_registry: Registry, tmp_path: Path) -> None:
    controller, terminal = pty.openpty()
    words = rooted.command("login", closed_registry.host)
    env = rooted.environment() | {"DOCKER_CONFIG": str(tmp_path)}
    said = b""
    with subprocess.Popen(
        words, stdin=terminal, stdout=terminal, stderr=terminal, env=env, start_new_session=True
    ) as login:
        os.close(terminal)
        for prompt, answer, echo in ((b"Username: ", USER, termios.ECHO), (b"Password: ", PASSWORD, 0)):
            while not said.endswith(prompt):
                said += os.read(controller, 1000)
            wait_until(lambda echo=echo: termios.tcgetattr(controller)[3] & termios.ECHO == echo)
            os.write(controller, f"{answer}\n".encode())
        try:
            while data := os.read(controller, 1000):
                said += data
        except OSError:  # EIO: nobody has the terminal any more (pty(7))
            pass
    os.close(controller)
    assert login.returncode == 0 and USER.encode() in said and PASSWORD.encode() not in said
    assert (tmp_path / "config.json").is_file()


def test_credentials_that_skopeo_kept(
    rooted: Layerbuild, closed_registry: Registry, archive: Path, tmp_path: Path, program: Callable[[str], str]
) -> None:
    name = push(program, archive, closed_registry, "app:2", "--dest-creds", f"{USER}:{PASSWORD}")
    file = tmp_path / "auth.json"
    words = ["login", "--tls-verify=false", "--authfile", file, "-u", USER, "-p", PASSWORD, closed_registry.host]
    subprocess.run([program("skopeo"), *words], check=True, capture_output=True)
    rooted.run("pull", name, env={"REGISTRY_AUTH_FILE": str(file)})
    rooted.run("logout", closed_registry.host, env={"REGISTRY_AUTH_FILE": str(file)})
    rooted.run("pull", "-q", name, code=69, env={"REGISTRY_AUTH_FILE": str(file)})


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("login", "nohost"), "names no registry"),
        (("login", ""), "'' names no registry"),
        (("logout", "user@127.0.0.1:1"), "'user@127.0.0.1:1' names no registry"),
        (("login", "host.example.com"), "no terminal to ask"),
        (("login", "host.example.com", "--password-stdin"), "--password-stdin needs --username"),
        (("login", "h.example.com", "-u", "x", "-p", "y", "--password-stdin"), "contradict"),
        (("pull", "Not/A Name"), "invalid image reference"),
        (("--registry-mirror", "http://x", "pull", "127.0.0.1:1/x"), "names no host"),
    ],
)
def test_wrong_use(rooted: Layerbuild, arguments: tuple[str, ...], said: str) -> None:
    assert said in rooted.run(*arguments, code=2).stderr


def test_a_configuration_file(rooted: Layerbuild, app: str, registry: Registry, tmp_path: Path) -> None:
    file = tmp_path / "registries.conf"
    file.write_text(f'[[registry]]\nprefix = "example.com/far"\nlocation = "{registry.host}"\n')
    rooted.run("pull", "example.com/far/app:1", env={"LAYERBUILD_REGISTRIES_CONF": str(file)})
    assert rooted.json("layers", "example.com/far/app:1")["names"] == ["example.com/far/app:1"]
    file.write_text("[[registry]]\n")
    said = rooted.run("pull", app, code=2, env={"LAYERBUILD_REGISTRIES_CONF": str(file)}).stderr
    assert str(file) in said


def test_a_mirror_by_flag(rooted: Layerbuild, app: str, registry: Registry) -> None:
    said = rooted.run("--registry-mirror", f"127.0.0.1:1={registry.host}", "pull", "127.0.0.1:1/app:1").stdout
    assert said.startswith("127.0.0.1:1/app:1: sha256:")


# -- progress ----------------------------------------------------------------------------------------------------------


def test_progress_as_json(rooted: Layerbuild, app: str) -> None:
    events = [json.loads(line) for line in rooted.run("pull", "--progress", "rawjson", app).stderr.splitlines()]
    moved = [event for event in events if event["event"] == "BlobMoved"]
    assert {event["way"] for event in moved} == {"pull"} and all(event["place"] in app for event in moved)
    assert sum(event["done"] == event["size"] for event in moved) == 2


def test_blobs_on_their_way() -> None:
    blobs = Blobs()
    one, two = BlobDigest.of(b"1"), BlobDigest.of(b"2")
    assert blobs.take(BlobMoved(one, "pull", "host/app", 250, 1000)) == ""
    assert blobs.take(BlobMoved(two, "push", "host/app", 0, 50)) == ""
    assert blobs.bars(65) == [
        "       pulling 6b86b273ff34 [#####               ] 250B of 1.00kB",
        "       pushing d4735e3a265e [                         ] 0B of 50B",
    ]
    assert all(len(line) <= 44 for line in blobs.bars(44))
    there = blobs.take(BlobMoved(one, "pull", "host/app", 1000, 1000))
    assert re.fullmatch(r" {7}pulled 6b86b273ff34: 1\.00kB  \d+m?s", there)
    assert len(blobs.bars(65)) == 1


def test_a_tag_beside_a_digest_is_no_name(rooted: Layerbuild, app: str) -> None:
    rooted("pull", app)
    (digest,) = {pinned.partition("@")[2] for pinned in json.loads(rooted("inspect", app))[0]["RepoDigests"]}
    repository = app.rpartition(":")[0]
    rooted("pull", f"{repository}:never-there@{digest}")
    assert "<none>" in rooted("images") and "never-there" not in rooted("images")
