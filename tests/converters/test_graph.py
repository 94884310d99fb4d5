import numpy as np
import onnx
import pytest
from support.graphs import GraphBuilder, toy_network

from edgeseg.converters.graph import (
    GraphIndex,
    attribute,
    copy_model,
    drop_attributes,
    insert_nodes,
    name_nodes,
    remove_unused,
    rename_tensor,
    set_constant,
    sort_nodes,
    with_shapes,
)
from edgeseg.errors import ModelError


def test_index_answers_from_the_graph():
    index = GraphIndex(toy_network())
    stem = index.producer("stem_out")
    assert stem is not None
    assert stem.op_type == "Conv"
    assert index.producer("image") is None
    assert index.only_consumer("stem_out").op_type == "BatchNormalization"
    assert index.only_consumer("logits") is None
    assert index.inputs == ["image"]
    assert index.outputs == ["logits"]
    assert index.shape("stem_out") == (1, 8, 32, 32)
    assert index.shape("no such tensor") is None
    assert index.element_type("image") == onnx.TensorProto.FLOAT
    assert index.element_type("no such tensor") == 0
    assert index.constant(stem.input[1]).shape == (8, 3, 3, 3)
    assert index.constant("stem_out") is None
    assert index.is_constant(stem.input[1])
    assert not index.is_constant("stem_out")
    assert not index.is_constant("image")


def test_a_tensor_read_twice_by_one_node_has_one_consumer():
    builder = GraphBuilder()
    index = GraphIndex(builder.model(builder.add("Add", "image", "image")))
    assert len(index.consumers("image")) == 1


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("value", onnx.numpy_helper.from_array(np.array([1.5], np.float32)), np.array([1.5], np.float32)),
        ("value_float", 2.0, np.float32(2)),
        ("value_floats", [1.0, 2.0], np.array([1, 2], np.float32)),
        ("value_int", 3, np.int64(3)),
        ("value_ints", [3, 4], np.array([3, 4])),
    ],
)
def test_constant_nodes_are_constants(name, value, expected):
    node = onnx.helper.make_node("Constant", [], ["c"], **{name: value})
    model = toy_network()
    model.graph.node.insert(0, node)
    constant = GraphIndex(model).constant("c")
    assert GraphIndex(model).is_constant("c")
    np.testing.assert_array_equal(constant, expected)
    assert constant.dtype == expected.dtype


def test_fresh_names_never_repeat():
    index = GraphIndex(toy_network())
    assert [index.fresh("new"), index.fresh("new"), index.fresh("stem")] == ["new", "new_1", "stem_1"]


def test_shapes_that_do_not_fit_are_refused():
    model = toy_network()
    residual = next(n for n in model.graph.node if n.name == "residual")
    set_constant(model, residual.input[1], np.zeros((5, 16, 3, 3), np.float32))
    with pytest.raises(ModelError, match="expected a graph whose shapes fit together"):
        with_shapes(model)


def test_with_shapes_drops_stale_shapes():
    model = toy_network()
    model.graph.value_info.append(onnx.helper.make_tensor_value_info("stem_out", onnx.TensorProto.FLOAT, [9, 9]))
    assert GraphIndex(with_shapes(model)).shape("stem_out") == (1, 8, 32, 32)


def test_attributes():
    node = onnx.helper.make_node("Resize", ["x"], ["y"], mode="linear", sizes=[1, 2])
    assert attribute(node, "mode", "nearest") == "linear"
    assert attribute(node, "sizes", None) == [1, 2]
    assert attribute(node, "missing", 7) == 7
    drop_attributes(node, "mode", "missing")
    assert [a.name for a in node.attribute] == ["sizes"]


def test_set_constant_replaces():
    model = toy_network()
    before = len(model.graph.initializer)
    assert set_constant(model, "k", np.ones(2, np.float32)) == "k"
    set_constant(model, "k", np.zeros(3, np.float32))
    assert len(model.graph.initializer) == before + 1
    np.testing.assert_array_equal(GraphIndex(model).constant("k"), np.zeros(3))


def test_sorting_brings_nodes_behind_their_producers():
    model = toy_network()
    nodes = [n.name for n in model.graph.node]
    reverse = [onnx.NodeProto.FromString(n.SerializeToString()) for n in reversed(model.graph.node)]
    del model.graph.node[:]
    model.graph.node.extend(reverse)
    sort_nodes(model)
    onnx.checker.check_model(model)
    assert sorted(n.name for n in model.graph.node) == sorted(nodes)


def test_sorting_names_what_is_missing():
    model = toy_network()
    model.graph.node[3].input[0] = "nowhere"
    with pytest.raises(ModelError, match=r"every tensor to have a producer, but nowhere stops node depthwise"):
        sort_nodes(model)


def test_insert_and_replace():
    model = toy_network()
    relu = next(n for n in model.graph.node if n.op_type == "Relu")
    new = onnx.helper.make_node("Sigmoid", list(relu.input), list(relu.output), name="sigmoid")
    insert_nodes(model, [new], replace=[relu.name])
    onnx.checker.check_model(model)
    assert "Relu" not in {n.op_type for n in model.graph.node}


def test_nodes_get_unique_names():
    model = toy_network()
    names = [n.name for n in model.graph.node]
    model.graph.node[0].name = ""
    model.graph.node[1].name = names[2]
    name_nodes(model)
    after = [n.name for n in model.graph.node]
    assert len(set(after)) == len(after)
    assert after[0] == "Conv_0"
    assert after[1] == names[2]


def test_rename_reaches_inputs_and_outputs():
    model = toy_network()
    rename_tensor(model, "image", "picture")
    rename_tensor(model, "logits", "scores")
    onnx.checker.check_model(model)
    assert (model.graph.input[0].name, model.graph.output[0].name) == ("picture", "scores")


def test_unused_parts_go():
    model = with_shapes(toy_network())
    set_constant(model, "idle", np.ones(4, np.float32))
    model.graph.node.append(onnx.helper.make_node("Relu", ["stem_out"], ["idle_out"], name="idle_relu"))
    nodes = len(model.graph.node)
    remove_unused(model)
    assert len(model.graph.node) == nodes - 1
    assert "idle" not in {t.name for t in model.graph.initializer}
    onnx.checker.check_model(model, full_check=True)


def test_copy_is_deep():
    model = toy_network()
    copy_model(model).graph.node[0].name = "changed"
    assert model.graph.node[0].name == "stem"
