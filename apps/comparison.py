"""Every network beside every other: what it costs, what INT8 and TensorRT make of it, and what it scores."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from edgeseg.models.cards import CARDS, Card, Cost
from edgeseg.models.costs import MeasuredCost, MeasuredCosts, Setup
from edgeseg.models.published import MEASURED, PUBLISHED, MeasuredScore, PublishedScore, scores_of

__all__ = [
    "CLASSES",
    "COLUMNS",
    "NUMBERS",
    "SIZE",
    "ComparedNetwork",
    "compare",
    "comparison_figures",
    "comparison_rows",
    "measured_on",
    "options_text",
    "published_rows",
]

CLASSES = 19
"""Logits of the variants compared, where their card counts one of them."""

SIZE = (360, 480)
"""Height and width of CamVid's frames, at which costs were measured."""

COLUMNS = (
    "network",
    "options",
    "parameters",
    "card's GMACs",
    "GMACs here",
    "INT8",
    "FP32 ms",
    "INT8 ms",
    "faster",
    "TensorRT",
    "published mIoU",
    "mIoU here, float / INT8",
)
NUMBERS = (2, 4, 5, 6, 7, 8)
"""Columns of numbers alone."""

_NONE = "-"
_TITLES = {"openvino": "OpenVINO", "tensorrt-rtx": "TensorRT-RTX", "onnxruntime": "ONNX Runtime", "onnx": "ONNX"}


@dataclass(frozen=True)
class ComparedNetwork:
    """One variant of a network.

    Attributes:
        card: of the network.
        options: of the variant, without the classes.
        cost: as the card has it; of its sizes the first.
        measured: at full width on one machine; None where it was not.
        published, own: scores; the first published one is the one that tables show.
    """

    card: Card
    options: Mapping[str, Any]
    cost: Cost
    measured: MeasuredCost | None
    published: tuple[PublishedScore, ...]
    own: tuple[MeasuredScore, ...]

    @property
    def label(self) -> str:
        """Name and options."""
        return f"{self.card.name} {options_text(self.options)}".strip()

    @property
    def short_label(self) -> str:
        """Name and values of the options, for pictures."""
        return " ".join((self.card.name, *map(str, self.options.values())))


def options_text(options: Mapping[str, Any]) -> str:
    """Options as tables show them."""
    return " ".join(f"{key}={value}" for key, value in options.items())


def compare(costs: MeasuredCosts, cards: Mapping[str, Card] = CARDS) -> tuple[ComparedNetwork, ...]:
    """All variants of all cards, by name and in the order of the card.

    Args:
        costs: what was measured, see `edgeseg.models.costs.read_costs`.
        cards: by name.
    """
    compared = []
    for name in sorted(cards):
        for cost in _variants(cards[name]):
            options = {key: value for key, value in cost.options.items() if key != "classes"}
            compared.append(
                ComparedNetwork(
                    cards[name],
                    options,
                    cost,
                    costs.of(name, options),
                    scores_of(PUBLISHED, name, options),
                    scores_of(MEASURED, name, options),
                )
            )
    return tuple(compared)


def _variants(card: Card) -> list[Cost]:
    """One cost for each variant: that for CLASSES, if the card has it."""
    chosen: dict[str, Cost] = {}
    for cost in card.costs:
        key = repr(sorted((k, v) for k, v in cost.options.items() if k != "classes"))
        if key not in chosen or (cost.options["classes"] == CLASSES != chosen[key].options["classes"]):
            chosen[key] = cost
    return list(chosen.values())


def comparison_rows(compared: Iterable[ComparedNetwork]) -> list[tuple[str, ...]]:
    """The table's cells by COLUMNS, a row a variant."""
    return [_row(each) for each in compared]


