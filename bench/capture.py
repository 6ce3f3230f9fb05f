"""How long it takes to seal and to capture many small files.

    python bench/capture.py [--scratch FOLDER] [--files 50000] [--megabytes 340] [--rounds 5] [--codec gzip] [--json]

Makes the files in FOLDER (half of their bytes compress well, half not at all), seals them as a step's upper folder over
nothing, captures them, and prints medians. Memory is the peak of the whole process (``ru_maxrss``).
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import shutil
import statistics
import tempfile
import time
from pathlib import Path

from layerbuild.layer.capture import Captured, LayerWriter, capture
from layerbuild.layer.changes import seal
from layerbuild.layer.codecs import named

EPOCH = 315532800
PER_FOLDER = 100


def make_files(folder: Path, files: int, megabytes: int) -> None:
    """``files`` files of equal mean size, in folders of 100, always the same."""
    chance = random.Random(1)
    mean = megabytes * 1_000_000 // files
    for number in range(files):
        parent = folder / f"d{number // PER_FOLDER:05d}"
        if number % PER_FOLDER == 0:
            parent.mkdir(parents=True)
        half = chance.randint(mean // 4, mean * 3 // 4)
        (parent / f"file{number:06d}.txt").write_bytes(chance.randbytes(half) + b"layer of a layer; " * (half // 18))


def one_round(scratch: Path, source: Path, codec: str) -> tuple[float, float, Captured]:
    """Seal and capture a fresh copy, so that sealing has the times to set; seconds of each."""
    upper = scratch / "upper"
    shutil.copytree(source, upper)
    start = time.perf_counter()
    seal(upper, (), epoch=EPOCH)
    sealed = time.perf_counter()
    with LayerWriter(scratch / "blob", scratch / "index", codec=named(codec)) as writer:
        captured = capture(upper, writer)
    end = time.perf_counter()
    for name in ("blob", "index"):
        (scratch / name).unlink()
    shutil.rmtree(upper)
    return sealed - start, end - sealed, captured


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--scratch", type=Path, help="a folder on the file system to measure (default: a temporary one)"
    )
    parser.add_argument("--files", type=int, default=50_000)
    parser.add_argument("--megabytes", type=int, default=340)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--codec", default="gzip")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.scratch) as folder:
        scratch = Path(folder)
        make_files(scratch / "source", options.files, options.megabytes)
        rounds = [one_round(scratch, scratch / "source", options.codec) for _ in range(options.rounds)]
    captured = rounds[0][2]
    seconds = statistics.median(took for _, took, _ in rounds)
    result = {
        "files": options.files,
        "tar megabytes": round(captured.tar_size / 1e6, 1),
        "blob megabytes": round(captured.size / 1e6, 1),
        "codec": captured.codec,
        "seal seconds": round(statistics.median(took for took, _, _ in rounds), 3),
        "capture seconds": round(seconds, 3),
        "capture megabytes per second": round(captured.tar_size / 1e6 / seconds),
        "peak memory megabytes": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "cores": os.cpu_count(),
    }
    if options.json:
        print(json.dumps(result))
    else:
        for name, value in result.items():
            print(f"{name:30} {value}")


if __name__ == "__main__":
    main()
