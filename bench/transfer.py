"""Images in and out of a registry: pull and unpack, and push, beside skopeo with umoci, and buildah.

    python -m bench.transfer [--scratch FOLDER | --place FOLDER] [--files 50000] [--megabytes 1000] [--layers 4]
                             [--rounds 3] [--json]

The image lies in Debian's docker-registry on loopback; its files are small, and half of their bytes compress well. Each
program has its turn in each round, on an empty store, and each round begins with another one; before each turn the disk
is synced. Seconds and CPU seconds, of the program and its children, and of the registries, are medians; the round
before the first is watched for memory, the largest sum of resident sizes, and is not timed. Each push goes to a
registry of its own, new in each round, so every byte is sent: where another repository has the layers, all of these
programs know to take them over. The *floor* of a push are the blobs alone, each in one request, all at once, with
nothing but sockets: what is left is the registry's own work, which hashes each byte once more. layerbuild, skopeo and
the floor send the same bytes, as they lie compressed in store and layout; buildah keeps no blobs, and compresses anew.
All of it lies on one fresh ext4 with a journal, in a loop-mounted file below ``--scratch``, or in a folder of
``--place``. Needs root.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from bench.capture import make_files
from bench.disk import disk, settle
from bench.memory import Watch
from bench.peers import compile_layerbuild, run

LAYERBUILD = [sys.executable, "-m", "layerbuild"]
PLAIN = "--tls-verify=false"

Work = Callable[[], None]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scratch", type=Path, help="where the loop-mounted file lies (default: the temporary folder)")
    parser.add_argument("--place", type=Path, help="a folder on the file system to measure, in place of that")
    parser.add_argument("--files", type=int, default=50_000)
    parser.add_argument("--megabytes", type=int, default=1000)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    sys.path.append(str(Path(__file__).resolve().parent.parent / "tests"))
    from registries import running  # as the tests start it

    compile_layerbuild()
    with disk(options.scratch, options.place, gigabytes=10 + options.megabytes * 16 // 1000) as folder:
        (folder / "registry").mkdir()
        with running(str(shutil.which("docker-registry")), folder / "registry") as registry:
            make_image(folder, registry.host, options)
            results = measure(folder, registry.host, options.rounds)
    if options.json:
        print(json.dumps(results, indent=2))
        return
    for name, found in results.items():
        print(
            f"{name:24} {found['seconds']:7.2f} s {found['cpu seconds']:7.2f} s CPU"
            f" {found['registry cpu seconds']:7.2f} s CPU of the registry {found['megabytes']:7.0f} MB"
        )


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


def measure(folder: Path, host: str, rounds: int) -> dict[str, dict[str, Any]]:
    """What each kind of work took, by its name."""
    seconds: dict[str, list[float]] = {}
    cpu: dict[str, list[float]] = {}
    serving: dict[str, list[float]] = {}
    peaks: dict[str, int] = {}
    for number in range(rounds + 1):
        with empty_registries(folder / "pushed") as targets:
            for name, work in in_turn(works(folder, host, targets), number):
                settle()
                if number == 0:
                    with Watch() as watch:
                        work()
                    peaks[name] = watch.peak
                    continue
                began, before, served = time.perf_counter(), spent(), spent_by_registries()
                work()
                seconds.setdefault(name, []).append(time.perf_counter() - began)
                cpu.setdefault(name, []).append(spent() - before)
                serving.setdefault(name, []).append(spent_by_registries() - served)
        for place in ("store", "skopeo", "bundle", "buildah", "run", "pushed"):
            shutil.rmtree(folder / place, ignore_errors=True)
    return {
        name: {
            "seconds": round(statistics.median(seconds[name]), 2),
            "cpu seconds": round(statistics.median(cpu[name]), 2),
            "registry cpu seconds": round(statistics.median(serving[name]), 2),
            "megabytes": round(peaks[name] / 1e6, 1),
            "rounds": [round(each, 2) for each in seconds[name]],
        }
        for name in seconds
    }


def in_turn(works: Mapping[str, Work], number: int) -> Iterator[tuple[str, Work]]:
    """The pulls, then the pushes; each time another program begins."""
    for kind in ("pull", "push"):
        chosen = [item for item in works.items() if item[0].startswith(kind)]
        turn = number % len(chosen)
        yield from chosen[turn:] + chosen[:turn]


def spent() -> float:
    """CPU seconds of this process, and of all children that have ended."""
    found = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in found)


def spent_by_registries() -> float:
    """CPU seconds of the registries: of all children that have not ended."""
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    stats = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in children]
    return sum(int(stat[11]) + int(stat[12]) for stat in stats) / os.sysconf("SC_CLK_TCK")


@contextmanager
def empty_registries(folder: Path) -> Iterator[Mapping[str, str]]:
    """A name to push to for each program, each in a registry of its own."""
    from registries import running

    with ExitStack() as stack:
        targets = {}
        for who in ("layerbuild", "skopeo", "buildah", "floor"):
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
        "push, floor": lambda: send_blobs(folder / "skopeo/blobs/sha256", targets["floor"].partition("/")[0]),
    }


def send_blobs(blobs: Path, host: str) -> None:
    """Send each file of ``blobs`` as what its name says."""
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda path: send_blob(path, host), blobs.iterdir()))


def send_blob(path: Path, host: str) -> None:
    with closing(HTTPConnection(host)) as connection:
        connection.request("POST", "/v2/pushed/blobs/uploads/")
        answer = connection.getresponse()
        answer.read()
        place = urlsplit(answer.getheader("Location", ""))
        size = str(path.stat().st_size)
        with path.open("rb", buffering=0) as file:
            target = f"{place.path}?{place.query}&digest=sha256:{path.name}"
            connection.request(
                "PUT", target, body=iter(partial(file.read, 1 << 20), b""), headers={"Content-Length": size}
            )
            answer = connection.getresponse()
        if answer.status != 201:
            raise RuntimeError(f"{host} answered {answer.status} to the blob {path.name}")


if __name__ == "__main__":
    main()
