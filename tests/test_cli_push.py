"""Images are pushed to a real registry, and read there by other programs."""

from __future__ import annotations

import json
import subprocess
import tempfile
import threading
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from registries import PASSWORD, USER, Registry
from support import Layerbuild
from upload_server import UploadServer

from layerbuild.digest import BlobDigest

pytestmark = [pytest.mark.memory, pytest.mark.forked]

RECIPE = "FROM busybox\nRUN echo one > /one\nRUN echo two > /two && ln /two /three && rm /one\nLABEL a=b\n"


def skopeo(program: Callable[[str], str], *words: str) -> Any:
    done = subprocess.run([program("skopeo"), *words], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def manifest(registry: Registry, repository: str, target: str) -> bytes | None:
    """What ``target`` means in a repository; None: nothing."""
    kinds = ("application/vnd.oci.image.manifest.v1+json", "application/vnd.oci.image.index.v1+json")
    url = f"http://{registry.host}/v2/{repository}/manifests/{target}"
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers={"Accept": ", ".join(kinds)})) as answer:
            data: bytes = answer.read()
            return data
    except urllib.error.HTTPError as error:
        assert error.code == 404
        return None


def digest_of(layerbuild: Layerbuild, name: str) -> str:
    index = json.loads((layerbuild.root / "index.json").read_text())
    found = [entry for entry in index["manifests"] if entry["annotations"]["io.containerd.image.name"] == name]
    return str(found[0]["digest"])


def test_others_read_what_was_pushed(
    layerbuild: Layerbuild, context: Path, registry: Registry, program: Callable[[str], str], tmp_path: Path
) -> None:
    names = [registry.name(f"push/{kind}") for kind in ("one:1", "one:2", "two:1")]
    layerbuild.build(context, RECIPE, *(word for name in names for word in ("-t", name)))
    digest = digest_of(layerbuild, names[0])
    pushed = layerbuild.run("push", *names)
    assert pushed.stdout.splitlines() == [f"{name}@{digest}" for name in names]
    for name in names:
        source = f"docker://{name}"
        raw = skopeo(program, "inspect", "--raw", "--tls-verify=false", source)
        assert raw == (layerbuild.root / "blobs/sha256" / digest[7:]).read_bytes()
        assert json.loads(skopeo(program, "inspect", "--tls-verify=false", source))["Digest"] == digest
    # All its blobs can be had, under their digests.
    target = tmp_path / "copied"
    skopeo(program, "copy", "--src-tls-verify=false", f"docker://{names[2]}", f"oci:{target}:it")
    with tempfile.TemporaryDirectory() as short:  # podman wants a runroot of at most 50 characters
        podman = [program("podman"), "--root", f"{short}/r", "--runroot", f"{short}/rr", "--storage-driver", "vfs"]
        for name in names[:2]:
            subprocess.run([*podman, "pull", "--quiet", "--tls-verify=false", name], capture_output=True, check=True)
            (told,) = json.loads(subprocess.run([*podman, "inspect", name], capture_output=True, check=True).stdout)
            assert told["Digest"] == digest
    copied = {path.name for path in (target / "blobs/sha256").iterdir()}
    assert copied <= {path.name for path in (layerbuild.root / "blobs/sha256").iterdir()} and digest[7:] in copied


def login(layerbuild: Layerbuild, registry: Registry, folder: Path) -> dict[str, str]:
    """An environment in which the credentials for ``registry`` are known."""
    pair = b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"auths": {registry.host: {"auth": pair}}}))
    return {"DOCKER_CONFIG": str(folder)}


def test_a_password_is_wanted(rooted: Layerbuild, context: Path, closed_registry: Registry, tmp_path: Path) -> None:
    name = closed_registry.name("push/closed:1")
    rooted.build(context, RECIPE, "-t", name)
    refused = rooted.run("push", name, code=69)
    assert closed_registry.host in refused.stderr and f"layerbuild login {closed_registry.host}" in refused.stderr
    env = login(rooted, closed_registry, tmp_path / "docker")
    pushed = rooted.run("push", name, env=env)
    assert pushed.stdout.startswith(f"{name}@sha256:")
    assert PASSWORD not in pushed.stdout + pushed.stderr


