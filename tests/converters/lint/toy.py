"""Toy graphs of a few nodes, in the form that lint reads."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper


class Toy:
    """Collects nodes, initializers, inputs and outputs; every node is named after its operator and its place.

    Attributes:
        nodes: the nodes so far; a test may change them before `model`.
    """

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.inputs: list[onnx.ValueInfoProto] = []
        self.outputs: list[onnx.ValueInfoProto] = []
        self._random = np.random.default_rng(0)

    def input(
        self, name: str, shape: Sequence[int | str | None] = (1, 8, 16, 16), kind: int = TensorProto.FLOAT
    ) -> str:
        self.inputs.append(helper.make_tensor_value_info(name, kind, list(shape)))
        return name

    def output(self, tensor: str, kind: int = TensorProto.FLOAT) -> None:
        self.outputs.append(helper.make_tensor_value_info(tensor, kind, None))

    def constant(self, array: NDArray[np.generic], name: str = "") -> str:
        name = name or f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def node(self, op: str, *inputs: str, outputs: int = 1, name: str | None = None, **attributes: object) -> str:
        """Add a node; returns its first output. The domain may be given as an attribute named `domain`."""
        name = f"{op}_{len(self.nodes)}" if name is None else name
        tensors = [f"{op}_{len(self.nodes)}_out{i or ''}" for i in range(outputs)]
        self.nodes.append(helper.make_node(op, inputs, tensors, name=name, **attributes))
        return tensors[0]

    def quantize(
        self,
        tensor: str,
        scale: object = np.float32(0.05),
        zero_point: object = np.int8(0),
        **attributes: object,
    ) -> str:
        """QuantizeLinear and DequantizeLinear sharing one scale and one zero point; None leaves the zero point out."""
        parameters = [scale if isinstance(scale, str) else self.constant(np.asarray(scale))]
        if zero_point is not None:
            parameters.append(zero_point if isinstance(zero_point, str) else self.constant(np.asarray(zero_point)))
        quantized = self.node("QuantizeLinear", tensor, *parameters, **attributes)
        return self.node("DequantizeLinear", quantized, *parameters, **attributes)

    def weight(self, *shape: int) -> NDArray[np.float32]:
        return self._random.normal(0, 0.1, shape).astype(np.float32)

    def quantized_weight(self, *shape: int, axis: int = 0) -> str:
        weight = self.weight(*shape)
        others = tuple(a for a in range(len(shape)) if a != axis)
        scale = (np.abs(weight).max(axis=others) / 127).astype(np.float32)
        return self.quantize(self.constant(weight), scale, np.zeros(shape[axis], np.int8), axis=axis)

    def conv(
        self, tensor: str, channels: int = 8, out: int = 8, *, kernel: int = 3, group: int = 1, weight: str = ""
    ) -> str:
        """A convolution of `tensor` as it is; the weight gets Q/DQ unless one is given."""
        weight = weight or self.quantized_weight(out, channels // group, kernel, kernel)
        pad = kernel // 2
        return self.node("Conv", tensor, weight, pads=[pad] * 4, kernel_shape=[kernel, kernel], group=group)

    def int8_conv(self, tensor: str, channels: int = 8, out: int = 8, *, kernel: int = 3, group: int = 1) -> str:
        """A convolution with Q/DQ on its data and on its weight."""
        return self.conv(self.quantize(tensor), channels, out, kernel=kernel, group=group)

    def model(self, opset: int = 17, **domains: int) -> onnx.ModelProto:
        graph = helper.make_graph(self.nodes, "toy", self.inputs, self.outputs, self.constants)
        opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(k.replace("_", "."), v) for k, v in domains.items())]
        return helper.make_model(graph, opset_imports=opsets, ir_version=8)
