"""Results as a table, and as a plot of bars."""

from __future__ import annotations

import statistics
from dataclasses import asdict, dataclass, field
from html import escape

_WIDTH, _BAR, _GAP, _LEFT = 860, 14, 10, 230
_COLORS = ("#1b6ca8", "#7fb2d9", "#d1495b", "#edae49", "#66a182", "#8d6a9f", "#999999")


@dataclass(slots=True)
class Result:
    """One builder's figures of one workload: seconds of each round; the archive and the peak of memory in bytes."""

    workload: str
    title: str
    builder: str
    seconds: list[float] = field(default_factory=list)
    size: int = 0
    memory: int = 0

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    def as_json(self) -> dict[str, object]:
        return {**asdict(self), "median": self.median}


def table(results: list[Result]) -> str:
    """One row for each workload and builder, with ratios to the best peer and to the floor."""
    lines = [
        "| workload | builder | median s | of the best peer | of the floor | spread | archive MB | memory MB |",
        "|---|---|--:|--:|--:|--:|--:|--:|",
    ]
    for result in results:
        same = [other for other in results if other.workload == result.workload]
        peers = [other.median for other in same if not other.builder.startswith(("layerbuild", "floor"))]
        floors = [other.median for other in same if other.builder == "floor"]
        cells = (
            f"{result.workload} {result.title}",
            result.builder,
            f"{result.median:.2f}",
            f"{result.median / min(peers):.2f}" if peers else "",
            f"{result.median / floors[0]:.2f}" if floors else "",
            f"{min(result.seconds):.2f}–{max(result.seconds):.2f}",
            f"{result.size / 1e6:.1f}" if result.size else "",
            f"{result.memory / 1e6:.0f}" if result.memory else "",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def plot(results: list[Result]) -> str:
    """SVG: for each workload a group of bars, each as long as its share of the group's slowest."""
    builders = list(dict.fromkeys(result.builder for result in results))
    rows: list[str] = []
    y = _GAP
    for workload in dict.fromkeys(result.workload for result in results):
        group = [result for result in results if result.workload == workload]
        slowest = max(result.median for result in group)
        rows.append(_text(4, y + _BAR - 3, f"{workload} {group[0].title}"))
        y += _BAR + 4
        for result in group:
            length = (_WIDTH - _LEFT - 80) * result.median / slowest
            color = _COLORS[builders.index(result.builder) % len(_COLORS)]
            rows.append(_text(16, y + _BAR - 3, result.builder))
            rows.append(f'<rect x="{_LEFT}" y="{y}" width="{length:.1f}" height="{_BAR}" fill="{color}"/>')
            rows.append(_text(_LEFT + length + 5, y + _BAR - 3, f"{result.median:.2f} s"))
            y += _BAR + 2
        y += _GAP
    size = f'width="{_WIDTH}" height="{y}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="11">'
    return "\n".join((head, *rows, "</svg>")) + "\n"


def _text(x: float, y: float, text: str) -> str:
    return f'<text x="{x:.1f}" y="{y}">{escape(text)}</text>'
