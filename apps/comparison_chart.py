"""Accuracy against cost as a picture: one panel a data set, a logarithmic axis of multiply-accumulates for all."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from edgeseg.apps.comparison import ComparedNetwork
from edgeseg.converters.report.markup import Markup, element

__all__ = ["PANELS", "Point", "accuracy_chart", "points_of"]

PANELS = ("Cityscapes", "CamVid", "VOC")
"""Data sets by the beginning of their name; scores of different ones do not compare."""

_KINDS = {
    "published": "published with the network",
    "paddleseg": "PaddleSeg, one framework for all",
    "own": "scored here in INT8, CamVid val",
}

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 960, 340, 46, 24, 34, 34
_FONT, _LETTER = 11, 6.2
_LEGEND = 26
_COLOURS = {
    "published": "var(--int8, #1560bd)",
    "paddleseg": "var(--float, #8592a1)",
    "own": "var(--loss, #b8431c)",
}
_INK, _QUIET, _GRID = "var(--ink, #18202b)", "var(--quiet, #566170)", "var(--grid, #e8ebef)"

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Point:
    """One score of one variant.

    Attributes:
        label: of the variant, short.
        kind: a key of _KINDS.
        gmacs: 10^9 multiply-accumulates at CamVid's size.
        miou: 0..100.
        text: all about it.
    """

    label: str
    kind: str
    gmacs: float
    miou: float
    text: str


def points_of(compared: Iterable[ComparedNetwork], data: str) -> list[Point]:
    """A variant's first score of each kind on a data set; none of variants whose cost is not known.

    Args:
        compared: the variants.
        data: one of PANELS.
    """
    points = []
    for each in compared:
        if each.measured is None:
            continue
        gmacs, seen = each.measured.gmacs, set()
        for score in each.published:
            kind = "paddleseg" if score.source == "PaddleSeg" else "published"
            if score.data.startswith(data) and kind not in seen:
                seen.add(kind)
                note = f", {score.note}" if score.note else ""
                text = f"{each.label}: {score.miou:g} on {score.data} ({score.source}{note})"
                points.append(Point(each.short_label, kind, gmacs, score.miou, text))
        for own in each.own:
            if own.data.startswith(data):
                text = f"{each.label}: {own.int8_miou:g} in INT8 on {own.data} ({own.weights})"
                points.append(Point(each.short_label, "own", gmacs, own.int8_miou, text))
    return sorted(points, key=lambda point: (point.gmacs, -point.miou))


def accuracy_chart(compared: Sequence[ComparedNetwork]) -> Markup:
    """The picture as SVG that stands by itself or in a page, whose colours it takes."""
    panels = {data: points_of(compared, data) for data in PANELS}
    every = [point.gmacs for points in panels.values() for point in points]
    if not every:
        return element("p", "No network has both a score and a measured cost.", class_="quiet")
    low, high = math.floor(2 * math.log10(min(every))) / 2, math.ceil(2 * math.log10(max(every)) + 0.5) / 2
    parts = [_legend()]
    for number, (data, points) in enumerate(panels.items()):
        parts.append(_panel(data, points, (low, high), _LEGEND + number * _HEIGHT))
    height = _LEGEND + len(panels) * _HEIGHT
    return element(
        "svg",
        element("rect", width="100%", height="100%", style="fill:var(--card, #ffffff)"),
        *parts,
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {_WIDTH} {height}",
        font_family="system-ui, sans-serif",
        font_size=_FONT,
        role="img",
        aria_label="Mean IoU against multiply-accumulates, by data set",
    )


def _legend() -> Markup:
    parts, x = [], float(_LEFT)
    for kind, text in _KINDS.items():
        parts += [_mark(kind, x + 5, 12), _text(text, x + 14, 16)]
        x += 30 + len(text) * _LETTER
    return element("g", *parts)


def _panel(data: str, points: Sequence[Point], span: tuple[float, float], top: float) -> Markup:
    inside = _HEIGHT - _TOP - _BOTTOM
    scores = [point.miou for point in points] or [0.0, 100.0]
    bottom, best = 5 * math.floor(min(scores) / 5 - 0.4), 5 * math.ceil(max(scores) / 5 + 0.2)

    def across(gmacs: float) -> float:
        share = (math.log10(gmacs) - span[0]) / (span[1] - span[0])
        return _LEFT + share * (_WIDTH - _LEFT - _RIGHT)

    def down(miou: float) -> float:
        return top + _TOP + inside * (best - miou) / (best - bottom)

    parts = [_text(f"{data}: mean IoU, %", _LEFT, top + _TOP - 14, bold=True)]
    for value in range(bottom, best + 1, 5):
        parts += [_line(_LEFT, down(value), _WIDTH - _RIGHT, down(value)), _text(str(value), 16, down(value) + 4)]
    for exponent in range(math.ceil(span[0]), math.floor(span[1]) + 1):
        x = across(10.0**exponent)
        label = f"{10.0**exponent:g}"
        shift = len(label) * _LETTER / 2
        parts += [_line(x, top + _TOP, x, top + _TOP + inside), _text(label, x - shift, top + _HEIGHT - 18)]
    parts.append(_text("GMACs at 360x480", _WIDTH - 118, top + _HEIGHT - 4))
    marks: list[Box] = [(across(p.gmacs) - 5, down(p.miou) - 5, across(p.gmacs) + 5, down(p.miou) + 5) for p in points]
    labels: list[Box] = []
    for point in points:
        x, y = across(point.gmacs), down(point.miou)
        parts.append(element("g", element("title", point.text), _mark(point.kind, x, y)))
        box = _place(point.label, x, y, marks + labels)
        labels.append(box)
        parts.append(_text(point.label, box[0], box[3] - 3, quiet=True))
    return element("g", *parts)


def _place(label: str, x: float, y: float, taken: Sequence[Box]) -> Box:
    """Where a label stands: beside its point where that is free, else a little above or below."""
    width = len(label) * _LETTER
    candidates: list[Box] = []
    for shift in (0, -7, 7, -13, 13, -20, 20, -27, 27, -34, 34, -42, 42, -50, 50):
        for left in (x + 8, x - 8 - width):
            if left >= _LEFT and left + width <= _WIDTH - 2:
                candidates.append((left, y - 6 + shift, left + width, y + 7 + shift))
    return min(candidates, key=lambda box: sum(_overlap(box, other) for other in taken))


def _overlap(one: Box, two: Box) -> float:
    across = min(one[2], two[2]) - max(one[0], two[0])
    down = min(one[3], two[3]) - max(one[1], two[1])
    return max(across, 0.0) * max(down, 0.0)


def _mark(kind: str, x: float, y: float) -> Markup:
    if kind == "own":
        path = f"M{x:.1f} {y - 5.5:.1f}l5.5 5.5l-5.5 5.5l-5.5 -5.5z"
        return element("path", d=path, style=f"fill:{_COLOURS[kind]}")
    fill = _COLOURS[kind] if kind == "published" else "var(--card, #ffffff)"
    style = f"fill:{fill};stroke:{_COLOURS[kind]};stroke-width:2"
    return element("circle", cx=f"{x:.1f}", cy=f"{y:.1f}", r=4, style=style)


def _line(x1: float, y1: float, x2: float, y2: float) -> Markup:
    return element("path", d=f"M{x1:.1f} {y1:.1f}L{x2:.1f} {y2:.1f}", style=f"stroke:{_GRID};stroke-width:1")


def _text(text: str, x: float, y: float, *, bold: bool = False, quiet: bool = False) -> Markup:
    style = f"fill:{_QUIET if quiet else _INK}" + (";font-weight:600" if bold else "")
    return element("text", text, x=f"{x:.1f}", y=f"{y:.1f}", style=style)
