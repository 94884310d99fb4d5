"""What is quantized in a network of any tool: convolutions in INT8, their share of the work, symmetric or not."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import openvino

from edgeseg.converters.graph import GraphIndex
from edgeseg.converters.macs import macs

__all__ = ["QuantizedLayers", "quantized_layers"]

_CONVOLUTIONS = ("Conv", "ConvTranspose")
_OPENVINO_CONVOLUTIONS = (
    "Convolution",
    "GroupConvolution",
    "ConvolutionBackpropData",
    "GroupConvolutionBackpropData",
)


@dataclass(frozen=True)
class QuantizedLayers:
    """Counted over convolutions, plain and transposed.

    Attributes:
        convolutions: all of them.
        symmetric: whether every quantized tensor has zero point 0.
        shares: 0..1 of all multiply-accumulates by name, for each convolution whose data and weights are both quantized
            to 8 bits.
    """

    convolutions: int
    symmetric: bool
    shares: dict[str, float]

    @property
    def mac_share(self) -> float:
        """What all convolutions in INT8 have of the multiply-accumulates, 0..1."""
        return sum(self.shares.values())

    def mac_share_without(self, names: Collection[str]) -> float:
        """`mac_share` where some of them do not run in INT8 after all."""
        return sum(share for name, share in self.shares.items() if name not in names)


def quantized_layers(network: Path) -> QuantizedLayers:
    """Count in an ONNX file with Q/DQ nodes, or in an OpenVINO network (.xml) with FakeQuantize nodes."""
    return _of_openvino(network) if network.suffix == ".xml" else _of_onnx(network)


def _of_onnx(network: Path) -> QuantizedLayers:
    model = onnx.load(network)
    for node in model.graph.node:
        node.name = node.name or f"node_of_{node.output[0]}"  # as TensorRT's parser names them
    index, work = GraphIndex(model), macs(model)
    nodes = [n for n in model.graph.node if n.op_type in _CONVOLUTIONS]
    int8 = [n for n in nodes if all(_is_dequantized(index, tensor) for tensor in n.input[:2])]
    pairs = [n for n in model.graph.node if n.op_type in ("QuantizeLinear", "DequantizeLinear")]
    symmetric = all(_zero_point_is_zero(index, node) for node in pairs)
    total = sum(work[n.name] for n in nodes)
    return QuantizedLayers(len(nodes), symmetric, {n.name: work[n.name] / total for n in int8})


def _is_dequantized(index: GraphIndex, tensor: str) -> bool:
    node = index.producer(tensor)
    return node is not None and node.op_type == "DequantizeLinear"


def _zero_point_is_zero(index: GraphIndex, node: onnx.NodeProto) -> bool:
    if len(node.input) < 3 or not node.input[2]:
        return True
    value = index.constant(node.input[2])
    return value is not None and not value.any()


def _of_openvino(network: Path) -> QuantizedLayers:
    operations = openvino.Core().read_model(network).get_ops()
    nodes = [n for n in operations if n.get_type_name() in _OPENVINO_CONVOLUTIONS]
    int8 = [n for n in nodes if _source(n, 0).get_type_name() == "FakeQuantize" and _has_8_bit_weights(n)]
    ranges = [n for n in operations if n.get_type_name() == "FakeQuantize"]
    total = sum(map(_openvino_macs, nodes))
    shares = {n.get_friendly_name(): _openvino_macs(n) / total for n in int8}
    return QuantizedLayers(len(nodes), all(map(_is_symmetric, ranges)), shares)


def _source(node: Any, number: int) -> Any:
    return node.input_value(number).get_node()


def _has_8_bit_weights(node: Any) -> bool:
    source = _source(node, 1)
    while source.get_type_name() in ("Reshape", "Multiply", "Subtract", "Convert"):
        source = _source(source, 0)
    return source.get_type_name() == "FakeQuantize" or str(source.get_element_type().to_dtype()) == "int8"


def _is_symmetric(node: Any) -> bool:
    """From -128 s to 127 s, or from 0 for a tensor that is never negative."""
    low, high = (_source(node, number).get_data() for number in (1, 2))
    steps = node.get_attributes()["levels"]
    below = -high * (steps / 2) / (steps / 2 - 1)
    return bool(np.all((low == 0) | np.isclose(low, below, rtol=1e-3) | np.isclose(low, -high, rtol=1e-3)))


def _openvino_macs(node: Any) -> int:
    weights = tuple(node.input_value(1).get_shape())
    grouped = node.get_type_name().startswith("Group")
    transposed = "Backprop" in node.get_type_name()
    places = node.input_value(0) if transposed else node.output(0)
    # (out, in, kh, kw), transposed (in, out, kh, kw); a grouped one has the groups in front.
    return math.prod(places.get_shape()) * math.prod(weights[2 if grouped else 1 :])
