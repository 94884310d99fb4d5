"""Measured costs as a file, and those that the package ships."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgeseg.errors import ModelError
from edgeseg.models.cards import CARDS
from edgeseg.models.costs import Builder, MeasuredCost, MeasuredCosts, Setup, Times, read_costs, write_costs

OLD, NEW = Setup("a processor", {"openvino": "2026.4"}), Setup("another", {"openvino": "2026.5"})
COST = MeasuredCost(
    "tinynet",
    {"width": 2.0},
    (360, 480),
    1234,
    0.5,
    graph_gmacs=0.6,
    int8_share=0.99,
    int8_layers=7,
    layers=8,
    findings=0,
    agreement=98.5,
    cpu_seconds={"export": 3.0},
    peak_mb=500.0,
    builder=Builder(7, 7, 2.0, 900),
    times=Times(4.0, 2.0, 2.1, 9, True, "2026-11-21", OLD),
    setup=NEW,
)
COSTS = MeasuredCosts(19, (COST, MeasuredCost("plain", {}, (352, 480), 10, 0.1)))


def test_a_file_gives_back_what_was_written(tmp_path: Path) -> None:
    file = tmp_path / "costs.json"
    file.write_text(write_costs(COSTS), "utf-8")
    assert read_costs(file) == COSTS
    assert [entry["machine"] for entry in json.loads(file.read_text())["setups"]] == ["another", "a processor"]


def test_setups_are_named_once() -> None:
    assert COSTS.setups == (NEW, OLD)
    assert MeasuredCosts(19, (COST, COST)).setups == (NEW, OLD)
    assert MeasuredCosts(19, ()).setups == ()


def test_a_variant_is_found_without_its_classes() -> None:
    assert COSTS.of("tinynet", {"width": 2.0, "classes": 19}) is COST
    assert COSTS.of("tinynet", {"width": 1.0}) is None
    assert COSTS.of("tinynet", {}) is None


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"networks": [{}]}', json.dumps({"networks": [], "more": 1}), '{"networks": 1}']
)
def test_a_file_that_is_none_is_refused(tmp_path: Path, content: str) -> None:
    file = tmp_path / "costs.json"
    file.write_text(content, "utf-8")
    with pytest.raises(ModelError, match=r"expected measured costs in .*costs.json, but they cannot be read.*install"):
        read_costs(file)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot be read"):
        read_costs(tmp_path / "costs.json")


@pytest.mark.parametrize(
    ("builder", "verdict"),
    [(Builder(63, 63, 1.0, 1), "63 of 63 INT8"), (Builder(63, 0, None, None, "no kernel"), "refused")],
)
def test_the_builders_verdict(builder: Builder, verdict: str) -> None:
    assert builder.verdict == verdict


def test_the_package_knows_every_variant() -> None:
    costs = read_costs()
    missing = [(name, c.options) for name, card in CARDS.items() for c in card.costs if not costs.of(name, c.options)]
    assert missing == [], "run python benchmarks/network_costs.py count"


def test_what_the_package_states_holds_together() -> None:
    for cost in read_costs().networks:
        assert cost.gmacs > 0
        assert cost.parameters > 0
        if cost.layers:
            assert cost.int8_share is not None
            assert 0 < cost.int8_share <= 1
            assert 0 < cost.int8_layers <= cost.layers
            assert cost.graph_gmacs is not None
            assert (cost.problem, cost.findings) == ("", 0)
        assert (cost.setup is None) == (not cost.layers and not cost.problem), cost
        if cost.builder:
            assert cost.builder.verdict == f"{cost.int8_layers} of {cost.int8_layers} INT8"
        if cost.times:
            assert cost.times.float_ms > 0
            assert cost.times.int8_ms > 0
            assert cost.times.rounds >= 3
            assert cost.times.setup is not None


@pytest.mark.parametrize("name", sorted(CARDS))
def test_counts_agree_with_the_card(name: str) -> None:
    """Where the card counts at CamVid's size for the classes measured, the figures are the same."""
    costs = read_costs()
    for cost in CARDS[name].costs:
        measured = costs.of(name, cost.options)
        if measured and cost.size == measured.size and cost.options["classes"] == costs.classes:
            assert measured.gmacs == cost.gmacs
