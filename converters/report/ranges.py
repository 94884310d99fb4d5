"""Calibration histograms with the chosen range, for the most clipped tensors."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from edgeseg.calibration.ranges import LEVELS
from edgeseg.calibration.table import CalibrationTable, Entry
from edgeseg.converters.report.markup import Markup, element, join
from edgeseg.converters.report.numbers import count, percent, quantity, ticks
from edgeseg.converters.report.partners import partner_table

__all__ = ["DRAWN", "range_section"]

DRAWN = 10
"""Tensors whose histogram is drawn."""

_WIDTH, _HEIGHT = 330, 176
_LEFT, _RIGHT, _TOP, _BOTTOM = 40, 322, 22, 138
_FLOOR = -0.35
"""Decimal logarithm at the foot of the axis: a bin with a single value still shows."""


def range_section(table: CalibrationTable) -> Markup:
    """Histograms of the ten most clipped tensors and the ranges of all."""
    entries = [(name, table.entries[name]) for name in table.most_clipped(len(table.entries))]
    title = element("h2", "Calibration ranges")
    if not entries:
        return element("section", title, element("p", "No tensor was calibrated.", class_="quiet"), id="ranges")
    drawn = min(DRAWN, len(entries))
    if any(entry.clipped_share for _, entry in entries):
        first = f"The {drawn} most clipped of {len(entries)} tensors"
    else:
        first = f"{table.method} clips no value of any of the {len(entries)} tensors; here are {drawn} of them"
    intro = (
        f"{first}: number of values by magnitude on a logarithmic scale. The line marks the chosen range; what lies "
        "beyond it is clipped to it."
    )
    return element(
        "section",
        title,
        element("p", intro, class_="intro"),
        element("div", *(_card(name, entry) for name, entry in entries[:DRAWN]), class_="cards"),
        _list(entries),
        partner_table(table),
        id="ranges",
    )


def _card(name: str, entry: Entry) -> Markup:
    chosen, seen = quantity(entry.amax), quantity(_largest(entry))
    note = f"\u00b1{chosen} of \u00b1{seen} seen, {percent(entry.clipped_share)} clipped"
    return element(
        "figure",
        element("figcaption", element("code", name), element("span", note, class_="quiet")),
        _histogram(entry, f"Histogram of the magnitudes: {note}"),
    )


def _largest(entry: Entry) -> float:
    return max(abs(entry.minimum), abs(entry.maximum))


def _histogram(entry: Entry, label: str) -> Markup:
    filled = [i for i, number in enumerate(entry.histogram) if number]
    if not filled:
        return element("p", "No value was counted.", class_="quiet")
    end = max(entry.amax, (filled[-1] + 1) * entry.width)
    top = max(1, math.ceil(math.log10(max(entry.histogram))))

    def across(value: float) -> float:
        return _LEFT + (_RIGHT - _LEFT) * value / end

    def down(exponent: float) -> float:
        return _BOTTOM - (_BOTTOM - _TOP) * (exponent - _FLOOR) / (top - _FLOOR)

    bars: dict[str, list[str]] = {"int8": [], "loss": []}
    for index in filled:
        left, right = across(index * entry.width), across((index + 1) * entry.width)
        # A bin counts as clipped when its middle is.
        kind = "loss" if (index + 0.5) * entry.width > entry.amax else "int8"
        y = down(math.log10(entry.histogram[index]))
        bars[kind].append(f"M{left:.1f} {_BOTTOM}V{y:.1f}H{right:.1f}V{_BOTTOM}")
    drawn = [element("path", d="".join(steps), class_=kind) for kind, steps in bars.items() if steps]
    parts = (_vertical_axis(top, down), *drawn, _horizontal_axis(end, across), _mark(across(entry.amax), entry.amax))
    return element("svg", *parts, viewBox=f"0 0 {_WIDTH} {_HEIGHT}", class_="histogram", role="img", aria_label=label)


def _vertical_axis(top: int, down: Callable[[float], float]) -> Markup:
    step = max(1, math.ceil(top / 4))
    lines = []
    for exponent in range(0, top + 1, step):
        y = f"{down(exponent):.1f}"
        lines.append(element("line", x1=_LEFT, x2=_RIGHT, y1=y, y2=y))
        lines.append(element("text", count(10.0**exponent), x=_LEFT - 6, y=y, dy="0.35em", text_anchor="end"))
    title = element("text", "values", x=0, y=10, class_="title")
    return join(title, *lines)


def _horizontal_axis(end: float, across: Callable[[float], float]) -> Markup:
    base = element("line", x1=_LEFT, x2=_RIGHT, y1=_BOTTOM, y2=_BOTTOM, class_="base")
    texts = [
        element("text", f"{v:g}", x=f"{across(v):.1f}", y=_BOTTOM + 15, text_anchor="middle")
        for v in ticks(end, 4)
        if across(v) <= _RIGHT - 4
    ]
    title = element(
        "text", "magnitude |x|", x=(_LEFT + _RIGHT) / 2, y=_HEIGHT - 5, text_anchor="middle", class_="title"
    )
    return join(base, *texts, title)


def _mark(x: float, amax: float) -> Markup:
    """The chosen range: a line with its value, on the side where there is room."""
    right = x > (_LEFT + _RIGHT) / 2
    return join(
        element("line", x1=f"{x:.1f}", x2=f"{x:.1f}", y1=6, y2=_BOTTOM, class_="chosen"),
        element(
            "text",
            f"\u00b1{quantity(amax)}",
            x=f"{x - 5 if right else x + 5:.1f}",
            y=14,
            text_anchor="end" if right else "start",
            class_="chosen",
        ),
    )


def _list(entries: Sequence[tuple[str, Entry]]) -> Markup:
    columns = ("Tensor", "Smallest", "Largest", "Range \u00b1", "Step", "Clipped")
    head = element("tr", *(element("th", c, scope="col", class_="num" if i else None) for i, c in enumerate(columns)))
    rows = [
        element(
            "tr",
            element("td", element("code", name)),
            *(
                element("td", text, class_="num")
                for text in (
                    quantity(entry.minimum),
                    quantity(entry.maximum),
                    quantity(entry.amax),
                    # Symmetric INT8 without -128: 127 steps on each side of zero.
                    quantity(entry.amax / LEVELS),
                    percent(entry.clipped_share),
                )
            ),
        )
        for name, entry in entries
    ]
    table = element("table", element("thead", head), element("tbody", *rows), class_="list")
    return element(
        "details",
        element("summary", f"Ranges of all {len(entries)} tensors"),
        element("div", table, class_="scroll tall", tabindex=0, role="region", aria_label="Ranges of all tensors"),
    )
