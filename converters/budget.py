"""Which layers stay in float, so that INT8 costs no more accuracy than the user allows.

Layers are taken out of INT8 in the order of what each gains for what it costs, until the measured drop is within the
budget; then those that turn out not to be needed go back, the most expensive first. What a layer gains is read from
the sensitivity of each alone; what a set of layers gives is measured, because effects do not add up exactly.

A search that stops as soon as a few frames lose no more than the budget stops where these frames are kinder than
others. So the drop has to be within the budget by one standard error.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from edgeseg.calibration.sensitivity import Drop, Sensitivity

__all__ = ["BudgetResult", "DropOf", "FloatLayer", "search_budget"]

DropOf = Callable[[frozenset[str]], Drop]
"""What is lost on the search frames with the given layers in float."""

_RETURNS = 12
"""Layers that are tried in INT8 again at most; each try is a pass over the search frames."""


@dataclass(frozen=True)
class FloatLayer:
    """A layer that stays in float.

    Attributes:
        name: of the layer.
        snr: of the logits in dB when it alone is quantized.
        cost: see `edgeseg.converters.costs`.
    """

    name: str
    snr: float
    cost: float


@dataclass(frozen=True)
class BudgetResult:
    """What the search found.

    Attributes:
        layers: those left in float, the most valuable first.
        int8_drop: what all layers in INT8 lose on the search frames.
        drop: what is lost with them in float.
        met: whether that is within the budget by one standard error.
        float_share: their cost over that of all layers.
        evaluations: mixtures that were measured.
    """

    layers: tuple[FloatLayer, ...]
    int8_drop: Drop
    drop: Drop
    met: bool
    float_share: float
    evaluations: int


def search_budget(
    sensitivity: Sensitivity,
    costs: Mapping[str, float],
    drop_of: DropOf,
    budget: float,
    max_float_share: float = 1.0,
) -> BudgetResult:
    """Find the cheapest layers to leave in float.

    Args:
        sensitivity: of all layers that could be quantized, each alone.
        costs: of leaving each in float.
        drop_of: measures a set of float layers on the search frames.
        budget: points that may be lost, of mean IoU where the search frames have labels, else of agreement.
        max_float_share: of the cost of all layers, 0..1, that float layers may have.

    Returns:
        The best that was found; `met` is False where no allowed set stays within the budget.
    """
    ranked = _ranked(sensitivity, costs, max_float_share)
    total = sum(costs[layer.name] for layer in sensitivity.layers)
    drops: dict[int, Drop] = {}

    def drop_at(count: int) -> Drop:
        if count not in drops:
            drops[count] = drop_of(frozenset(layer.name for layer in ranked[:count]))
        return drops[count]

    count = _first_within(lambda number: drop_at(number).bound, len(ranked), budget)
    chosen, drop, tries = list(ranked[:count]), drop_at(count), 0
    if drop.bound <= budget:
        chosen, drop, tries = _returned(chosen, drop, drop_of, budget)
    spent = sum(layer.cost for layer in chosen)
    share = spent / total if total else 0.0
    return BudgetResult(tuple(chosen), drop_at(0), drop, drop.bound <= budget, share, len(drops) + tries)


def _ranked(sensitivity: Sensitivity, costs: Mapping[str, float], max_float_share: float) -> list[FloatLayer]:
    """Layers by gain for cost, as many as the share allows; those that gain nothing are left out."""
    # Noise of layers adds up, as far as it is independent; what a layer makes alone shows even where others drown it.
    gains = {layer.name: layer.alone.noise for layer in sensitivity.layers}
    order = sorted(
        (layer for layer in sensitivity.layers if gains[layer.name] > 0),
        key=lambda layer: (-gains[layer.name] / costs[layer.name], layer.name),
    )
    allowed = max_float_share * sum(costs[layer.name] for layer in sensitivity.layers)
    ranked: list[FloatLayer] = []
    # One layer is left to INT8 at least: a network without any is not what was asked for.
    for layer in order[: len(sensitivity.layers) - 1]:
        if costs[layer.name] <= allowed:
            allowed -= costs[layer.name]
            ranked.append(FloatLayer(layer.name, layer.alone.snr, costs[layer.name]))
    return ranked


def _first_within(bound_at: Callable[[int], float], most: int, budget: float) -> int:
    """The smallest count found that is within the budget, by doubling and halving; `most` where none is."""
    if bound_at(0) <= budget:
        return 0
    low, high = 0, 1
    while high < most and bound_at(high) > budget:
        low, high = high, 2 * high
    high = min(high, most)
    if bound_at(high) > budget:
        return min((0, high), key=bound_at)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if bound_at(middle) <= budget else (middle, high)
    return high


def _returned(
    chosen: Sequence[FloatLayer], drop: Drop, drop_of: DropOf, budget: float
) -> tuple[list[FloatLayer], Drop, int]:
    """Put layers back into INT8 where the budget holds without them, the most expensive first."""
    kept, tries = list(chosen), 0
    for layer in sorted(chosen, key=lambda layer: (-layer.cost, layer.name))[:_RETURNS]:
        fewer = [other for other in kept if other.name != layer.name]
        tries += 1
        found = drop_of(frozenset(other.name for other in fewer))
        if found.bound <= budget:
            kept, drop = fewer, found
    return kept, drop, tries
