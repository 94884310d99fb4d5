"""A float32 graph with the roundings of a float16 one, held against NumPy's float16."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper
from support.graphs import GraphBuilder, random_frame

from edgeseg.backends import Target, get_backend
from edgeseg.converters.graph import GraphIndex, copy_model
from edgeseg.converters.place import remove_qdq
from edgeseg.converters.targets import derive
from edgeseg.converters.targets.emulate import emulate_float16
from edgeseg.converters.targets.float16 import to_float16

FLOAT, HALF = TensorProto.FLOAT, TensorProto.FLOAT16
Array = NDArray[np.float32]


def run(model: onnx.ModelProto, array: NDArray[np.generic]) -> list[Array]:
    """The outputs as edgeseg's own ONNX Runtime engine gives them, with all of its optimisations."""
    backend, target = get_backend("onnxruntime"), Target(threads=1, precision="float32")
    engine = backend.load(backend.compile(model.SerializeToString(), target), target)
    outputs = [output.copy() for output in engine.infer([array])]
    engine.close()
    return outputs


def emulated(builder: GraphBuilder, result: str, image: Array) -> Array:
    """What a graph on an image gives in float16, emulated."""
    model = emulate_float16(to_float16(builder.model(result, image.shape)))
    onnx.checker.check_model(model, full_check=True)
    return run(model, image)[0]


class TestArithmetic:
    def test_every_sum_is_rounded(self) -> None:
        """2048 + 1 is halfway to the next float16 number, and three ones added one by one are lost."""
        builder = GraphBuilder()
        # Behind a node that is no normalisation of the frame, which stays in float32.
        x, one = builder.add("Abs", "image"), builder.constant(np.ones((1, 1, 1, 1), np.float32))
        for _ in range(3):
            x = builder.add("Add", x, one)
        image = np.full((1, 1, 2, 2), 2048, np.float32)
        assert run(builder.model(x, image.shape), image)[0].max() == 2051
        assert emulated(builder, x, image).tolist() == image.tolist()

    def test_a_convolution_adds_up_exactly_and_rounds_once(self) -> None:
        builder = GraphBuilder(3)
        result = builder.conv("image", 4, 6, kernel=1)
        weight, bias = (builder.initializers[i] for i in (0, 1))
        image = np.random.default_rng(1).normal(0, 2, (1, 4, 5, 5)).astype(np.float32)
        half = [onnx.numpy_helper.to_array(t).astype(np.float16).astype(np.float64) for t in (weight, bias)]
        exact = np.einsum("oi,ihw->ohw", half[0][:, :, 0, 0], image[0].astype(np.float16).astype(np.float64))
        expected = (exact + half[1][:, None, None]).astype(np.float16)
        found = emulated(builder, result, image)[0]
        # Sums in float32 may fall on the other side of a tie; then they are one float16 step away.
        assert np.mean(found == expected) > 0.98
        np.testing.assert_allclose(found, expected, rtol=2**-10)

    def test_what_is_too_large_is_infinite(self) -> None:
        builder = GraphBuilder()
        x = builder.add("Neg", "image")
        result = builder.add("Mul", x, builder.constant(np.full((1, 1, 1, 1), 300, np.float32)))
        image = np.array([200, 218, 219, -300], np.float32).reshape(1, 1, 2, 2)
        assert emulated(builder, result, image).ravel().tolist() == [-60000, -65408, -np.inf, np.inf]

    def test_numbers_below_the_normal_ones_keep_their_steps(self) -> None:
        builder = GraphBuilder()
        x = builder.add("Abs", "image")
        result = builder.add("Mul", x, builder.constant(np.full((1, 1, 1, 1), 0.5, np.float32)))
        image = np.geomspace(1e-8, 1e-3, 64, dtype=np.float32).reshape(1, 1, 8, 8)
        expected = (image.astype(np.float16) * np.float16(0.5)).astype(np.float32)
        assert (expected[expected > 0] < 6.1e-5).any()
        assert emulated(builder, result, image).tolist() == expected.tolist()


@pytest.fixture(scope="module")
def typed(canonical: onnx.ModelProto) -> onnx.ModelProto:
    return derive("fp16", canonical).model


class TestNetwork:
    def test_the_graph_is_valid_and_the_given_one_unchanged(self, typed: onnx.ModelProto) -> None:
        given = typed.SerializeToString()
        model = emulate_float16(typed)
        assert typed.SerializeToString() == given
        onnx.checker.check_model(model, full_check=True)
        assert (model.graph.input, model.graph.output) == (typed.graph.input, typed.graph.output)
        index = GraphIndex(model)
        halves = {t for n in model.graph.node for t in (*n.input, *n.output) if index.element_type(t) == HALF}
        users = {node.op_type for t in halves for node in (index.producer(t), *index.consumers(t)) if node}
        assert users == {"Cast"}

    def test_every_float16_tensor_holds_float16_numbers(self, typed: onnx.ModelProto) -> None:
        index, model = GraphIndex(typed), copy_model(emulate_float16(typed))
        halves = [o for n in typed.graph.node for o in n.output if index.element_type(o) == HALF]
        assert len(halves) > 10
        model.graph.output.extend(helper.make_tensor_value_info(t, FLOAT, index.shape(t)) for t in halves)
        _, *values = run(model, random_frame()[None])
        for tensor, value in zip(halves, values, strict=True):
            assert np.array_equal(value, value.astype(np.float16).astype(np.float32)), tensor

    def test_the_logits_move_by_the_rounding_only(self, canonical: onnx.ModelProto, typed: onnx.ModelProto) -> None:
        frame = random_frame()[None]
        exact, found = (run(m, frame)[0] for m in (remove_qdq(canonical), emulate_float16(typed)))
        snr = 10 * np.log10(float((exact**2).sum()) / float(((exact - found) ** 2).sum()))
        assert 45 < snr < 90
