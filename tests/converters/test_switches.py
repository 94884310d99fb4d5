"""A graph with switches computes what the float graph and the quantized graph compute, and any mixture."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from support.graphs import random_frame, run_graph, toy_network

from edgeseg.calibration.measure import Feed, measure_ranges
from edgeseg.calibration.ranges import minmax
from edgeseg.converters import switches
from edgeseg.converters.embed import embed_preprocessing
from edgeseg.converters.fold import fold_batch_norms
from edgeseg.converters.options import ConvertOptions
from edgeseg.converters.place import Placement, place_qdq, plan_placement
from edgeseg.converters.prepare import prepare
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


class TestSegments:
    """Segments only save time: logits are those of the whole graph, in whatever order mixtures come."""

    @pytest.fixture
    def whole(
        self,
        network: onnx.ModelProto,
        placement: Placement,
        ranges: dict[str, float],
        monkeypatch: pytest.MonkeyPatch,
    ) -> SwitchedNetwork:
        with monkeypatch.context() as patch:
            patch.setattr("edgeseg.converters.switches.cut_positions", lambda *_: ())
            return SwitchedNetwork(network, placement, ranges)

    def test_any_mixtures_in_any_order(
        self, whole: SwitchedNetwork, network: onnx.ModelProto, placement: Placement, ranges: dict[str, float]
    ) -> None:
        switched = SwitchedNetwork(network, placement, ranges)
        random = np.random.default_rng(0)
        frames: list[Feed] = [FEED, {"frame": random_frame(seed=1)[None]}]
        everything = frozenset(switched.layers)
        mixtures = [frozenset(n for n in switched.layers if random.random() < 0.5) for _ in range(12)]
        for name in switched.layers:
            mixtures += [frozenset({name}), everything - {name}, everything, frozenset()]
        for number in random.permutation(len(mixtures)):
            frame = frames[int(random.integers(2))]
            expected = whole.run(frame, mixtures[number])
            np.testing.assert_array_equal(switched.run(frame, mixtures[number]), expected)

    def test_what_stands_before_a_change_is_computed_once(
        self,
        network: onnx.ModelProto,
        placement: Placement,
        ranges: dict[str, float],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        switched = SwitchedNetwork(network, placement, ranges)
        ran: list[frozenset[str]] = []
        run = switches._Part.run

        def counted(part: switches._Part, tensors: switches._Tensors, quantized: frozenset[str]) -> switches._Tensors:
            ran.append(frozenset(part._layers))
            return run(part, tensors, quantized)

        monkeypatch.setattr(switches._Part, "run", counted)
        first, last = switched.layers[0], switched.layers[-1]
        switched.run(FEED, {first})
        count = len(set(ran))
        assert count > 2
        assert len(ran) == count
        switched.run(FEED, {last})
        assert len(ran) == 2 * count
        for mixture in ({last}, (), {last}):
            del ran[:]
            switched.run(FEED, mixture)
            assert len(ran) == 1
            assert last in ran[0]
        del ran[:]
        switched.run(FEED, set(switched.layers) - {last})
        assert len(ran) == count - 1, "the first segment ran in INT8 already"
        switched.run(FEED, switched.layers)
        assert len(ran) == count
        with ThreadPoolExecutor(1) as pool:
            pool.submit(switched.run, {"frame": random_frame(seed=1)[None]}, {last}).result()
        del ran[:]
        switched.run(FEED, {last})
        assert len(ran) == 1, "another thread's frame is not this one's"
        del ran[:]
        switched.run(dict(FEED), {last})
        assert len(ran) == count, "another frame"

    def test_threads_do_not_share_frames(
        self, whole: SwitchedNetwork, network: onnx.ModelProto, placement: Placement, ranges: dict[str, float]
    ) -> None:
        switched = SwitchedNetwork(network, placement, ranges)
        frames: list[Feed] = [{"frame": random_frame(seed=seed)[None]} for seed in range(6)]
        mixtures = [frozenset({name}) for name in switched.layers]

        def measure(frame: Feed) -> list[NDArray[np.float32]]:
            return [switched.run(frame, mixture) for mixture in mixtures]

        with ThreadPoolExecutor(3) as pool:
            found = list(pool.map(measure, frames))
        for frame, logits in zip(frames, found, strict=True):
            for mixture, each in zip(mixtures, logits, strict=True):
                np.testing.assert_array_equal(each, whole.run(frame, mixture))

    def test_a_published_network(self, shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Its pools would be laid out by what stands beside them, and cuts move what stands beside them."""
        path = shared / "models/espnetv2_s0.5_cityscapes_352x480.onnx"
        if not path.exists():
            pytest.skip(f"{path} is not at hand")
        prepared = prepare(path, ConvertOptions(mean=(0, 0, 0), std=(255, 255, 255)))
        placement = plan_placement(prepared.model)
        ranges = dict.fromkeys(placement.tensors, 2.0)
        switched = SwitchedNetwork(prepared.model, placement, ranges)
        monkeypatch.setattr("edgeseg.converters.switches.cut_positions", lambda *_: ())
        whole = SwitchedNetwork(prepared.model, placement, ranges)
        feed: Feed = {prepared.input.tensor: random_frame(352, 480)[None]}
        for mixture in ((), switched.layers, switched.layers[60:61]):
            np.testing.assert_array_equal(switched.run(feed, mixture), whole.run(feed, mixture))
