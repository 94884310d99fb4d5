"""How much a graph computes: multiply-accumulate operations of its convolutions and matrix products."""

from __future__ import annotations

import math

import onnx

from edgeseg.converters.graph import GraphIndex, attribute
from edgeseg.errors import ModelError

__all__ = ["COMPUTE", "macs"]

COMPUTE = ("Conv", "ConvTranspose", "Gemm", "MatMul")
"""Operators that multiply and accumulate: what TensorRT runs on tensor cores, and what a precision is chosen for."""


def macs(model: onnx.ModelProto) -> dict[str, int]:
    """Multiply-accumulate operations of every Conv, ConvTranspose, Gemm and MatMul for one run, by node name.

    Raises:
        ModelError: where a shape that the count needs is not static.
    """
    index = GraphIndex(model)
    count = dict(zip(COMPUTE, (_conv_macs, _deconv_macs, _gemm_macs, _matmul_macs), strict=True))
    result = {}
    for node in index.graph.node:
        if node.op_type not in count:
            continue
        shapes = [index.shape(t) for t in (node.input[0], node.input[1], node.output[0])]
        if any(s is None for s in shapes):
            raise ModelError(f"expected static shapes around {node.name}, but got {shapes}; give --size HxW")
        result[node.name] = count[node.op_type](node, *(s for s in shapes if s is not None))
    return result


def _conv_macs(node: onnx.NodeProto, data: tuple[int, ...], weight: tuple[int, ...], out: tuple[int, ...]) -> int:
    return math.prod(out) * math.prod(weight[1:])


def _deconv_macs(node: onnx.NodeProto, data: tuple[int, ...], weight: tuple[int, ...], out: tuple[int, ...]) -> int:
    # Every input value meets every weight of its group once.
    return math.prod(data) * math.prod(weight[1:])


def _gemm_macs(node: onnx.NodeProto, data: tuple[int, ...], weight: tuple[int, ...], out: tuple[int, ...]) -> int:
    return math.prod(out) * data[0 if attribute(node, "transA", 0) else 1]


def _matmul_macs(node: onnx.NodeProto, data: tuple[int, ...], weight: tuple[int, ...], out: tuple[int, ...]) -> int:
    return math.prod(out) * data[-1]
