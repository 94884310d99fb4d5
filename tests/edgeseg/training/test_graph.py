"""Canonical graphs as torch modules: the logits of ONNX Runtime, for any batch, and the same graph written back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper
from support.graphs import GraphBuilder, random_frame, run_graph, toy_network
from support.networks import SMALL
from support.published import ESPNET

from edgeseg.calibration.frames import frames_from
from edgeseg.calibration.measure import measure_ranges
from edgeseg.calibration.table import choose_ranges
from edgeseg.converters.export import export
from edgeseg.converters.graph import set_constant
from edgeseg.converters.lint import lint
from edgeseg.converters.metadata import NetworkMetadata
from edgeseg.converters.options import ConvertOptions
from edgeseg.converters.place import place_qdq, plan_placement, remove_qdq
from edgeseg.converters.prepare import prepare
from edgeseg.errors import TrainingError, UnsupportedModelError
from edgeseg.frame import fit_frame
from edgeseg.models import NETWORKS, create
from edgeseg.training.graph import GraphModule

OPTIONS = ConvertOptions(mean=(123.0, 116.0, 103.0), std=(58.0, 57.0, 57.0), color_order="BGR")


def float_graph(network: onnx.ModelProto, folder: Path, options: ConvertOptions = OPTIONS) -> onnx.ModelProto:
    onnx.save(network, folder / "network.onnx")
    return prepare(folder / "network.onnx", options).model


def quantized_graph(model: onnx.ModelProto, frames: NDArray[np.uint8]) -> onnx.ModelProto:
    """With ranges measured on the frames."""
    placement = plan_placement(model)
    feeds = ({"frame": frame[None]} for frame in frames)
    histograms = measure_ranges(model, placement.tensors, feeds)
    ranges = {name: entry.amax for name, entry in choose_ranges(histograms, "mse").items()}
    return place_qdq(model, placement, ranges)


def some_frames(height: int = 64, width: int = 64, count: int = 2) -> NDArray[np.uint8]:
    return np.stack([random_frame(height, width, seed) for seed in range(count)])


def by_torch(model: onnx.ModelProto, frames: NDArray[Any], output: str | None = None) -> NDArray[np.float32]:
    with torch.no_grad():
        logits: NDArray[np.float32] = GraphModule(model, output)(torch.from_numpy(frames)).numpy()
    return logits


def by_onnx(model: onnx.ModelProto, frames: NDArray[Any]) -> NDArray[np.float32]:
    """Frame by frame: the graph's batch is 1."""
    name = model.graph.input[0].name
    return np.concatenate([run_graph(model, **{name: frame[None]})[0] for frame in frames])


