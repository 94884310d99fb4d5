"""Exactly equal forms of what TensorRT 8 does not import."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper
from support.graphs import GraphBuilder, random_frame, run_graph
from support.lint_graphs import FAULTY, Toy

from edgeseg.converters.graph import GraphIndex
from edgeseg.converters.lint import lint
from edgeseg.converters.lint.operator_tables import WRITTEN_OUT
from edgeseg.converters.place import remove_qdq
from edgeseg.converters.targets import tensorrt8
from edgeseg.converters.targets.tensorrt8 import to_jetpack4, to_tensorrt8
from edgeseg.errors import UnsupportedModelError

RANDOM = np.random.default_rng(3)
SCALE, BIAS = (RANDOM.normal(1, 0.5, (8, 16)).astype(np.float32) for _ in range(2))
NORMALIZATIONS = [
    ((SCALE[0],), {}),
    ((SCALE[0], BIAS[0]), {"axis": -1, "epsilon": 0.1}),
    ((SCALE[:, :, None] * np.ones(16, np.float32), BIAS[:, :, None]), {"axis": 1}),
]
"""Scale, bias and attributes of LayerNormalization for maps (1, 8, 16, 16)."""


def normalizing(constants: tuple[NDArray[np.float32], ...], attributes: dict[str, Any]) -> onnx.ModelProto:
    """Two such nodes without names, one after the other, and a node behind them."""
    toy = Toy()
    names = [toy.constant(each) for each in constants]
    x = toy.input()
    for _ in range(2):
        x = toy.node("LayerNormalization", x, *names, **attributes)
    toy.output(toy.node("Relu", x))
    for node in toy.nodes:
        node.name = ""
    return toy.model()


IMAGE = np.random.default_rng(0).normal(size=(1, 8, 16, 16)).astype(np.float32)


class TestTensorRT8:
    def test_canonical_graph_comes_out_as_it_is(self, canonical: onnx.ModelProto) -> None:
        result = to_tensorrt8(canonical)
        assert result.graph.node == canonical.graph.node
        assert {i.name for i in result.graph.initializer} == {i.name for i in canonical.graph.initializer}

    @pytest.mark.parametrize("code", ["T104", "Q109", "Q116"])
    def test_cures_without_a_change(self, code: str) -> None:
        model = FAULTY[code]()
        assert {finding.code for finding in lint(model)} == {code}
        cured = to_tensorrt8(model)
        onnx.checker.check_model(cured, full_check=True)
        assert lint(cured) == []
        assert len(lint(model)) == 1
        np.testing.assert_array_equal(run_graph(cured, x=IMAGE)[0], run_graph(model, x=IMAGE)[0])

    def test_weights_stored_per_channel(self) -> None:
        toy = Toy()
        random = np.random.default_rng(1)
        stored = toy.constant(random.integers(-127, 128, (8, 8, 3, 3)).astype(np.int8))
        scale = toy.constant(random.uniform(1e-4, 3e-2, 8).astype(np.float32))
        zeros = toy.constant(np.zeros(8, np.int8))
        weight = toy.node("DequantizeLinear", stored, scale, zeros, axis=0)
        model = toy.output(toy.conv(toy.quantize(toy.input()), weight)).model()
        cured = to_tensorrt8(model)
        assert lint(cured) == []
        np.testing.assert_array_equal(run_graph(cured, x=IMAGE)[0], run_graph(model, x=IMAGE)[0])

    @pytest.mark.parametrize(("constants", "attributes"), NORMALIZATIONS)
    def test_layer_normalization_is_written_out(
        self, constants: tuple[NDArray[np.float32], ...], attributes: dict[str, Any]
    ) -> None:
        model = normalizing(constants, attributes)
        assert lint(model) == []
        written = to_tensorrt8(model)
        onnx.checker.check_model(written, full_check=True)
        assert "LayerNormalization" not in {node.op_type for node in written.graph.node}
        expected = run_graph(model, x=20 * IMAGE + 3)[0]
        np.testing.assert_allclose(run_graph(written, x=20 * IMAGE + 3)[0], expected, rtol=1e-4, atol=1e-5)

    def test_linter_knows_what_is_written_out(self) -> None:
        assert frozenset(tensorrt8._WRITERS) == WRITTEN_OUT

    def test_normalization_with_mean_stays(self) -> None:
        toy = Toy()
        toy.output(toy.node("LayerNormalization", toy.input(), toy.constant(SCALE[0]), outputs=2))
        assert [node.op_type for node in to_tensorrt8(toy.model()).graph.node] == ["LayerNormalization"]

    def test_what_has_no_equal_form_stays(self) -> None:
        """A zero point left out is uint8 by ONNX: int8 would be another network."""
        assert {finding.code for finding in lint(to_tensorrt8(FAULTY["Q108"]()))} == {"Q108"}

    def test_newer_opset(self) -> None:
        builder = GraphBuilder()
        model = builder.model(builder.add("Relu", "image"), (1, 8, 4, 4), opset=20)
        assert [o.version for o in to_tensorrt8(model).opset_import] == [17]


class TestJetPack4:
    def test_takes_planar_floats(self, canonical: onnx.ModelProto) -> None:
        result = to_jetpack4(canonical)
        assert lint(result, "jetpack-4") == []
        assert [o.version for o in result.opset_import] == [13]
        frame = random_frame()[None]
        planar = frame.transpose(0, 3, 1, 2).astype(np.float32)
        (name,) = GraphIndex(result).inputs
        np.testing.assert_array_equal(
            run_graph(result, **{name: planar})[0], run_graph(remove_qdq(canonical), frame=frame)[0]
        )

    def test_the_canonical_graph_is_none(self, canonical: onnx.ModelProto) -> None:
        assert {finding.code for finding in lint(canonical, "jetpack-4")} == {"G101", "Q205", "T107"}

    def test_layer_normalization_is_written_out(self) -> None:
        builder = GraphBuilder()
        x = builder.add("Transpose", builder.add("Cast", "image", to=TensorProto.FLOAT), perm=[0, 3, 1, 2])
        x = builder.add("LayerNormalization", x, builder.constant(SCALE[0, :4]), builder.constant(BIAS[0, :4]))
        model = builder.model(x, (1, 6, 4, 3), (1, 3, 6, 4), input_type=TensorProto.UINT8)
        written = to_jetpack4(model)
        assert lint(written, "jetpack-4") == []
        image = np.random.default_rng(5).integers(0, 256, (1, 6, 4, 3), dtype=np.uint8)
        planar = image.transpose(0, 3, 1, 2).astype(np.float32)
        found, expected = run_graph(written, planar_frame=planar)[0], run_graph(model, image=image)[0]
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)

    def test_operator_that_came_later(self) -> None:
        builder = GraphBuilder()
        x = builder.add("Transpose", builder.add("Cast", "image", to=TensorProto.FLOAT), perm=[0, 3, 1, 2])
        model = builder.model(builder.add("HardSwish", x), (1, 4, 4, 3), input_type=TensorProto.UINT8)
        with pytest.raises(UnsupportedModelError, match=r"opset 13 can hold.*HardSwish"):
            to_jetpack4(model)

    def test_attribute_that_came_later(self) -> None:
        builder = GraphBuilder()
        x = builder.add("Transpose", builder.add("Cast", "image", to=TensorProto.FLOAT), perm=[0, 3, 1, 2])
        shape = builder.constant(np.array([1, 3, 16], np.int64))
        model = builder.model(
            builder.add("Reshape", x, shape, name="it", allowzero=0),
            (1, 4, 4, 3),
            (1, 3, 16),
            input_type=TensorProto.UINT8,
        )
        assert not to_jetpack4(model).graph.node[0].attribute
        model.graph.node[2].attribute[0].CopyFrom(helper.make_attribute("allowzero", 1))
        with pytest.raises(UnsupportedModelError, match="allowzero"):
            to_jetpack4(model)
