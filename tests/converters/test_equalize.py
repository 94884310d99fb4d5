"""Rescaled channels leave the network's function as it was, and its quantized output closer to it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper
from support.channel_operators import OPERATORS, random_factors, statistics
from support.graphs import GraphBuilder, run_graph, toy_network

from edgeseg.calibration.channels import ChannelStatistics, measure_channels
from edgeseg.calibration.measure import measure_ranges
from edgeseg.calibration.ranges import minmax
from edgeseg.converters.channels import ChannelTies
from edgeseg.converters.equalize import channel_factors, scale_channels
from edgeseg.converters.place import place_qdq, plan_placement

SHAPE = (1, 3, 8, 8)
SEEDS = 24
Array = NDArray[np.float32]


def random_network(seed: int, length: int = 12) -> onnx.ModelProto:
    """Operators one behind the other in a random order, each beside an earlier tensor, then a convolution."""
    builder = GraphBuilder(seed)
    made = [builder.conv("image", 3, 8), builder.conv("image", 3, 8)]
    for name in builder.random.choice(list(OPERATORS), length, replace=False):
        x = made[-1]
        y = made[builder.random.integers(len(made))]
        y = made[0] if x == y else y
        result = OPERATORS[name].build(builder, x, y)
        # Magnitudes stay near 1 and every operator meets a tensor that may be scaled.
        made += [result, builder.conv(builder.batch_norm(result, 8), 8, 8)]
    return builder.model(builder.conv(made[-1], 8, 3), SHAPE)


def image(model: onnx.ModelProto, seed: int = 0) -> Array:
    shape = [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim]
    return np.random.default_rng(seed).normal(0, 1, shape).astype(np.float32)


def scaled_by_chance(model: onnx.ModelProto, seed: int) -> tuple[onnx.ModelProto, int]:
    """The model with random factors on every free channel, and how many tensors have some."""
    tensors = [name for node in model.graph.node for name in node.output]
    factors = random_factors(ChannelTies(model), tensors, seed)
    return scale_channels(model, factors), len(factors)


def assert_same_function(model: onnx.ModelProto, other: onnx.ModelProto) -> None:
    onnx.checker.check_model(other, full_check=True)
    x = image(model)
    for expected, found in zip(run_graph(model, image=x), run_graph(other, image=x), strict=True):
        assert expected.std() > 1e-3
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


class TestFunctionIsKept:
    @pytest.mark.parametrize("seed", range(SEEDS))
    def test_of_a_random_network_with_random_factors(self, seed: int) -> None:
        model = random_network(seed)
        scaled, count = scaled_by_chance(model, seed)
        assert count > 12
        assert_same_function(model, scaled)

    @pytest.mark.parametrize("name", OPERATORS)
    def test_of_each_operator(self, name: str) -> None:
        for seed in range(3):
            builder = GraphBuilder(seed)
            x, y = builder.conv("image", 3, 8), builder.conv("image", 3, 8, bias=False)
            result = builder.conv(OPERATORS[name].build(builder, x, y), 8, 8)
            model = builder.model(builder.conv(builder.add("Relu", result), 8, 3), SHAPE)
            scaled, count = scaled_by_chance(model, seed)
            assert count > 0
            assert_same_function(model, scaled)

    @pytest.mark.parametrize("batch_norm", [False, True])
    def test_of_a_light_network(self, batch_norm: bool) -> None:
        model = toy_network(batch_norm=batch_norm)
        scaled, count = scaled_by_chance(model, 1)
        assert count > 8
        assert_same_function(model, scaled)

    def test_of_a_deconvolution_that_changes_the_number_of_channels(self) -> None:
        builder = GraphBuilder()
        x = builder.conv_transpose(builder.conv("image", 3, 6), 6, 4)
        weight = builder.constant(builder.random.normal(0, 1, (4, 3, 2, 2)).astype(np.float32))
        x = builder.add("ConvTranspose", builder.prelu(x, 4), weight, group=2, kernel_shape=[2, 2], strides=[2, 2])
        model = builder.model(builder.conv(x, 6, 3), SHAPE)
        scaled, count = scaled_by_chance(model, 0)
        assert count == 4
        assert_same_function(model, scaled)

    def test_of_a_network_with_an_output_inside(self) -> None:
        builder = GraphBuilder()
        x = builder.add("Relu", builder.conv("image", 3, 4))
        model = builder.model(builder.conv(builder.conv(x, 4, 4), 4, 3), SHAPE)
        model.graph.output.append(onnx.helper.make_tensor_value_info(x, TensorProto.FLOAT, (1, 4, 8, 8)))
        assert_same_function(model, scaled_by_chance(model, 0)[0])

    def test_of_numbers_other_than_float32(self) -> None:
        builder = GraphBuilder()
        half = builder.add("Cast", builder.conv("image", 3, 4), to=TensorProto.FLOAT16)
        weight = builder.constant(builder.random.normal(0, 1, (4, 4, 1, 1)).astype(np.float16))
        half = builder.add("Conv", builder.add("Conv", half, weight), weight)
        x = builder.add("Cast", half, to=TensorProto.FLOAT)
        model = builder.model(builder.conv(builder.conv(x, 4, 4), 4, 3), SHAPE)
        assert_same_function(model, scaled_by_chance(model, 0)[0])


class TestScaleChannels:
    def test_what_it_does_to_weights(self) -> None:
        builder = GraphBuilder()
        first = builder.conv("image", 3, 2, kernel=1, padding=0, name="first")
        model = builder.model(builder.conv(first, 2, 3, kernel=1, padding=0, name="second"), SHAPE)
        scaled = scale_channels(model, {first: np.array([2.0, 0.25])})
        before, after = ({t.name: numpy_helper.to_array(t) for t in m.graph.initializer} for m in (model, scaled))
        old, new = ({n.name: n for n in m.graph.node} for m in (model, scaled))
        weights, bias = (before[old["first"].input[i]] for i in (1, 2))
        np.testing.assert_allclose(
            after[new["first"].input[1]][:, 0], weights[:, 0] / np.array([2, 0.25]).reshape(2, 1, 1)
        )
        np.testing.assert_allclose(after[new["first"].input[2]], bias / [2, 0.25])
        weights = before[old["second"].input[1]]
        np.testing.assert_allclose(after[new["second"].input[1]], weights * np.array([2, 0.25]).reshape(1, 2, 1, 1))
        assert new["second"].input[2] == old["second"].input[2]
        assert all(value.dtype == np.float32 for value in after.values())
        # What was replaced is gone.
        assert len(after) == len(before)

    def test_the_given_graph_is_left_as_it_was(self) -> None:
        model = toy_network()
        before = model.SerializeToString(deterministic=True)
        assert scaled_by_chance(model, 0)[0].SerializeToString(deterministic=True) != before
        assert model.SerializeToString(deterministic=True) == before

    def test_without_factors_nothing_changes(self) -> None:
        model = toy_network()
        assert scale_channels(model, {}).SerializeToString(deterministic=True) == model.SerializeToString(
            deterministic=True
        )


def depthwise_network(magnitudes: Sequence[float], weights: Sequence[float] | None = None) -> onnx.ModelProto:
    """Relu of `made`, whose channels have these magnitudes, into depthwise `dw`, which brings them to one again."""
    builder = GraphBuilder(3)
    count = len(magnitudes)
    made = builder.conv("image", 3, count, name="made")
    relu = builder.add("Relu", made, name="relu")
    depthwise = builder.conv(relu, count, count, group=count, name="dw")
    model = builder.model(builder.conv(depthwise, count, 3, name="last"), (1, 3, 16, 16))
    inverse = [1 / m if m else 1.0 for m in magnitudes] if weights is None else weights
    for name, values in (("made", magnitudes), ("dw", inverse)):
        node = next(n for n in model.graph.node if n.name == name)
        for place in (1, 2)[: 2 if name == "made" else 1]:
            tensor = next(t for t in model.graph.initializer if t.name == node.input[place])
            old = numpy_helper.to_array(tensor)
            new = old * np.array(values, np.float32).reshape(-1, *(1,) * (old.ndim - 1))
            tensor.CopyFrom(numpy_helper.from_array(new, tensor.name))
    return model


def noise_ratio(model: onnx.ModelProto, reference: onnx.ModelProto) -> float:
    """Signal to noise of the quantized output on frames other than those of its ranges, in dB."""
    placement = plan_placement(model)
    ranges = measure_ranges(model, placement.tensors, [{"image": image(model, seed)} for seed in range(3)])
    quantized = place_qdq(model, placement, {name: minmax(histogram) for name, histogram in ranges.items()})
    x = image(model, 9)
    exact, rough = run_graph(reference, image=x)[0], run_graph(quantized, image=x)[0]
    return float(10 * np.log10((exact**2).sum() / ((exact - rough) ** 2).sum()))


def measured(model: onnx.ModelProto) -> dict[str, ChannelStatistics]:
    feeds = [{"image": image(model, seed)} for seed in range(3)]
    return measure_channels(model, plan_placement(model).tensors, feeds)


class TestGain:
    def test_small_channels_of_a_depthwise_convolution(self) -> None:
        model = depthwise_network([1, 100, 1, 100, 1, 1])
        factors = channel_factors(model, measured(model))
        scaled = scale_channels(model, factors)
        assert_same_function(model, scaled)
        assert noise_ratio(scaled, model) > noise_ratio(model, model) + 6
        relu = measured(scaled)["relu_out"].largest
        assert relu.max() / relu.min() < 1.5

    def test_a_dead_channel_does_not_hide_the_others(self) -> None:
        model = depthwise_network([1, 100, 1, 0, 1, 1])
        seen = measured(model)
        assert seen["relu_out"].largest[3] == 0
        factors = channel_factors(model, seen)
        assert factors["relu_out"][3] == 1
        scaled = scale_channels(model, factors)
        assert_same_function(model, scaled)
        assert noise_ratio(scaled, model) > noise_ratio(model, model) + 6

    def test_a_channel_that_is_all_but_dead_does_not_either(self) -> None:
        model = depthwise_network([1.0] * 4)
        big, dying = [1.0, 100.0, 60.0, 30.0], [1.0, 100.0, 60.0, 1e-9]
        without, beside = (channel_factors(model, {"relu_out": statistics(s)})["relu_out"] for s in (big, dying))
        assert without[0] < 0.05
        assert beside[0] < 0.05

    def test_network_of_real_parts_loses_nothing(self) -> None:
        model = toy_network(batch_norm=False)
        scaled = scale_channels(model, channel_factors(model, measured(model)))
        assert_same_function(model, scaled)
        assert noise_ratio(scaled, model) > noise_ratio(model, model) - 0.5


def dense_network(weights: Sequence[float]) -> onnx.ModelProto:
    """Relu of two channels into `dense`, whose outputs all have these weights."""
    builder = GraphBuilder()
    x = builder.add("Relu", builder.conv("image", 3, 2, name="made"), name="relu")
    values = np.tile(np.array(weights, np.float32).reshape(1, 2, 1, 1), (3, 1, 1, 1))
    return builder.model(builder.add("Conv", x, builder.constant(values), name="dense"), SHAPE)


class TestFactors:
    def test_are_one_number_where_channels_are_tied(self) -> None:
        model = depthwise_network([1, 100, 1, 100, 1, 1])
        factors = channel_factors(model, measured(model))
        np.testing.assert_array_equal(factors["made_out"], factors["relu_out"])
        assert ((factors["relu_out"] > 0) & (factors["relu_out"] <= 1)).all()

    def test_are_relative_to_the_largest_channel(self) -> None:
        model = depthwise_network([1.0] * 4)
        found = channel_factors(model, {"relu_out": statistics([2.0, 200.0, 20.0, 100.0])})
        np.testing.assert_allclose(found["relu_out"], [0.01, 1, 0.1, 0.5], rtol=1e-6)

    def test_do_not_fall_below_what_fp16_takes(self) -> None:
        model = depthwise_network([1.0] * 4)
        found = channel_factors(model, {"relu_out": statistics([1e-7, 200.0, 20.0, 100.0])})
        assert found["relu_out"].min() == 2.0**-8

    def test_nothing_is_done_where_nothing_is_gained(self) -> None:
        model = depthwise_network([1.0] * 4)
        assert channel_factors(model, {"relu_out": statistics([5.0] * 4)}) == {}

    def test_nothing_is_done_for_a_channel_that_hardly_counts(self) -> None:
        found = channel_factors(dense_network([1.0, 100.0]), {"relu_out": statistics([1.0, 100.0])})
        assert found == {}

    def test_weights_of_one_scale_hold_back(self) -> None:
        # What the small channel gains in its activations, the large one's weights lose.
        seen = ChannelStatistics(*(np.array(v, np.float32) for v in ([1, 100], [1, 10000])))
        found = channel_factors(dense_network([1.0, 1.0]), {"relu_out": seen})["relu_out"]
        assert found[1] == 1
        assert found[0] == pytest.approx(0.1)

    def test_a_tensor_that_is_held_has_none(self) -> None:
        builder = GraphBuilder()
        x = builder.add("Sigmoid", builder.conv("image", 3, 4), name="gate")
        model = builder.model(builder.conv(builder.conv(x, 4, 4, group=4), 4, 3), SHAPE)
        assert channel_factors(model, {x: statistics([0.01, 1.0, 0.5, 1.0])}) == {}

    @pytest.mark.parametrize("amax", [[0.0] * 4, [1e-30] * 4])
    def test_a_dead_tensor_is_left_alone(self, amax: list[float]) -> None:
        model = depthwise_network([1.0] * 4)
        assert channel_factors(model, {"relu_out": statistics(amax)}) == {}

    @pytest.mark.parametrize("broken", [float("inf"), float("nan"), 1e30])
    def test_a_tensor_that_overflows_is_left_alone(self, broken: float) -> None:
        model = depthwise_network([1.0] * 4)
        with np.errstate(over="ignore"):
            seen = statistics([1.0, broken, 2.0, 3.0])
        assert channel_factors(model, {"relu_out": seen}) == {}

    @pytest.mark.parametrize("weights", [[0.0, 1.0, 1.0, 1.0], [0.0] * 4])
    def test_weights_with_zero_channels(self, weights: list[float]) -> None:
        model = depthwise_network([1.0, 100.0, 100.0, 100.0], weights)
        factors = channel_factors(model, measured(model))
        assert all(np.isfinite(values).all() and (values > 0).all() for values in factors.values())
        scaled = scale_channels(model, factors)
        x = image(model)
        expected = run_graph(model, image=x)[0]
        np.testing.assert_allclose(run_graph(scaled, image=x)[0], expected, atol=1e-4 * max(1, np.abs(expected).max()))

    def test_a_tensor_that_no_convolution_reads(self) -> None:
        builder = GraphBuilder()
        x = builder.conv("image", 3, 4, name="made")
        model = builder.model(builder.batch_norm(x, 4), SHAPE)
        assert channel_factors(model, {x: statistics([1.0, 100.0, 1.0, 1.0])}) == {}

    def test_of_no_tensors(self) -> None:
        assert channel_factors(toy_network(), {}) == {}
