"""The figures of the report, each a pure function of its content; the page draws them and the JSON twin lists them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np

from edgeseg.calibration.sensitivity import LayerEffect, Sensitivity
from edgeseg.converters.report.content import WorstFrame
from edgeseg.labels import LabelSet
from edgeseg.manifest import Layer, Scores

__all__ = [
    "ClassChange",
    "ClassScore",
    "LayerHarm",
    "class_changes",
    "class_scores",
    "digests",
    "float_reasons",
    "layer_harms",
    "layer_shares",
    "moved_most",
]


@dataclass(frozen=True)
class ClassScore:
    """IoU of one class before and after, 0..100; None where nothing was labelled or predicted."""

    name: str
    float_iou: float | None
    int8_iou: float | None

    @property
    def change(self) -> float | None:
        """Points gained by quantization; negative where they were lost."""
        return None if self.float_iou is None or self.int8_iou is None else self.int8_iou - self.float_iou


@dataclass(frozen=True)
class ClassChange:
    """Pixels of one frame that the float network gives to one class and the INT8 network to another; share 0..1."""

    before: str
    after: str
    share: float


@dataclass(frozen=True)
class LayerHarm:
    """What INT8 does in one layer, or in one block; `mac_share` 0..1 of the multiply-accumulate operations."""

    effect: LayerEffect
    mac_share: float


def class_scores(scores: Scores) -> tuple[ClassScore, ...]:
    """Every class that was scored, the greatest loss first; classes without a change last, in their own order.

    A float map agrees with itself: where the metric is agreement, a class without `float_iou` has 100 there.
    """
    own = 100.0 if scores.metric == "agreement" else None
    rows = []
    for name in dict.fromkeys((*scores.float_iou, *scores.int8_iou)):
        int8 = scores.int8_iou.get(name)
        rows.append(ClassScore(name, scores.float_iou.get(name, own if int8 is not None else None), int8))
    return tuple(sorted(rows, key=lambda row: math.inf if row.change is None else row.change))


def moved_most(scores: Scores, most: int = 3) -> tuple[ClassScore, ...]:
    """The classes whose IoU changed most, up or down, the largest change first; none that kept theirs."""
    moved = [row for row in class_scores(scores) if row.change]
    return tuple(sorted(moved, key=lambda row: -abs(row.change or 0.0))[:most])


def digests(names: Iterable[str], values: Iterable[str]) -> tuple[tuple[str, str], ...]:
    """Names with their digests; empty for a name that has none."""
    return tuple(zip_longest(names, values, fillvalue=""))


def class_changes(frame: WorstFrame, labels: LabelSet, most: int = 3) -> tuple[ClassChange, ...]:
    """The pairs of classes between which most pixels of a frame moved, the largest first."""
    moved = frame.float_map != frame.int8_map
    pairs = frame.float_map[moved].astype(np.int64) * 256 + frame.int8_map[moved]
    values, counts = np.unique(pairs, return_counts=True)
    order = np.argsort(-counts, kind="stable")[:most]
    return tuple(
        ClassChange(
            _name(labels, int(values[i]) // 256), _name(labels, int(values[i]) % 256), int(counts[i]) / moved.size
        )
        for i in order
    )


def _name(labels: LabelSet, index: int) -> str:
    return labels.names[index] if index < len(labels) else f"no class ({index})"


def layer_shares(layers: Iterable[Layer]) -> tuple[float, ...]:
    """Share of the multiply-accumulate operations of each layer, 0..1; zeros where no layer has any."""
    macs = [layer.macs for layer in layers]
    total = sum(macs)
    return tuple(m / total if total else 0.0 for m in macs)


def float_reasons(layers: Iterable[Layer]) -> dict[str, tuple[Layer, ...]]:
    """The layers that stayed in float by reason, the reason of most layers first."""
    groups: dict[str, list[Layer]] = {}
    for layer in layers:
        if layer.precision == "float":
            groups.setdefault(layer.reason or "no reason was recorded", []).append(layer)
    return {r: tuple(g) for r, g in sorted(groups.items(), key=lambda item: -len(item[1]))}


def layer_harms(sensitivity: Sensitivity, layers: Iterable[Layer]) -> tuple[LayerHarm, ...]:
    """What was measured of each layer or block, the one that makes most noise alone first.

    Args:
        sensitivity: what was measured.
        layers: those whose work counts as all.
    """
    listed = tuple(layers)
    shares = dict(zip((layer.name for layer in listed), layer_shares(listed), strict=True))
    harms = [LayerHarm(effect, sum(shares[name] for name in effect.layers)) for effect in sensitivity.layers]
    return tuple(sorted(harms, key=lambda harm: -harm.effect.alone.noise))
