"""Charts as SVG text: bars, some of them in parts, with lines across for limits. Knows nothing of benchmarks.

So small that a plotting library would be more to keep than it saves, and the same numbers make the same bytes,
so that a changed picture in the repository means changed numbers. Colours work on white and on black paper.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape

WIDTH = 860
LEFT, RIGHT = 190, 150
BAR, GAP, TOP = 20, 8, 46
COLOURS = ("#3b75af", "#ef8536", "#519e3e", "#c43a32", "#8d69b8", "#84584e")
GREY = "#888888"


@dataclass(frozen=True)
class Bar:
    label: str
    parts: tuple[float, ...]
    """One for each of the chart's names, side by side in one bar."""
    told: str
    """Right of the bar."""
    spread: tuple[float, float] | None = None
    """Lowest and highest, as a line over the bar's end."""


@dataclass(frozen=True)
class Chart:
    title: str
    unit: str
    bars: Sequence[Bar]
    names: tuple[str, ...] = ("",)
    """Of the parts."""
    limits: Sequence[tuple[str, float]] = field(default_factory=tuple)

    @property
    def height(self) -> int:
        return TOP + (BAR + GAP) * len(self.bars) + 30 + 18 * len(self.limits)

    @property
    def most(self) -> float:
        values = [sum(bar.parts) for bar in self.bars] + [bar.spread[1] for bar in self.bars if bar.spread]
        return max([*values, *(value for _, value in self.limits)], default=0.0) or 1.0


def document(charts: Sequence[Chart], caption: str) -> str:
    """One picture of all charts, one below the other."""
    height = sum(chart.height for chart in charts) + 30
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
    ]
    y = 0
    for chart in charts:
        lines += _drawn(chart, y)
        y += chart.height
    lines += [_text(10, y + 14, caption, colour=GREY, size=10), "</svg>"]
    return "\n".join(lines) + "\n"


def _drawn(chart: Chart, top: int) -> list[str]:
    scale = (WIDTH - LEFT - RIGHT) / chart.most
    lines = [_text(10, top + 22, f"{chart.title} ({chart.unit})", weight="bold", size=14)]
    lines += _legend(chart, top + 38)
    y = top + TOP
    for bar in chart.bars:
        lines += _bar(bar, y, scale)
        y += BAR + GAP
    for number, (name, value) in enumerate(chart.limits):
        x = LEFT + value * scale
        low = y + 4 + 18 * number
        lines.append(_line(x, top + TOP - 4, x, low + 4, dashed=True))
        lines.append(_text(x - 4, low + 12, f"{name}: {value:,.0f}", anchor="end", colour=COLOURS[3]))
    return lines


def _legend(chart: Chart, y: int) -> list[str]:
    if len(chart.names) < 2:
        return []
    lines, x = [], float(LEFT)
    for name, colour in zip(chart.names, COLOURS, strict=False):
        lines += [_rect(x, y - 9, 10, 10, colour), _text(x + 14, y, name)]
        x += 30 + 7 * len(name)
    return lines


def _bar(bar: Bar, y: int, scale: float) -> list[str]:
    lines, x = [_text(LEFT - 8, y + 14, bar.label, anchor="end")], float(LEFT)
    for value, colour in zip(bar.parts, COLOURS, strict=False):
        lines.append(_rect(x, y, value * scale, BAR, colour))
        x += value * scale
    if bar.spread:
        low, high = (LEFT + value * scale for value in bar.spread)
        middle = y + BAR / 2
        lines += [
            _line(low, middle, high, middle),
            _line(low, y + 5, low, y + 15),
            _line(high, y + 5, high, y + 15),
        ]
        x = max(x, high)
    return [*lines, _text(x + 6, y + 14, bar.told)]


def _rect(x: float, y: float, width: float, height: float, colour: str) -> str:
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" fill="{colour}"/>'


def _line(x1: float, y1: float, x2: float, y2: float, *, dashed: bool = False) -> str:
    how = f'stroke="{COLOURS[3]}" stroke-dasharray="4 3"' if dashed else 'stroke="#222222"'
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" {how}/>'


def _text(
    x: float,
    y: float,
    text: str,
    *,
    anchor: str = "start",
    colour: str = "#222222",
    weight: str = "normal",
    size: int = 12,
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}" font-weight="{weight}" '
        f'font-size="{size}">{escape(text)}</text>'
    )
