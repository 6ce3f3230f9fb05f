"""Images in and out of a registry: pull and unpack, and push, beside skopeo with umoci, and buildah.

    python -m bench.transfer [--scratch FOLDER] [--files 50000] [--megabytes 1000] [--layers 4] [--rounds 3] [--json]

The image lies in Debian's docker-registry on loopback; its files are small, and half of their bytes compress well. Each
program has its turn in each round, on an empty store; seconds are medians, memory is the largest sum of resident sizes.
Each push goes to a registry of its own, new in each round, so every byte is sent: where another repository has the
layers, all of these programs know to take them over. Needs root.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bench.capture import make_files
from bench.memory import Watch
from bench.peers import run

LAYERBUILD = [sys.executable, "-m", "layerbuild"]
PLAIN = "--tls-verify=false"

Work = Callable[[], None]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scratch", type=Path, help="a folder on the file system to measure")
    parser.add_argument("--files", type=int, default=50_000)
    parser.add_argument("--megabytes", type=int, default=1000)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    sys.path.append(str(Path(__file__).resolve().parent.parent / "tests"))
    from registries import running  # as the tests start it

    with tempfile.TemporaryDirectory(dir=options.scratch, prefix="layerbuild-bench-") as text:
        folder = Path(text)
        (folder / "registry").mkdir()
        with running(str(shutil.which("docker-registry")), folder / "registry") as registry:
            make_image(folder, registry.host, options)
            results = measure(folder, registry.host, options.rounds)
    if options.json:
        print(json.dumps(results, indent=2))
        return
    for name, (seconds, peak) in results.items():
        print(f"{name:24} {seconds:7.2f} s {peak / 1e6:7.0f} MB")


def make_image(folder: Path, host: str, options: argparse.Namespace) -> None:
    """Build the image, a layer for each COPY, and push it."""
    context = folder / "context"
    for number in range(options.layers):
        files = context / str(number)
        make_files(files, options.files // options.layers, options.megabytes // options.layers)
    recipe = "".join(f"COPY {number} /{number}\n" for number in range(options.layers))
    (context / "Dockerfile").write_text(f"FROM scratch\n{recipe}")
    archive = folder / "image.tar"
    run([*LAYERBUILD, "--root", folder / "made", "build", "-q", "-o", f"type=oci,dest={archive}", context])
    run(
        [
            "skopeo",
            "copy",
            "-q",
            "--dest-" + PLAIN[2:],
            f"oci-archive:{archive}",
            f"docker://{host}/image:1",
        ]
    )
    for place in (folder / "made", context):
        shutil.rmtree(place)
    archive.unlink()


def measure(folder: Path, host: str, rounds: int) -> dict[str, tuple[float, int]]:
    """Seconds (median) and bytes of memory for each kind of work; the round that is watched is not timed."""
    found: dict[str, list[float]] = {}
    peaks: dict[str, int] = {}
    for number in range(rounds + 1):
        with empty_registries(folder / "pushed") as targets:
            for name, work in works(folder, host, targets).items():
                run(["sync"])
                with Watch() as watch:
                    began = time.perf_counter()
                    work()
                    seconds = time.perf_counter() - began
                peaks[name] = max(peaks.get(name, 0), watch.peak)
                if number:
                    found.setdefault(name, []).append(seconds)
        for place in ("store", "skopeo", "bundle", "buildah", "run", "pushed"):
            shutil.rmtree(folder / place, ignore_errors=True)
    return {name: (statistics.median(seconds), peaks[name]) for name, seconds in found.items()}


@contextmanager
def empty_registries(folder: Path) -> Iterator[Mapping[str, str]]:
    """A name to push to for each program, each in a registry of its own."""
    from registries import running

    with ExitStack() as stack:
        targets = {}
        for who in ("layerbuild", "skopeo", "buildah"):
            (folder / who).mkdir(parents=True)
            registry = stack.enter_context(running(str(shutil.which("docker-registry")), folder / who))
            targets[who] = f"{registry.host}/pushed:1"
        yield targets


def works(folder: Path, host: str, targets: Mapping[str, str]) -> dict[str, Work]:
    """What is timed, in order: from the registry ``host``, and to ``targets``."""
    image = f"{host}/image:1"
    layerbuild = [*LAYERBUILD, "--root", folder / "store"]
    buildah = ["buildah", "--root", folder / "buildah", "--runroot", folder / "run", "--storage-driver", "overlay"]
    layout = f"{folder}/skopeo:image"

    def skopeo_umoci() -> None:
        run(["skopeo", "copy", "-q", "--src-" + PLAIN[2:], f"docker://{image}", f"oci:{layout}"])
        run(["umoci", "unpack", "--image", layout, folder / "bundle"])

    def push_layerbuild() -> None:
        run([*layerbuild, "tag", image, targets["layerbuild"]])
        run([*layerbuild, "push", "-q", targets["layerbuild"]])

    return {
        "pull, layerbuild": lambda: run([*layerbuild, "pull", "-q", image]),
        "pull, skopeo and umoci": skopeo_umoci,
        "pull, buildah": lambda: run([*buildah, "pull", "-q", PLAIN, image]),
        "push, layerbuild": push_layerbuild,
        "push, skopeo": lambda: run(
            ["skopeo", "copy", "-q", "--dest-" + PLAIN[2:], f"oci:{layout}", f"docker://{targets['skopeo']}"]
        ),
        "push, buildah": lambda: run([*buildah, "push", "-q", PLAIN, image, targets["buildah"]]),
    }


if __name__ == "__main__":
    main()