def test_a_layer_is_on_its_way_as_soon_as_it_is_sealed(
    rooted: Layerbuild, context: Path, registry: Registry, program: Callable[[str], str]
) -> None:
    begin, name = "FROM busybox\nRUN echo one > /one\n", registry.name("push/built:1")
    rooted.build(context, begin, "-t", "begin")
    first = rooted.layers("begin")[-1]["digest"]
    # The second step ends well only when the layer of the first one has come to the registry.
    blob = f"http://{registry.host}/v2/push/built/blobs/{first}"
    wait = f"for try in $(seq 200); do wget -q -O /dev/null {blob} && exit 0; sleep 0.1; done; exit 1"
    said = rooted.build(
        context, f"{begin}RUN {wait}\nRUN touch /two\n", "--no-cache", "-t", name, "--push", "--progress", "rawjson"
    )
    told = [json.loads(line) for line in said.splitlines()]
    moved = [event for event in told if event["event"] == "BlobMoved" and event["way"] == "push"]
    assert {event["place"] for event in moved} == {registry.name("push/built")}
    ended = [event["digest"] for event in moved if event["how"]]
    assert len(ended) == len(set(ended)) == 4  # the base, two layers, the configuration: each once
    assert skopeo(program, "inspect", "--tls-verify=false", f"docker://{name}")


def test_a_build_that_fails_leaves_no_tag(rooted: Layerbuild, context: Path, registry: Registry) -> None:
    name = registry.name("push/failed:1")
    recipe = "FROM busybox\nRUN echo one > /one\nRUN exit 3\n"
    context.joinpath("Dockerfile").write_text(recipe)
    rooted.run("build", "-t", name, "--push", context, code=1)
    assert manifest(registry, "push/failed", "1") is None


def test_outputs(rooted: Layerbuild, context: Path, registry: Registry, tmp_path: Path) -> None:
    one, two = registry.name("push/outputs:one"), registry.name("push/outputs:two")
    told = rooted.build(
        context, RECIPE, "-o", f'type=image,"name={one},{two}",push=true,compression=zstd,force-compression=true'
    )
    pushed = manifest(registry, "push/outputs", "two")
    assert pushed and pushed == manifest(registry, "push/outputs", "one")
    assert BlobDigest.of(pushed) == digest_of(rooted, one)
    assert f"pushed {one}@{digest_of(rooted, one)}\npushed {two}@{digest_of(rooted, one)}\n" in told
    kinds = {layer["mediaType"] for layer in json.loads(pushed)["layers"]}
    assert kinds == {"application/vnd.oci.image.layer.v1.tar+zstd"}
    metadata = tmp_path / "metadata.json"
    name = registry.name("push/by-digest")
    output = f"type=image,name={name},push-by-digest=true,name-canonical=true,push=true"
    told = rooted.build(context, RECIPE, "-o", output, "--metadata-file", str(metadata))
    digest = json.loads(metadata.read_text())["containerimage.digest"]
    assert f"pushed {name}@{digest}\n" in told
    assert BlobDigest.of(manifest(registry, "push/by-digest", digest) or b"") == digest
    assert manifest(registry, "push/by-digest", "latest") is None
    rooted.build(context, RECIPE, "-o", "type=image,name=kept:1")
    assert "kept" in rooted("images")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--push",), "nothing says where to push to"),
        (("-o", "type=registry,push-by-digets=true"), "did you mean push-by-digest"),
        (("-o", "type=image,name=a,dest=b"), "unknown key 'dest'"),
        (("-o", "type=image,name=a,store=false,push=true"), "store=false can't be had"),
        (("-o", "type=registry,name=a,push=false,push-by-digest=true"), "push-by-digest without push"),
        (("-t", "x@sha256:" + "0" * 64, "--push"), "a digest names one content only"),
    ],
)
def test_what_can_not_be_pushed(rooted: Layerbuild, context: Path, arguments: tuple[str, ...], said: str) -> None:
    context.joinpath("Dockerfile").write_text("FROM busybox\nRUN touch /never\n")
    refused = rooted.run("build", *arguments, context, code=2)
    assert said in refused.stderr and "RUN" not in refused.stderr


