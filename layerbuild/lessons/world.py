"""Where a lesson is played: a folder with a store and the lesson's files, thrown away at the end."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from layerbuild.errors import StoreError

_STATE: Final = "state.json"


class World:
    """The folder ``<folder>/<lesson>``: a store of its own (``root``), the lesson's files (``work``), and how far the
    lesson has come. Nothing outside is touched; ``layerbuild`` in its lines is this very program. ``environment`` is
    the person's, and ``columns`` are those that their terminal has for what a line prints."""

    def __init__(self, folder: Path, lesson: str, environment: Mapping[str, str], *, columns: int = 100) -> None:
        self.folder = folder / lesson
        self._variables = environment
        self._columns = columns
        self._work = self.folder / "work"
        self._bin = self.folder / "bin"

    def open(self) -> int:
        """Make the folder if it is not there; the number of scenes that were played in it."""
        for path in (self._work, self._bin):
            path.mkdir(parents=True, exist_ok=True)
        program = self._bin / "layerbuild"
        options = ["--root", str(self.folder / "root"), "--columns", str(self._columns)]
        command = shlex.join([sys.executable, "-m", "layerbuild", *options])
        program.write_text(f'#!/bin/sh\nexec {command} "$@"\n')
        program.chmod(0o755)
        try:
            return int(json.loads((self.folder / _STATE).read_text())["played"])
        except FileNotFoundError:
            return 0
        except (ValueError, KeyError, TypeError) as error:
            raise StoreError(f"{self.folder / _STATE} is damaged", hint="begin anew with --restart") from error

    def played(self, scenes: int) -> None:
        """Note how far the lesson has come."""
        temporary = self.folder / f".{_STATE}"
        temporary.write_text(json.dumps({"played": scenes}))
        temporary.replace(self.folder / _STATE)

    def write(self, path: str, content: str) -> None:
        """A file of the lesson."""
        target = self._work / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(content)

    def run(self, line: str) -> tuple[int, str]:
        """Run a shell line; its exit code, and all that it printed."""
        done = subprocess.run(
            ["/bin/sh", "-c", line],
            cwd=self._work,
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        return done.returncode, done.stdout.decode("utf-8", "replace")

    def remove(self) -> None:
        """Throw all of it away. A layer's folder may be closed even to its owner: it is opened first."""
        if not self.folder.exists():
            return
        for folder, _, _ in os.walk(self.folder):
            os.chmod(folder, 0o700)
        shutil.rmtree(self.folder)
        if not any(self.folder.parent.iterdir()):
            self.folder.parent.rmdir()

    def _environment(self) -> dict[str, str]:
        path = f"{self._bin}:{self._variables.get('PATH', os.defpath)}"
        # Lines print in plain English bytes whatever the person's language: lessons quote what they print. And their
        # images are for this machine, whose programs they are made of.
        said = {name: value for name, value in self._variables.items() if name != "DOCKER_DEFAULT_PLATFORM"}
        return {**said, "PATH": path, "LC_ALL": "C", "NO_COLOR": "1", "COLUMNS": str(self._columns)}
