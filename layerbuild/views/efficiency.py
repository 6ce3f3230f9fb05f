"""How much of an image is wasted, by dive's formulas, and the rules of a ``.dive-ci`` file as a gate.

dive counts for each path that is no folder with something in it: the bytes of all its versions, and the least of them.
A deletion counts as a version; that of a folder with all the bytes that were in it. Efficiency is the sum of the least
over the sum of all; wasted are all bytes of the paths with two versions or more. The user's bytes are those above the
first layer. Source: dive, its README ("CI Integration") and filetree/efficiency.go.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from layerbuild.errors import UsageError
from layerbuild.frozen import frozen
from layerbuild.layer.entry import Kind
from layerbuild.layer.paths import split
from layerbuild.views.text import size
from layerbuild.views.versions import Version

_OFF = ("", "disabled", "off", "false")
_BYTES = re.compile(r"\s*([0-9]+(?:\.[0-9]*)?)\s*([A-Za-z]*)\s*")
_UNITS = {"": 1, "b": 1} | {
    f"{letter}{suffix}": base**power
    for power, letter in enumerate("kmgtpe", start=1)
    for suffix, base in (("", 1000), ("b", 1000), ("i", 1024), ("ib", 1024))
}
_DEFAULTS = {"lowestEfficiency": "0.9", "highestWastedBytes": "disabled", "highestUserWastedPercent": "0.1"}


def _folded(rule: object) -> str:
    # dive reads names in any case. Hyphens have no other meaning.
    return str(rule).replace("-", "").lower()


_NAMES = {_folded(name): name for name in _DEFAULTS}


@frozen
class Efficiency:
    """``score`` is between 0 and 1; ``user_bytes`` are those above the first layer."""

    score: float
    wasted_bytes: int
    user_bytes: int

    @property
    def wasted_share(self) -> float:
        """The wasted bytes as a share of the user's; 0 where there is nothing."""
        if not self.wasted_bytes:
            return 0.0
        return self.wasted_bytes / self.user_bytes if self.user_bytes else float("inf")


@frozen
class Rules:
    """What an image must keep to; None: anything goes."""

    lowest_efficiency: float | None
    highest_wasted_bytes: int | None
    highest_wasted_share: float | None

    @classmethod
    def parse(cls, text: str, *, file: str) -> Rules:
        """The rules of a ``.dive-ci`` file; one that says nothing of a rule leaves dive's default in force."""
        import yaml

        try:
            data = yaml.safe_load(text) or {}
            said = data.get("rules") or {}
            told = _DEFAULTS | {_NAMES.get(_folded(key), str(key)): str(value) for key, value in said.items()}
        except (yaml.YAMLError, AttributeError, TypeError) as error:
            raise UsageError(
                f"{file} is no .dive-ci file: {error}", hint="rules: { lowestEfficiency: 0.95 }"
            ) from error
        unknown = sorted(set(told) - set(_DEFAULTS))
        if unknown:
            raise UsageError(f"{file} has no rule {unknown[0]!r}", hint=f"known are {', '.join(_DEFAULTS)}")
        return cls(
            _share(told["lowestEfficiency"], "lowestEfficiency", file),
            _bytes(told["highestWastedBytes"], file),
            _share(told["highestUserWastedPercent"], "highestUserWastedPercent", file),
        )

    def broken(self, found: Efficiency) -> list[str]:
        """A sentence for each rule that the image breaks."""
        told = []
        if self.lowest_efficiency is not None and found.score < self.lowest_efficiency:
            told.append(f"lowestEfficiency: {found.score:.4f} is below {self.lowest_efficiency}")
        if self.highest_wasted_bytes is not None and found.wasted_bytes > self.highest_wasted_bytes:
            told.append(f"highestWastedBytes: {size(found.wasted_bytes)} is above {size(self.highest_wasted_bytes)}")
        if self.highest_wasted_share is not None and found.wasted_share > self.highest_wasted_share:
            told.append(f"highestUserWastedPercent: {found.wasted_share:.4f} is above {self.highest_wasted_share}")
        return told


def efficiency(found: Sequence[Version]) -> Efficiency:
    """The measure of an image, by all versions of its paths."""
    full = {(version.layer, split(version.path)[0]) for version in found}
    paths: dict[bytes, list[int]] = {}
    for version in found:
        is_folder = version.action != "deleted" and version.entry.kind is Kind.DIRECTORY
        if not (is_folder and (version.layer, version.path) in full):
            paths.setdefault(version.path, []).append(version.removed if version.action == "deleted" else version.size)
    every = sum(map(sum, paths.values()))
    return Efficiency(
        score=sum(map(min, paths.values())) / every if every else 1.0,
        wasted_bytes=sum(sum(sizes) for sizes in paths.values() if len(sizes) > 1),
        user_bytes=sum(version.size for version in found if version.layer > 1),
    )


def as_json(found: Efficiency) -> Mapping[str, Any]:
    """The measure as plain data."""
    return {**asdict(found), "wasted_share": min(found.wasted_share, 1e9)}


def _share(text: str, name: str, file: str) -> float | None:
    if text.strip().lower() in _OFF:
        return None
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise UsageError(f"{file}: {name} can't be {text!r}", hint="a number from 0 to 1, or `disabled`")
    return value


def _bytes(text: str, file: str) -> int | None:
    if text.strip().lower() in _OFF:
        return None
    form = _BYTES.fullmatch(text)
    if form is None or form[2].lower() not in _UNITS:
        raise UsageError(f"{file}: highestWastedBytes can't be {text!r}", hint="20MB, say, or `disabled`")
    return int(float(form[1]) * _UNITS[form[2].lower()])
