"""Shape inference without the weights: the same shapes, and nothing of their size is copied."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgeseg.calibration.shapes import LARGEST_KEPT, inferred_shapes, is_large, without_weights


def network(channels: int = 64) -> onnx.ModelProto:
    """A convolution with a large weight, and a Reshape and a Resize whose results depend on small constants."""
    weight = np.zeros((channels, 3, 5, 5), np.float32)
    constants = {"weight": weight, "shape": np.array([1, -1, 8, 8]), "sizes": np.array([1, channels * 4, 20, 12])}
    nodes = [
        helper.make_node("Conv", ["image", "weight"], ["features"], pads=[2, 2, 2, 2]),
        helper.make_node("Reshape", ["features", "shape"], ["blocks"]),
        helper.make_node("Resize", ["blocks", "", "", "sizes"], ["logits"], mode="nearest"),
    ]
    graph = helper.make_graph(
        nodes,
        "large",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, 16, 16])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", "c", "h", "w"])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def shapes(graph: onnx.GraphProto) -> dict[str, list[int]]:
    return {
        value.name: [d.dim_value for d in value.type.tensor_type.shape.dim]
        for value in (*graph.value_info, *graph.output)
    }


@pytest.mark.parametrize("strict", [True, False])
def test_the_shapes_are_those_of_onnx(strict: bool) -> None:
    model = network()
    expected = onnx.shape_inference.infer_shapes(model, strict_mode=strict, data_prop=strict).graph
    assert shapes(inferred_shapes(model, strict=strict)) == shapes(expected)
    assert shapes(expected)["logits"] == [1, 256, 20, 12]


def test_weights_stay_where_they_are() -> None:
    model = network()
    before = model.SerializeToString()
    light = without_weights(model)
    assert [t.name for t in light.graph.initializer] == ["shape", "sizes"]
    assert [value.name for value in light.graph.input] == ["image", "weight"]
    assert light.ByteSize() < 1000 < model.ByteSize()
    assert model.SerializeToString() == before
    onnx.checker.check_model(light)


def test_large_is_more_than_any_shape_has() -> None:
    for count, large in ((LARGEST_KEPT, False), (LARGEST_KEPT + 1, True)):
        assert is_large(numpy_helper.from_array(np.zeros(count, np.float32))) is large


def test_strict_refuses_what_does_not_fit() -> None:
    model = network()
    model.graph.node[0].CopyFrom(helper.make_node("Add", ["image", "weight"], ["features"]))
    with pytest.raises(onnx.shape_inference.InferenceError):
        inferred_shapes(model, strict=True)
    inferred_shapes(model)


def test_noted_shapes_count_only_where_it_is_not_strict() -> None:
    model = network()
    model.graph.node[0].op_type, model.graph.node[0].domain = "Unknown", "elsewhere"
    del model.graph.node[0].attribute[:]
    model.opset_import.append(helper.make_opsetid("elsewhere", 1))
    model.graph.value_info.append(helper.make_tensor_value_info("features", TensorProto.FLOAT, [1, 64, 16, 16]))
    assert shapes(inferred_shapes(model))["blocks"] == [1, 256, 8, 8]


def test_an_old_network_lists_its_weights_as_inputs() -> None:
    model = network()
    model.graph.input.append(helper.make_tensor_value_info("weight", TensorProto.FLOAT, [64, 3, 5, 5]))
    assert [value.name for value in without_weights(model).graph.input] == ["image", "weight"]
