"""Modification times in layers: clamped to the epoch, or kept."""

from __future__ import annotations

from datetime import UTC, datetime

from layerbuild.frozen import frozen

DEFAULT_EPOCH = 315532800  # 1980-01-01T00:00:00Z: zip files know no earlier time


@frozen
class Times:
    """``epoch`` in seconds, or None to keep times; ``now`` is when the build began."""

    epoch: int | None
    now: int

    def clamp(self, seconds: int) -> int:
        """A modification time as a layer records it."""
        return seconds if self.epoch is None else min(seconds, self.epoch)

    @property
    def made(self) -> int:
        """The modification time of what a step makes itself."""
        return self.clamp(self.now)

    @property
    def created(self) -> str:
        """The same as history entries tell it: RFC 3339."""
        return datetime.fromtimestamp(self.made, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

    @property
    def key(self) -> str:
        """What a cache key says of it."""
        return "kept" if self.epoch is None else f"clamped to {self.epoch}"
