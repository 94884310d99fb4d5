"""Toy graphs with Q/DQ, one with a fault for every lint rule."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

__all__ = ["FAULTY", "Toy", "canonical_graph"]

FLOAT, UINT8 = TensorProto.FLOAT, TensorProto.UINT8
SCALE, ZERO = np.float32(0.05), np.int8(0)


class Toy:
    """Collects nodes, initializers, inputs and outputs; every node is named after its operator and its place.

    Attributes:
        nodes: the nodes so far; a test may change them before it calls `model`.
    """

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.inputs: list[onnx.ValueInfoProto] = []
        self.outputs: list[onnx.ValueInfoProto] = []
        self._random = np.random.default_rng(0)

    def input(self, name: str = "x", shape: Sequence[int | str] = (1, 8, 16, 16), kind: int = FLOAT) -> str:
        self.inputs.append(helper.make_tensor_value_info(name, kind, list(shape)))
        return name

    def output(self, tensor: str, kind: int = FLOAT) -> Toy:
        self.outputs.append(helper.make_tensor_value_info(tensor, kind, None))
        return self

    def constant(self, values: Any) -> str:
        name = f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def node(self, op: str, *inputs: str, outputs: int = 1, name: str | None = None, **attributes: Any) -> str:
        """Add a node and return its first output."""
        name = f"{op}_{len(self.nodes)}" if name is None else name
        results = [f"{op}_{len(self.nodes)}_out{i or ''}" for i in range(outputs)]
        self.nodes.append(helper.make_node(op, inputs, results, name=name, **attributes))
        return results[0]

    def quantize(self, tensor: str, scale: Any = SCALE, zero_point: Any = ZERO, **attributes: Any) -> str:
        """QuantizeLinear and DequantizeLinear with the same parameters: values, names of tensors, or None for none."""
        parameters = [p if isinstance(p, str) else self.constant(p) for p in (scale, zero_point) if p is not None]
        quantized = self.node("QuantizeLinear", tensor, *parameters, **attributes)
        return self.node("DequantizeLinear", quantized, *parameters, **attributes)

    def weight(self, *shape: int) -> NDArray[np.float32]:
        return self._random.normal(0, 0.1, shape).astype(np.float32)

    def quantized_weight(self, *shape: int, axis: int = 0) -> str:
        """A weight behind Q/DQ with scales along `axis`."""
        weight = self.weight(*shape)
        amax = np.abs(weight).max(axis=tuple(a for a in range(len(shape)) if a != axis))
        return self.quantize(self.constant(weight), amax / np.float32(127), np.zeros(shape[axis], np.int8), axis=axis)

    def conv(self, data: str, weight: str = "", bias: str = "", *, kernel: int = 3, **attributes: Any) -> str:
        """A convolution of `data` as it is; the default weight is quantized, 8 channels in and out."""
        weight = weight or self.quantized_weight(8, 8, kernel, kernel)
        inputs = [data, weight, *filter(None, [bias])]
        return self.node("Conv", *inputs, pads=[kernel // 2] * 4, kernel_shape=[kernel] * 2, **attributes)

    def int8_conv(self, data: str) -> str:
        """A convolution with Q/DQ on its data and its weight."""
        return self.conv(self.quantize(data))

    def model(self, opset: int = 17, **domains: int) -> onnx.ModelProto:
        """The graph; `domains` gives versions of further operator sets, "_" in their names standing for "."."""
        graph = helper.make_graph(self.nodes, "toy", self.inputs, self.outputs, self.constants)
        others = [helper.make_opsetid(name.replace("_", "."), version) for name, version in domains.items()]
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset), *others], ir_version=8)


def canonical_graph(*, class_map: bool = False) -> onnx.ModelProto:
    """What `edgeseg convert` writes, in small: uint8 frame in, normalisation, Q/DQ, logits or a uint8 class map out.

    The first layer's output feeds the next layer directly and an activation, so that Q/DQ stands on it; a depthwise
    layer, max pooling, a residual sum and a deconvolution in float follow.
    """
    toy = Toy()
    frame = toy.node("Cast", toy.input("frame", (1, 16, 16, 3), UINT8), to=FLOAT)
    planes = toy.node("Transpose", frame, perm=[0, 3, 1, 2])
    planes = toy.node("Gather", planes, toy.constant(np.array([2, 1, 0])), axis=1)
    shifted = toy.node("Sub", planes, toy.constant(np.full((1, 3, 1, 1), 110, np.float32)))
    image = toy.node("Mul", shifted, toy.constant(np.full((1, 3, 1, 1), 1 / 70, np.float32)))
    stem = toy.conv(toy.quantize(image), toy.quantized_weight(8, 3, 3, 3), toy.constant(toy.weight(8)))
    second = toy.node("PRelu", toy.int8_conv(stem), toy.constant(toy.weight(8, 1, 1)))
    pooled = toy.node("MaxPool", toy.node("Add", second, toy.node("Relu", stem)), kernel_shape=[2, 2], strides=[2, 2])
    depthwise = toy.conv(toy.quantize(pooled), toy.quantized_weight(8, 1, 3, 3), group=8)
    up = toy.constant(toy.weight(8, 8, 2, 2))
    large = toy.node("ConvTranspose", toy.node("Relu", depthwise), up, strides=[2, 2], kernel_shape=[2, 2])
    logits = toy.int8_conv(large)
    if not class_map:
        return toy.output(logits).model()
    resized = toy.node("Resize", logits, "", toy.constant(np.array([1, 1, 2, 2], np.float32)), mode="linear")
    classes = toy.node("Cast", toy.node("ArgMax", resized, axis=1, keepdims=0), to=FLOAT)
    return toy.output(toy.node("Cast", classes, to=UINT8), UINT8).model()


FAULTY: dict[str, Callable[[], onnx.ModelProto]] = {}
"""A function for each rule's code that builds a graph with that fault and no other."""


