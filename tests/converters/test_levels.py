"""Levels of weights that are chosen together: against every combination, and by what they do to a layer's output."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from support.graphs import GraphBuilder, run_graph

from edgeseg.calibration.measure import Feed
from edgeseg.converters import levels as steps
from edgeseg.converters.levels import choose_levels, descend
from edgeseg.converters.place import Placement, moved_weight, place_qdq, plan_placement, remove_qdq, weight_scales
from edgeseg.converters.rounding import rounded_weight
from edgeseg.converters.switches import SwitchedNetwork
from edgeseg.errors import CalibrationError

HEIGHT, WIDTH, CHANNELS = 20, 28, 8


def covariance_of(random: np.random.Generator, size: int, groups: int = 1) -> NDArray[np.float64]:
    mixed = random.normal(0, 1, (groups, 4 * size, size)) @ random.normal(0, 1, (groups, size, size))
    return np.einsum("gnk,gnl->gkl", mixed, mixed) / (4 * size)


def error_of(levels: NDArray[np.float64], ratio: NDArray[np.float64], covariance: NDArray[np.float64]) -> float:
    change = levels - ratio
    return float(np.einsum("gck,gkl,gcl->", change, covariance, change))


class TestDescend:
    def test_is_near_the_best_of_all_combinations(self) -> None:
        left = won = 0.0
        for seed in range(12):
            random = np.random.default_rng(seed)
            ratio, covariance = random.uniform(-100, 100, (1, 1, 8)), covariance_of(random, 8)
            ups = itertools.product((0.0, 1.0), repeat=8)
            best = min(error_of(np.floor(ratio) + np.reshape(up, (1, 1, -1)), ratio, covariance) for up in ups)
            nearest, found = (
                error_of(levels, ratio, covariance) for levels in (np.rint(ratio), descend(ratio, covariance))
            )
            assert best * (1 - 1e-9) <= found <= nearest
            left, won = left + found - best, won + nearest - found
        assert won > 2 * left

    def test_no_single_change_helps(self) -> None:
        random = np.random.default_rng(1)
        ratio, covariance = random.uniform(-126, 126, (3, 4, 12)), covariance_of(random, 12, 3)
        levels = descend(ratio, covariance)
        assert (np.abs(levels - ratio) < 1).all()
        assert (levels != np.rint(ratio)).any()
        least = error_of(levels, ratio, covariance)
        for at in np.ndindex(ratio.shape):
            changed = levels.copy()
            changed[at] += 1 if levels[at] < ratio[at] else -1
            assert error_of(changed, ratio, covariance) >= least * (1 - 1e-6)

    def test_without_covariance_the_nearest_stay(self) -> None:
        ratio = np.random.default_rng(2).uniform(-126, 126, (2, 3, 9))
        levels = descend(ratio, np.broadcast_to(np.eye(9), (2, 9, 9)))
        np.testing.assert_array_equal(levels, np.rint(ratio))

    def test_the_largest_weight_keeps_the_scale(self) -> None:
        ratio = np.array([[[127.0, 0.5, -127.0, 3.4]]])
        levels = descend(ratio, covariance_of(np.random.default_rng(3), 4) * 1e6)
        assert levels[0, 0, [0, 2]].tolist() == [127, -127]


class TestMovedWeight:
    def test_rounds_to_the_farther_level(self) -> None:
        random = np.random.default_rng(0)
        weight = random.normal(0, 1, (6, 3, 3, 3)).astype(np.float32)
        scales = weight_scales(weight).reshape(-1, 1, 1, 1)
        free = np.flatnonzero(np.abs(weight / scales) < 126)
        positions = np.sort(random.choice(free, 40, replace=False))
        moved = moved_weight(weight, positions)
        before, after = np.rint(weight / scales).reshape(-1), np.rint(moved / scales).reshape(-1)
        assert np.flatnonzero(before != after).tolist() == positions.tolist()
        toward = np.sign((weight / scales).reshape(-1) - before)[positions]
        np.testing.assert_array_equal(after[positions] - before[positions], toward)
        assert np.abs((moved - weight) / scales).max() <= 0.511
        np.testing.assert_array_equal(weight_scales(moved), weight_scales(weight))

    @pytest.mark.parametrize("positions", [[-1, 3], [3, 24]])
    def test_refuses_other_positions(self, positions: list[int]) -> None:
        with pytest.raises(CalibrationError, match=r"weights number -?\d+ to \d+ were to move, of 24"):
            moved_weight(np.ones((2, 3, 2, 2), np.float32), np.array(positions))


def network() -> onnx.ModelProto:
    """Convolutions with padding, stride, dilation and groups, on inputs whose channels are alike."""
    builder = GraphBuilder()
    x = builder.conv("image", 3, CHANNELS, name="padded")
    x = builder.add("Relu", x)
    x = builder.conv(x, CHANNELS, CHANNELS, name="dilated", dilation=2)
    x = builder.conv(builder.add("Relu", x), CHANNELS, CHANNELS, name="depthwise", group=CHANNELS)
    x = builder.conv(x, CHANNELS, CHANNELS, name="strided", stride=2)
    logits = builder.conv(x, CHANNELS, 4, name="grouped", group=2)
    return builder.model(logits, (1, 3, HEIGHT, WIDTH), (1, 4, HEIGHT // 2, WIDTH // 2))


def feeds(count: int, first: int = 0) -> list[Feed]:
    found = []
    for seed in range(first, first + count):
        random = np.random.default_rng(seed)
        smooth = np.cumsum(np.cumsum(random.normal(0, 0.3, (1, 1, HEIGHT, WIDTH)), axis=2), axis=3)
        found.append({"image": np.concatenate([smooth, smooth * 0.9, smooth * 1.1], axis=1).astype(np.float32)})
    return found


@pytest.fixture(scope="module")
def placement() -> Placement:
    return plan_placement(network())


@pytest.fixture(scope="module")
def ranges(placement: Placement) -> dict[str, float]:
    model = network()
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in placement.tensors if name != "image")
    runs = [dict(zip([o.name for o in model.graph.output], run_graph(model, **f), strict=True)) | f for f in feeds(8)]
    return {name: float(max(np.abs(run[name]).max() for run in runs)) for name in placement.tensors}


def noise_of(moved: dict[str, NDArray[np.int64]]) -> float:
    """Squared error that rounding the weights alone makes in the logits, but for their means, on frames not seen."""
    exact, rough = network(), network()
    for tensor in rough.graph.initializer:
        weight = onnx.numpy_helper.to_array(tensor)
        if weight.ndim == 4:
            weight = rounded_weight(moved_weight(weight, moved[tensor.name]) if tensor.name in moved else weight)
            tensor.CopyFrom(onnx.numpy_helper.from_array(weight, tensor.name))
    total = 0.0
    for feed in feeds(6, first=50):
        error = run_graph(exact, **feed)[0] - run_graph(rough, **feed)[0]
        total += float(((error - error.mean(axis=(2, 3), keepdims=True)) ** 2).sum())
    return total


class TestChooseLevels:
    def test_lowers_the_error_of_the_network(self, placement: Placement, ranges: dict[str, float]) -> None:
        told: list[int] = []
        moved = choose_levels(network(), placement, ranges, feeds(8), told.append)
        assert told == [1] * 8
        assert len(moved) == 5
        assert noise_of(moved) < 0.6 * noise_of({})

    def test_is_the_same_every_time(self, placement: Placement, ranges: dict[str, float]) -> None:
        one, other = (choose_levels(network(), placement, ranges, feeds(3)) for _ in range(2))
        assert list(one) == list(other)
        for name in one:
            np.testing.assert_array_equal(one[name], other[name])

    def test_the_covariance_is_that_of_the_patches(self, placement: Placement, ranges: dict[str, float]) -> None:
        """The error that a change of weights makes at the output, from the covariance and from running the layer."""
        model = network()
        (reader,) = [r for r in steps._readers(model, placement) if r.node.name == "dilated"]
        forward = steps._forward(model, [reader.tensor, reader.node.output[0]])
        (feed,) = feeds(1)
        arrays = forward(feed, "0")
        seen = steps._Moments(reader, 1)
        seen._count = HEIGHT * WIDTH
        values, given = arrays[reader.tensor].copy(), arrays[reader.node.output[0]].copy()
        seen.add(values, ranges[reader.tensor] / 127, 0)
        change = np.random.default_rng(0).normal(0, 0.1, (CHANNELS, CHANNELS, 3, 3)).astype(np.float32)
        name = reader.node.input[1]
        tensor = next(t for t in model.graph.initializer if t.name == name)
        weight = onnx.numpy_helper.to_array(tensor)
        tensor.CopyFrom(onnx.numpy_helper.from_array((weight + change).astype(np.float32), name))
        changed = steps._forward(model, [reader.node.output[0]])(feed, "0")[reader.node.output[0]]
        expected = (changed - given).reshape(CHANNELS, -1).var(axis=1)
        rows = change.reshape(CHANNELS, -1).astype(np.float64)
        found = np.einsum("ck,kl,cl->c", rows, seen.covariance()[0], rows)
        np.testing.assert_allclose(found, expected, rtol=0.05)

    def test_leaves_large_layers_out(
        self, placement: Placement, ranges: dict[str, float], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(steps, "LARGEST_READ", 40)
        moved = choose_levels(network(), placement, ranges, feeds(2))
        readers = {n.name: n.input[1] for n in network().graph.node if n.op_type == "Conv"}
        assert set(moved) <= {readers["padded"], readers["depthwise"], readers["grouped"]}
        monkeypatch.setattr(steps, "LARGEST_READ", 1)
        assert choose_levels(network(), placement, ranges, feeds(2)) == {}


class TestPlacing:
    @pytest.fixture
    def moved(self, placement: Placement, ranges: dict[str, float]) -> dict[str, NDArray[np.int64]]:
        return choose_levels(network(), placement, ranges, feeds(4))

    def test_the_graph_rounds_to_the_chosen_levels_and_keeps_its_float_weights(
        self, moved: dict[str, NDArray[np.int64]], placement: Placement, ranges: dict[str, float]
    ) -> None:
        model, quantized = network(), place_qdq(network(), placement, ranges, None, moved)
        floats = {i.name: onnx.numpy_helper.to_array(i) for i in remove_qdq(quantized).graph.initializer}
        for tensor in model.graph.initializer:
            weight = onnx.numpy_helper.to_array(tensor)
            expected = moved_weight(weight, moved[tensor.name]) if tensor.name in moved else weight
            np.testing.assert_array_equal(floats[tensor.name], expected)

    def test_layers_in_float_are_not_touched(
        self, moved: dict[str, NDArray[np.int64]], ranges: dict[str, float]
    ) -> None:
        kept = plan_placement(network(), {"dilated": "asked"})
        weights = self._weights(place_qdq(network(), kept, ranges, None, moved), "dilated")
        np.testing.assert_array_equal(weights, self._weights(network(), "dilated"))

    @staticmethod
    def _weights(model: onnx.ModelProto, layer: str) -> NDArray[np.float32]:
        name = next(node.input[1] for node in model.graph.node if node.name == layer)
        return onnx.numpy_helper.to_array(next(t for t in model.graph.initializer if t.name == name))

    @pytest.mark.parametrize("count", [0, 2, 5])
    def test_switches_compute_the_placed_graph(
        self, count: int, moved: dict[str, NDArray[np.int64]], placement: Placement, ranges: dict[str, float]
    ) -> None:
        switched = SwitchedNetwork(network(), placement, ranges, None, moved)
        chosen: Sequence[str] = switched.layers[:count]
        rest = dict.fromkeys(set(switched.layers) - set(chosen), "asked")
        (feed,) = feeds(1, first=70)
        found = switched.run(feed, chosen)
        exact = network() if not count else place_qdq(network(), plan_placement(network(), rest), ranges, None, moved)
        np.testing.assert_allclose(found, run_graph(exact, **feed)[0], atol=2e-2 * np.abs(found).max())
