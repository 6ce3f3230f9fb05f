"""What was found in layers that looks like a credential: by layer, so that a cached layer need not be read again."""

from __future__ import annotations

import json
from dataclasses import asdict

from layerbuild.digest import DiffID
from layerbuild.image.config import canonical_json
from layerbuild.leaks import RULES_VERSION, Finding
from layerbuild.store.database import Database


class Findings:
    """The scans of a store's layers. One that was made by other rules counts as none."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self, diff_id: DiffID) -> tuple[Finding, ...] | None:
        """What was found in the layer, None: it was not scanned."""
        row = self._database.row(
            "SELECT findings FROM layer_scan WHERE diff_id = ? AND rules = ?", (diff_id, RULES_VERSION)
        )
        return None if row is None else tuple(Finding(**found) for found in json.loads(row[0]))

    def put(self, diff_id: DiffID, findings: tuple[Finding, ...]) -> None:
        """Record a scan of a layer that the store knows."""
        data = canonical_json([asdict(found) for found in findings])
        self._database.execute(
            "INSERT OR REPLACE INTO layer_scan (diff_id, rules, findings) VALUES (?, ?, ?)",
            (diff_id, RULES_VERSION, data.decode()),
        )
