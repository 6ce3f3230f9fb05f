"""The floor: the recipe's own commands under plain chroot, and one pass of tar, sha256 and the same compressor.

What a stage writes goes to an overlay's upper folder on the unpacked base, as a builder's does; then that folder is
read once: tar, sha256 of it, layerbuild's own gzip (the same library, level, blocks and threads), sha256 of that, one
file. Independent stages go on beside each other. Nothing is named, looked up, recorded or synced.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import threading
from pathlib import Path
from typing import BinaryIO

from bench.peers import run
from bench.workloads import Copy, Run, Scale, Stage, Workload
from layerbuild.layer.codecs import WRITTEN


class Floor:
    """On base folders that are unpacked already; ``bases`` maps a base's name to its folder."""

    def __init__(self, folder: Path, bases: dict[str, Path]) -> None:
        self._folder = folder
        self._bases = bases

    def build(self, workload: Workload, scale: Scale, context: Path, out: Path) -> None:
        """Carry the stages out, each as soon as those that it needs are done."""
        stages = workload.stages(scale)
        done = {stage.name: threading.Event() for stage in stages}
        errors: list[BaseException] = []
        threads = [
            threading.Thread(target=self._stage, args=(stage, stages, done, errors, context, out)) for stage in stages
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if errors:
            raise errors[0]

    def clear(self) -> None:
        """Remove what the last build left."""
        for path in self._folder.iterdir():
            shutil.rmtree(path)

    def _stage(
        self,
        stage: Stage,
        stages: tuple[Stage, ...],
        done: dict[str, threading.Event],
        errors: list[BaseException],
        context: Path,
        out: Path,
    ) -> None:
        try:
            needed = {step.stage for step in stage.steps if isinstance(step, Copy) and step.stage}
            for name in (needed | {stage.base}) & done.keys():
                done[name].wait()
            self._carry_out(stage, stages, context)
            self._pack(stage, out)
        except BaseException as error:  # raised again in ``build``
            errors.append(error)
        finally:
            done[stage.name].set()

    def _carry_out(self, stage: Stage, stages: tuple[Stage, ...], context: Path) -> None:
        upper, work, merged = (self._folder / stage.name / name for name in ("upper", "work", "merged"))
        for path in (upper, work, merged):
            path.mkdir(parents=True)
        lowers = ":".join(map(str, self._lowers(stage, stages)))
        run(["mount", "-t", "overlay", "-o", f"lowerdir={lowers},upperdir={upper},workdir={work}", "overlay", merged])
        (merged / "dev").mkdir(exist_ok=True)
        run(["mount", "--rbind", "/dev", merged / "dev"])
        for name in ("etc/hosts", "etc/resolv.conf"):  # W9 asks the network
            (merged / name).parent.mkdir(exist_ok=True)
            (merged / name).touch()
            run(["mount", "--bind", f"/{name}", merged / name])
        try:
            for step in stage.steps:
                match step:
                    case Run(script):
                        run(["chroot", merged, "sh", "-c", script])
                    case Copy(source, dest, name):
                        start = self._folder / name / "upper" if name else context
                        (merged / dest.lstrip("/")).parent.mkdir(parents=True, exist_ok=True)
                        run(["cp", "-r", start / source.lstrip("/"), merged / dest.lstrip("/")])
        finally:
            run(["umount", "--recursive", "--lazy", merged])

    def _lowers(self, stage: Stage, stages: tuple[Stage, ...]) -> list[Path]:
        found = []
        while stage.base not in self._bases:
            stage = next(other for other in stages if other.name == stage.base)
            found.append(self._folder / stage.name / "upper")
        return [*found, self._bases[stage.base]]

    def _pack(self, stage: Stage, out: Path) -> None:
        upper = self._folder / stage.name / "upper"
        command = ["tar", "--sort=name", "--numeric-owner", "-C", str(upper), "-cf", "-", "."]
        plain, gzip = hashlib.sha256(), WRITTEN["gzip"]
        assert gzip.compressor is not None
        with (
            subprocess.Popen(command, stdout=subprocess.PIPE) as tar,
            out.with_name(f"{out.name}.{stage.name}").open("wb") as file,
        ):
            assert tar.stdout is not None
            compressor = gzip.compressor(_Hashed(file), gzip.level)
            while data := tar.stdout.read(1 << 20):
                plain.update(data)
                compressor.write(data)
            compressor.close()


class _Hashed:
    """Writes to ``file`` what it hashes."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._hash = hashlib.sha256()

    def write(self, data: bytes, /) -> int:
        self._hash.update(data)
        return self._file.write(data)


def walk(context: Path) -> None:
    """The floor of a build that has nothing to do: one walk over the context."""
    run(["find", context, "-printf", "%p %s %T@ %C@ %i\n"])
