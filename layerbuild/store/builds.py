"""Builds that were carried out: each step's verdict, its inputs and why they missed, its times, and what it said.

The rows explain a build after the fact, and foretell the next one. They are small, the newest ``KEPT`` builds stay, and
nothing else in the store needs them. A build whose process was killed stays ``running``.
"""

from __future__ import annotations

import itertools
import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, field, fields
from typing import Any

from layerbuild.digest import BlobDigest, ChainID, DiffID
from layerbuild.errors import NotFoundError
from layerbuild.frozen import frozen
from layerbuild.image.config import canonical_json
from layerbuild.store.database import Database, Row

KEPT = 50  # builds
_SHOWN = 60  # characters of a value
_CONTEXT = 20  # and of what two long ones have in common
_COLUMNS = "number, began, seconds, outcome, recipe, image, data"


@frozen
class Difference:
    """One input that is not what it was. ``change`` is "value", "added" or "removed" for an input as a whole, "changed"
    where its values are not shown; for a file below it "added", "removed", "content", "mode", "owner", "kind",
    "target", "attributes" or "names"; "below" for the layers that a step lies on: the subject is
    then "base" or "steps", whichever of the two is another than before, "parent" where that can't be told."""

    subject: str
    change: str
    before: str = ""
    after: str = ""

    def __str__(self) -> str:
        match self.change:
            case "below":
                return "the layers below changed"
            case "value":
                return f"{self.subject} {_both_shown(self.before, self.after)}"
            case "changed" | "added" | "removed":
                return f"{self.subject} {self.change}"
            case "content" | "attributes":
                return f"{self.subject} {self.change} changed"
        return f"{self.subject} {self.change} {_both_shown(self.before, self.after)}"


@frozen
class Surroundings:
    """What a process on top of a step's result finds: environment, working directory, user."""

    env: tuple[tuple[str, str], ...] = ()
    cwd: str = "/"
    user: str = ""


@frozen
class StepAccount:
    """What a build says of one step. ``number`` counts the stage's steps from 1; ``kind`` is "metadata", "run" or
    "copy"; ``verdict`` "metadata", "hit" or "miss"; of a hit ``by`` is the key that found it, ``source`` the cache of
    another machine that knew it, empty: the store did.

    ``differences`` tell a miss, ``more`` counts those left out. ``args`` are the variables in its inputs that are
    arguments of the build, and not the image's. ``below`` and ``chain`` are the stacks before and after the step;
    ``diff_id``, sizes (bytes) and ``entries`` are its layer's. ``began``, ``ended`` and ``sealed`` are in seconds since
    the build began; ``ended`` is None for a step that failed, or was not begun, and a layer may be sealed while later
    steps run.
    """

    stage: str
    number: int
    line: int
    instruction: str
    kind: str
    verdict: str
    by: str = ""
    reason: str = ""
    differences: tuple[Difference, ...] = ()
    more: int = 0
    inputs: Mapping[str, str] = field(default_factory=dict)
    args: tuple[str, ...] = ()
    after: Surroundings = Surroundings()
    below: ChainID | None = None
    chain: ChainID | None = None
    diff_id: DiffID | None = None
    size: int = 0
    tar_size: int = 0
    entries: int = 0
    began: float = 0.0
    ended: float | None = None
    sealed: float | None = None
    source: str = ""

    @property
    def seconds(self) -> float:
        """Of wall time that it took; 0 if it never ended."""
        return 0.0 if self.ended is None else self.ended - self.began


@frozen
class StageAccount:
    """A stage that was built: its FROM line, and the title of the stage that it is based on, empty: an image."""

    title: str
    instruction: str
    base: str = ""


@frozen
class BuildRecord:
    """One build. ``outcome`` is "running", "done" or "failed", then ``error`` tells why. ``recipe`` is its file as
    errors name it, ``platform`` what it was built for ("": not known), ``request`` what is needed to plan it again.
    ``began`` is in seconds since 1970."""

    number: int
    began: float
    seconds: float
    outcome: str
    recipe: str
    image: BlobDigest | None = None
    names: tuple[str, ...] = ()
    error: str = ""
    platform: str = ""
    stages: tuple[StageAccount, ...] = ()
    request: Mapping[str, Any] = field(default_factory=dict)
    steps: tuple[StepAccount, ...] = ()

    @property
    def target(self) -> str:
        """The title of its last stage."""
        return self.stages[-1].title if self.stages else ""


@frozen
class Log:
    """What a step said, secrets masked. ``dropped`` counts the bytes that were left out after the first ``kept``."""

    data: bytes
    kept: int
    dropped: int


def recipe_name(file: str) -> str:
    """What a recipe is called in the records of its builds: a file by its whole path, wherever it is built from."""
    return os.path.abspath(file) if os.path.exists(file) else file


