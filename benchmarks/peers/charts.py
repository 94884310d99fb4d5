"""Bar charts of measured values as SVG, with nothing but the standard library."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

__all__ = ["Bar", "Panel", "bar_chart"]

_WIDTH, _LABELS, _VALUES, _LINE, _GAP = 890, 340, 130, 22, 30
_COLOURS = {"edgeseg": "#1b7f5c", "nncf": "#4472c4", "onnxruntime": "#c46a28", "modelopt": "#8757a8"}
_OTHER = "#777777"


@dataclass(frozen=True)
class Bar:
    """One value; None where there is none, with the reason as its text.

    Attributes:
        tool: gives the colour.
        label: before the bar.
        value: its length, in the panel's unit.
        text: behind it.
        spread: ends of an interval around the value.
        pale: draw it as something of another kind.
    """

    tool: str
    label: str
    value: float | None
    text: str
    spread: tuple[float, float] | None = None
    pale: bool = False


@dataclass(frozen=True)
class Panel:
    """Bars on one scale, from 0 to `most`; longer ones are cut there and say their value."""

    title: str
    bars: Sequence[Bar]
    most: float


def bar_chart(panels: Sequence[Panel], note: str) -> str:
    """The panels one below the other."""
    parts, y = [], 0
    for panel in panels:
        y += _GAP
        parts.append(_text(0, y, panel.title, bold=True))
        for bar in panel.bars:
            y += _LINE
            parts.append(_bar(bar, y, panel.most))
    y += _GAP
    parts.append(_text(0, y, note))
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="-10 0 {_WIDTH + 20} {y + 15}" '
        f'font-family="sans-serif" font-size="13">\n'
        f'<rect x="-10" width="100%" height="100%" fill="#ffffff"/>\n{body}\n</svg>\n'
    )


def _bar(bar: Bar, y: int, most: float) -> str:
    scale = (_WIDTH - _LABELS - _VALUES) / most
    length = min(max(bar.value or 0.0, 0.0), most) * scale
    colour, opacity = _COLOURS.get(bar.tool, _OTHER), 0.4 if bar.pale else 1
    parts = [_text(0, y, bar.label)]
    end = length
    if bar.value is not None:
        parts.append(
            f'<rect x="{_LABELS}" y="{y - 12}" width="{max(length, 1):.1f}" height="15" fill="{colour}" '
            f'fill-opacity="{opacity}"/>'
        )
    if bar.spread is not None:
        low, high = (min(max(v, 0.0), most) * scale for v in bar.spread)
        end = max(end, high)
        parts.append(
            f'<path d="M{_LABELS + low:.1f} {y - 4.5}H{_LABELS + high:.1f}" stroke="#222222" stroke-width="2"/>'
        )
    parts.append(_text(_LABELS + end + 6, y, bar.text))
    return "\n".join(parts)


def _text(x: float, y: float, text: str, *, bold: bool = False) -> str:
    weight = ' font-weight="bold"' if bold else ""
    return f'<text x="{x:.1f}" y="{y}" fill="#222222"{weight}>{escape(text)}</text>'
