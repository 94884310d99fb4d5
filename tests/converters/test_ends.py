"""Channels that come last, at both ends of a network."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper
from support.graphs import GraphBuilder, run_graph

from edgeseg.converters.ends import take_planar
from edgeseg.converters.load import load_network
from edgeseg.errors import UnsupportedModelError

IMAGE = np.random.default_rng(0).normal(size=(1, 16, 24, 3)).astype(np.float32)


def channels_last(*, perm: tuple[int, ...] = (0, 3, 1, 2), scaled: bool = False) -> onnx.ModelProto:
    """As Keras exports it: (1, 16, 24, 3) in, (1, 16, 24, 5) out, and logits in between that are planar."""
    builder = GraphBuilder()
    x = builder.add("Mul", "image", builder.constant(np.float32(2))) if scaled else "image"
    x = builder.conv(builder.add("Transpose", x, perm=list(perm)), 3, 5, name="classifier")
    return builder.model(builder.add("Transpose", x, perm=[0, 2, 3, 1]), IMAGE.shape, (1, 16, 24, 5))


class TestLoad:
    @pytest.mark.parametrize("size", [None, (16, 24)])
    def test_becomes_planar(self, size: tuple[int, int] | None, tmp_path: Path) -> None:
        model = channels_last()
        expected = run_graph(model, image=IMAGE)[0].transpose(0, 3, 1, 2)
        if size is not None:
            for dim, name in zip(model.graph.input[0].type.tensor_type.shape.dim[:3], "nhw", strict=True):
                dim.dim_param = name
        onnx.save(model, tmp_path / "m.onnx")
        network = load_network(tmp_path / "m.onnx", size)
        assert (network.channels, network.height, network.width) == (5, 16, 24)
        planar = IMAGE.transpose(0, 3, 1, 2)
        np.testing.assert_array_equal(run_graph(network.model, image=planar)[0], expected)
        assert "Transpose" not in {node.op_type for node in network.model.graph.node}

    def test_other_work_before_the_transpose(self, tmp_path: Path) -> None:
        onnx.save(channels_last(scaled=True), tmp_path / "m.onnx")
        with pytest.raises(
            UnsupportedModelError, match=r"expected a float32 image input \(1, 3, H, W\), but got image"
        ):
            load_network(tmp_path / "m.onnx")


class TestTakePlanar:
    def test_planar_graph_stays(self) -> None:
        builder = GraphBuilder()
        model = builder.model(builder.conv("image", 3, 5), (1, 3, 3, 3))
        before = model.SerializeToString(deterministic=True)
        take_planar(model)
        assert model.SerializeToString(deterministic=True) == before

    def test_another_order_stays(self) -> None:
        model = channels_last(perm=(0, 3, 2, 1))
        take_planar(model)
        assert [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim] == [1, 16, 24, 3]

    def test_every_reader_counts(self) -> None:
        model = channels_last()
        model.graph.node.append(helper.make_node("Identity", ["image"], ["copy"], "copy"))
        take_planar(model)
        assert [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim] == [1, 16, 24, 3]


def single_logit(*steps: tuple[str, dict[str, object]], bias: bool = True, read_twice: bool = False) -> onnx.ModelProto:
    """(1, 3, 16, 24) in, one logit a pixel out, twice as large."""
    builder = GraphBuilder()
    x = builder.conv("image", 3, 4)
    if steps[:1] == (("ConvTranspose", {}),):
        x, steps = builder.conv_transpose(x, 4, 1, bias=bias), steps[1:]
    else:
        x = builder.conv(x, 4, 1, bias=bias)
        scaled = x
        x = builder.resize(x, 2)
        if read_twice:
            x = builder.add("Mul", x, builder.add("Sigmoid", builder.resize(scaled, 2)))
    for op, attributes in steps:
        x = builder.add(op, x, **attributes)
    return builder.model(x, (1, 3, 16, 24), (1, 1, 32, 48))


def with_sizes(model: onnx.ModelProto) -> onnx.ModelProto:
    """Resize by sizes that the graph puts together instead of by scales."""
    (resize,) = (node for node in model.graph.node if node.op_type == "Resize")
    for name, values in (("batch", [1, 1]), ("side", [32, 48])):
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(values, np.int64), name))
    model.graph.node.insert(0, helper.make_node("Concat", ["batch", "side"], ["sizes"], "sizes", axis=0))
    resize.input[:] = [resize.input[0], "", "", "sizes"]
    return model


class TestSingleLogit:
    """Softmax of the two is sigmoid of the one, whatever made it."""

    @pytest.mark.parametrize(
        ("model", "added"),
        [
            (single_logit(), False),
            (single_logit(("Sigmoid", {}), bias=False), False),
            (single_logit(("ConvTranspose", {}), ("Sigmoid", {})), False),
            (with_sizes(single_logit()), False),
            (single_logit(("Tanh", {})), True),
            (single_logit(read_twice=True), True),
        ],
        ids=["conv", "no bias, sigmoid", "transposed", "sizes", "activation", "read twice"],
    )
    def test_becomes_two(
        self, model: onnx.ModelProto, added: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        onnx.save(model, tmp_path / "m.onnx")
        image = np.random.default_rng(1).normal(size=(1, 3, 16, 24)).astype(np.float32)
        with caplog.at_level(logging.WARNING):
            network = load_network(tmp_path / "m.onnx")
        assert network.channels == 2
        assert "one logit a pixel: class 1 where it is positive" in caplog.text
        onnx.checker.check_model(network.model, full_check=True)
        ends = [node.op_type for node in model.graph.node].count("Mul") + added
        assert [node.op_type for node in network.model.graph.node].count("Mul") == ends
        logits = run_graph(network.model, image=image)[0]
        given = run_graph(model, image=image)[0]
        probability = given if model.graph.node[-1].op_type == "Sigmoid" else 1 / (1 + np.exp(-given))
        found = np.exp(logits[:, 1:]) / np.exp(logits).sum(1, keepdims=True)
        np.testing.assert_allclose(found, probability, rtol=1e-5, atol=1e-6)
