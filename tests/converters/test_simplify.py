import subprocess
import sys
from collections import Counter

import numpy as np
import onnx
import pytest
from support.graphs import GraphBuilder, run_graph, toy_network

from edgeseg.converters.simplify import outputs_of, simplify_graph
from edgeseg.errors import MissingDependencyError, ModelError

IMAGE = np.random.default_rng(1).normal(0, 1, (1, 3, 64, 64)).astype(np.float32)


def operators(model: onnx.ModelProto) -> Counter[str]:
    return Counter(n.op_type for n in model.graph.node)


def with_something_to_fold() -> onnx.ModelProto:
    """The toy network with a slope that has to be computed from a constant."""
    model = toy_network()
    prelu = next(n for n in model.graph.node if n.op_type == "PRelu")
    model.graph.node.insert(0, onnx.helper.make_node("Sqrt", [prelu.input[1]], ["slope"]))
    prelu.input[1] = "slope"
    return model


def test_constants_are_folded_and_idle_operators_go():
    builder = GraphBuilder()
    x = builder.add("Identity", builder.add("Dropout", builder.conv("image", 3, 4)))
    x = builder.add("Mul", x, builder.add("Sqrt", builder.constant(np.float32(4))))
    model = builder.model(builder.add("Identity", builder.add("Relu", x)))
    before = model.SerializeToString()
    result = simplify_graph(model)
    assert operators(result) <= Counter({"Conv": 1, "Mul": 1, "Relu": 1})
    assert [o.name for o in result.graph.output] == ["logits"]
    np.testing.assert_allclose(run_graph(result, image=IMAGE)[0], run_graph(model, image=IMAGE)[0], atol=1e-5)
    assert model.SerializeToString() == before


def test_constant_nodes_become_initializers():
    model = toy_network()
    node = onnx.helper.make_node(
        "Constant", [], ["slope"], value=onnx.numpy_helper.from_array(np.full((16, 1, 1), 0.3, "f"))
    )
    model.graph.node.insert(0, node)
    prelu = next(n for n in model.graph.node if n.op_type == "PRelu")
    prelu.input[1] = "slope"
    result = simplify_graph(model)
    assert "Constant" not in operators(result)
    np.testing.assert_allclose(run_graph(result, image=IMAGE)[0], run_graph(model, image=IMAGE)[0], atol=1e-4)


def test_every_shape_is_written():
    result = simplify_graph(toy_network())
    known = {v.name for v in (*result.graph.value_info, *result.graph.output)}
    assert {o for n in result.graph.node for o in n.output} <= known


def test_nothing_is_printed(capfd):
    simplify_graph(toy_network())
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", "")


def test_a_changed_result_is_refused(monkeypatch):
    import onnxsim

    def broken(model, **options):
        weight = model.graph.initializer[0]
        weight.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(weight) * 2, weight.name))
        return model, True

    monkeypatch.setattr(onnxsim, "simplify", broken)
    with pytest.raises(ModelError, match=r"simplifying changed output logits by [\d.]+ \(allowed: 0\.00\d+"):
        simplify_graph(with_something_to_fold())


def test_changed_outputs_are_refused(monkeypatch):
    import onnxsim

    def broken(model, **options):
        model.graph.output[0].name = "stem_out"
        return model, True

    monkeypatch.setattr(onnxsim, "simplify", broken)
    with pytest.raises(ModelError, match=r"changed the outputs from \['logits'\] to \['stem_out'\]"):
        simplify_graph(with_something_to_fold())


def test_values_that_are_not_finite_are_refused():
    model = toy_network()
    weight = model.graph.initializer[0]
    weight.CopyFrom(onnx.numpy_helper.from_array(np.full((8, 3, 3, 3), np.nan, np.float32), weight.name))
    with pytest.raises(ModelError, match="gives NaN or infinity in logits for random input"):
        simplify_graph(model)


def test_an_error_of_onnxsim_is_mapped(monkeypatch):
    import onnxsim

    def broken(model, **options):
        raise RuntimeError("\ncannot fold Frobnicate\nstack")

    monkeypatch.setattr(onnxsim, "simplify", broken)
    with pytest.raises(ModelError, match=r"cannot be simplified: cannot fold Frobnicate; check it with"):
        simplify_graph(with_something_to_fold())


def test_an_error_of_onnx_runtime_is_mapped():
    with pytest.raises(ModelError, match=r"does not run in ONNX Runtime: .*Got invalid dimensions"):
        outputs_of(toy_network(), {"image": IMAGE[:, :, :32]})


@pytest.mark.parametrize("library", ["onnxsim", "onnxruntime"])
def test_a_missing_library_is_named(library, monkeypatch):
    model = with_something_to_fold()
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(MissingDependencyError, match=f"pip install {library}"):
        simplify_graph(model)


def test_a_graph_that_holds_nothing_to_fold_is_left_as_it_is(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxsim", None)
    model = toy_network()
    result = simplify_graph(model)
    assert list(result.graph.node) == list(model.graph.node)
    np.testing.assert_array_equal(run_graph(result, image=IMAGE)[0], run_graph(model, image=IMAGE)[0])


@pytest.mark.parametrize("operators", [("Relu", "Relu"), ("Abs",)], ids=["the same twice", "an operator that may go"])
def test_a_graph_that_may_hold_something_goes_to_onnxsim(operators, monkeypatch):
    builder = GraphBuilder()
    x = builder.conv("image", 3, 4)
    model = builder.model(builder.add("Concat", *(builder.add(operator, x) for operator in operators), x, axis=1))
    monkeypatch.setitem(sys.modules, "onnxsim", None)
    with pytest.raises(MissingDependencyError, match="pip install onnxsim"):
        simplify_graph(model)


def test_onnxsim_is_loaded_without_torch():
    code = (
        "import sys; from edgeseg.libraries import require; require('onnxsim', 'test'); "
        "print('torch' in sys.modules, 'onnxsim' in sys.modules)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.split() == ["False", "True"]
