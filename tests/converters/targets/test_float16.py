"""What becomes float16, what stays in float32, and that the graph stays valid."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from support.graphs import GraphBuilder, random_frame, run_graph

from edgeseg.converters.embed import append_class_map
from edgeseg.converters.graph import GraphIndex, attribute
from edgeseg.converters.place import remove_qdq
from edgeseg.converters.targets.float16 import LARGEST_WINDOW, float32_nodes, to_float16
from edgeseg.errors import ModelError

FLOAT, HALF = TensorProto.FLOAT, TensorProto.FLOAT16


def typed(model: onnx.ModelProto) -> GraphIndex:
    """The valid float16 graph of a model."""
    result = to_float16(model)
    onnx.checker.check_model(result, full_check=True)
    names = [node.name for node in result.graph.node]
    assert len(set(names)) == len(names)
    return GraphIndex(result)


def node_of(index: GraphIndex, name: str) -> onnx.NodeProto:
    return next(node for node in index.graph.node if node.name == name)


def input_type(index: GraphIndex, name: str, place: int = 0) -> int:
    return index.element_type(node_of(index, name).input[place])


def one_node(op: str, *constants: Any, shape: tuple[int, ...] = (1, 8, 4, 4), **attributes: Any) -> onnx.ModelProto:
    """Relu, then the operator `it`."""
    builder = GraphBuilder()
    names = [builder.constant(np.asarray(c)) for c in constants]
    result = builder.add(op, builder.add("Relu", "image", name="before"), *names, name="it", **attributes)
    return builder.model(result, shape)


class TestCanonicalGraph:
    def test_inputs_and_outputs_keep_their_types(self, canonical: onnx.ModelProto) -> None:
        given = canonical.SerializeToString()
        index = typed(canonical)
        assert canonical.SerializeToString() == given
        assert index.graph.input == canonical.graph.input
        assert [(o.name, o.type.tensor_type.elem_type) for o in index.graph.output] == [("logits", FLOAT)]
        assert index.model.opset_import == canonical.opset_import

    def test_convolutions_compute_in_float16_and_quantizers_in_float32(self, canonical: onnx.ModelProto) -> None:
        index = typed(canonical)
        kinds: Counter[tuple[str, str, str]] = Counter()
        for node in index.graph.node:
            if node.op_type in ("Conv", "QuantizeLinear", "DequantizeLinear"):
                data, second = (TensorProto.DataType.Name(index.element_type(i)) for i in node.input[:2])
                kinds[node.op_type, data, second] += 1
        activations = 7 - 1  # left and right read one tensor
        assert kinds == {
            ("Conv", "FLOAT16", "FLOAT16"): 7,
            ("QuantizeLinear", "FLOAT", "FLOAT"): 7 + activations,
            ("DequantizeLinear", "INT8", "FLOAT"): 7 + activations,
        }

    def test_the_frame_is_normalised_in_float32(self, canonical: onnx.ModelProto) -> None:
        index = typed(canonical)
        for name in ("preprocess/transpose", "preprocess/bgr", "preprocess/mean", "preprocess/scale"):
            assert input_type(index, name) == FLOAT
        # The first quantizer reads it as it is: no Cast stands between.
        reader = index.only_consumer(node_of(index, "preprocess/scale").output[0])
        assert reader is not None
        assert reader.op_type == "QuantizeLinear"

    def test_no_cast_undoes_another(self, canonical: onnx.ModelProto) -> None:
        index = typed(canonical)
        for node in index.graph.node:
            before = index.producer(node.input[0])
            assert not (node.op_type == "Cast" and before is not None and before.op_type == "Cast")

    @pytest.mark.parametrize("quantized", [True, False])
    def test_computes_the_same(self, canonical: onnx.ModelProto, quantized: bool) -> None:
        model = canonical if quantized else remove_qdq(canonical)
        frame = random_frame()[None]
        expected = run_graph(model, frame=frame)[0]
        found = run_graph(typed(model).model, frame=frame)[0]
        # Without Q/DQ 2^-11 a step; with it a level of INT8 may flip.
        assert 0 < np.abs(found - expected).max() < np.abs(expected).max() * (0.05 if quantized else 0.005)

    def test_class_numbers_go_through_float32(self, canonical: onnx.ModelProto) -> None:
        index = typed(append_class_map(remove_qdq(canonical), 64, 64, "half_pixel"))
        assert input_type(index, "postprocess/resize") == HALF
        assert input_type(index, "postprocess/argmax") == HALF
        assert attribute(node_of(index, "postprocess/float"), "to", 0) == FLOAT
        assert input_type(index, "postprocess/uint8") == FLOAT
        assert index.outputs == ["class_map"]


class TestStaysInFloat32:
    @pytest.mark.parametrize(
        ("model", "stays"),
        [
            (one_node("Sigmoid"), False),
            (one_node("Softmax", axis=1), True),
            (one_node("Pow", np.float32(2)), True),
            (one_node("ReduceMean", axes=[1]), True),
            (one_node("GlobalAveragePool"), False),
            (one_node("GlobalAveragePool", shape=(1, 2, 16, LARGEST_WINDOW // 16)), False),
            (one_node("GlobalAveragePool", shape=(1, 2, 17, LARGEST_WINDOW // 16)), True),
            (one_node("AveragePool", kernel_shape=[3, 3]), False),
            (one_node("AveragePool", shape=(1, 2, 32, 32), kernel_shape=[32, 32]), True),
            (one_node("Mul", np.float32(65504)), False),
            (one_node("Mul", np.float32(-65600)), True),
            (one_node("Mul", np.float32(1e-4)), False),
            (one_node("Mul", np.float32(1 / 18392)), True),
            (one_node("Mul", np.float32([[[[0]]]])), False),
            (one_node("Add", np.float32(1e-5)), True),
            (one_node("Conv", np.full((2, 8, 1, 1), 1e-6, np.float32)), True),
            (one_node("Conv", np.full((2, 8, 1, 1), 0.1, np.float32), np.full(2, 1e-6, np.float32)), False),
            (one_node("Conv", np.full((2, 8, 1, 1), 0.1, np.float32), np.full(2, 1e6, np.float32)), True),
            (one_node("LayerNormalization", np.ones(4, np.float32)), True),
        ],
        ids=lambda value: None if isinstance(value, bool) else value.graph.node[1].op_type,
    )  # fmt: skip
    def test_node(self, model: onnx.ModelProto, stays: bool) -> None:
        assert float32_nodes(model) == ({"it"} if stays else set())
        index = typed(model)
        assert input_type(index, "it") == (FLOAT if stays else HALF)
        assert input_type(index, "before") == HALF

    def test_weights_are_looked_at_behind_their_quantizers(self) -> None:
        builder = GraphBuilder()
        scale, zero = builder.constant(np.float32(1e-8)), builder.constant(np.int8(0))
        weight = builder.constant(np.full((4, 8, 1, 1), 1e-6, np.float32))
        weight = builder.add("QuantizeLinear", weight, scale, zero)
        weight = builder.add("DequantizeLinear", weight, scale, zero)
        model = builder.model(builder.add("Conv", "image", weight, name="it"), (1, 8, 4, 4))
        assert "it" in float32_nodes(model)

    def test_operators_of_others(self) -> None:
        builder = GraphBuilder()
        x = builder.add("Relu", "image", name="before")
        scale, zero = builder.constant(np.float32(0.1)), builder.constant(np.int8(0))
        x = builder.add("QuantizeLinear", x, scale, zero)
        model = builder.model(builder.add("DequantizeLinear", x, scale, zero), (1, 8, 4, 4))
        for node in model.graph.node[1:]:
            node.domain = "com.microsoft"
        model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
        assert float32_nodes(model) == {node.name for node in model.graph.node[1:]}

    def test_tensors_near_the_limit(self) -> None:
        builder = GraphBuilder()
        large = builder.add("Relu", "image", name="makes")
        builder.add("Sigmoid", large, name="reads")
        model = builder.model(builder.add("Tanh", "reads_out", name="far"), (1, 8, 4, 4))
        assert float32_nodes(model, {large: 32752.0}) == set()
        assert float32_nodes(model, {large: 32753.0}) == {"makes", "reads"}
        assert input_type(GraphIndex(to_float16(model, {large: 1e5})), "reads") == FLOAT


class TestTypes:
    def test_scales_and_region_of_a_resize(self) -> None:
        builder = GraphBuilder()
        region = builder.constant(np.zeros(8, np.float32), "region")
        scales = builder.constant(np.float32([1, 1, 0.85693, 0.85693]), "scales")
        model = builder.model(builder.add("Resize", "image", region, scales, name="it", mode="linear"), (1, 8, 7, 7))
        index = typed(model)
        assert input_type(index, "it") == HALF
        assert list(node_of(index, "it").input[1:]) == ["region", "scales"]

    def test_one_cast_for_all_readers(self) -> None:
        builder = GraphBuilder()
        x = builder.add("Relu", "image")
        parts = [builder.add(op, x, axis=1) for op in ("Softmax", "LogSoftmax", "Softmax")]
        index = typed(builder.model(builder.add("Concat", *parts, axis=1), (1, 8, 4, 4)))
        to_float32 = [n for n in index.graph.node if n.op_type == "Cast" and attribute(n, "to", 0) == FLOAT]
        assert sum(n.input == [x] for n in to_float32) == 1

    def test_tensor_that_is_output_and_read(self) -> None:
        builder = GraphBuilder()
        x = builder.add("Relu", "image", name="inner")
        model = builder.model(builder.add("Sigmoid", x), (1, 8, 4, 4))
        model.graph.output.append(helper.make_tensor_value_info(x, FLOAT, [1, 8, 4, 4]))
        index = typed(model)
        image = np.random.default_rng(0).normal(size=(1, 8, 4, 4)).astype(np.float32)
        assert [o.type.tensor_type.elem_type for o in index.graph.output] == [FLOAT, FLOAT]
        np.testing.assert_allclose(run_graph(index.model, image=image)[1], np.maximum(image, 0), rtol=1e-3)
        assert input_type(index, "sigmoid_1") == HALF

    def test_float_constant_that_a_node_gives(self) -> None:
        builder = GraphBuilder()
        value = builder.add("Constant", value=onnx.numpy_helper.from_array(np.float32([0.5]), "value"))
        result = builder.add("Mul", builder.add("Relu", "image"), value, name="it")
        index = typed(builder.model(result, (1, 8, 4, 4)))
        assert input_type(index, "it", 1) == HALF
        assert "Constant" not in {n.op_type for n in index.graph.node}

    def test_casts_between_floats_follow(self) -> None:
        builder = GraphBuilder()
        model = builder.model(builder.add("Cast", builder.add("Relu", "image"), name="it", to=FLOAT), (1, 8, 4, 4))
        index = typed(model)
        assert attribute(node_of(index, "it"), "to", 0) == HALF
        assert index.element_type("logits") == FLOAT

    def test_statistics_of_a_batch_norm(self) -> None:
        """A variance of 3e-7 is no float16 number, what it is used for is one."""
        builder = GraphBuilder()
        values = [[1.5, 0.7], [0.1, -0.2], [0.004, -0.003], [3e-7, 5e-8]]
        parameters = [builder.constant(np.float32(v)) for v in values]
        x = builder.add("Relu", "image")
        model = builder.model(builder.add("BatchNormalization", x, *parameters, name="it", epsilon=1e-7), (1, 2, 8, 8))
        image = np.random.default_rng(0).uniform(0, 0.01, (1, 2, 8, 8)).astype(np.float32)
        expected, index = run_graph(model, image=image)[0], typed(model)
        assert input_type(index, "it") == input_type(index, "it", 4) == HALF
        found = run_graph(index.model, image=image)[0]
        np.testing.assert_allclose(found, expected, rtol=0, atol=np.abs(expected).max() * 0.002)

    def test_float16_graph_is_refused(self) -> None:
        half = to_float16(one_node("Sigmoid"))
        with pytest.raises(ModelError, match=r"tensor image_float16 of \S+ is float16; give the canonical graph"):
            to_float16(half)
