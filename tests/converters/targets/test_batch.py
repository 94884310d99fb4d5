"""Graphs of any number of frames."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from support.bundles import quantized_graph
from support.graphs import random_frame, run_graph

from edgeseg.converters.targets import derive
from edgeseg.converters.targets.batch import BATCH, with_dynamic_batch
from edgeseg.errors import UnsupportedModelError


def graph_of(nodes: list[onnx.NodeProto], shape: list[int], output: list[int], **constants: object) -> onnx.ModelProto:
    """A graph from `x` to `y`."""
    graph = helper.make_graph(
        nodes,
        "nodes",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, output)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return model


def same_frame_by_frame(model: onnx.ModelProto, x: np.ndarray, name: str) -> bool:
    """Whether a batch gives what its frames give alone in the graph of one frame."""
    before = model.SerializeToString()
    dynamic = with_dynamic_batch(model)
    assert model.SerializeToString() == before
    assert dynamic.graph.input[0].type.tensor_type.shape.dim[0].dim_param == BATCH
    (found,) = run_graph(dynamic, **{name: x})
    alone = [run_graph(model, **{name: x[i : i + 1]})[0] for i in range(len(x))]
    return np.array_equal(found, np.concatenate(alone))


class TestWithDynamicBatch:
    @pytest.mark.parametrize("form", ["canonical", "fp16_qdq", "fp16", "tensorrt8"])
    def test_frames_do_not_mix(self, form: str) -> None:
        model = derive(form, onnx.load_from_string(quantized_graph())).model
        frames = np.stack([random_frame(32, 48, seed) for seed in range(3)])
        assert same_frame_by_frame(model, frames, "frame")

    @pytest.mark.parametrize("attributes", [{}, {"allowzero": 1}])  # torch's exporter writes the second
    def test_a_channel_shuffle(self, attributes: dict[str, int]) -> None:
        nodes = [
            helper.make_node("Reshape", ["x", "groups"], ["a"], "split", **attributes),
            helper.make_node("Transpose", ["a"], ["b"], "swap", perm=[0, 2, 1, 3, 4]),
            helper.make_node("Reshape", ["b", "whole"], ["y"], "join", **attributes),
        ]
        model = graph_of(
            nodes, [1, 6, 4, 5], [1, 6, 4, 5],
            groups=np.array([1, 2, 3, 4, 5], np.int64), whole=np.array([1, -1, 4, 5], np.int64),
        )  # fmt: skip
        assert same_frame_by_frame(model, np.random.default_rng(0).normal(size=(3, 6, 4, 5)).astype(np.float32), "x")

    def test_a_reshape_that_copies_already(self) -> None:
        nodes = [helper.make_node("Reshape", ["x", "copy"], ["y"], "r")]
        model = graph_of(nodes, [1, 6, 4, 5], [1, 120], copy=np.array([0, -1], np.int64))
        assert same_frame_by_frame(model, np.ones((2, 6, 4, 5), np.float32), "x")

    @pytest.mark.parametrize(("extent", "size"), [(3, 88), (7, 360), (45, 60), (1, 15), (11, 3), (176, 176), (49, 97)])
    def test_sizes_of_a_resize_become_scales(self, extent: int, size: int) -> None:
        nodes = [helper.make_node("Resize", ["x", "", "", "sizes"], ["y"], "up", mode="linear")]
        model = graph_of(nodes, [1, 2, extent, 4], [1, 2, size, 8], sizes=np.array([1, 2, size, 8], np.int64))
        x = np.random.default_rng(0).normal(size=(2, 2, extent, 4)).astype(np.float32)
        dynamic = with_dynamic_batch(model)
        (found,) = run_graph(dynamic, x=x)
        (alone,) = run_graph(model, x=x[:1])
        assert found.shape == (2, 2, size, 8)
        assert np.allclose(found[:1], alone, atol=1e-4)

    @pytest.mark.parametrize(
        ("node", "shape", "output", "message"),
        [
            (
                ("Reshape", [2, 60]),
                [1, 6, 4, 5],
                [2, 60],
                r"it turns \(1, 6, 4, 5\) into \(2, 60\), which",
            ),
            (("Reshape", [-1, 5]), [1, 6, 4, 5], [24, 5], "takes the batch apart"),
            (("Expand", [1, 6, 4, 5]), [1, 6, 1, 1], [1, 6, 4, 5], "its shape is that of one frame"),
            (("Tile", [1, 1, 4, 5]), [1, 6, 1, 1], [1, 6, 4, 5], "its shape is that of one frame"),
        ],
    )
    def test_refuses_what_needs_one_frame(
        self, node: tuple[str, list[int]], shape: list[int], output: list[int], message: str
    ) -> None:
        op, numbers = node
        model = graph_of([helper.make_node(op, ["x", "n"], ["y"], "it")], shape, output, n=np.array(numbers, np.int64))
        with pytest.raises(UnsupportedModelError, match=rf"it \({op}\) does not take .*: .*{message}") as why:
            with_dynamic_batch(model)
        assert str(why.value).endswith("build the engine without --batch")

    def test_refuses_a_shape_that_is_computed(self) -> None:
        nodes = [helper.make_node("Shape", ["x"], ["s"], "s"), helper.make_node("Reshape", ["x", "s"], ["y"], "it")]
        model = graph_of(nodes, [1, 6, 4, 5], [1, 6, 4, 5])
        with pytest.raises(UnsupportedModelError, match=r"it \(Reshape\) .*: its shape is not a constant"):
            with_dynamic_batch(model)

    def test_refuses_an_output_without_the_batch(self) -> None:
        nodes = [helper.make_node("ReduceMean", ["x"], ["y"], "mean", axes=[0], keepdims=1)]
        model = graph_of(nodes, [1, 6, 4, 5], [1, 6, 4, 5])
        with pytest.raises(
            UnsupportedModelError, match=r"mean \(ReduceMean\) .*: with two frames it gives \(1, 6, 4, 5\)"
        ):
            with_dynamic_batch(model)

    def test_refuses_a_batch_that_moves(self) -> None:
        nodes = [
            helper.make_node("Transpose", ["x"], ["a"], "there", perm=[1, 0, 2, 3]),
            helper.make_node("Softmax", ["a"], ["b"], "mixes", axis=1),
            helper.make_node("Transpose", ["b"], ["y"], "back", perm=[1, 0, 2, 3]),
        ]
        model = graph_of(nodes, [1, 6, 4, 5], [1, 6, 4, 5])
        with pytest.raises(
            UnsupportedModelError, match=r"there \(Transpose\) .*: with two frames it gives \(6, 2, 4, 5\)"
        ):
            with_dynamic_batch(model)
