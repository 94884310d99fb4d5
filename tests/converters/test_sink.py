from collections import Counter

import numpy as np
import onnx
import pytest
from support.graphs import GraphBuilder, run_graph

from edgeseg.converters.fold import fold_batch_norms
from edgeseg.converters.sink import sink_into_concat

IMAGE = np.random.default_rng(2).normal(0, 1, (1, 3, 64, 64)).astype(np.float32)


def joined(builder: GraphBuilder) -> str:
    left = builder.conv("image", 3, 3, name="left")
    right = builder.add("Add", left, builder.conv("image", 3, 3, name="right"))
    return builder.add("Concat", left, right, axis=1, name="join")


def operators(model: onnx.ModelProto) -> Counter[str]:
    return Counter(n.op_type for n in model.graph.node)


def check_equal(model: onnx.ModelProto, result: onnx.ModelProto) -> None:
    onnx.checker.check_model(result, full_check=True)
    np.testing.assert_allclose(run_graph(result, image=IMAGE)[0], run_graph(model, image=IMAGE)[0], rtol=0, atol=2e-5)


def test_batch_norm_and_prelu_move_into_the_branches():
    builder = GraphBuilder()
    model = builder.model(builder.prelu(builder.batch_norm(joined(builder), 6), 6))
    result = sink_into_concat(model)
    check_equal(model, result)
    assert operators(result) == {"Conv": 2, "Add": 1, "BatchNormalization": 2, "PRelu": 2, "Concat": 1}
    assert result.graph.node[-1].op_type == "Concat"
    assert list(result.graph.node[-1].output) == ["logits"]


def test_folding_afterwards_takes_what_a_branch_can_take():
    builder = GraphBuilder()
    branches = [builder.conv("image", 3, 2), builder.add("Relu", builder.conv("image", 3, 4))]
    model = builder.model(builder.batch_norm(builder.add("Concat", *branches, axis=1), 6))
    assert operators(fold_batch_norms(model))["BatchNormalization"] == 1
    result = fold_batch_norms(sink_into_concat(model))
    check_equal(model, result)
    assert operators(result) == {"Conv": 2, "Relu": 1, "BatchNormalization": 1, "Concat": 1}
    assert [n.op_type for n in result.graph.node if "logits" in n.output] == ["Concat"]


@pytest.mark.parametrize("op", ["Relu", "LeakyRelu", "Sigmoid", "HardSwish", "Tanh"])
def test_activations_without_constants(op):
    builder = GraphBuilder()
    model = builder.model(builder.add(op, joined(builder)))
    result = sink_into_concat(model)
    check_equal(model, result)
    assert operators(result)[op] == 2


def test_clip_and_arithmetic():
    builder = GraphBuilder()
    scaled = builder.add("Mul", joined(builder), builder.constant(np.arange(1, 7, dtype=np.float32).reshape(6, 1, 1)))
    limits = [builder.constant(np.float32(v)) for v in (-1, 2)]
    model = builder.model(builder.add("Clip", scaled, *limits))
    result = sink_into_concat(model)
    check_equal(model, result)
    assert operators(result)["Clip"] == 2
    assert operators(result)["BatchNormalization"] == 2


def test_one_slope_for_all_channels():
    builder = GraphBuilder()
    model = builder.model(builder.add("PRelu", joined(builder), builder.constant(np.full(1, 0.2, np.float32))))
    result = sink_into_concat(model)
    check_equal(model, result)
    assert operators(result)["PRelu"] == 2


def test_nothing_moves_where_the_joined_tensor_is_read_twice():
    builder = GraphBuilder()
    x = joined(builder)
    model = builder.model(builder.add("Add", builder.add("Relu", x), x))
    assert operators(sink_into_concat(model)) == operators(model)


@pytest.mark.parametrize("op", ["Softmax", "GlobalAveragePool"])
def test_what_mixes_values_stays(op):
    builder = GraphBuilder()
    model = builder.model(builder.add(op, joined(builder)))
    assert operators(sink_into_concat(model)) == operators(model)


def test_concat_over_rows_stays():
    builder = GraphBuilder()
    x = builder.add("Concat", builder.conv("image", 3, 3), builder.conv("image", 3, 3), axis=2)
    model = builder.model(builder.add("Relu", x))
    assert operators(sink_into_concat(model)) == operators(model)


def test_slopes_by_pixel_stay():
    builder = GraphBuilder()
    slope = builder.constant(np.full((6, 64, 64), 0.1, np.float32))
    model = builder.model(builder.add("PRelu", joined(builder), slope))
    assert operators(sink_into_concat(model)) == operators(model)
