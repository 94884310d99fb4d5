"""QuantizeLinear and DequantizeLinear nodes with what they quantize and with which numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import onnx
from numpy.typing import NDArray

from edgeseg.converters.graph import GraphIndex, attribute

__all__ = ["Parameter", "Quantizer", "Role", "constant_behind", "is_quantizer", "read_quantizers"]

Role = Literal["activation", "weight", "bias", "constant"]
"""What is quantized: a computed tensor, the second or third input of a convolution, or another constant."""

_DOMAINS = ("", "ai.onnx", "com.microsoft")
_OPERATORS = ("QuantizeLinear", "DequantizeLinear")
_WITH_BIAS = ("Conv", "ConvTranspose", "Gemm")


@dataclass(frozen=True)
class Parameter:
    """A scale or a zero point.

    Attributes:
        tensor: its name.
        value: None where it is computed while the network runs.
        stored: whether the node reads it directly, not through an Identity.
    """

    tensor: str
    value: NDArray[Any] | None
    stored: bool

    @property
    def key(self) -> bytes | str:
        """Equal for equal values."""
        return self.tensor if self.value is None else self.value.tobytes()


@dataclass(frozen=True)
class Quantizer:
    """One QuantizeLinear or DequantizeLinear.

    Attributes:
        node: the node.
        quantizes: True for QuantizeLinear.
        role: what the pair quantizes.
        source: the float tensor before QuantizeLinear; for a DequantizeLinear without one, its own input.
        stored: whether `source` is a constant.
        scale: its scale.
        zero_point: None where the node has no third input.
        consumer: for a weight, the node that reads it.
        repeats: whether this is a DequantizeLinear with the scale and zero point of the QuantizeLinear before it.
    """

    node: onnx.NodeProto
    quantizes: bool
    role: Role
    source: str
    stored: bool
    scale: Parameter
    zero_point: Parameter | None
    consumer: onnx.NodeProto | None
    repeats: bool

    @property
    def output(self) -> str:
        """The tensor that the node makes."""
        return str(self.node.output[0])

    @property
    def axis(self) -> int:
        """The axis that a scale of several values belongs to."""
        return int(attribute(self.node, "axis", 1))


def is_quantizer(node: onnx.NodeProto) -> bool:
    """Whether a node is QuantizeLinear or DequantizeLinear, of ONNX's own or of com.microsoft's set."""
    return node.op_type in _OPERATORS and node.domain in _DOMAINS


def constant_behind(index: GraphIndex, tensor: str) -> NDArray[Any] | None:
    """Value of a constant, also through Identity nodes; None for a computed tensor."""
    seen: set[str] = set()
    node = index.producer(tensor)
    while node is not None and node.op_type == "Identity" and node.input and tensor not in seen:
        seen.add(tensor)
        tensor = node.input[0]
        node = index.producer(tensor)
    return index.constant(tensor)


def read_quantizers(index: GraphIndex) -> list[Quantizer]:
    """Every quantizer that has at least its input, scale and output."""
    return [
        _read(index, node)
        for node in index.graph.node
        if is_quantizer(node) and len(node.input) >= 2 and len(node.output) == 1
    ]


def _read(index: GraphIndex, node: onnx.NodeProto) -> Quantizer:
    quantizes = node.op_type == "QuantizeLinear"
    before = None if quantizes else index.producer(node.input[0])
    paired = before is not None and is_quantizer(before) and before.op_type == "QuantizeLinear"
    source = before.input[0] if before is not None and paired else node.input[0]
    stored = constant_behind(index, source) is not None
    role, consumer = _role(index, node, stored)
    return Quantizer(
        node=node,
        quantizes=quantizes,
        role=role,
        source=source,
        stored=stored,
        scale=_parameter(index, node.input[1]),
        zero_point=_parameter(index, node.input[2]) if len(node.input) > 2 and node.input[2] else None,
        consumer=consumer,
        repeats=paired and before is not None and list(before.input[1:]) == list(node.input[1:]),
    )


def _parameter(index: GraphIndex, tensor: str) -> Parameter:
    value = index.constant(tensor)
    return Parameter(tensor, constant_behind(index, tensor), value is not None)


def _role(index: GraphIndex, node: onnx.NodeProto, stored: bool) -> tuple[Role, onnx.NodeProto | None]:
    readers = index.consumers(node.output[0])
    if node.op_type == "QuantizeLinear":
        after = (r for r in readers if is_quantizer(r) and r.op_type == "DequantizeLinear")
        readers = [c for r in after for c in index.consumers(r.output[0])]
        outputs = {o for r in index.consumers(node.output[0]) for o in r.output}
    else:
        outputs = {node.output[0]}
    for reader in readers:
        inputs = list(reader.input)
        if len(inputs) > 1 and inputs[1] in outputs and (reader.op_type in _WITH_BIAS or _is_product(reader, stored)):
            return "weight", reader
        if len(inputs) > 2 and inputs[2] in outputs and reader.op_type in _WITH_BIAS:
            return "bias", None
    return ("constant" if stored else "activation"), None


def _is_product(node: onnx.NodeProto, stored: bool) -> bool:
    return node.op_type == "MatMul" and stored
