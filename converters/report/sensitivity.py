"""Which layers cost accuracy: the noise that INT8 makes in each alone, as a table whose rows carry their bars."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from edgeseg.calibration.sensitivity import Effect, Sensitivity
from edgeseg.converters.report.figures import LayerHarm, layer_harms
from edgeseg.converters.report.markup import Markup, element, join
from edgeseg.converters.report.numbers import decimal, nice_step, percent
from edgeseg.manifest import Layer

__all__ = ["TITLE", "sensitivity_figures", "sensitivity_section"]

TITLE = "Which layers cost accuracy"

_OPEN_ROWS = 24
_STEPS = 4


def sensitivity_section(sensitivity: Sensitivity, layers: Sequence[Layer]) -> Markup:
    """The chart, and behind a fold the layers that cost least.

    Args:
        sensitivity: what was measured.
        layers: those whose work counts as all.
    """
    harms = layer_harms(sensitivity, layers)
    title = element("h2", TITLE)
    if not harms:
        return element("section", title, element("p", "No layer can be quantized.", class_="quiet"), id="sensitivity")
    what = "block" if any(harm.effect.others for harm in harms) else "layer"
    spared = harms[0].effect.spared is not None
    end = nice_step(max(harm.effect.alone.noise for harm in harms), _STEPS) * _STEPS
    tables = [_table(harms[:_OPEN_ROWS], end, what, spared)]
    if harms[_OPEN_ROWS:]:
        more = element("summary", f"{len(harms) - _OPEN_ROWS} more, each of less noise")
        tables.append(element("details", more, _table(harms[_OPEN_ROWS:], end, what, spared)))
    return element(
        "section",
        title,
        element("p", _intro(what, spared), class_="intro"),
        element("p", _whole(sensitivity), class_="intro"),
        *tables,
        id="sensitivity",
    )


def sensitivity_figures(sensitivity: Sensitivity, layers: Sequence[Layer]) -> dict[str, Any]:
    """The same figures for a program: `float`, `int8` and `layers`, the one that makes most noise alone first."""
    return {
        "float": _effect(sensitivity.float_network),
        "int8": _effect(sensitivity.int8_network),
        "layers": [
            {
                "layer": harm.effect.name,
                "layers": list(harm.effect.layers),
                "mac_share": harm.mac_share,
                "alone": _effect(harm.effect.alone),
                "spared": None if harm.effect.spared is None else _effect(harm.effect.spared),
            }
            for harm in layer_harms(sensitivity, layers)
        ],
    }


def _effect(effect: Effect) -> dict[str, float | None]:
    return {"snr_db": effect.snr, "agreement": effect.agreement, "miou": effect.miou}


def _intro(what: str, spared: bool) -> str:
    text = (
        f"The noise in the logits when one {what} alone is in INT8, as a share of the signal, and the pixels that keep "
        "their class; the loudest comes first."
    )
    return text + " Spared: all others in INT8 and this one in float." if spared else text


def _whole(sensitivity: Sensitivity) -> str:
    whole, before = sensitivity.int8_network, sensitivity.float_network
    score = f", mean IoU {decimal(whole.miou)} of {decimal(before.miou)}" if whole.miou is not None else ""
    frames = "1 frame" if sensitivity.frames == 1 else f"{sensitivity.frames} frames"
    return (
        f"All of them in INT8: {_decibels(whole)} dB, {decimal(whole.agreement)} % of the pixels keep their class"
        f"{score}; measured on {frames} at the size of the logits."
    )


def _table(harms: Sequence[LayerHarm], end: float, what: str, spared: bool) -> Markup:
    scored = harms[0].effect.alone.miou is not None
    numbers = ["MACs", "dB", "Kept, %", *(["mIoU"] if scored else []), *(["Spared, dB"] if spared else [])]
    head = element(
        "tr",
        element("th", what.capitalize(), scope="col"),
        element("th", _axis(end), class_="chart", scope="col"),
        *(element("th", text, class_="num", scope="col") for text in numbers),
    )
    columns = [element("col", class_=c) for c in ("name", "bars", *("figure" for _ in numbers))]
    rows = [_row(harm, end) for harm in harms]
    table = element("table", element("colgroup", *columns), element("thead", head), element("tbody", *rows))
    return element("div", table, class_="harms")


def _axis(end: float) -> Markup:
    """Tick labels above the bars, placed in percent of their width so that text never scales."""
    texts = [
        element(
            "text",
            percent(end * i / _STEPS),
            x=f"{100 * i / _STEPS:g}%",
            y=28,
            text_anchor="start" if i == 0 else "end" if i == _STEPS else "middle",
        )
        for i in (0, _STEPS // 2, _STEPS)
    ]
    return element("svg", element("text", "Noise alone", x=0, y=12, class_="title"), *texts, class_="plot axis")


def _row(harm: LayerHarm, end: float) -> Markup:
    effect = harm.effect
    alone, spared = effect.alone, effect.spared
    name = join(element("code", effect.name), _others(effect.others) if effect.others else None)
    numbers = [f"{decimal(100 * harm.mac_share, 1)}\u00a0%", _decibels(alone), decimal(alone.agreement)]
    numbers += [] if alone.miou is None else [decimal(alone.miou)]
    numbers += [] if spared is None else [_decibels(spared)]
    return element(
        "tr",
        element("th", name, scope="row"),
        element("td", _bar(alone.noise / end), class_="chart"),
        *(element("td", text, class_="num") for text in numbers),
    )


def _others(names: Sequence[str]) -> Markup:
    what = "1 other layer" if len(names) == 1 else f"{len(names)} other layers"
    return element(
        "details",
        element("summary", f"and {what}"),
        element("div", *(element("code", name) for name in names), class_="names"),
    )


def _bar(share: float) -> Markup:
    grid = join(*(element("line", x1=f"{x}%", x2=f"{x}%", y1=0, y2="100%") for x in (0, 25, 50, 75, 100)))
    bar = element("rect", x=0, y=10, height=7, width=f"{100 * share:.2f}%", class_="loss")
    return element("svg", grid, bar, class_="plot", aria_hidden="true")


def _decibels(effect: Effect) -> str:
    return "\u221e" if math.isinf(effect.snr) else decimal(effect.snr, 1)