class Builds:
    """The records of a store's builds."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def begin(self, *, recipe: str, request: Mapping[str, Any]) -> int:
        """Begin a record, and forget the oldest; its number."""
        data = canonical_json({"request": dict(request)})
        with self._database.transaction():
            self._database.execute(
                "INSERT INTO build (began, seconds, outcome, recipe, data) VALUES (?, 0, 'running', ?, ?)",
                (time.time(), recipe, data.decode()),
            )
            row = self._database.row("SELECT max(number) FROM build")
            assert row is not None
            number = int(row[0])
            self._database.execute("DELETE FROM build WHERE number <= ?", (number - KEPT,))
        return number

    def put(self, number: int, accounts: Mapping[int, StepAccount]) -> None:
        """Record steps by their positions, which count over all stages, in place of what was said of them before.

        Nothing happens if the build is forgotten already, since very many were begun after it.
        """
        rows = [(number, position, canonical_json(asdict(account)).decode()) for position, account in accounts.items()]
        with self._database.transaction():
            self._database.executemany(
                "INSERT INTO build_step (build, position, data) "
                "SELECT ?1, ?2, ?3 WHERE EXISTS (SELECT 1 FROM build WHERE number = ?1) "
                "ON CONFLICT (build, position) DO UPDATE SET data = excluded.data",
                rows,
            )

    def put_log(self, number: int, position: int, log: Log) -> None:
        """Keep what a recorded step said."""
        import zstandard

        packed = zstandard.ZstdCompressor().compress(log.data)
        self._database.execute(
            "UPDATE build_step SET log = ?, log_kept = ?, log_dropped = ? WHERE build = ? AND position = ?",
            (packed, log.kept, log.dropped, number, position),
        )

    def finish(self, record: BuildRecord) -> None:
        """Say how a build ended; its steps are recorded already."""
        told = {
            "names": list(record.names),
            "error": record.error,
            "platform": record.platform,
            "stages": [asdict(stage) for stage in record.stages],
            "request": dict(record.request),
        }
        self._database.execute(
            "UPDATE build SET seconds = ?, outcome = ?, image = ?, data = ? WHERE number = ?",
            (record.seconds, record.outcome, record.image, canonical_json(told).decode(), record.number),
        )

    def remove(self, number: int) -> None:
        """Forget a build."""
        self._database.execute("DELETE FROM build WHERE number = ?", (number,))

    def get(self, number: int | None = None) -> BuildRecord:
        """The build with that number, None: the last one. NotFoundError."""
        where = "ORDER BY number DESC LIMIT 1" if number is None else "WHERE number = ?"
        row = self._database.row(f"SELECT {_COLUMNS} FROM build {where}", () if number is None else (number,))
        if row is None:
            which = "any build" if number is None else f"build {number}"
            raise NotFoundError(f"the store has no record of {which}", hint=f"the last {KEPT} builds are kept")
        return self._record(row)

    def of_image(self, manifest: BlobDigest) -> BuildRecord | None:
        """The newest build that made the image, None if none is recorded."""
        row = self._database.row(
            f"SELECT {_COLUMNS} FROM build WHERE image = ? ORDER BY number DESC LIMIT 1", (manifest,)
        )
        return self._record(row) if row else None

    def of_recipe(self, recipe: str) -> Iterator[BuildRecord]:
        """The builds of a recipe, newest first; they are read as they are asked for."""
        for (number,) in self._database.rows(
            "SELECT number FROM build WHERE recipe = ? ORDER BY number DESC", (recipe,)
        ):
            yield self.get(number)

    def all(self) -> tuple[BuildRecord, ...]:
        """Every build, newest first."""
        rows = self._database.rows(f"SELECT {_COLUMNS} FROM build ORDER BY number DESC")
        return tuple(map(self._record, rows))

    def log(self, number: int, position: int) -> Log:
        """What a step said; empty if it said nothing."""
        import zstandard

        row = self._database.row(
            "SELECT log, log_kept, log_dropped FROM build_step WHERE build = ? AND position = ?", (number, position)
        )
        if row is None or row[0] is None:
            return Log(b"", 0, 0)
        return Log(zstandard.ZstdDecompressor().decompress(row[0]), row[1], row[2])

    def _record(self, row: Row) -> BuildRecord:
        number, began, seconds, outcome, recipe, image, data = row
        told = json.loads(data)
        steps = self._database.rows("SELECT data FROM build_step WHERE build = ? ORDER BY position", (number,))
        return BuildRecord(
            number=number,
            began=began,
            seconds=seconds,
            outcome=outcome,
            recipe=recipe,
            image=BlobDigest(image) if image else None,
            names=tuple(told.get("names", ())),
            error=told.get("error", ""),
            platform=told.get("platform", ""),
            stages=tuple(StageAccount(**stage) for stage in told.get("stages", ())),
            request=told.get("request", {}),
            steps=tuple(_account(json.loads(step)) for (step,) in steps),
        )


def _account(data: dict[str, Any]) -> StepAccount:
    # Written by whichever version built: what it did not know yet has its default, what is not known here is dropped.
    known = {found.name: data[found.name] for found in fields(StepAccount) if found.name in data}
    after = data.get("after", {})
    known |= {
        "args": tuple(data.get("args", ())),
        "differences": tuple(Difference(**difference) for difference in data.get("differences", ())),
        "after": Surroundings(
            tuple((key, value) for key, value in after.get("env", ())), after.get("cwd", "/"), after.get("user", "")
        ),
        "below": ChainID(data["below"]) if data.get("below") else None,
        "chain": ChainID(data["chain"]) if data.get("chain") else None,
        "diff_id": DiffID(data["diff_id"]) if data.get("diff_id") else None,
    }
    return StepAccount(**known)


def _both_shown(before: str, after: str) -> str:
    """Two values, each on one line of bounded length, from shortly before the place where they begin to differ."""
    lines = [" ".join(value.split()) for value in (before, after)]
    same = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(*lines, strict=False)))
    skipped = max(0, same - _CONTEXT) if max(map(len, lines)) > _SHOWN else 0
    return " → ".join(_shown(line[skipped:], cut=skipped > 0) for line in lines)


def _shown(line: str, *, cut: bool) -> str:
    text = f"{'…' * cut}{line}"
    return text if 0 < len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…" if text else '""'