def _faulty(code: str) -> Callable[[Callable[[Toy], Toy | onnx.ModelProto]], None]:
    def register(build: Callable[[Toy], Toy | onnx.ModelProto]) -> None:
        def model() -> onnx.ModelProto:
            built = build(Toy())
            return built.model() if isinstance(built, Toy) else built

        assert code not in FAULTY
        FAULTY[code] = model

    return register


def _with_data_parameters(toy: Toy, scale: Any = SCALE, zero_point: Any = ZERO) -> Toy:
    return toy.output(toy.conv(toy.quantize(toy.input(), scale, zero_point)))


def _with_operator(toy: Toy, op: str, *constants: Any, kind: int = FLOAT, **attributes: Any) -> Toy:
    return toy.output(toy.node(op, toy.input(), *map(toy.constant, constants), **attributes), kind)


@_faulty("Q101")
def _zero_weight_channel(toy: Toy) -> Toy:
    weight = toy.weight(8, 8, 3, 3)
    weight[5] = 0
    scale = np.abs(weight).max(axis=(1, 2, 3)) / np.float32(127)
    quantized = toy.quantize(toy.constant(weight), scale, np.zeros(8, np.int8), axis=0)
    return toy.output(toy.conv(toy.quantize(toy.input()), quantized))


@_faulty("Q102")
def _infinite_scale(toy: Toy) -> Toy:
    return _with_data_parameters(toy, np.float32(np.inf))


@_faulty("Q103")
def _scale_vector_of_one(toy: Toy) -> Toy:
    return _with_data_parameters(toy, np.float32([0.05]), np.int8([0]))


@_faulty("Q104")
def _scale_per_channel(toy: Toy) -> Toy:
    return _with_data_parameters(toy, np.full(8, 0.05, np.float32), np.zeros(8, np.int8))


@_faulty("Q105")
def _scale_per_input_channel(toy: Toy) -> Toy:
    return toy.output(toy.conv(toy.quantize(toy.input()), toy.quantized_weight(8, 8, 3, 3, axis=1)))


@_faulty("Q106")
def _computed_scale(toy: Toy) -> Toy:
    x = toy.input()
    return toy.output(toy.conv(toy.quantize(x, toy.node("ReduceMax", x, keepdims=0))))


@_faulty("Q107")
def _half_scales(toy: Toy) -> Toy:
    weight = toy.quantize(toy.constant(toy.weight(8, 8, 3, 3)), np.float16(0.01))
    return toy.output(toy.conv(toy.quantize(toy.input(), np.float16(0.05)), weight), TensorProto.FLOAT16)


@_faulty("Q108")
def _no_zero_point(toy: Toy) -> Toy:
    return _with_data_parameters(toy, zero_point=None)


@_faulty("Q109")
def _zero_point_behind_identity(toy: Toy) -> Toy:
    return _with_data_parameters(toy, zero_point=toy.node("Identity", toy.constant(ZERO)))


@_faulty("Q110")
def _shifted_zero_point(toy: Toy) -> Toy:
    return _with_data_parameters(toy, zero_point=np.int8(3))


@_faulty("Q111")
def _uint8_zero_point(toy: Toy) -> Toy:
    return _with_data_parameters(toy, zero_point=np.uint8(0))


@_faulty("Q112")
def _int16(toy: Toy) -> Toy:
    return _with_data_parameters(toy, zero_point=np.int16(0))


