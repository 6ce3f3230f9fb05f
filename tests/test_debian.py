"""A real recipe on a real Debian base, read by other people's programs and recomputed by independent code."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from places import fresh
from referencing import Registry
from referencing.jsonschema import DRAFT4
from support import PROJECT, Layerbuild, missing

pytestmark = pytest.mark.slow

RECIPE = PROJECT / "recipes" / "application"
PACKAGES = "gcc,libc6-dev,make,python3-minimal"
WORDS = "15 words in poem.txt, says uid 999\n"


@pytest.fixture(scope="module")
def scratch() -> Iterator[Path]:
    folder = fresh("debian")
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def built(scratch: Path, program: Callable[[str], str]) -> Layerbuild:
    """A store with ``debian:build`` and ``app``, and the base as an OCI layout in ``scratch/base``."""
    if os.geteuid() != 0:
        missing("not run as root")
    program("mmdebstrap")
    layerbuild = Layerbuild(scratch / "store", env={"PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"})
    layerbuild("base", "debian", "--include", PACKAGES, "--tag", "debian:build")
    layerbuild.build(RECIPE, None, "-t", "app:1", "-o", f"type=oci,dest={scratch}/app.oci,tar=false")
    (scratch / "none").mkdir()
    layerbuild.build(
        scratch / "none", "FROM debian:build\n", "-t", "base", "-o", f"type=oci,dest={scratch}/base,tar=false"
    )
    return layerbuild


@pytest.fixture(scope="module")
def layout(built: Layerbuild, scratch: Path) -> Path:
    return scratch / "app.oci"


def call(*words: str | Path) -> str:
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{words}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def blob(layout: Path, digest: str) -> bytes:
    return (layout / "blobs" / Path(*digest.split(":"))).read_bytes()


def digest_of(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def manifest_of(layout: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    (described,) = json.loads((layout / "index.json").read_text())["manifests"]
    manifest = json.loads(blob(layout, described["digest"]))
    return manifest, json.loads(blob(layout, manifest["config"]["digest"]))


def test_recipe(built: Layerbuild) -> None:
    built.check_recipe(RECIPE)


def test_configuration(layout: Path) -> None:
    _, config = manifest_of(layout)
    runtime = config["config"]
    assert runtime["User"] == "wordcount"
    assert runtime["WorkingDir"] == "/var/lib/wordcount"
    assert runtime["Entrypoint"] == ["/opt/wordcount/bin/wordcount"]
    assert runtime["Cmd"] == ["/opt/wordcount/share/poem.txt"]
    assert runtime["Labels"]["org.opencontainers.image.title"] == "wordcount"
    assert runtime["ExposedPorts"] == {"8080/tcp": {}}


def test_every_digest_recomputed(built: Layerbuild, layout: Path) -> None:
    manifest, config = manifest_of(layout)
    said = built.json("layers", "app:1")
    assert digest_of(blob(layout, said["manifest_digest"])) == said["manifest_digest"]
    assert digest_of(blob(layout, manifest["config"]["digest"])) == said["image_id"] == manifest["config"]["digest"]
    rows = [row for row in said["history"] if not row["empty_layer"]]
    chain = ""
    for row, described, diff_id in zip(rows, manifest["layers"], config["rootfs"]["diff_ids"], strict=True):
        packed = blob(layout, described["digest"])
        with gzip.open(io.BytesIO(packed)) as unpacked:  # gzip.decompress copies what is left once for each member
            tar = unpacked.read()
        assert digest_of(packed) == described["digest"] == row["digest"]
        assert len(packed) == described["size"] == row["size"]
        assert digest_of(tar) == diff_id == row["diff_id"]
        assert len(tar) == row["tar_size"]
        chain = digest_of(f"{chain} {diff_id}".encode()) if chain else diff_id
        assert chain == row["chain_id"]
    history = config["history"]
    assert [entry["created_by"] for entry in history] == [row["instruction"] for row in said["history"]]
    assert [entry.get("empty_layer", False) for entry in history] == [row["empty_layer"] for row in said["history"]]


def test_schemas(layout: Path) -> None:
    corpus = Path(os.environ.get("LAYERBUILD_CORPUS", PROJECT.parent / "shared" / "corpus")) / "image-spec" / "schema"
    if not corpus.is_dir():
        pytest.skip(f"corpus absent: {corpus}")
    schemas = {path.name: json.loads(path.read_text()) for path in corpus.glob("*.json")}
    # Their references are relative to ids that lie at different depths: the file's name alone tells which is meant.
    registry: Registry[Any] = Registry(retrieve=lambda uri: DRAFT4.create_resource(schemas[uri.rpartition("/")[2]]))
    manifest, config = manifest_of(layout)
    index = json.loads((layout / "index.json").read_text())
    layout_file = json.loads((layout / "oci-layout").read_text())
    for name, document in (
        ("image-index-schema.json", index),
        ("image-manifest-schema.json", manifest),
        ("config-schema.json", config),
        ("image-layout-schema.json", layout_file),
    ):
        jsonschema.Draft4Validator(schemas[name], registry=registry).validate(document)


def test_skopeo_reads_it_and_copies_it_to_a_docker_archive_and_back(
    layout: Path, scratch: Path, program: Callable[[str], str]
) -> None:
    skopeo = program("skopeo")
    told = json.loads(call(skopeo, "inspect", f"oci:{layout}"))
    _, config = manifest_of(layout)
    assert told["Labels"]["org.opencontainers.image.title"] == "wordcount"
    assert len(told["Layers"]) == len(config["rootfs"]["diff_ids"])
    archive, back = scratch / "skopeo.tar", scratch / "back"
    call(skopeo, "copy", f"oci:{layout}", f"docker-archive:{archive}:app:1")
    call(skopeo, "copy", f"docker-archive:{archive}", f"oci:{back}:app")
    assert manifest_of(back)[1]["rootfs"] == config["rootfs"]


def test_umoci_unpacks_the_same_tree(
    built: Layerbuild, layout: Path, scratch: Path, program: Callable[[str], str]
) -> None:
    umoci = program("umoci")
    reference = json.loads((layout / "index.json").read_text())["manifests"][0]["annotations"]
    tag = reference["org.opencontainers.image.ref.name"]
    theirs, ours = scratch / "umoci", scratch / "ours"
    call(umoci, "unpack", "--image", f"{layout}:{tag}", theirs)
    built.build(RECIPE, None, "-o", f"type=local,dest={ours}")
    expected, found = tree(theirs / "rootfs"), tree(ours)
    assert sorted(expected) == sorted(found)
    assert {path: (expected[path], found[path]) for path in expected if expected[path] != found[path]} == {}


def tree(root: Path) -> dict[str, tuple[Any, ...]]:
    """Every path below ``root``: type and mode, owner, size, link target, device, content, other names of the inode."""
    facts: dict[str, tuple[Any, ...]] = {}
    inodes: dict[int, str] = {}
    for folder, folders, files in os.walk(root):
        folders.sort()
        for name in sorted(folders + files):
            path = Path(folder, name)
            seen = path.lstat()
            relative = str(path.relative_to(root))
            regular = stat.S_ISREG(seen.st_mode)
            facts[relative] = (
                oct(seen.st_mode),
                seen.st_uid,
                seen.st_gid,
                seen.st_size if regular else 0,
                os.readlink(path) if stat.S_ISLNK(seen.st_mode) else "",
                seen.st_rdev,
                int(seen.st_mtime),
                digest_of(path.read_bytes()) if regular else "",
                inodes.setdefault(seen.st_ino, relative) if regular else "",
            )
    return facts


def test_buildah_loads_the_archive_and_runs_it(built: Layerbuild, scratch: Path, program: Callable[[str], str]) -> None:
    buildah = program("buildah")
    archive = scratch / "app.tar"
    built.build(RECIPE, None, "-t", "app:1", "-o", f"type=docker,dest={archive}")
    store = ["--root", scratch / "containers", "--runroot", scratch / "run", "--storage-driver", "vfs"]
    container = call(buildah, *store, "from", f"docker-archive:{archive}").strip().splitlines()[-1]
    command = ["/opt/wordcount/bin/wordcount", "/opt/wordcount/share/poem.txt"]
    assert call(buildah, *store, "run", "--isolation", "chroot", container, "--", *command) == WORDS


def test_podman_loads_the_archive(built: Layerbuild, scratch: Path, program: Callable[[str], str]) -> None:
    podman = program("podman")
    archive = scratch / "podman.tar"
    built.build(RECIPE, None, "-t", "app:1", "-o", f"type=docker,dest={archive}")
    # At most 50 characters, it says.
    store = ["--root", scratch / "podman", "--runroot", scratch / "p", "--storage-driver", "vfs"]
    assert "app:1" in call(podman, *store, "load", "--input", archive)
    (told,) = json.loads(call(podman, *store, "image", "inspect", "docker.io/library/app:1"))
    assert told["Id"] == built.json("layers", "app:1")["image_id"].partition(":")[2]


def test_built_again_elsewhere_another_day_it_has_the_same_bytes(built: Layerbuild, scratch: Path) -> None:
    expected = built.json("layers", "app:1")
    other = Layerbuild(scratch / "elsewhere" / "another" / "store", python=(sys.executable, "-c", THREE_DAYS_LATER))
    copy = scratch / "elsewhere" / "sources"
    shutil.copytree(RECIPE, copy)
    other("import", "--tag", "debian:build", scratch / "base")
    other.build(copy, None, "--no-cache", "-t", "app:1")
    found = other.json("layers", "app:1")
    for layers in (expected, found):
        del layers["names"]
        for row in layers["history"]:
            del row["folder"]
    assert found == expected
    again = built.run("build", "--no-cache", RECIPE)
    assert again.stdout.strip() == expected["image_id"]
    cached = built.run("build", RECIPE)
    assert cached.stdout.strip() == expected["image_id"] and cached.stderr.count("cached") == 5


THREE_DAYS_LATER = """
import sys, time
sys.argv[1:] = [word for word in sys.argv[1:] if word not in ("--", "-m", "layerbuild")]
now = time.time
time.time = lambda: now() + 3 * 86400
from layerbuild.cli.main import run
run()
"""


def test_the_base_is_the_same_when_made_again(built: Layerbuild, scratch: Path) -> None:
    small = Layerbuild(scratch / "small", env=built.env)
    ids = []
    for tag in ("one", "two"):
        small("base", "debian", "--tag", tag)
        ids.append(small.json("layers", tag)["history"][0]["diff_id"])
    assert ids[0] == ids[1]


# A package is made and installed; its script makes a user, hands files over, and sets set-id bits and capabilities.
# What names the hour or the machine's inodes is taken away again: logs, and the caches of ldconfig and apt.
PACKAGE = r"""
FROM debian:build
RUN adduser --system --group --home /srv/thing thing && adduser --disabled-password --gecos '' me
WORKDIR /p/usr/bin
RUN mkdir -p /p/var/lib/thing && cp /bin/true thing && ln thing too && chown me thing && chmod 4755 too
RUN ln -s x /p/var/lib/thing/link && chown -h 12:13 /p/var/lib/thing/link
WORKDIR /
COPY <<END /p/DEBIAN/control
Package: thing
Version: 1
Architecture: all
Maintainer: me <me@example.com>
Description: thing
END
COPY --chmod=755 <<END /p/DEBIAN/postinst
#!/bin/sh
set -e
adduser --system --group thingd
chown -R thingd:thingd /var/lib/thing
chmod 2711 /usr/bin/thing
END
RUN install -d -g mail -m 2775 /p/var/lib/thing/mail && install -d -g staff -m 3775 /p/var/lib/thing/local/share && \
 install -g mail -m 2755 /bin/true /p/usr/bin/thing-mail && install -d -o mail -g staff -m 1730 /p/var/lib/thing/tabs