def test_a_base_is_taken_over_and_never_fetched(
    rooted: Layerbuild, context: Path, registry: Registry, tmp_path: Path
) -> None:
    base = registry.name("push/base:1")
    rooted("tag", "busybox", base)
    rooted("push", base)
    fresh = Layerbuild(tmp_path / "fresh")
    name = registry.name("push/child:1")
    start = registry.position
    said = fresh.build(context, f"FROM {base}\nLABEL only=metadata\n", "-t", name, "--push")
    assert said.count("mounted") == 1
    (layer,) = json.loads(manifest(registry, "push/child", "1") or b"")["layers"]
    asked = registry.requests(start)
    assert not [line for line in asked if line.startswith("GET") and layer["digest"] in line]
    assert not (fresh.root / "blobs/sha256" / layer["digest"][7:]).exists()
    # Where it can't be taken over it is fetched, and sent.
    with UploadServer() as other:
        elsewhere = f"{other.host}/child:1"
        fresh("tag", name, elsewhere)
        fresh("push", elsewhere)
        assert (
            other.blobs["child"][layer["digest"]] == (rooted.root / "blobs/sha256" / layer["digest"][7:]).read_bytes()
        )


def test_two_at_once(rooted: Layerbuild, context: Path, registry: Registry) -> None:
    names = [registry.name(f"push/race:{number}") for number in (1, 2)]
    rooted.build(context, RECIPE, *(word for name in names for word in ("-t", name)))
    running = [rooted.start("push", name, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for name in names]
    assert [process.wait() for process in running] == [0, 0], [process.communicate() for process in running]
    both = {BlobDigest.of(manifest(registry, "push/race", tag) or b"") for tag in ("1", "2")}
    assert both == {digest_of(rooted, names[0])}


def test_an_index_is_pushed_with_its_images(rooted: Layerbuild, context: Path, registry: Registry) -> None:
    name = registry.name("push/index:x")
    (context / "Dockerfile").write_text("FROM scratch\nARG TARGETARCH\nLABEL for=$TARGETARCH\nCOPY Dockerfile /\n")
    platforms = ("--platform", "linux/arm64,linux/s390x")
    rooted.run("build", *platforms, "--push", "-t", name, context)
    pushed = manifest(registry, "push/index", "x")
    assert pushed
    index = json.loads(pushed)
    (digest,) = {row["index_digest"] for row in rooted.json("images") if row["index_digest"]}
    assert BlobDigest.of(pushed) == digest
    assert [entry["platform"]["architecture"] for entry in index["manifests"]] == ["arm64", "s390x"]
    for entry in index["manifests"]:
        assert manifest(registry, "push/index", entry["digest"])
    # One of them alone, by push; and the index under another name and with other bytes, by an output.
    rooted("tag", name, registry.name("push/one:x"))
    rooted("push", "--platform", "linux/s390x", registry.name("push/one:x"))
    assert json.loads(manifest(registry, "push/one", "x") or b"")["layers"]
    other = registry.name("push/other:x")
    output = f"type=registry,name={other},annotation-index.a=b"
    rooted.run("build", *platforms, "-o", output, context)
    assert json.loads(manifest(registry, "push/other", "x") or b"")["annotations"] == {"a": "b"}
    fresh = Layerbuild(context / "store", env=rooted.env)
    fresh("pull", "--platform", "linux/s390x", name)
    assert fresh.json("images")[0]["platform"] == "linux/s390x"


def test_who_is_told_to_stop_does_not_wait_for_the_server(rooted: Layerbuild, context: Path) -> None:
    asked, go_on = threading.Event(), threading.Event()

    def stall(what: str) -> None:
        if what.startswith("PUT"):
            asked.set()
            go_on.wait(30)

    with UploadServer() as server:
        server.on_request = stall
        name = f"{server.host}/stalled:1"
        rooted("tag", "busybox", name)
        process = rooted.start("push", name, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        assert asked.wait(30)
        process.terminate()
        assert process.wait(10) == 143
        go_on.set()
        assert not server.manifests.get("stalled")