@_faulty("Q113")
def _int32_bias(toy: Toy) -> Toy:
    scale = toy.constant(np.full(8, 0.01, np.float32))
    bias = toy.node("DequantizeLinear", toy.constant(np.zeros(8, np.int32)), scale, axis=0)
    return toy.output(toy.conv(toy.quantize(toy.input()), bias=bias))


@_faulty("Q114")
def _int8_bias(toy: Toy) -> Toy:
    return toy.output(toy.conv(toy.quantize(toy.input()), bias=toy.quantize(toy.constant(toy.weight(8)))))


def _stored_weight(toy: Toy, kind: type[np.generic]) -> Toy:
    scale, zeros = toy.constant(np.full(8, 0.01, np.float32)), toy.constant(np.zeros(8, kind))
    weight = toy.node("DequantizeLinear", toy.constant(np.ones((8, 8, 3, 3), kind)), scale, zeros, axis=0)
    return toy.output(toy.conv(toy.quantize(toy.input()), weight))


@_faulty("Q115")
def _uint8_weight(toy: Toy) -> Toy:
    return _stored_weight(toy, np.uint8)


@_faulty("Q116")
def _int8_weight(toy: Toy) -> Toy:
    return _stored_weight(toy, np.int8)


@_faulty("Q201")
def _float_weight(toy: Toy) -> Toy:
    return toy.output(toy.conv(toy.quantize(toy.input()), toy.constant(toy.weight(8, 8, 3, 3))))


@_faulty("Q202")
def _deconvolution(toy: Toy) -> Toy:
    weight = toy.quantized_weight(8, 8, 2, 2, axis=1)
    return toy.output(toy.node("ConvTranspose", toy.quantize(toy.input()), weight, kernel_shape=[2, 2]))


@_faulty("Q203")
def _pair_before_activation(toy: Toy) -> Toy:
    return toy.output(toy.int8_conv(toy.node("Relu", toy.quantize(toy.int8_conv(toy.input())))))


@_faulty("Q204")
def _pair_on_logits(toy: Toy) -> Toy:
    return toy.output(toy.node("Softmax", toy.quantize(toy.int8_conv(toy.input())), axis=1))


@_faulty("Q205")
def _pair_for_a_cache(toy: Toy) -> Toy:
    return toy.output(toy.int8_conv(toy.input()))


@_faulty("T101")
def _uint8_transpose(toy: Toy) -> Toy:
    planes = toy.node("Transpose", toy.input(kind=UINT8), perm=[0, 2, 3, 1])
    return toy.output(planes, UINT8)


@_faulty("T102")
def _uint8_dequantized(toy: Toy) -> Toy:
    scale, zero = toy.constant(np.float32(1 / 255)), toy.constant(np.uint8(0))
    return toy.output(toy.node("DequantizeLinear", toy.input(kind=UINT8), scale, zero))


@_faulty("T103")
def _uint8_inside(toy: Toy) -> Toy:
    classes = toy.node("Cast", toy.input(), to=UINT8)
    return toy.output(toy.node("Squeeze", classes, toy.constant(np.array([0]))), UINT8)


@_faulty("T104")
def _integer_to_uint8(toy: Toy) -> Toy:
    return toy.output(toy.node("Cast", toy.node("ArgMax", toy.input(), axis=1), to=UINT8), UINT8)


@_faulty("T105")
def _half_weight(toy: Toy) -> Toy:
    return toy.output(toy.conv(toy.input(), toy.constant(toy.weight(8, 8, 3, 3).astype(np.float16))))


@_faulty("T106")
def _int64_output(toy: Toy) -> Toy:
    return _with_operator(toy, "ArgMax", axis=1, kind=TensorProto.INT64)


@_faulty("T107")
def _uint16_input(toy: Toy) -> Toy:
    return toy.output(toy.node("Cast", toy.input(kind=TensorProto.UINT16), to=FLOAT))


@_faulty("T108")
def _half_skip(toy: Toy) -> Toy:
    data = toy.input()
    return toy.output(toy.node("Add", data, toy.node("Cast", data, to=TensorProto.FLOAT16)))


@_faulty("O101")
def _dynamic_quantization(toy: Toy) -> Toy:
    return _with_operator(toy, "DynamicQuantizeLinear", outputs=3, kind=UINT8)


@_faulty("O102")
def _unknown_operator(toy: Toy) -> Toy:
    return _with_operator(toy, "Det")


@_faulty("O103")
def _is_infinite(toy: Toy) -> Toy:
    return _with_operator(toy, "IsInf", kind=TensorProto.BOOL)


