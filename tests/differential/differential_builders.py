"""Who builds a case: layerbuild, and the BuildKit of a Docker daemon. Both give an OCI layout in a folder."""

from __future__ import annotations

import re
import shutil
import tarfile
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from differential_cases import Case
from differential_images import Layout, facts
from stores import write_busybox
from support import Layerbuild, add_member

from bench.docker import Daemon

#: Builds a context with the case's options into a folder; RuntimeError with the reason if it fails.
Build = Callable[[Path, tuple[str, ...], Path], None]


def ours(layerbuild: Layerbuild) -> Build:
    def build(context: Path, options: tuple[str, ...], out: Path) -> None:
        # A copy of the same files is the same step to the cache, and would lend their times.
        same = ("-q", "--no-cache", "--network=none", "--timestamp=keep", "--secrets=off")
        done = layerbuild.attempt("build", *same, *options, "-o", f"type=oci,tar=false,dest={out}", context)
        if done.returncode:
            raise RuntimeError(_reason(done.stderr.decode()))

    return build


def buildkit(daemon: Daemon) -> Build:
    alone = threading.Lock()

    def build(context: Path, options: tuple[str, ...], out: Path) -> None:
        # A step with the same files is the same step to it, in its cache and in what it builds just now, and would lend
        # their times: no cache, and one after the other.
        same = ("-q", "--no-cache", "--network=none", "--provenance=false")
        try:
            with alone:
                daemon("build", *same, *options, "--output", f"type=oci,tar=false,dest={out}", context)
        except RuntimeError as error:
            raise RuntimeError(_reason(str(error))) from None

    return build


def outcome(build: Build, case: Case, folder: Path, base: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The facts of the image that a case makes in an empty folder, or why it makes none."""
    context = folder / "context"
    context.mkdir(parents=True)
    case.make(context)
    try:
        build(context, tuple(word.replace("{}", str(context)) for word in case.options), folder / "out")
    except RuntimeError as error:
        return {"fails": str(error)}
    return facts(Layout(folder / "out"), base)


def _reason(text: str) -> str:
    lines = [line for line in text.splitlines() if re.search(r"error|fail|:", line, re.IGNORECASE)] or [text.strip()]
    return re.sub(r"/tmp/\S+|ref \S+", "…", lines[-1].strip())[:300]


def import_busybox(layerbuild: Layerbuild, folder: Path) -> Path:
    """Give the store a base ``busybox``; ``folder``/busybox.tar is an archive of it, and the result its OCI layout."""
    program = shutil.which("busybox")
    assert program is not None, "busybox-static is not installed"
    write_busybox(program, folder / "rootfs.tar")
    with tarfile.open(folder / "rootfs.tar", "a") as tar:
        for name in ("dev", "proc", "sys"):  # else a RUN of BuildKit leaves them in its layer
            add_member(tar, name, tarfile.DIRTYPE, mode=0o755)
    layerbuild("import", "--tag", "busybox", folder / "rootfs.tar")
    (folder / "base").mkdir()
    (folder / "base/Dockerfile").write_text("FROM busybox\n")
    outputs = (f"type=oci,dest={folder}/busybox.tar", f"type=oci,tar=false,dest={folder}/busybox")
    layerbuild("build", "-q", *(word for output in outputs for word in ("-o", output)), folder / "base")
    return folder / "busybox"
