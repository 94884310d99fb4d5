"""Which partners are taken, by what they do to the logits."""

from __future__ import annotations

import math

import numpy as np
import onnx
import pytest
from support.graphs import GraphBuilder, run_graph

from edgeseg.calibration.measure import measure_ranges
from edgeseg.calibration.ranges import minmax
from edgeseg.converters.graph import GraphIndex, copy_model, set_constant
from edgeseg.converters.joined import JoinedNetwork, choose_partners, with_partners
from edgeseg.converters.place import Placement, place_qdq, plan_placement


@pytest.fixture(scope="module")
def model() -> onnx.ModelProto:
    """Two sums whose skips convolutions read too, and a branch within 0..1 beside a large one, moved together twice."""
    builder = GraphBuilder(2)
    x = builder.add("Relu", builder.conv("image", 3, 4, name="stem"), name="start")
    for number in range(2):
        total = builder.add("Add", x, builder.conv(x, 4, 4, name=f"branch_{number}"), name=f"sum_{number}")
        x = builder.add("Relu", total, name=f"end_{number}")
    small = builder.add("Sigmoid", builder.conv(x, 4, 4, name="a"), name="small")
    both = builder.add("Concat", small, builder.add("Relu", x, name="large"), axis=1, name="both")
    more = builder.add("Concat", both, builder.conv(both, 8, 2, name="c"), axis=1, name="more")
    return builder.model(builder.conv(more, 10, 2, name="d"), (1, 3, 16, 16))


@pytest.fixture(scope="module")
def placement(model: onnx.ModelProto) -> Placement:
    return plan_placement(model, partners="auto")


FEEDS = [{"image": np.random.default_rng(seed).normal(0, 4, (1, 3, 16, 16)).astype(np.float32)} for seed in range(4)]


@pytest.fixture(scope="module")
def ranges(model: onnx.ModelProto, placement: Placement) -> dict[str, float]:
    return {name: minmax(h) for name, h in measure_ranges(model, placement.quantized, FEEDS).items()}


def noise_of(model: onnx.ModelProto, placement: Placement, ranges: dict[str, float]) -> float:
    """Of the Q/DQ graph itself, in ONNX Runtime."""
    quantized = place_qdq(model, placement, ranges)
    noise = signal = 0.0
    for feed in FEEDS:
        (exact,), (found,) = run_graph(model, **feed), run_graph(quantized, **feed)
        noise += float(np.square(found - exact, dtype=np.float64).sum())
        signal += float(np.square(exact, dtype=np.float64).sum())
    return noise / signal


def test_the_candidates(placement: Placement) -> None:
    assert [skip.node for skip in placement.skips] == ["sum_0", "sum_1"]
    assert placement.groups == (("both_out", "more_out"),)


@pytest.mark.parametrize("nodes", [(), ("sum_0",), ("sum_0", "sum_1")])
def test_noise_is_that_of_the_graph_with_these_partners(
    nodes: tuple[str, ...], model: onnx.ModelProto, placement: Placement, ranges: dict[str, float]
) -> None:
    network = JoinedNetwork(model, placement, {}, FEEDS)
    merged = {**ranges, "both_out": ranges["more_out"]}
    kept = Placement(placement.layers, placement.tensors, tuple(s for s in placement.skips if s.node in nodes))
    # Values at the edge between two levels round either way.
    assert network.noise(merged, nodes) == pytest.approx(noise_of(model, kept, merged), rel=0.05)


class TestChoice:
    def chosen(
        self, model: onnx.ModelProto, placement: Placement, ranges: dict[str, float], tolerance: float | None
    ) -> tuple[list[bool], float, dict[str, float]]:
        partners, shared = choose_partners(model, placement, ranges, {}, FEEDS, tolerance)
        assert [group.node for group in partners.groups] == ["sum_0", "sum_1", ""]
        assert partners.tolerance == tolerance
        return [group.taken for group in partners.groups], partners.loss, shared

    def test_all_where_they_cost_little(
        self, model: onnx.ModelProto, placement: Placement, ranges: dict[str, float]
    ) -> None:
        taken, loss, shared = self.chosen(model, placement, ranges, 20.0)
        assert taken == [True] * 3
        assert set(shared) == {"both_out", "more_out"}
        assert len(set(shared.values())) == 1
        before = JoinedNetwork(model, placement, {}, FEEDS).noise(ranges, ())
        after = noise_of(model, placement, {**ranges, **shared})
        assert loss == pytest.approx(10 * math.log10(after / before), abs=0.3)

    def test_what_costs_too_much_is_left(self, model: onnx.ModelProto) -> None:
        """No range serves two tensors of which one is a thousand times the other."""
        apart = copy_model(model)
        weight = next(node.input[1] for node in apart.graph.node if node.name == "c")
        values = GraphIndex(apart).constant(weight)
        assert values is not None
        set_constant(apart, weight, values * 1000)
        placement = plan_placement(apart, partners="auto")
        ranges = {name: minmax(h) for name, h in measure_ranges(apart, placement.quantized, FEEDS).items()}
        partners, shared = choose_partners(apart, placement, ranges, {}, FEEDS, 3.0)
        everything, forced = choose_partners(apart, placement, ranges, {}, FEEDS, None)
        assert everything.taken == everything.groups
        assert set(forced) == {"both_out", "more_out"}
        assert everything.loss > 3
        assert [group.taken for group in partners.groups] == [True, True, False]
        assert partners.groups[2].loss > 3
        assert shared == {}
        kept = with_partners(placement, partners)
        assert ([skip.node for skip in kept.skips], kept.groups) == (["sum_0", "sum_1"], ())

    @pytest.mark.parametrize("tolerance", [0.0, 0.1, 0.3, 1.0, 3.0])
    def test_never_more_than_the_tolerance(
        self, tolerance: float, model: onnx.ModelProto, placement: Placement, ranges: dict[str, float]
    ) -> None:
        assert self.chosen(model, placement, ranges, tolerance)[1] <= tolerance + 1e-9

    def test_nothing_fits(self, model: onnx.ModelProto, placement: Placement, ranges: dict[str, float]) -> None:
        assert self.chosen(model, placement, ranges, -100.0) == ([False] * 3, 0.0, {})


def test_no_partners_no_skips(placement: Placement) -> None:
    plain = with_partners(placement, None)
    assert (plain.skips, plain.groups, plain.quantized) == ((), (), placement.tensors)
