"""Images are pushed to a real registry, and read there by other programs."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from registries import Registry
from support import Layerbuild

RECIPE = "FROM busybox\nRUN echo one > /one\nRUN echo two > /two && ln /two /three && rm /one\nLABEL a=b\n"


def skopeo(program: Callable[[str], str], *words: str) -> Any:
    done = subprocess.run([program("skopeo"), *words], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


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
    copied = {path.name for path in (target / "blobs/sha256").iterdir()}
    assert copied <= {path.name for path in (layerbuild.root / "blobs/sha256").iterdir()} and digest[7:] in copied
