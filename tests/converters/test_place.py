"""Where Q/DQ stands and with which scales."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from support.graphs import GraphBuilder, random_frame, run_graph, toy_network

from edgeseg.calibration.measure import measure_ranges
from edgeseg.calibration.ranges import minmax
from edgeseg.converters.embed import embed_preprocessing
from edgeseg.converters.fold import fold_batch_norms
from edgeseg.converters.graph import copy_model
from edgeseg.converters.place import Placement, place_qdq, plan_placement, weight_scales
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
