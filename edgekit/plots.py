"""Plots as SVG, written by hand: scales, ticks, lines, bars.

It is a little geometry, always the same bytes for the same values, and sharp at any size; a plotting library would
bring more to a device or a build machine than the rest of the kit needs.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

COLOURS = ("#1a6fb5", "#d9822b", "#5a9e5a", "#a05195", "#7f7f7f", "#c0504d")
_STYLE = "text{font:12px sans-serif;fill:#333}.grid{stroke:#ddd}.title{font-weight:bold}"
_PANEL_WIDTH, _PANEL_HEIGHT = 360, 250
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 16, 34, 48
_LABELS, _BAR, _GAP = 150, 16, 22
"""Of bar charts: room for the bars' names, thickness of a bar, room above a group."""


@dataclass(frozen=True)
class Scale:
    """Values from `low` to `high` on pixels from `start` to `stop`."""

    low: float
    high: float
    start: float
    stop: float

    def __call__(self, value: float) -> float:
        """Where a value is."""
        return self.start + (value - self.low) / (self.high - self.low) * (self.stop - self.start)


@dataclass(frozen=True)
class Curve:
    """Points (x, y) of one colour."""

    label: str
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Panel:
    """Curves over one x axis; both axes begin at zero."""

    title: str
    x_label: str
    curves: tuple[Curve, ...]


@dataclass(frozen=True)
class Bar:
    """A value, and the words beside it."""

    label: str
    value: float
    text: str


@dataclass(frozen=True)
class Group:
    """Bars that are compared with each other, and with no other group's."""

    title: str
    bars: tuple[Bar, ...]


def ticks(values: Sequence[float]) -> list[float]:
    """Three to nine round numbers that enclose all values."""
    span = max(max(values) - min(values), max(values) / 10)
    rough = span / 5
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= rough)
    first, last = math.floor(min(values) / step), math.ceil(max(values) / step)
    return [round(number * step, 9) for number in range(first, max(last, first + 1) + 1)]


def line(start: tuple[float, float], stop: tuple[float, float], kind: str) -> str:
    """A line of the style's class `kind`."""
    (x1, y1), (x2, y2) = start, stop
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def text(at: tuple[float, float], words: str, anchor: str, kind: str = "") -> str:
    """Words that start, end or have their middle at a point."""
    named = f' class="{kind}"' if kind else ""
    return f'<text{named} x="{at[0]:.1f}" y="{at[1]:.1f}" text-anchor="{anchor}">{escape(words)}</text>'


def document(size: tuple[float, float], title: str, style: str, parts: Sequence[str]) -> str:
    """A whole SVG file on white ground."""
    width, height = size
    return "\n".join(
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" role="img">',
            f"<title>{escape(title)}</title>",
            f"<style>{style}</style>",
            '<rect width="100%" height="100%" fill="#fff"/>',
            *parts,
            "</svg>\n",
        )
    )


def panels(title: str, wanted: Sequence[Panel]) -> str:
    """Panels side by side, curves of the same label in the same colour. Raises ValueError without a positive value."""
    labels = list(dict.fromkeys(curve.label for panel in wanted for curve in panel.curves))
    colours = {label: COLOURS[at % len(COLOURS)] for at, label in enumerate(labels)}
    parts = [part for at, panel in enumerate(wanted) for part in _panel(panel, at * _PANEL_WIDTH, colours)]
    for at, label in enumerate(labels):
        y = _PANEL_HEIGHT + 14 + 18 * at
        parts += [f'<rect x="{_LEFT}" y="{y - 9}" width="10" height="10" fill="{colours[label]}"/>']
        parts += [text((_LEFT + 16, y), label, "start")]
    size = (_PANEL_WIDTH * len(wanted), _PANEL_HEIGHT + 18 * len(labels) + 8)
    return document(size, title, _STYLE, parts)


def _panel(panel: Panel, left: float, colours: dict[str, str]) -> list[str]:
    points = [point for curve in panel.curves for point in curve.points]
    if not points or not all(math.isfinite(y) for _, y in points) or max(y for _, y in points) <= 0:
        raise ValueError(f"{panel.title!r} has nothing to show")
    x_ticks, y_ticks = ticks([0, *(x for x, _ in points), 1]), ticks([0, *(y for _, y in points)])
    bottom, right = _PANEL_HEIGHT - _BOTTOM, left + _PANEL_WIDTH - _RIGHT
    across = Scale(x_ticks[0], x_ticks[-1], left + _LEFT, right)
    up = Scale(y_ticks[0], y_ticks[-1], bottom, _TOP)
    parts = [text((left + _LEFT, 18), panel.title, "start", "title")]
    parts += [line((left + _LEFT, up(y)), (right, up(y)), "grid") for y in y_ticks]
    parts += [text((left + _LEFT - 6, up(y) + 4), f"{y:g}", "end") for y in y_ticks]
    parts += [text((across(x), bottom + 16), f"{x:g}", "middle") for x in x_ticks]
    parts += [text(((left + _LEFT + right) / 2, bottom + 34), panel.x_label, "middle")]
    for curve in panel.curves:
        places = [(across(x), up(y)) for x, y in sorted(curve.points)]
        colour, way = colours[curve.label], " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        parts += [f'<polyline points="{way}" fill="none" stroke="{colour}" stroke-width="2"/>']
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in places]
    return parts


def bars(title: str, groups: Sequence[Group]) -> str:
    """Groups of horizontal bars, the longest of each group as long as the others'. Raises ValueError without any."""
    if not groups or any(not group.bars or max(bar.value for bar in group.bars) <= 0 for group in groups):
        raise ValueError("every group needs a bar longer than nothing")
    labels = list(dict.fromkeys(bar.label for group in groups for bar in group.bars))
    colours = {label: COLOURS[at % len(COLOURS)] for at, label in enumerate(labels)}
    parts: list[str] = []
    y = 8.0
    for group in groups:
        parts.append(text((8, y + 14), group.title, "start", "title"))
        y += _GAP
        scale = Scale(0, max(bar.value for bar in group.bars), 0, _PANEL_WIDTH)
        for bar in group.bars:
            length = scale(max(bar.value, 0))
            parts.append(text((_LABELS - 8, y + 12), bar.label, "end"))
            parts.append(
                f'<rect class="bar" x="{_LABELS}" y="{y:.1f}" width="{length:.1f}" height="{_BAR - 3}" '
                f'fill="{colours[bar.label]}"/>'
            )
            parts.append(text((_LABELS + length + 6, y + 12), bar.text, "start"))
            y += _BAR
        y += 6
    return document((_LABELS + _PANEL_WIDTH + 160, y + 8), title, _STYLE, parts)
