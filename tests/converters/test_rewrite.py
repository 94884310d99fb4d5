from collections import Counter

import numpy as np
import onnx
import pytest
from support.graphs import GraphBuilder, run_graph, toy_network

from edgeseg.converters.graph import attribute
from edgeseg.converters.rewrite import PATTERNS, pattern, rewrite_for_tensorrt

IMAGE = np.random.default_rng(4).normal(0, 1, (1, 3, 64, 64)).astype(np.float32)


def rewritten(model: onnx.ModelProto, *, nodes: dict[str, int], image: np.ndarray = IMAGE) -> onnx.ModelProto:
    """Rewrite, and check that the result is valid and equal and holds just these operators; the input stays."""
    before = model.SerializeToString()
    result = rewrite_for_tensorrt(model)
    assert model.SerializeToString() == before
    onnx.checker.check_model(result, full_check=True)
    np.testing.assert_allclose(run_graph(result, image=image)[0], run_graph(model, image=image)[0], rtol=0, atol=1e-5)
    assert Counter(n.op_type for n in result.graph.node) == Counter(nodes)
    return result


def pooled(op: str, **attributes: object) -> onnx.ModelProto:
    builder = GraphBuilder()
    return builder.model(builder.add(op, builder.conv("image", 3, 4), **attributes))


class TestGlobalPooling:
    @pytest.mark.parametrize("op", ["AveragePool", "MaxPool"])
    def test_a_window_over_everything(self, op):
        model = pooled(op, kernel_shape=[64, 64], strides=[64, 64])
        rewritten(model, nodes={"Conv": 1, f"Global{op}": 1})

    @pytest.mark.parametrize("op", ["AveragePool", "MaxPool"])
    def test_a_window_over_everything_and_padding(self, op):
        options = {"count_include_pad": 0} if op == "AveragePool" else {}
        model = pooled(op, kernel_shape=[66, 65], strides=[64, 64], pads=[1, 1, 1, 0], **options)
        rewritten(model, nodes={"Conv": 1, f"Global{op}": 1})

    def test_padding_that_counts_stays(self):
        model = pooled("AveragePool", kernel_shape=[66, 66], strides=[64, 64], pads=[1] * 4, count_include_pad=1)
        rewritten(model, nodes={"Conv": 1, "AveragePool": 1})

    def test_a_window_that_leaves_a_row_out_stays(self):
        rewritten(pooled("AveragePool", kernel_shape=[63, 64], strides=[64, 64]), nodes={"Conv": 1, "AveragePool": 1})

    def test_a_shifted_window_stays(self):
        model = pooled("AveragePool", kernel_shape=[64, 64], strides=[64, 64], pads=[4, 0, 0, 0])
        rewritten(model, nodes={"Conv": 1, "AveragePool": 1})

    def test_mean_over_height_and_width(self):
        model = pooled("ReduceMean", axes=[-1, 2])
        rewritten(model, nodes={"Conv": 1, "GlobalAveragePool": 1})

    def test_mean_over_channels_stays(self):
        rewritten(pooled("ReduceMean", axes=[1, 2]), nodes={"Conv": 1, "ReduceMean": 1})

    def test_mean_without_kept_dimensions_stays(self):
        builder = GraphBuilder()
        x = builder.add("ReduceMean", builder.conv("image", 3, 4), axes=[2, 3], keepdims=0)
        rewritten(builder.model(x, output_shape=(1, 4)), nodes={"Conv": 1, "ReduceMean": 1})


