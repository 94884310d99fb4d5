"""Outputs that tell of a tensor without giving it whole."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from edgeseg.calibration.observers import sample_stride
from edgeseg.calibration.probes import add_probes


def doubled(shape: list[int], extra: str = "y") -> onnx.ModelProto:
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "x"], ["y"]), helper.make_node("Neg", ["y"], [f"{extra}_negative"])],
        "doubled",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(f"{extra}_negative", TensorProto.FLOAT, shape)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize("shape", [[1, 4, 30, 40], [1, 4800], [60, 80]])
def test_large_tensors_give_a_sample(shape: list[int]) -> None:
    model, (probe,) = add_probes(doubled(shape), ["y"], 200)
    assert (probe.elements, probe.summary) == (4800, None)
    assert len(probe.outputs) == 1
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    (sample,) = ReferenceEvaluator(model).run(list(probe.outputs), {"x": x})
    assert np.array_equal(sample, 2 * x.reshape(-1)[:: sample_stride(tuple(shape), 200)])


@pytest.mark.parametrize("shape", [[1, 4, 30, 40], [1, 4800], [60, 80]])
def test_and_a_summary_where_asked(shape: list[int]) -> None:
    model, (probe,) = add_probes(doubled(shape), ["y"], 200, extremes=True)
    assert probe.elements == 4800
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    sample, largest, smallest, total = ReferenceEvaluator(model).run(list(probe.outputs), {"x": x})
    assert np.array_equal(sample, 2 * x.reshape(-1)[:: sample_stride(tuple(shape), 200)])
    assert 100 < sample.size <= 200
    assert (largest, smallest) == (2 * x.max(), 2 * x.min())
    assert total == pytest.approx(2 * x.sum(), rel=1e-4)


def test_small_tensors_become_outputs() -> None:
    model, probes = add_probes(doubled([1, 4, 30, 40]), ["y", "y_negative", "y"], 10000)
    assert [probe.outputs for probe in probes] == [("y",), ("y_negative",)]
    assert [output.name for output in model.graph.output] == ["y_negative", "y"]
    assert len(model.graph.node) == 2


def test_tensors_without_a_known_shape_become_outputs() -> None:
    model = doubled([1, 4, 30, 40])
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "height"
    model.graph.output[0].type.tensor_type.shape.dim[2].dim_param = "height"
    assert add_probes(model, ["y"], 200)[1][0].outputs == ("y",)


def test_names_that_are_taken() -> None:
    model, (probe,) = add_probes(doubled([1, 4, 30, 40], extra="probe_0_sample"), ["y"], 200, extremes=True)
    assert all(name.startswith("probe__0_") for name in probe.outputs)
    x = np.ones((1, 4, 30, 40), np.float32)
    assert ReferenceEvaluator(model).run([probe.outputs[3]], {"x": x}) == [9600]


def test_the_given_model_is_not_changed() -> None:
    model = doubled([1, 4, 30, 40])
    before = model.SerializeToString()
    add_probes(model, ["y"], 200)
    assert model.SerializeToString() == before