def _row(each: ComparedNetwork) -> tuple[str, ...]:
    cost, measured = each.cost, each.measured
    times = measured.times if measured else None
    published, own = each.published[:1], each.own[:1]
    return (
        each.card.name,
        options_text(each.options),
        f"{cost.parameters:,}",
        _NONE if cost.gmacs is None else f"{cost.gmacs:.4f} at {_size(cost.size)}",
        _NONE if measured is None else f"{measured.gmacs:.4f}{_other_size(measured)}",
        _NONE if measured is None or measured.int8_share is None else _share(measured.int8_share),
        *((f"{times.float_ms:.1f}", f"{times.int8_ms:.1f}", f"{times.ratio:.2f}") if times else (_NONE,) * 3),
        _verdict(measured),
        f"{published[0].miou:g} {published[0].data}" if published else _NONE,
        f"{own[0].float_miou:.2f} / {own[0].int8_miou:.2f} {own[0].data.split(',')[0]}" if own else _NONE,
    )


def _verdict(measured: MeasuredCost | None) -> str:
    if measured is None:
        return _NONE
    if measured.problem:
        return "not converted"
    return measured.builder.verdict if measured.builder else _NONE


def _share(share: float) -> str:
    """All is 100 % only where it is all."""
    return "100 %" if share == 1 else f"{min(100 * share, 99.99):.2f} %"


def _size(size: tuple[int, int]) -> str:
    return "x".join(map(str, size))


def _other_size(measured: MeasuredCost) -> str:
    return "" if measured.size == SIZE else f" at {_size(measured.size)}"


def published_rows(compared: Iterable[ComparedNetwork]) -> list[tuple[str, ...]]:
    """Every published score with its source: label, mIoU, data, source, note; then what was scored here."""
    variants = tuple(compared)
    rows: list[tuple[str, ...]] = [
        (each.label, f"{score.miou:g}", score.data, score.source, score.note)
        for each in variants
        for score in each.published
    ]
    for each in variants:
        for own in each.own:
            score = f"{own.float_miou:.2f} / {own.int8_miou:.2f}"
            rows.append((each.label, score, own.data, "scored here, float / INT8", own.weights))
    return rows


def measured_on(costs: MeasuredCosts) -> str:
    """Where the measured columns come from, in a sentence or two; says where nothing was measured."""
    if not costs.networks:
        return "Nothing was measured: run benchmarks/network_costs.py."
    setups = costs.setups
    timed = [cost.times for cost in costs.networks if cost.times]
    places = "; ".join(f"[{i}] {_setup(setup)}" for i, setup in enumerate(setups, 1))
    text = (
        f"Measured at {_size(SIZE)} with {costs.classes} classes, --deploy, random weights and full width on {places}."
    )
    if timed:
        where = sorted({f"[{setups.index(times.setup) + 1}]" for times in timed if times.setup})
        text += f" Times on {', '.join(where)}, of one frame at a time, the network alone."
    if not all(times.quiet for times in timed):
        text += " Times beside other work: read the ratio, which was taken in turns."
    return text


def _setup(setup: Setup) -> str:
    versions = (f"{title} {setup.versions[name]}" for name, title in _TITLES.items() if name in setup.versions)
    return " with ".join(filter(None, (setup.machine, ", ".join(versions))))


def comparison_figures(compared: Sequence[ComparedNetwork], costs: MeasuredCosts) -> dict[str, Any]:
    """The comparison for a program; see docs/json.md."""
    return {
        "measured_on": {"classes": costs.classes, "setups": [asdict(setup) for setup in costs.setups]},
        "networks": [
            {
                "name": each.card.name,
                "title": each.card.title,
                "options": dict(each.options),
                "classes": each.cost.options["classes"],
                "parameters": each.cost.parameters,
                "gmacs": each.cost.gmacs,
                "size": list(each.cost.size),
                "measured": None if each.measured is None else _measured(each.measured, costs.setups),
                "published": [_score(score) for score in each.published],
                "own": [_score(score) for score in each.own],
            }
            for each in compared
        ],
    }


def _measured(cost: MeasuredCost, setups: Sequence[Setup]) -> dict[str, Any]:
    found = asdict(cost)
    del found["network"], found["options"]
    for part, of in ((found, cost), (found["times"], cost.times)):
        if of is not None:
            part["setup"] = None if of.setup is None else setups.index(of.setup)
    if cost.builder is not None:
        found["builder"]["verdict"] = cost.builder.verdict
    return found


def _score(score: PublishedScore | MeasuredScore) -> dict[str, Any]:
    return {key: value for key, value in asdict(score).items() if key not in ("network", "options")}
