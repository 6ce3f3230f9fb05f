"""The step cache: what each step was made from, and what came out.

A record is found by its *definition key*, known before anything runs, or by its *content key*, which has the parent's
chain ID in place of the parent's history. It keeps its inputs by name, so that a miss can be told as a difference
between two records. A record whose snapshot has been pruned is not found.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

from layerbuild.digest import BlobDigest, ChainID, DiffID
from layerbuild.errors import NotFoundError
from layerbuild.frozen import frozen
from layerbuild.image.config import canonical_json
from layerbuild.store.database import Database, Row

PARENT = "parent"  # the name that the parent has among the inputs

_COLUMNS = "definition_key, content_key, parent, chain, diff_id, inputs, instruction, image, seconds, created"

# Ancestors need no look: a snapshot's row holds its parent's (FOREIGN KEY).
_LIVE = f"""
SELECT {_COLUMNS} FROM step
WHERE (chain IS NULL OR EXISTS (SELECT 1 FROM snapshot WHERE snapshot.chain = step.chain))
"""


@frozen
class StepRecord:
    """A step that was carried out.

    ``parent`` and ``chain`` are the stack before and after it, equal if it changed nothing (``diff_id`` None).
    ``inputs`` are its inputs by name, ``instruction`` its text and ``image`` the name that its build was to give, both
    for people; ``seconds`` of wall time that it took; ``created`` in seconds since 1970; ``step_key`` tells the step
    apart from all it reads ("": not known). A record that is read has none.
    """

    definition_key: str
    content_key: str
    parent: ChainID | None
    chain: ChainID | None
    diff_id: DiffID | None
    inputs: Mapping[str, str]
    instruction: str
    image: str
    seconds: float
    created: float
    step_key: str = ""


class StepCache:
    """The step records of a store, and the listings that they name."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def by_definition(self, key: str) -> StepRecord | None:
        """The record with that definition key. Its ``parent`` tells on which stack the step was carried out."""
        row = self._database.row(f"{_LIVE} AND definition_key = ?", (key,))
        return _record(row) if row else None

    def by_content(self, key: str) -> StepRecord | None:
        """The newest record with that content key."""
        row = self._database.row(f"{_LIVE} AND content_key = ? ORDER BY created DESC", (key,))
        return _record(row) if row else None

    def may_know(self, definition_key: str, own: Mapping[str, str]) -> bool:
        """Whether there is a record with that definition key, or one with these inputs besides the parent: if not,
        then the step is unknown whatever the parent turns out to be."""
        found = self._database.row(
            "SELECT 1 FROM step WHERE definition_key = ? UNION ALL SELECT 1 FROM step WHERE own_key IN (?, '') LIMIT 1",
            (definition_key, _own_key(own)),
        )
        return found is not None

    def alike(self, own: Mapping[str, str]) -> tuple[DiffID, ...]:
        """The layers that steps with these inputs besides the parent have made, the newest first."""
        rows = self._database.rows(
            "SELECT diff_id FROM step WHERE own_key = ? AND diff_id IS NOT NULL GROUP BY diff_id "
            "ORDER BY max(created) DESC",
            (_own_key(own),),
        )
        return tuple(DiffID(diff_id) for (diff_id,) in rows)

    def knows_step(self, identity: str) -> bool:
        """Whether there is a record of that very step, whatever it read and stood on."""
        query = "SELECT 1 FROM step WHERE step_key IN (?, '') LIMIT 1"
        return self._database.row(query, (identity,)) is not None

    def nearest(self, instruction: str, *, parent: ChainID | None) -> StepRecord | None:
        """The record to compare a miss with: the same text on the same stack, else the same text elsewhere; the newest
        of them. Another step on the same stack has other inputs because it is another step."""
        row = self._database.row(
            f"SELECT {_COLUMNS} FROM step WHERE instruction = ?1 ORDER BY parent IS ?2 DESC, created DESC",
            (instruction, parent),
        )
        return _record(row) if row else None

    def seconds(self, instruction: str, *, default: float) -> float:
        """How long the newest step with that text took; ``default`` if there is none."""
        row = self._database.row(
            "SELECT seconds FROM step WHERE instruction = ? ORDER BY created DESC LIMIT 1", (instruction,)
        )
        return float(row[0]) if row else default

    def put(self, record: StepRecord) -> None:
        """Record a step, in place of an older record with its definition key. Costs no fsync."""
        self._database.execute(
            f"INSERT OR REPLACE INTO step ({_COLUMNS}, own_key, step_key) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                record.definition_key,
                record.content_key,
                record.parent,
                record.chain,
                record.diff_id,
                canonical_json(dict(record.inputs)).decode(),
                record.instruction,
                record.image,
                record.seconds,
                record.created,
                _own_key({name: value for name, value in record.inputs.items() if name != PARENT}),
                record.step_key,
            ),
        )

    def all(self) -> tuple[StepRecord, ...]:
        """Every record that can be found, oldest first."""
        return tuple(_record(row) for row in self._database.rows(f"{_LIVE} ORDER BY created"))

    def put_listing(self, digest: BlobDigest, packed: bytes | bytearray) -> None:
        """Keep a file listing, compressed with zstd; ``digest``, that of the text, is what an input's value names it
        by."""
        sql = "INSERT OR IGNORE INTO listing (digest, data) VALUES (?, zeroblob(?))"
        self._database.insert_large(sql, (digest,), into=("listing", "data"), data=packed)

    def listing(self, digest: BlobDigest) -> bytes:
        """A listing that was kept; NotFoundError if it is gone."""
        import zstandard

        row = self._database.row("SELECT data FROM listing WHERE digest = ?", (digest,))
        if row is None:
            raise NotFoundError(f"the step cache has no listing {digest}")
        # Not decompress(): a text that was compressed piece by piece does not tell its size.
        return zstandard.ZstdDecompressor().decompressobj().decompress(row[0])


def _own_key(own: Mapping[str, str]) -> str:
    return hashlib.sha256(canonical_json(dict(own))).hexdigest()


def _record(row: Row) -> StepRecord:
    definition_key, content_key, parent, chain, diff_id, inputs, instruction, image, seconds, created = row
    return StepRecord(
        definition_key=definition_key,
        content_key=content_key,
        parent=ChainID(parent) if parent else None,
        chain=ChainID(chain) if chain else None,
        diff_id=DiffID(diff_id) if diff_id else None,
        inputs=json.loads(inputs),
        instruction=instruction,
        image=image,
        seconds=seconds,
        created=created,
    )
