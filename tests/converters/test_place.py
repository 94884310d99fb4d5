"""Where Q/DQ stands and with which scales."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper
from support.graphs import GraphBuilder, random_frame, run_graph, toy_network

from edgeseg.calibration.measure import measure_ranges
from edgeseg.calibration.ranges import minmax
from edgeseg.converters.embed import embed_preprocessing
from edgeseg.converters.fold import fold_batch_norms
from edgeseg.converters.graph import copy_model
from edgeseg.converters.place import Placement, correct_biases, place_qdq, plan_placement, weight_scales
from edgeseg.errors import CalibrationError, UnsupportedModelError


@pytest.fixture(scope="module")
def network() -> onnx.ModelProto:
    folded = fold_batch_norms(toy_network())
    return embed_preprocessing(folded, color_order="RGB", mean=(120, 120, 120), std=(60, 60, 60))


@pytest.fixture(scope="module")
def placement(network: onnx.ModelProto) -> Placement:
    return plan_placement(network)


def ranges(placement: Placement) -> dict[str, float]:
    return {tensor: 4.0 + number for number, tensor in enumerate(placement.tensors)}


class TestPlan:
    def test_every_convolution_is_int8(self, placement: Placement) -> None:
        assert [layer.op for layer in placement.layers] == ["Conv"] * 7
        assert {layer.precision for layer in placement.layers} == {"int8"}
        assert all(layer.macs > 0 for layer in placement.layers)

    def test_a_tensor_with_two_convolutions_is_listed_once(self, placement: Placement) -> None:
        # `left` and `right` read the same tensor: seven convolutions, six tensors.
        assert len(placement.tensors) == 6

    def test_deconvolutions_and_products_stay_in_float_with_a_reason(self) -> None:
        builder = GraphBuilder()
        x = builder.conv("image", 3, 4, name="conv")
        x = builder.conv_transpose(x, 4, 4, name="deconv")
        matrix = builder.constant(np.ones((128, 8), np.float32))
        x = builder.add("MatMul", x, matrix, name="product")
        model = builder.model(x)
        layers = {layer.name: layer for layer in plan_placement(model).layers}
        assert layers["conv"].precision == "int8"
        assert layers["deconv"].precision == layers["product"].precision == "float"
        assert layers["deconv"].reason == "TensorRT runs quantized deconvolutions in float"
        assert "matrix product" in layers["product"].reason

    def test_weights_made_at_run_time_stay_in_float(self) -> None:
        builder = GraphBuilder()
        x = builder.conv("image", 3, 4)
        weight = builder.add("Relu", builder.constant(np.ones((2, 4, 1, 1), np.float32)))
        model = builder.model(builder.add("Conv", x, weight, name="dynamic", kernel_shape=[1, 1]))
        layer = next(layer for layer in plan_placement(model).layers if layer.name == "dynamic")
        assert (layer.precision, layer.reason) == ("float", "its weights are computed at run time")

    def test_nothing_to_quantize_is_refused(self) -> None:
        builder = GraphBuilder()
        model = builder.model(builder.add("Relu", "image"))
        with pytest.raises(UnsupportedModelError, match="has none to quantize"):
            plan_placement(model)


class TestWeightScales:
    def test_per_channel_by_largest_magnitude(self) -> None:
        weight = np.array([[1.0, -2.0], [0.5, 0.25]], np.float32).reshape(2, 2, 1, 1)
        np.testing.assert_allclose(weight_scales(weight), [2 / 127, 0.5 / 127], rtol=1e-6)

    def test_a_zero_channel_gets_a_positive_scale(self) -> None:
        weight = np.zeros((2, 3, 3, 3), np.float32)
        weight[0, 0] = 4
        scales = weight_scales(weight)
        assert scales.dtype == np.float32
        assert scales[1] == pytest.approx(4e-6 / 127)
        assert (weight_scales(np.zeros((2, 3, 3, 3), np.float32)) > 0).all()


class TestPlace:
    def test_form_that_tensorrt_takes(self, network: onnx.ModelProto, placement: Placement) -> None:
        placed = place_qdq(network, placement, ranges(placement))
        onnx.checker.check_model(placed, full_check=True)
        constants = {i.name: numpy_helper.to_array(i) for i in placed.graph.initializer}
        nodes = {output: node for node in placed.graph.node for output in node.output}
        quantizers = [n for n in placed.graph.node if n.op_type == "QuantizeLinear"]
        assert len(quantizers) == 6 + 7
        assert all(len(n.input) == 3 for n in quantizers)
        for conv in (n for n in placed.graph.node if n.op_type == "Conv"):
            data, weight = nodes[conv.input[0]], nodes[conv.input[1]]
            assert data.op_type == weight.op_type == "DequantizeLinear"
            assert constants[data.input[1]].shape == ()
            assert constants[data.input[2]].dtype == np.int8
            assert constants[data.input[2]] == 0
            assert weight.attribute[0].i == 0
            assert constants[weight.input[1]].ndim == 1
            assert not constants[weight.input[2]].any()
            # The bias is a plain constant.
            assert len(conv.input) < 3 or conv.input[2] in constants

    def test_scale_is_the_range_over_127_levels(self, network: onnx.ModelProto, placement: Placement) -> None:
        wanted = ranges(placement)
        placed = place_qdq(network, placement, wanted)
        constants = {i.name: numpy_helper.to_array(i) for i in placed.graph.initializer}
        for tensor, amax in wanted.items():
            assert constants[f"{tensor}_scale"] == np.float32(amax / 127)

    def test_names_that_are_taken(self, network: onnx.ModelProto, placement: Placement) -> None:
        network = copy_model(network)
        taken = f"{placement.tensors[0]}_scale"
        network.graph.initializer.append(numpy_helper.from_array(np.float32([2, 3]), taken))
        placed = place_qdq(network, placement, ranges(placement))
        onnx.checker.check_model(placed, full_check=True)
        constants = {i.name: numpy_helper.to_array(i) for i in placed.graph.initializer}
        assert constants[taken].tolist() == [2, 3]
        assert constants[f"{taken}_1"].shape == ()

    def test_the_given_graph_is_left_as_it_was(self, network: onnx.ModelProto, placement: Placement) -> None:
        before = network.SerializeToString(deterministic=True)
        place_qdq(network, placement, ranges(placement))
        assert network.SerializeToString(deterministic=True) == before

    def test_quantized_network_is_close_to_the_float_one(self, network: onnx.ModelProto, placement: Placement) -> None:
        frame = random_frame()[None]
        seen = measure_ranges(network, placement.tensors, [{"frame": frame}])
        placed = place_qdq(network, placement, {tensor: minmax(histogram) for tensor, histogram in seen.items()})
        exact, rough = run_graph(network, frame=frame)[0], run_graph(placed, frame=frame)[0]
        assert 0 < np.abs(exact - rough).max() < 0.1 * np.abs(exact).max()

    @pytest.mark.parametrize("amax", [0.0, -1.0, float("nan"), float("inf")])
    def test_impossible_range(self, network: onnx.ModelProto, placement: Placement, amax: float) -> None:
        broken = {**ranges(placement), placement.tensors[2]: amax}
        with pytest.raises(CalibrationError, match=rf"has range {amax}, expected a positive number"):
            place_qdq(network, placement, broken)

    def test_missing_range(self, network: onnx.ModelProto, placement: Placement) -> None:
        incomplete = ranges(placement)
        del incomplete[placement.tensors[0]]
        with pytest.raises(CalibrationError, match=f"tensor {placement.tensors[0]} has no range"):
            place_qdq(network, placement, incomplete)


def image() -> NDArray[np.float32]:
    return np.random.default_rng(1).normal(0, 1, (1, 3, 8, 8)).astype(np.float32)


def output_shift(model: onnx.ModelProto, corrected: onnx.ModelProto) -> NDArray[np.float32]:
    """What was added to each channel of the output, everywhere alike."""
    onnx.checker.check_model(corrected, full_check=True)
    added = run_graph(corrected, image=image())[0] - run_graph(model, image=image())[0]
    assert np.ptp(added, axis=(0, 2, 3)).max() < 1e-5
    result: NDArray[np.float32] = added.mean(axis=(0, 2, 3))
    return result


class TestCorrectBiases:
    @pytest.mark.parametrize("bias", [False, True])
    def test_the_shift_is_added_to_the_output(self, bias: bool) -> None:
        builder = GraphBuilder()
        model = builder.model(builder.conv("image", 3, 4, bias=bias, name="conv"), (1, 3, 8, 8))
        shift = np.array([1.0, -0.5, 0.0, 1e-3])
        corrected = correct_biases(model, {"conv": shift})
        np.testing.assert_allclose(output_shift(model, corrected), shift, atol=1e-6)
        # What was replaced is gone.
        assert len(corrected.graph.initializer) == 2

    def test_layers_that_share_a_bias_are_corrected_apart(self) -> None:
        builder = GraphBuilder()
        bias = builder.constant(np.float32([1, 2]))
        weights = [builder.constant(builder.random.normal(0, 1, (2, 3, 1, 1)).astype(np.float32)) for _ in range(3)]
        names = [builder.add("Conv", "image", w, bias, name=f"conv{n}") for n, w in enumerate(weights)]
        model = builder.model(builder.add("Concat", *names, axis=1), (1, 3, 8, 8))
        shifts = {"conv0": np.array([0.5, 0.25]), "conv2": np.array([-1.0, 3.0])}
        corrected = correct_biases(model, shifts)
        np.testing.assert_allclose(output_shift(model, corrected), [0.5, 0.25, 0, 0, -1, 3], atol=1e-6)
        assert len({node.input[2] for node in corrected.graph.node if node.op_type == "Conv"}) == 3

    def test_a_bias_of_run_time_is_left_alone(self) -> None:
        builder = GraphBuilder()
        weight = builder.constant(np.ones((2, 3, 1, 1), np.float32))
        bias = builder.add("Neg", builder.constant(np.float32([1, 2])))
        model = builder.model(builder.add("Conv", "image", weight, bias, name="conv"), (1, 3, 8, 8))
        assert correct_biases(model, {"conv": np.ones(2)}).graph == model.graph

    def test_other_layers_are_left_alone(self, network: onnx.ModelProto) -> None:
        corrected = correct_biases(network, {"stem": np.ones(8), "nowhere": np.ones(1)})
        before, after = ({n.name: n for n in m.graph.node} for m in (network, corrected))
        assert before.keys() == after.keys()
        assert [name for name in before if before[name] != after[name]] == ["stem"]

    def test_a_name_that_is_taken(self) -> None:
        builder = GraphBuilder()
        taken = builder.constant(np.zeros(4, np.float32), "conv_corrected_bias")
        weight = builder.constant(np.ones((4, 3, 1, 1), np.float32))
        model = builder.model(builder.add("Conv", "image", weight, taken, name="conv"), (1, 3, 8, 8))
        twice = correct_biases(correct_biases(model, {"conv": np.ones(4)}), {"conv": np.ones(4)})
        np.testing.assert_allclose(output_shift(model, twice), [2] * 4, atol=1e-6)

    def test_the_given_graph_is_left_as_it_was(self, network: onnx.ModelProto) -> None:
        before = network.SerializeToString(deterministic=True)
        correct_biases(network, {"stem": np.ones(8)})
        assert network.SerializeToString(deterministic=True) == before

    def test_without_shifts_nothing_changes(self, network: onnx.ModelProto) -> None:
        assert correct_biases(network, {}).SerializeToString() == network.SerializeToString()


class TestPlaceWithShifts:
    def test_biases_differ_and_nothing_else(self, network: onnx.ModelProto, placement: Placement) -> None:
        plain = place_qdq(network, placement, ranges(placement))
        shift = np.linspace(-1, 1, 8)
        shifted = place_qdq(network, placement, ranges(placement), {"stem": shift})
        onnx.checker.check_model(shifted, full_check=True)
        assert [n.name for n in plain.graph.node] == [n.name for n in shifted.graph.node]
        old, new = ({t.name: numpy_helper.to_array(t) for t in m.graph.initializer} for m in (plain, shifted))
        stems = [next(n for n in m.graph.node if n.name == "stem") for m in (plain, shifted)]
        np.testing.assert_allclose(new[stems[1].input[2]], old[stems[0].input[2]] + shift, rtol=1e-6)
        assert stems[0].input[:2] == stems[1].input[:2]
        for name in old.keys() & new.keys():
            np.testing.assert_array_equal(old[name], new[name])

    def test_a_layer_in_float_is_not_corrected(self) -> None:
        builder = GraphBuilder()
        x = builder.conv("image", 3, 4, name="conv")
        model = builder.model(builder.conv_transpose(x, 4, 2, name="deconv"), (1, 3, 8, 8))
        placement = plan_placement(model)
        plain, shifted = (
            place_qdq(model, placement, {"image": 3.0}, shifts) for shifts in (None, {"deconv": np.ones(2)})
        )
        assert plain == shifted

    def test_no_shifts_are_none(self, network: onnx.ModelProto, placement: Placement) -> None:
        assert place_qdq(network, placement, ranges(placement), {}) == place_qdq(network, placement, ranges(placement))
