"""Levels of weights that are chosen together: against every combination, and by what they do to a layer's output."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import onnx
import pytest
import threadpoolctl
from numpy.typing import NDArray
from support.graphs import GraphBuilder, run_graph

from edgeseg.calibration.measure import Feed, Forward
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

    def test_an_integer_stays(self) -> None:
        """`moved_weight` could not say to which side it moves; a weight of zero is often one that was pruned."""
        covariance = np.array([[[1.0, 2.0], [2.0, 5.0]]])
        ratio = np.array([[[5.0, 8.45], [0.0, 3.45]]])
        np.testing.assert_array_equal(descend(ratio, covariance)[0, :, 0], [5, 0])

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


def shared_weights() -> onnx.ModelProto:
    """Two convolutions with the same weights, whose inputs are alike in other ways."""
    builder = GraphBuilder()
    weight = builder.constant(builder.random.normal(0, 1, (3, 3, 3, 3)).astype(np.float32))
    x = builder.add("Conv", "image", weight, name="first", pads=[1] * 4)
    signs = builder.constant(np.array([1, -1, 0.5], np.float32).reshape(1, 3, 1, 1))
    x = builder.add("Mul", x, signs)
    x = builder.add("Tanh", x, name="turned")
    logits = builder.add("Conv", x, weight, name="second", pads=[1] * 4)
    return builder.model(logits, (1, 3, HEIGHT, WIDTH), (1, 3, HEIGHT, WIDTH))


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


def output_of(model: onnx.ModelProto, tensor: str, feed: Feed) -> NDArray[np.float32]:
    """One tensor of a network."""
    watched = onnx.ModelProto.FromString(model.SerializeToString())
    del watched.graph.output[:]
    watched.graph.output.append(onnx.ValueInfoProto(name=tensor))
    return Forward(watched, [tensor], 1)(feed, "0")[tensor].copy()


class TestChooseLevels:
    def test_lowers_the_error_of_the_network(self, placement: Placement, ranges: dict[str, float]) -> None:
        told: list[int] = []
        moved = choose_levels(network(), placement, ranges, feeds(8), told.append).moved
        assert told == [1] * 8
        assert len(moved) == 5
        assert noise_of(moved) < 0.6 * noise_of({})

    def test_says_what_it_does_to_the_means(self, placement: Placement, ranges: dict[str, float]) -> None:
        """Against the mean of a layer's output, run on its rounded input with the nearest and the chosen levels."""
        found = choose_levels(network(), placement, ranges, feeds(8))
        (reader,) = [r for r in steps._readers(network(), placement) if r.node.name == "dilated"]
        change = 0.0
        for feed in feeds(8):
            image = output_of(network(), reader.tensor, feed)
            step = np.float32(ranges[reader.tensor] / 127)
            rounded = np.clip(np.rint(image / step), -128, 127) * step
            means = []
            for moved in ({}, found.moved):
                model = network()
                weight = next(t for t in model.graph.initializer if t.name == reader.weight)
                values = onnx.numpy_helper.to_array(weight)
                values = moved_weight(values, moved[weight.name]) if weight.name in moved else values
                builder = GraphBuilder()
                attributes = {a.name: onnx.helper.get_attribute_value(a) for a in reader.node.attribute}
                made = builder.add("Conv", "image", builder.constant(rounded_weight(values)), **attributes)
                alone = builder.model(made, (1, CHANNELS, HEIGHT, WIDTH), (1, CHANNELS, HEIGHT, WIDTH))
                means.append(run_graph(alone, image=rounded)[0].mean(axis=(0, 2, 3)))
            change = change + (means[1] - means[0]) / 8
        assert set(found.changes) == {"padded", "dilated", "depthwise", "strided", "grouped"}
        np.testing.assert_allclose(found.changes["dilated"], change, atol=0.02 * np.abs(change).max())

    def test_part_by_part_it_is_the_same(
        self, placement: Placement, ranges: dict[str, float], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        whole = choose_levels(network(), placement, ranges, feeds(2)).moved
        monkeypatch.setattr(steps, "_HELD", 20_000)
        assert len(list(steps._parts(network(), steps._readers(network(), placement)))) > 2
        told: list[int] = []
        parts = choose_levels(network(), placement, ranges, feeds(2), told.append).moved
        assert told == [1, 1]
        assert list(parts) == list(whole)
        for name in whole:
            np.testing.assert_array_equal(parts[name], whole[name])

    def test_the_errors_of_layers_with_the_same_weights_add_up(self) -> None:
        model = shared_weights()
        placement = plan_placement(model)
        ranges = {"image": 4.0, "turned_out": 1.0}
        readers = steps._readers(model, placement)
        (part,) = steps._parts(model, readers)
        assert [reader.node.name for reader in part] == ["first", "second"]
        (name,) = {reader.weight for reader in readers}
        moved = choose_levels(model, placement, ranges, feeds(2)).moved[name]
        weight = next(onnx.numpy_helper.to_array(t) for t in model.graph.initializer if t.name == name)
        ratio = steps._ratio(weight, 1)
        levels = np.rint(steps._ratio(moved_weight(weight, moved), 1))
        scales = {tensor: amax / 127 for tensor, amax in ranges.items()}
        forward = steps._Levels(model, scales)
        seen = [steps._Moments(reader, scales[reader.tensor], 2) for reader in readers]
        for number, feed in enumerate(feeds(2)):
            arrays = forward(feed, "")
            for moments in seen:
                moments.add(arrays[moments.reader.tensor], number)
        both = seen[0].covariance() + seen[1].covariance()
        assert error_of(levels, ratio, both) < 0.9 * error_of(np.rint(ratio), ratio, both)
        alone = descend(ratio, seen[1].covariance())
        assert error_of(levels, ratio, both) < error_of(alone, ratio, both)

    def test_counts_its_frames_where_there_is_nothing_to_choose(
        self, placement: Placement, ranges: dict[str, float], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(steps, "LARGEST_READ", 1)
        told: list[int] = []
        found = choose_levels(network(), placement, ranges, feeds(2), told.append)
        assert (found.moved, found.changes) == ({}, {})
        assert sum(told) == 2

    def test_products_have_one_thread(
        self, placement: Placement, ranges: dict[str, float], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Threads that share a small product wait for each other, for most of the time on a busy machine."""
        threads = set()

        def counted(ratio: NDArray[np.float64], covariance: NDArray[np.float64]) -> NDArray[np.float64]:
            products = (library for library in threadpoolctl.threadpool_info() if library["user_api"] == "blas")
            threads.update(library["num_threads"] for library in products)
            return descend(ratio, covariance)

        monkeypatch.setattr(steps, "descend", counted)
        with threadpoolctl.threadpool_limits(2, "blas"):
            choose_levels(network(), placement, ranges, feeds(1))
        assert threads == {1}

    def test_is_the_same_every_time(self, placement: Placement, ranges: dict[str, float]) -> None:
        one, other = (choose_levels(network(), placement, ranges, feeds(3)).moved for _ in range(2))
        assert list(one) == list(other)
        for name in one:
            np.testing.assert_array_equal(one[name], other[name])

    @pytest.mark.parametrize("layer", ["padded", "dilated", "depthwise", "strided", "grouped", "uneven"])
    def test_the_covariance_is_that_of_the_patches(
        self, layer: str, placement: Placement, ranges: dict[str, float]
    ) -> None:
        """The error that a change of weights makes at the output, from the covariance and from running the layer."""
        model = network()
        if layer == "uneven":
            layer, node = "strided", next(n for n in model.graph.node if n.name == "strided")
            next(a for a in node.attribute if a.name == "pads").ints[:] = [0, 2, 3, 1]
            del model.graph.output[0].type.tensor_type.shape.dim[:]
        (reader,) = [r for r in steps._readers(model, placement) if r.node.name == layer]
        made = reader.node.output[0]
        (feed,) = feeds(1)
        scale = ranges[reader.tensor] / 127
        seen = steps._Moments(reader, scale, 1)
        seen._count = HEIGHT * WIDTH
        seen.add(steps._Levels(model, {reader.tensor: scale})(feed, "0")[reader.tensor], 0)
        given = output_of(model, made, feed)
        change = np.random.default_rng(0).normal(0, 0.1, reader.shape).astype(np.float32)
        tensor = next(t for t in model.graph.initializer if t.name == reader.weight)
        weight = onnx.numpy_helper.to_array(tensor)
        tensor.CopyFrom(onnx.numpy_helper.from_array((weight + change).astype(np.float32), tensor.name))
        changed = output_of(model, made, feed)
        expected = (changed - given).reshape(reader.shape[0], -1).var(axis=1)
        rows = change.reshape(reader.groups, -1, reader.size).astype(np.float64)
        found = np.einsum("gck,gkl,gcl->gc", rows, seen.covariance(), rows).reshape(-1)
        np.testing.assert_allclose(found, expected, rtol=0.05)

    def test_leaves_large_layers_out(
        self, placement: Placement, ranges: dict[str, float], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(steps, "LARGEST_READ", 40)
        moved = choose_levels(network(), placement, ranges, feeds(2)).moved
        readers = {n.name: n.input[1] for n in network().graph.node if n.op_type == "Conv"}
        assert set(moved) <= {readers["padded"], readers["depthwise"], readers["grouped"]}


class TestPlacing:
    @pytest.fixture
    def moved(self, placement: Placement, ranges: dict[str, float]) -> dict[str, NDArray[np.int64]]:
        return choose_levels(network(), placement, ranges, feeds(4)).moved

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

    def test_a_layer_in_float_keeps_weights_that_it_shares(self) -> None:
        model = shared_weights()
        placement = plan_placement(model, {"first": "asked"})
        moved = {next(n.input[1] for n in model.graph.node if n.name == "second"): np.array([0, 5])}
        quantized = place_qdq(model, placement, {"turned_out": 1.0}, None, moved)
        onnx.checker.check_model(quantized)
        weight = self._weights(model, "first")
        again = remove_qdq(quantized)
        np.testing.assert_array_equal(self._weights(again, "first"), weight)
        np.testing.assert_array_equal(self._weights(again, "second"), moved_weight(weight, np.array([0, 5])))
        run_graph(quantized, **feeds(1)[0])

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
