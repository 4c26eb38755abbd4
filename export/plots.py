"""Several bundles of one model compared: a table, and a plot of quality against size."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgekit.plots import Scale, document, line, text, ticks

WIDTH, HEIGHT = 720, 440
_LEFT, _RIGHT, _TOP, _BOTTOM = 76, 150, 24, 52
_STYLE = (
    "text{font:12px sans-serif;fill:#333}.grid{stroke:#ddd}circle{fill:#1a6fb5}"
    "polyline{fill:none;stroke:#1a6fb5;stroke-dasharray:4 3}"
)
_LINE, _LETTER = 13, 7
_SMALLEST_KL = 1e-6
"""Rounding noise of two equal models; a logarithmic axis has no zero."""


@dataclass(frozen=True)
class Point:
    """A bundle: `bytes` of graph and weights, `kl` in nats from the source in float, share of equal top tokens."""

    label: str
    bytes: int
    kl: float
    same_top_token: float


def sweep_table(points: Sequence[Point]) -> str:
    """A Markdown table, smallest first. `best` marks what no other point beats in both size and KL."""
    best = frontier(points)
    rows = [
        f"| {point.label} | {point.bytes / 1e6:.1f} | {point.kl:.4f} | {point.same_top_token:.1%} "
        f"| {'yes' if point in best else ''} |"
        for point in sorted(points, key=_order)
    ]
    head = ["| plan | MB | KL | same top token | best of its size |", "|---|---|---|---|---|"]
    return "\n".join((*head, *rows)) + "\n"


def frontier(points: Sequence[Point]) -> list[Point]:
    """Points that no other beats in both size and KL, smallest first."""
    best: list[Point] = []
    for point in sorted(points, key=_order):
        if not best or point.kl < best[-1].kl:
            best.append(point)
    return best


def plot(points: Sequence[Point], path: Path) -> None:
    """Write the plot as SVG. Raises ValueError without points, or for a KL that is not a number."""
    path.write_text(svg(points), encoding="utf-8")


def svg(points: Sequence[Point]) -> str:
    """KL (logarithmic) over megabytes, every point with its label, and a line through the best of each size."""
    if not points or not all(math.isfinite(point.kl) and point.bytes > 0 for point in points):
        raise ValueError("a plot needs points, each with a size and a finite KL")
    sizes, losses = ticks([point.bytes / 1e6 for point in points]), _decades([point.kl for point in points])
    across = Scale(sizes[0], sizes[-1], _LEFT, WIDTH - _RIGHT)
    down = Scale(math.log10(losses[0]), math.log10(losses[-1]), HEIGHT - _BOTTOM, _TOP)

    def at(point: Point) -> tuple[float, float]:
        return across(point.bytes / 1e6), down(math.log10(max(point.kl, _SMALLEST_KL)))

    lines = [line((across(size), _TOP), (across(size), HEIGHT - _BOTTOM), "grid") for size in sizes]
    lines += [line((_LEFT, down(math.log10(kl))), (WIDTH - _RIGHT, down(math.log10(kl))), "grid") for kl in losses]
    texts = [text((across(size), HEIGHT - _BOTTOM + 18), f"{size:g}", "middle") for size in sizes]
    texts += [text((_LEFT - 8, down(math.log10(kl)) + 4), f"{kl:g}", "end") for kl in losses]
    texts.append(text(((_LEFT + WIDTH - _RIGHT) / 2, HEIGHT - 12), "size (MB)", "middle"))
    texts.append(text((8, _TOP - 8), "KL from the source (nats)", "start"))
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in map(at, frontier(points)))
    marks = [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4"/>' for x, y in map(at, sorted(points, key=_order))]
    labels = [text(place, label, "start") for place, label in _labels([(at(p), p.label) for p in points])]
    parts = (*lines, f'<polyline points="{path}"/>', *marks, *texts, *labels)
    return document((WIDTH, HEIGHT), "KL divergence from the source over the size of the bundle", _STYLE, parts)


def _labels(wanted: Sequence[tuple[tuple[float, float], str]]) -> list[tuple[tuple[float, float], str]]:
    """A place for each label: right of its mark, and as far below as it takes to leave the others readable."""
    placed: list[tuple[tuple[float, float], str]] = []
    for (x, y), label in sorted(wanted):
        place = (x + 8, y - 6)
        while any(_overlap(place, label, *other) for other in placed):
            place = (place[0], place[1] + _LINE)
        placed.append((place, label))
    return placed


def _overlap(one: tuple[float, float], label: str, other: tuple[float, float], other_label: str) -> bool:
    left, right = (one, label), (other, other_label)
    beside = any(a[0] + _LETTER * len(text) < b[0] for (a, text), (b, _) in ((left, right), (right, left)))
    return not beside and abs(one[1] - other[1]) < _LINE


def _order(point: Point) -> tuple[int, float, str]:
    return point.bytes, point.kl, point.label


def _decades(values: Sequence[float]) -> list[float]:
    """Powers of ten that enclose all values, with 2 and 5 between them if they are few."""
    logs = [math.log10(max(value, _SMALLEST_KL)) for value in values]
    low, high = math.floor(min(logs)), math.ceil(max(logs))
    high = max(high, low + 1)
    steps = (1, 2, 5) if high - low <= 2 else (1,)
    ticks = [float(f"{step}e{power}") for power in range(low, high) for step in steps]
    return [*ticks, float(f"1e{high}")]