class TestPadding:
    def padded(self, reader: str, *, mode: str = "constant", value: float | None = None, **attributes: object):
        builder = GraphBuilder()
        inputs = [builder.constant(np.array([0, 0, 1, 2, 0, 0, 3, 0]))]
        if value is not None:
            inputs.append(builder.constant(np.float32(value)))
        x = builder.add("Pad", "image", *inputs, mode=mode)
        if reader == "Conv":
            return builder.model(builder.conv(x, 3, 4, stride=2))
        return builder.model(builder.add(reader, x, kernel_shape=[5, 5], strides=[2, 2], **attributes))

    @pytest.mark.parametrize("value", [None, 0.0])
    def test_into_a_convolution(self, value):
        result = rewritten(self.padded("Conv", value=value), nodes={"Conv": 1})
        assert attribute(result.graph.node[0], "pads", None) == [2, 3, 4, 1]

    @pytest.mark.parametrize("options", [{}, {"pads": [1] * 4, "count_include_pad": 1}])
    def test_into_an_average_pool(self, options):
        rewritten(self.padded("AveragePool", **options), nodes={"AveragePool": 1})

    @pytest.mark.parametrize(
        "options", [{"pads": [1] * 4}, {"ceil_mode": 1}, {"pads": [2] * 4, "count_include_pad": 1}]
    )
    def test_not_into_an_average_pool_that_would_change(self, options):
        rewritten(self.padded("AveragePool", **options), nodes={"Pad": 1, "AveragePool": 1})

    def test_not_into_a_max_pool(self):
        rewritten(self.padded("MaxPool"), nodes={"Pad": 1, "MaxPool": 1})

    @pytest.mark.parametrize("options", [{"value": 1.0}, {"mode": "reflect"}])
    def test_other_padding_stays(self, options):
        rewritten(self.padded("Conv", **options), nodes={"Pad": 1, "Conv": 1})

    def test_cropping_stays(self):
        builder = GraphBuilder()
        x = builder.add("Pad", "image", builder.constant(np.array([0, 0, -1, 0, 0, 0, 0, 0])))
        rewritten(builder.model(builder.conv(x, 3, 4)), nodes={"Pad": 1, "Conv": 1})

    def test_padding_that_two_nodes_read_stays(self):
        builder = GraphBuilder()
        x = builder.add("Pad", "image", builder.constant(np.array([0, 0, 1, 1, 0, 0, 1, 1])))
        model = builder.model(builder.add("Add", builder.conv(x, 3, 4), builder.conv(x, 3, 4)))
        rewritten(model, nodes={"Pad": 1, "Conv": 2, "Add": 1})

    # ONNX Runtime does not run dilated convolutions with SAME padding.
    @pytest.mark.parametrize(
        ("mode", "size", "stride", "dilation"),
        [
            ("SAME_UPPER", 64, 2, 1),
            ("SAME_UPPER", 63, 2, 1),
            ("SAME_LOWER", 64, 2, 1),
            ("SAME_LOWER", 63, 1, 1),
            ("VALID", 63, 2, 2),
        ],
    )
    def test_automatic_padding_becomes_numbers(self, mode, size, stride, dilation):
        builder = GraphBuilder()
        weight = builder.constant(builder.random.normal(0, 0.2, (4, 3, 3, 3)).astype(np.float32))
        options = {"strides": [stride] * 2, "dilations": [dilation] * 2, "auto_pad": mode}
        model = builder.model(builder.add("Conv", "image", weight, **options), (1, 3, size, size))
        result = rewritten(model, nodes={"Conv": 1}, image=IMAGE[:, :, :size, :size])
        assert attribute(result.graph.node[0], "auto_pad", None) is None
        assert len(attribute(result.graph.node[0], "pads", None)) == 4

    def test_automatic_padding_of_a_dilated_convolution(self):
        builder = GraphBuilder()
        weight = builder.constant(np.ones((4, 3, 3, 3), np.float32))
        model = builder.model(builder.add("Conv", "image", weight, dilations=[4, 2], auto_pad="SAME_UPPER"))
        assert attribute(rewrite_for_tensorrt(model).graph.node[0], "pads", None) == [4, 2, 4, 2]

    @pytest.mark.parametrize("op", ["AveragePool", "MaxPool"])
    def test_automatic_padding_of_pools(self, op):
        model = pooled(op, kernel_shape=[3, 3], strides=[2, 2], auto_pad="SAME_UPPER")
        result = rewritten(model, nodes={"Conv": 1, op: 1})
        assert attribute(result.graph.node[1], "pads", None) == [0, 0, 1, 1]


class TestSmall:
    def test_unused_indices_go(self):
        builder = GraphBuilder()
        x = builder.add("MaxPool", builder.conv("image", 3, 4), outputs=2, kernel_shape=[2, 2], strides=[2, 2])
        result = rewritten(builder.model(x), nodes={"Conv": 1, "MaxPool": 1})
        assert list(result.graph.node[1].output) == ["logits"]

    @pytest.mark.parametrize("high", [None, np.finfo(np.float32).max])
    def test_clip_from_zero_is_relu(self, high):
        builder = GraphBuilder()
        limits = [builder.constant(np.float32(v)) for v in (0, high) if v is not None]
        model = builder.model(builder.add("Clip", builder.conv("image", 3, 4), *limits))
        rewritten(model, nodes={"Conv": 1, "Relu": 1})

    @pytest.mark.parametrize("limits", [("", "high"), ("zero", "high"), ("low",)])
    def test_other_clips_stay(self, limits):
        builder = GraphBuilder()
        for name, value in (("zero", 0), ("low", -1), ("high", 6)):
            builder.constant(np.float32(value), name)
        model = builder.model(builder.add("Clip", builder.conv("image", 3, 4), *limits))
        rewritten(model, nodes={"Conv": 1, "Clip": 1})

    @pytest.mark.parametrize(("slopes", "op"), [([0, 0], "Relu"), ([0.25, 0.25], "LeakyRelu"), ([0.1, 0.2], "PRelu")])
    def test_slopes(self, slopes, op):
        builder = GraphBuilder()
        slope = builder.constant(np.array(slopes, np.float32).reshape(2, 1, 1))
        model = builder.model(builder.add("PRelu", builder.conv("image", 3, 2), slope))
        rewritten(model, nodes={"Conv": 1, op: 1})


def test_a_network_without_any_pattern_stays():
    model = toy_network()
    result = rewrite_for_tensorrt(model)
    assert [n.name for n in result.graph.node] == [n.name for n in model.graph.node]


def test_a_name_registers_once():
    with pytest.raises(ValueError, match="'global pooling' is registered already"):
        pattern("global pooling", "Conv")(lambda model, index, node: False)


def test_every_pattern_says_why():
    assert all(function.__doc__ for _, function in PATTERNS.values())
