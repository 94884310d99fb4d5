"""A graph with switches computes what the float graph and the quantized graph compute, and any mixture."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from support.graphs import random_frame, run_graph, toy_network

from edgeseg.calibration.measure import Feed, measure_ranges
from edgeseg.calibration.ranges import minmax
from edgeseg.converters.embed import embed_preprocessing
from edgeseg.converters.fold import fold_batch_norms
from edgeseg.converters.place import Placement, place_qdq, plan_placement
from edgeseg.converters.switches import SwitchedNetwork
from edgeseg.errors import EngineError

FEED: Feed = {"frame": random_frame()[None]}


@pytest.fixture(scope="module")
def network() -> onnx.ModelProto:
    folded = fold_batch_norms(toy_network())
    return embed_preprocessing(folded, color_order="RGB", mean=(120, 120, 120), std=(60, 60, 60))


@pytest.fixture(scope="module")
def placement(network: onnx.ModelProto) -> Placement:
    return plan_placement(network)


@pytest.fixture(scope="module")
def ranges(network: onnx.ModelProto, placement: Placement) -> dict[str, float]:
    return {name: minmax(h) for name, h in measure_ranges(network, placement.tensors, [FEED]).items()}


def quantized_alone(network: onnx.ModelProto, ranges: dict[str, float], names: set[str]) -> onnx.ModelProto:
    others = {layer.name: "asked" for layer in plan_placement(network).layers if layer.name not in names}
    placement = plan_placement(network, others)
    return place_qdq(network, placement, ranges)


def test_all_off_is_the_float_network(network: onnx.ModelProto, placement: Placement, ranges: dict[str, float]) -> None:
    switched = SwitchedNetwork(network, placement, ranges)
    assert switched.layers == tuple(layer.name for layer in placement.layers)
    np.testing.assert_allclose(switched.run(FEED, ()), run_graph(network, **FEED)[0], rtol=1e-4, atol=1e-5)


def test_all_on_is_the_quantized_network(
    network: onnx.ModelProto, placement: Placement, ranges: dict[str, float]
) -> None:
    switched = SwitchedNetwork(network, placement, ranges)
    expected = run_graph(place_qdq(network, placement, ranges), **FEED)[0]
    found = switched.run(FEED, switched.layers)
    # A value on the edge between two levels may fall to either side.
    assert np.abs(found - expected).mean() < 2e-3 * np.abs(expected).max()
    assert np.abs(switched.run(FEED, ()) - expected).mean() > 5 * np.abs(found - expected).mean()


@pytest.mark.parametrize("number", range(7))
def test_each_alone(number: int, network: onnx.ModelProto, placement: Placement, ranges: dict[str, float]) -> None:
    switched = SwitchedNetwork(network, placement, ranges)
    name = switched.layers[number]
    expected = run_graph(quantized_alone(network, ranges, {name}), **FEED)[0]
    np.testing.assert_allclose(switched.run(FEED, {name}), expected, atol=2e-3 * float(np.abs(expected).max()))


def test_shifts_move_quantized_layers_alone(
    network: onnx.ModelProto, placement: Placement, ranges: dict[str, float]
) -> None:
    last = placement.layers[-1].name
    plain = SwitchedNetwork(network, placement, ranges)
    shifted = SwitchedNetwork(network, placement, ranges, {last: np.array([1.0, 2.0, 3.0])})
    np.testing.assert_array_equal(shifted.run(FEED, ()), plain.run(FEED, ()))
    moved = shifted.run(FEED, {last}) - plain.run(FEED, {last})
    np.testing.assert_allclose(moved.mean(axis=(0, 2, 3)), [1, 2, 3], atol=1e-4)


def test_a_graph_that_the_engine_does_not_take(network: onnx.ModelProto, placement: Placement) -> None:
    broken = onnx.ModelProto.FromString(network.SerializeToString())
    broken.graph.node[0].op_type = "NoSuchOperator"
    with pytest.raises(EngineError, match="cannot take the network with switches"):
        SwitchedNetwork(broken, placement, dict.fromkeys(placement.tensors, 1.0))
