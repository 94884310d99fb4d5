"""The search for the cheapest float layers, on losses that are known."""

from __future__ import annotations

import itertools

import pytest

from edgeseg.calibration.sensitivity import Drop, Effect, LayerEffect, Sensitivity
from edgeseg.converters.budget import BudgetResult, search_budget

LOSSES = {"a": 0.1, "b": 2.0, "c": 0.4, "d": 0.05, "e": 1.0}
COSTS = {"a": 10.0, "b": 10.0, "c": 1.0, "d": 1.0, "e": 50.0}


def sensitivity(losses: dict[str, float]) -> Sensitivity:
    layers = tuple(LayerEffect(name, Effect(loss / 100, 100 - loss, None), None) for name, loss in losses.items())
    total = sum(losses.values())
    return Sensitivity(Effect(0, 100, None), Effect(total / 100, 100 - total, None), layers, 1)


def search(
    budget: float, share: float = 1.0, losses: dict[str, float] = LOSSES, error: float = 0.0
) -> tuple[BudgetResult, list[set[str]]]:
    tried: list[set[str]] = []

    def drop_of(kept: frozenset[str]) -> Drop:
        tried.append(set(kept))
        return Drop(sum(loss for name, loss in losses.items() if name not in kept), error)

    return search_budget(sensitivity(losses), COSTS, drop_of, budget, share), tried


def test_nothing_is_spent_where_the_budget_holds() -> None:
    found, tried = search(4.0)
    assert found.layers == ()
    assert (found.met, found.float_share, found.evaluations) == (True, 0.0, 1)
    assert found.drop == found.int8_drop
    assert found.drop.points == pytest.approx(3.55)
    assert tried == [set()]


@pytest.mark.parametrize("budget", [3.2, 2.0, 1.6, 1.2, 0.5, 0.1])
def test_what_is_chosen_keeps_the_budget_and_needs_every_layer(budget: float) -> None:
    found, _ = search(budget)
    names = {layer.name for layer in found.layers}
    assert found.met
    assert found.drop.points == pytest.approx(sum(loss for name, loss in LOSSES.items() if name not in names))
    assert found.drop.points <= budget + 1e-9
    for name in names:
        assert found.drop.points + LOSSES[name] > budget, f"{name} could have stayed in INT8"
    assert found.float_share == pytest.approx(sum(COSTS[n] for n in names) / sum(COSTS.values()))


def test_a_cheap_set_is_found() -> None:
    found, _ = search(1.2)
    best = min(
        (set(names) for k in range(6) for names in itertools.combinations(LOSSES, k)
         if sum(loss for n, loss in LOSSES.items() if n not in names) <= 1.2),
        key=lambda names: sum(COSTS[n] for n in names),
    )  # fmt: skip
    assert {layer.name for layer in found.layers} == best


def test_layers_are_listed_by_value_for_cost_with_what_they_do_alone() -> None:
    found, _ = search(0.1)
    assert [layer.name for layer in found.layers] == ["c", "b", "d", "e"]
    assert found.layers[0].snr == pytest.approx(23.98, abs=0.01)


def test_one_layer_stays_in_int8_even_so() -> None:
    found, _ = search(0.0)
    assert not found.met
    assert {layer.name for layer in found.layers} == {"b", "c", "d", "e"}


def test_a_share_that_is_too_small() -> None:
    found, tried = search(0.5, share=12 / 72)
    assert not found.met
    assert {layer.name for layer in found.layers} == {"c", "b", "d"}
    assert found.drop.points == pytest.approx(1.1)
    assert all(sum(COSTS[n] for n in names) <= 12 for names in tried)


def test_the_same_search_gives_the_same_layers() -> None:
    assert search(0.5)[0] == search(0.5)[0]


def test_layers_without_an_effect_are_left_alone() -> None:
    found, tried = search(0.0, losses={"a": 0.0, "b": 1.0, "c": 0.0})
    assert {layer.name for layer in found.layers} == {"b"}
    assert not any("a" in names or "c" in names for names in tried)


@pytest.mark.parametrize("error", [0.6, 1.0])
def test_what_the_frames_leave_open_counts_as_lost(error: float) -> None:
    found, _ = search(2.0, error=error)
    exact, _ = search(2.0 - error)
    assert [layer.name for layer in found.layers] == [layer.name for layer in exact.layers]
    assert found.met
    assert (found.drop.error, found.drop.bound) == (error, pytest.approx(found.drop.points + error))
    assert found.drop.bound <= 2.0
    assert len(found.layers) > len(search(2.0)[0].layers)