RUN dpkg-deb --build /p /thing.deb && rm -r /p
RUN apt-get install -y ./thing.deb && rm -r /var/log/* /var/cache/ldconfig /var/cache/apt/*.bin
COPY <<END /able.py
import os, struct
os.setxattr("/usr/bin/thing", "security.capability", struct.pack("<5I", 0x02000001, 1 << 13, 0, 0, 0))
END
RUN python3 /able.py && rm /able.py
RUN mknod /null c 1 3 && su me -c 'touch /tmp/by-me && id && tar cf ~/t.tar -C / etc/passwd && tar xf ~/t.tar -C ~'
RUN touch /var/lib/thing/mail/box && mkdir -p /var/lib/thing/local/share/new/deep && useradd -m -s /bin/sh other && \
 cp -a /var/lib/thing /copied && tar -C /var/lib/thing -cpf /t.tar . && mkdir /u && tar -C /u -xpf /t.tar && \
 rm /t.tar && install -o other -g mail -m 6711 /bin/true /u/true && ln /u/true /u/again && \
 mv -f /u/again /usr/bin/thing-mail
USER me
RUN id > ~/id && mkdir ~/made && cp -a /etc/alternatives ~/made
USER root
RUN chown -R thing ~me/made && setpriv --reuid me --regid me --init-groups id && cp -a /home/me /home/you
RUN userdel -r thing || true
"""


def test_root_and_users_install_a_package_with_the_same_bytes(
    built: Layerbuild,
    scratch: Path,
    as_user: Callable[[Path], Layerbuild],
    as_ranged: Callable[[Path], Layerbuild],
) -> None:
    (scratch / "package").mkdir()
    (scratch / "stores").mkdir()
    (scratch / "stores").chmod(0o777)
    layers = {}
    for who, make in (("root", Layerbuild), ("ranged", as_ranged), ("user", as_user)):
        layerbuild = make(scratch / "stores" / who)
        layerbuild("import", "--tag", "debian:build", scratch / "base")
        layerbuild.build(scratch / "package", PACKAGE, "-t", "package")
        layers[who] = [(row["instruction"], row["diff_id"]) for row in layerbuild.layers("package")]
    assert layers["ranged"] == layers["root"]
    assert layers["user"] == layers["root"]
