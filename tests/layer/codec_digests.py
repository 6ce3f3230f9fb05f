"""Prints, for each codec and level, the sha256 of what it makes of data that are the same everywhere. A program of its
own, so that it can be run under an emulator of another processor."""

from __future__ import annotations

import hashlib
import io
import json

from layerbuild.layer.codecs import WRITTEN, compress

LEVELS = {"none": (0,), "gzip": (0, 1, 6, 9, 12), "zstd": (1, 3, 9)}


def data() -> bytes:
    """Five megabytes, more than a block of any codec: text of a small alphabet, noise (a MiB of gzip's is nothing
    else), zeros, and all of it once more."""
    noise = b"".join(hashlib.sha256(b"%d" % number).digest() for number in range(40_000))
    words = [hashlib.md5(b"%d" % number).hexdigest()[: 2 + number % 7].encode() for number in range(3_000)]
    text = b" ".join(words[int.from_bytes(noise[at : at + 2], "little") % len(words)] for at in range(200_000))
    half = text[:900_000] + noise + bytes(400_000)
    return half + half[::-1][:300_000] + half


def main() -> None:
    content, found = data(), {}
    for name, levels in LEVELS.items():
        for level in levels:
            sink = io.BytesIO()
            writer = compress(WRITTEN[name], sink, level=level)
            writer.write(content)
            writer.close()
            found[f"{name} {level}"] = hashlib.sha256(sink.getvalue()).hexdigest()
    print(json.dumps(found))


if __name__ == "__main__":
    main()