def agreement(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    return float((one.argmax(1) == other.argmax(1)).mean())


class TestForward:
    def test_the_float_graph(self, tmp_path: Path) -> None:
        model, frames = float_graph(toy_network(), tmp_path), some_frames()
        expected = by_onnx(model, frames)
        np.testing.assert_allclose(by_torch(model, frames), expected, rtol=0, atol=1e-5 * np.abs(expected).max())

    def test_the_quantized_graph(self, tmp_path: Path) -> None:
        frames = some_frames()
        model = quantized_graph(float_graph(toy_network(), tmp_path), frames)
        found, expected = by_torch(model, frames), by_onnx(model, frames)
        assert found.shape == expected.shape == (2, 3, 16, 16)
        assert agreement(found, expected) > 0.99
        # Values on an edge between two levels go one way or the other; all others are the same.
        assert np.median(np.abs(found - expected)) < 1e-5
        assert agreement(found, by_torch(remove_qdq(model), frames)) < 1

    def test_another_output(self, tmp_path: Path) -> None:
        model, frames = float_graph(toy_network(), tmp_path), some_frames()
        name = next(node.output[0] for node in model.graph.node if node.op_type == "Relu")
        assert by_torch(model, frames, name).shape == (2, 8, 32, 32)

    def test_a_real_network(self, shared: Path) -> None:
        images = frames_from(shared / "data" / "camvid" / "train" / "images").select(2)
        frames = np.concatenate([fit_frame(frame.image, *ESPNET.size) for frame in images])
        options = ConvertOptions(mean=ESPNET.mean, std=ESPNET.std, color_order="BGR")
        prepared = prepare(shared / "models" / ESPNET.onnx, options)
        model = quantized_graph(prepared.model, frames)
        assert agreement(by_torch(model, frames[:1]), by_onnx(model, frames[:1])) > 0.99
        found, expected = by_torch(prepared.model, frames[:1]), by_onnx(prepared.model, frames[:1])
        assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()
        assert agreement(found, expected) == 1

    @pytest.mark.slow
    @pytest.mark.parametrize("deploy", [True, False])
    @pytest.mark.parametrize("name", NETWORKS)
    def test_every_network(self, name: str, deploy: bool, tmp_path: Path) -> None:
        torch.manual_seed(0)
        options = {**SMALL, "espnet": {"q": 3}, "bisenetv1": {"backbone": "xception39"}}
        network = create(name, classes=5, deploy=deploy, **options.get(name, {})).eval()
        export(network, (64, 128), tmp_path / "net.onnx", NetworkMetadata())
        frames = some_frames(64, 128)
        model = prepare(tmp_path / "net.onnx", OPTIONS).model
        expected = by_onnx(model, frames)
        np.testing.assert_allclose(by_torch(model, frames), expected, rtol=0, atol=1e-4 * np.abs(expected).max())
        quantized = quantized_graph(model, frames)
        GraphModule(quantized)(torch.from_numpy(frames)).sum().backward()
        assert [layer.name for layer in plan_placement(model).layers if layer.op == "Conv" and layer.reason] == []


def one_node(op: str, *constants: NDArray[Any], outputs: int = 1, **attributes: Any) -> onnx.ModelProto:
    """A graph of one node that reads maps (1, 4, 9, 10) and constants."""
    builder = GraphBuilder()
    builder.add(op, "image", *[builder.constant(c) for c in constants], outputs=outputs, name="node", **attributes)
    return of_any_shape(builder)


def half_pair() -> GraphBuilder:
    builder = GraphBuilder()
    builder.add("QuantizeLinear", "image", *map(builder.constant, (np.float32(0.1), np.int8(0))), name="node")
    return builder


def of_any_shape(builder: GraphBuilder, kind: int = TensorProto.FLOAT) -> onnx.ModelProto:
    model = builder.model("node_out", (1, 4, 9, 10), ("n",), output_type=kind)
    model.graph.output[0].type.tensor_type.ClearField("shape")
    return model


WEIGHT = np.random.default_rng(5).normal(0, 1, (4, 3, 3, 3)).astype(np.float32)
GROUPED = np.random.default_rng(6).normal(0, 1, (6, 2, 3, 3)).astype(np.float32)
BIAS = np.array([0.5, -1, 2], np.float32)
EMPTY = np.array([], np.float32)


class TestOperators:
    @pytest.mark.parametrize(
        "model",
        [
            one_node("Conv", GROUPED, group=2, pads=[1, 1, 1, 1], strides=[2, 2]),
            one_node("Conv", GROUPED, group=2, pads=[0, 1, 2, 0], dilations=[2, 1]),
            one_node("ConvTranspose", WEIGHT, BIAS, pads=[1, 1, 1, 1], strides=[2, 2], output_padding=[1, 1]),
            one_node("ConvTranspose", WEIGHT, pads=[0, 1, 1, 0], strides=[2, 3], dilations=[1, 2]),
            one_node("AveragePool", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]),
            one_node("AveragePool", kernel_shape=[3, 3], pads=[1, 1, 0, 0], count_include_pad=1),
            one_node("MaxPool", kernel_shape=[3, 2], strides=[2, 2], pads=[1, 0, 0, 1]),
            one_node("MaxPool", kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1),
            one_node("Resize", EMPTY, EMPTY, np.array([1, 4, 20, 13]), mode="linear"),
            one_node(
                "Resize", EMPTY, EMPTY, np.array([1, 4, 20, 13]), mode="linear",
                coordinate_transformation_mode="align_corners",
            ),
            one_node(
                "Resize", EMPTY, EMPTY, np.array([1, 4, 5, 4]), mode="linear",
                coordinate_transformation_mode="asymmetric",
            ),
            one_node(
                "Resize", EMPTY, EMPTY, np.array([1, 4, 1, 30]), mode="linear",
                coordinate_transformation_mode="pytorch_half_pixel",
            ),
            one_node(
                "Resize", EMPTY, np.array([1, 1, 2, 2], np.float32), mode="nearest",
                coordinate_transformation_mode="asymmetric", nearest_mode="floor",
            ),
            one_node("PRelu", np.array([0.1, 0.2, 0.3, 0.4], np.float32).reshape(4, 1, 1)),
            one_node("PRelu", np.linspace(0.1, 1, 10, dtype=np.float32)),
            one_node("Reshape", np.array([1, 2, 2, 9, 10])),
            one_node("Reshape", np.array([0, -1, 10])),
            one_node("Reshape", np.array([-1, 360])),
            one_node("Slice", np.array([1]), np.array([2**31 - 1]), np.array([3]), np.array([2])),
            one_node("Split", np.array([1, 3]), axis=1, outputs=2),
            one_node("Gather", np.array([2, 0]), axis=1),
            one_node("Clip", np.float32(-0.5), np.float32(6)),
            one_node("ReduceMean", axes=[2, 3], keepdims=0),
            one_node("Min", np.float32(0.5)),
            one_node("Neg"),
            one_node("ReduceMax", axes=[1]),
            one_node("ReduceMin", axes=[-1], keepdims=0),
            one_node("ReduceSum", np.array([1])),
            one_node("Flatten"),
            one_node("Softmax", axis=1),
            one_node("HardSigmoid", alpha=0.3),
            one_node("BatchNormalization", *(np.abs(WEIGHT[:, 0, 0, i % 3]) for i in range(4)), epsilon=0.1),
            one_node("Transpose", perm=[0, 2, 3, 1]),
            one_node("Erf"),
            one_node("Elu", alpha=0.5),
            one_node("Selu"),
            one_node("Exp"),
            one_node("Softplus"),
            one_node("Abs"),
            one_node("Pow", np.float32(2)),
            one_node("ReduceL2", axes=[1]),
            one_node("LayerNormalization", np.linspace(0.5, 2, 10, dtype=np.float32), epsilon=0.1),
            one_node("LayerNormalization", *WEIGHT[:2, :, 0, 0].repeat(30, 1)[:, :90].reshape(2, 9, 10), axis=2),
            one_node("InstanceNormalization", *WEIGHT[:, :2, 0, 0].T, epsilon=0.1),
            one_node("Einsum", equation="nchw->nhc"),
            one_node("Expand", np.array([1, 1, 9, 10])),
            one_node("DepthToSpace", blocksize=2),
            one_node("DepthToSpace", blocksize=2, mode="CRD"),
            one_node("Pad", np.array([0, 1, 2, 0, 0, 0, 1, 3]), np.float32(0.5)),
            one_node("Pad", np.array([0, 0, 2, 1, 0, 0, 1, 3]), mode="reflect"),
            one_node("Pad", np.array([0, 0, 2, 1, 0, 0, 0, 3]), mode="edge"),
        ],
        ids=lambda model: str(model.graph.node[0].op_type),
    )  # fmt: skip
    def test_as_onnx_runtime(self, model: onnx.ModelProto) -> None:
        maps = np.random.default_rng(1).normal(0, 3, (2, 4, 9, 10)).astype(np.float32)
        np.testing.assert_allclose(by_torch(model, maps), by_onnx(model, maps), rtol=1e-5, atol=1e-5)

    @pytest.mark.parametrize(
        ("model", "message"),
        [
            (one_node("Ceil"), r"node 'node' \(Ceil\): unknown operator 'Ceil'"),
            (one_node("Conv", GROUPED, group=2, auto_pad="SAME_UPPER"), "its padding is automatic"),
            (one_node("AveragePool", kernel_shape=[3, 3], pads=[1, 1, 0, 0]), "padding is uneven and not counted"),
            (one_node("Resize", EMPTY, EMPTY, np.array([1, 4, 18, 20]), mode="cubic"), "its mode is cubic"),
            (one_node("Pad", np.array([0, 1, 0, 0] * 2), mode="reflect"), "its mode is reflect, expected zeros, or"),
            (one_node("Reshape", np.array([4, 90])), r"reshapes to \[4, 90\], which does not keep the batch apart"),
            (
                of_any_shape(half_pair(), TensorProto.INT8),
                "expected one DequantizeLinear behind it; use the bundle as it was",
            ),
        ],
    )
    def test_refused(self, model: onnx.ModelProto, message: str) -> None:
        maps = np.zeros((2, 4, 9, 10), np.float32)
        with pytest.raises(UnsupportedModelError, match=message):
            by_torch(model, maps)

    def test_moves_there_and_back(self) -> None:
        """Squeeze and SpaceToDepth need maps of another form than the rest."""
        builder = GraphBuilder()
        axis = builder.constant(np.array([2]))
        x = builder.add("DepthToSpace", "image", blocksize=2, mode="DCR")
        x = builder.add("Squeeze", builder.add("Unsqueeze", builder.add("SpaceToDepth", x, blocksize=2), axis), axis)
        builder.add("Log", builder.add("Reciprocal", builder.add("Exp", x)), name="node")
        model = of_any_shape(builder)
        maps = np.random.default_rng(1).normal(0, 3, (2, 4, 9, 10)).astype(np.float32)
        np.testing.assert_allclose(by_torch(model, maps), by_onnx(model, maps), rtol=1e-5, atol=1e-5)

    def test_a_computed_shape(self) -> None:
        builder = GraphBuilder()
        builder.add("Reshape", "image", builder.add("Shape", "image"), name="node")
        with pytest.raises(UnsupportedModelError, match="Shape"):
            GraphModule(of_any_shape(builder))

    @pytest.mark.parametrize("scale", [np.float32(-1), np.ones(4, np.float32)])
    def test_other_scales(self, scale: NDArray[np.float32]) -> None:
        builder = GraphBuilder()
        rest = builder.constant(scale), builder.constant(np.zeros(scale.shape, np.int8))
        builder.add("DequantizeLinear", builder.add("QuantizeLinear", "image", *rest), *rest, name="node")
        with pytest.raises(UnsupportedModelError, match=r"expected (a constant positive|one) scale"):
            GraphModule(of_any_shape(builder))


