"""Small segmentation graphs, built on the fly with seeded weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Array = NDArray[Any]


class GraphBuilder:
    """Adds nodes one after the other; every method returns the name of the tensor that it made.

    Args:
        seed: of the random weights.
    """

    def __init__(self, seed: int = 0) -> None:
        self.random = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []

    def constant(self, values: Array, name: str | None = None) -> str:
        name = name or f"constant_{len(self.initializers)}"
        self.initializers.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def add(self, op: str, *inputs: str, name: str | None = None, outputs: int = 1, **attributes: Any) -> str:
        name = name if name is not None else f"{op.lower()}_{len(self.nodes)}"
        results = [f"{name}_out" if i == 0 else f"{name}_out{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(op, list(inputs), results, name=name, **attributes))
        return results[0]

    def conv(
        self, x: str, cin: int, cout: int, *, kernel: int = 3, stride: int = 1, group: int = 1, dilation: int = 1,
        padding: int | None = None, bias: bool = True, name: str | None = None,
    ) -> str:  # fmt: skip
        pad = dilation * (kernel // 2) if padding is None else padding
        fan_in = cin // group * kernel * kernel
        weight = self.random.normal(0, 1 / np.sqrt(fan_in), (cout, cin // group, kernel, kernel)).astype(np.float32)
        inputs = [x, self.constant(weight)]
        if bias:
            inputs.append(self.constant(self.random.normal(0, 0.3, cout).astype(np.float32)))
        return self.add(
            "Conv", *inputs, name=name, kernel_shape=[kernel, kernel], strides=[stride, stride], pads=[pad] * 4,
            dilations=[dilation, dilation], group=group,
        )  # fmt: skip

    def conv_transpose(self, x: str, cin: int, cout: int, *, bias: bool = True, name: str | None = None) -> str:
        weight = self.random.normal(0, 0.5, (cin, cout, 2, 2)).astype(np.float32)
        inputs = [x, self.constant(weight)]
        if bias:
            inputs.append(self.constant(self.random.normal(0, 0.3, cout).astype(np.float32)))
        return self.add("ConvTranspose", *inputs, name=name, kernel_shape=[2, 2], strides=[2, 2])

    def batch_norm(self, x: str, channels: int, *, name: str | None = None) -> str:
        scale = self.random.uniform(0.5, 1.5, channels)
        shift, mean = self.random.normal(0, 0.3, (2, channels))
        variance = self.random.uniform(0.5, 2, channels)
        parameters = [self.constant(v.astype(np.float32)) for v in (scale, shift, mean, variance)]
        return self.add("BatchNormalization", x, *parameters, name=name, epsilon=1e-3)

    def prelu(self, x: str, channels: int, *, name: str | None = None) -> str:
        slope = self.random.uniform(0.05, 0.4, (channels, 1, 1)).astype(np.float32)
        return self.add("PRelu", x, self.constant(slope), name=name)

    def resize(self, x: str, scale: float, *, coordinates: str = "half_pixel", mode: str = "linear") -> str:
        scales = self.constant(np.array([1, 1, scale, scale], np.float32))
        return self.add("Resize", x, "", scales, mode=mode, coordinate_transformation_mode=coordinates)

    def model(
        self,
        result: str,
        input_shape: Sequence[int | str] = (1, 3, 64, 64),
        output_shape: Sequence[int | str] | None = None,
        *,
        output: str = "logits",
        opset: int = 17,
        input_type: int = TensorProto.FLOAT,
        output_type: int = TensorProto.FLOAT,
    ) -> onnx.ModelProto:
        """The graph with input `image`, whose tensor `result` becomes the graph's output, renamed `output`."""
        for node in self.nodes:
            node.output[:] = [output if o == result else o for o in node.output]
            node.input[:] = [output if i == result else i for i in node.input]
        graph = helper.make_graph(
            self.nodes,
            "toy",
            [helper.make_tensor_value_info("image", input_type, list(input_shape))],
            [helper.make_tensor_value_info(output, output_type, list(output_shape or ("n", "c", "h", "w")))],
            self.initializers,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
        if output_shape is None:
            inferred = onnx.shape_inference.infer_shapes(model)
            model.graph.output[0].CopyFrom(inferred.graph.output[0])
        onnx.checker.check_model(model)
        return model


def toy_network(
    classes: int = 3,
    height: int = 64,
    width: int = 64,
    *,
    coordinates: str | None = "half_pixel",
    scale: int = 4,
    batch_norm: bool = True,
    opset: int = 17,
    seed: int = 0,
) -> onnx.ModelProto:
    """A network of seven convolutions with what light networks hold: stride, depthwise, dilation, PReLU, Concat, Add.

    Args:
        classes: channels of the logits.
        height, width: of the input `image` (1, 3, height, width) float32; multiples of 4.
        coordinates: rule of the final bilinear Resize to `logits`; None leaves the logits at a quarter of the size.
        scale: of that Resize; 4 gives logits of the input's size, 8 a network that super-resolves.
        batch_norm: whether BatchNormalization follows convolutions, one Concat and one Add.
        opset: of the graph, 13..17.
        seed: of the weights.
    """
    builder = GraphBuilder(seed)

    def norm(x: str, channels: int) -> str:
        return builder.batch_norm(x, channels) if batch_norm else x

    stem = builder.add("Relu", norm(builder.conv("image", 3, 8, stride=2, bias=False, name="stem"), 8))
    down = norm(builder.conv(stem, 8, 8, stride=2, group=8, bias=False, name="depthwise"), 8)
    down = builder.prelu(builder.conv(down, 8, 16, kernel=1, padding=0, name="pointwise"), 16)
    left = builder.conv(down, 16, 8, bias=False, name="left")
    right = builder.conv(down, 16, 8, dilation=2, bias=False, name="right")
    joined = builder.prelu(norm(builder.add("Concat", left, right, axis=1), 16), 16)
    added = builder.add("Add", down, builder.conv(joined, 16, 16, name="residual"))
    result = builder.conv(builder.prelu(norm(added, 16), 16), 16, classes, kernel=1, padding=0, name="classifier")
    if coordinates is not None:
        result = builder.resize(result, scale, coordinates=coordinates)
    model = builder.model(result, (1, 3, height, width), opset=opset)
    _balance(model, height, width)
    return model


def _balance(model: onnx.ModelProto, height: int, width: int) -> None:
    """Centre the classifier's logits on one frame, so that every class wins somewhere."""
    frame = (random_frame(height, width).astype(np.float32) - 127) / 64
    logits = run_graph(model, image=np.ascontiguousarray(frame.transpose(2, 0, 1)[None]))[0]
    classifier = next(n for n in model.graph.node if n.name == "classifier")
    weight, bias = (next(t for t in model.graph.initializer if t.name == name) for name in classifier.input[1:])
    mean, deviation = logits.mean(axis=(0, 2, 3)), logits.std(axis=(0, 2, 3))
    scale = 1 / np.maximum(deviation, 1e-3)
    values = numpy_helper.to_array(weight) * scale[:, None, None, None], (numpy_helper.to_array(bias) - mean) * scale
    for tensor, value in zip((weight, bias), values, strict=True):
        tensor.CopyFrom(numpy_helper.from_array(value.astype(np.float32), tensor.name))


def random_frame(height: int = 64, width: int = 64, seed: int = 0) -> NDArray[np.uint8]:
    """A smooth (height, width, 3) uint8 frame with noise."""
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[0:height, 0:width]
    waves = [127 + 80 * np.sin(rows / (5 + 3 * c) + c) * np.cos(columns / (7 + 2 * c)) for c in range(3)]
    noise = random.normal(0, 12, (height, width, 3))
    return np.clip(np.stack(waves, axis=2) + noise, 0, 255).astype(np.uint8)


def run_graph(model: onnx.ModelProto, *, threads: int = 1, **feeds: Array) -> list[Array]:
    """Outputs of a graph by ONNX Runtime without graph optimisation."""
    return list(cpu_session(model, threads=threads).run(None, feeds))


def cpu_session(model: onnx.ModelProto, *, threads: int = 1) -> Any:
    """ONNX Runtime on a graph, without graph optimisation."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