@_faulty("O104")
def _unpooling(toy: Toy) -> Toy:
    return _with_operator(toy, "MaxUnpool", np.zeros((1, 8, 16, 16), np.int64), kernel_shape=[2, 2], strides=[2, 2])


def _resize(toy: Toy, **attributes: Any) -> Toy:
    scales = toy.constant(np.array([1, 1, 2, 2], np.float32))
    return toy.output(toy.node("Resize", toy.input(), toy.constant(np.zeros(8, np.float32)), scales, **attributes))


@_faulty("O105")
def _crop_and_resize(toy: Toy) -> Toy:
    return _resize(toy, mode="linear", coordinate_transformation_mode="tf_crop_and_resize")


@_faulty("O106")
def _cubic(toy: Toy) -> Toy:
    return _resize(toy, mode="cubic")


@_faulty("O107")
def _full_window(toy: Toy) -> Toy:
    return toy.output(toy.node("AveragePool", toy.input(shape=(1, 1, 256, 512)), kernel_shape=[256, 512]))


@_faulty("O108")
def _dilated_pooling(toy: Toy) -> Toy:
    return _with_operator(toy, "MaxPool", kernel_shape=[2, 2], dilations=[2, 2])


@_faulty("G101")
def _opset_18(toy: Toy) -> onnx.ModelProto:
    return _with_operator(toy, "Relu").model(opset=18)


@_faulty("G102")
def _dynamic_height(toy: Toy) -> Toy:
    return toy.output(toy.node("Relu", toy.input(shape=(1, 8, "height", 16))))


@_faulty("G103")
def _unnamed(toy: Toy) -> Toy:
    toy.output(toy.int8_conv(toy.input()))
    toy.nodes[-1].name = ""
    return toy


@_faulty("G104")
def _same_names(toy: Toy) -> Toy:
    toy.output(toy.int8_conv(toy.int8_conv(toy.input())))
    for node in toy.nodes:
        node.name = "layer" if node.op_type == "Conv" else node.name
    return toy


@_faulty("G105")
def _dangling(toy: Toy) -> Toy:
    return toy.output(toy.node("Add", toy.input(), "nowhere"))


@_faulty("G106")
def _wrong_order(toy: Toy) -> Toy:
    toy.output(toy.node("Sigmoid", toy.node("Relu", toy.input())))
    toy.nodes.reverse()
    return toy


@_faulty("A101")
def _float_skip(toy: Toy) -> Toy:
    x = toy.input()
    return toy.output(toy.node("Add", toy.int8_conv(x), x))


@_faulty("A102")
def _both_branches(toy: Toy) -> Toy:
    x = toy.input()
    return toy.output(toy.int8_conv(toy.node("Add", toy.quantize(toy.int8_conv(x)), toy.quantize(x))))


@_faulty("A103")
def _half_concat(toy: Toy) -> Toy:
    x = toy.input()
    return toy.output(toy.node("Concat", toy.quantize(x), toy.node("Relu", x), axis=1))


@_faulty("A104")
def _concat_of_two_scales(toy: Toy) -> Toy:
    x = toy.input()
    return toy.output(toy.node("Concat", toy.quantize(x), toy.quantize(toy.node("Relu", x), np.float32(0.1)), axis=1))


@_faulty("A105")
def _five_channels(toy: Toy) -> Toy:
    data = toy.quantize(toy.input(shape=(1, 5, 16, 16)))
    return toy.output(toy.conv(data, toy.quantized_weight(8, 5, 3, 3)))


@_faulty("A106")
def _depthwise(toy: Toy) -> Toy:
    return toy.output(toy.conv(toy.quantize(toy.input()), toy.quantized_weight(8, 1, 3, 3), group=8))


@_faulty("A107")
def _quantized_resize(toy: Toy) -> Toy:
    scales = toy.constant(np.array([1, 1, 2, 2], np.float32))
    return toy.output(toy.int8_conv(toy.node("Resize", toy.quantize(toy.input()), "", scales, mode="linear")))


@_faulty("A108")
def _quantized_mean(toy: Toy) -> Toy:
    return toy.output(toy.node("GlobalAveragePool", toy.quantize(toy.input())))


@_faulty("A109")
def _unfolded_norm(toy: Toy) -> Toy:
    parameters = [toy.constant(np.ones(8, np.float32)) for _ in range(4)]
    return toy.output(toy.node("BatchNormalization", toy.int8_conv(toy.input()), *parameters))


@_faulty("A110")
def _two_pairs(toy: Toy) -> Toy:
    x = toy.input()
    return toy.output(toy.conv(toy.quantize(x))).output(toy.conv(toy.quantize(x, np.float32(0.1))))