class TestWriteBack:
    def test_nothing_learned_is_the_same_graph(self, tmp_path: Path) -> None:
        model = quantized_graph(float_graph(toy_network(), tmp_path), some_frames())
        written = GraphModule(model).write_back(model)
        assert written.graph.node == model.graph.node
        for found, given in zip(written.graph.initializer, model.graph.initializer, strict=True):
            assert (found.name, found.dims, found.data_type) == (given.name, given.dims, given.data_type)
            np.testing.assert_array_equal(numpy_helper.to_array(found), numpy_helper.to_array(given))

    def test_what_was_learned(self, tmp_path: Path) -> None:
        frames = some_frames()
        model = quantized_graph(float_graph(toy_network(), tmp_path), frames)
        module = GraphModule(model)
        kinds = {"Conv": 7, "PRelu": 3}
        biases = sum(len(n.input) > 2 for n in model.graph.node if n.op_type == "Conv")
        pairs = sum(n.op_type == "QuantizeLinear" for n in model.graph.node) - kinds["Conv"]
        assert len(list(module.parameters())) == sum(kinds.values()) + biases + pairs
        optimizer = torch.optim.AdamW(module.parameters(), lr=0.01, weight_decay=0.0)
        module(torch.from_numpy(frames)).square().mean().backward()
        assert all(p.grad is not None for p in module.parameters())
        optimizer.step()
        written = module.write_back(model)
        assert written.graph.node == model.graph.node
        assert [t.name for t in written.graph.initializer] == [t.name for t in model.graph.initializer]
        assert written.opset_import == model.opset_import
        assert lint(written) == []
        onnx.checker.check_model(written, full_check=True)
        pairs_of_values = zip(written.graph.initializer, model.graph.initializer, strict=True)
        changed = [a.name for a, b in pairs_of_values if (numpy_helper.to_array(a) != numpy_helper.to_array(b)).any()]
        assert len(changed) == len(list(module.parameters())) + kinds["Conv"]  # and the scales of the weights
        np.testing.assert_allclose(
            by_onnx(written, frames), module(torch.from_numpy(frames)).detach().numpy(), atol=0.2
        )
        np.testing.assert_allclose(by_torch(written, frames), module(torch.from_numpy(frames)).detach(), atol=1e-5)

    def test_not_finite(self, tmp_path: Path) -> None:
        model = quantized_graph(float_graph(toy_network(), tmp_path), some_frames())
        module = GraphModule(model)
        with torch.no_grad():
            next(p for p in module.parameters() if p.ndim == 4).fill_(torch.nan)
        with pytest.raises(TrainingError, match="is not finite after training; fine-tune with a smaller --lr"):
            module.write_back(model)


class TestFloatGraph:
    def test_removing_pairs_undoes_placing_them(self, tmp_path: Path) -> None:
        model = float_graph(toy_network(), tmp_path)
        back = remove_qdq(quantized_graph(model, some_frames()))
        assert back.graph.node == model.graph.node
        assert list(back.graph.initializer) == list(model.graph.initializer)

    def test_a_scalar_stays_a_scalar(self) -> None:
        model = toy_network()
        set_constant(model, "alone", np.float32(3).reshape(()))
        assert numpy_helper.to_array(model.graph.initializer[-1]).shape == ()
