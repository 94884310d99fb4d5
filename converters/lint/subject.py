"""A graph as the rules see it: read once, asked by every rule."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

import onnx

from edgeseg.converters.graph import GraphIndex, attribute
from edgeseg.converters.lint.element_types import element_types
from edgeseg.converters.lint.profiles import Profile
from edgeseg.converters.lint.quantizers import Quantizer, constant_behind, is_quantizer, read_quantizers
from edgeseg.converters.macs import COMPUTE

__all__ = ["BATCH_NORM", "MOVES", "Subject", "node_name"]

BATCH_NORM = "BatchNormalization"

# A convolution behind one of these still runs in INT8 where their input is dequantized (tried on TensorRT-RTX 1.7;
# nearest Resize, ReLU and average pooling were tried too and do not pass).
MOVES = frozenset(
    {
        "DepthToSpace", "Flatten", "Gather", "Identity", "MaxPool", "Reshape", "Slice", "SpaceToDepth", "Split",
        "Squeeze", "Transpose", "Unsqueeze",
    }
)  # fmt: skip
"""Operators that move values without changing them, so that INT8 passes through."""


def node_name(node: onnx.NodeProto) -> str:
    """Name of a node, or the one that TensorRT gives to a node without a name."""
    return node.name or f"node_of_{next(iter(node.output), node.op_type)}"


class Subject:
    """One graph under one profile. Bodies of If, Loop and Scan are not looked into.

    Args:
        model: the graph, with its weights loaded.
        profile: the TensorRT versions that it must suit.
    """

    def __init__(self, model: onnx.ModelProto, profile: Profile) -> None:
        self.model = model
        self.profile = profile
        self.index = GraphIndex(model)
        self.nodes = list(model.graph.node)
        self.outputs = frozenset(self.index.outputs)
        self.initializers = frozenset(i.name for i in model.graph.initializer)

    @cached_property
    def types(self) -> dict[str, int]:
        """Element type by tensor, as onnx.TensorProto numbers them; a tensor of unknown type is missing."""
        return element_types(self.model.graph)

    @cached_property
    def quantizers(self) -> list[Quantizer]:
        """Every QuantizeLinear and DequantizeLinear, in graph order."""
        return read_quantizers(self.index)

    @property
    def distinct_quantizers(self) -> Iterator[Quantizer]:
        """The quantizers without those that only repeat the scale and zero point of the node before them."""
        return (q for q in self.quantizers if not q.repeats)

    @cached_property
    def opset(self) -> int:
        """Version of the default operator set; 0 where the model has none."""
        return max((o.version for o in self.model.opset_import if o.domain in ("", "ai.onnx")), default=0)

    @cached_property
    def compute_nodes(self) -> list[onnx.NodeProto]:
        """Convolutions, deconvolutions and matrix products with both their inputs, in graph order."""
        return [n for n in self.nodes if n.op_type in COMPUTE and len(n.input) >= 2]

    @cached_property
    def dequantized(self) -> dict[str, bytes | str]:
        """What reaches its reader as INT8: the scale by tensor, as bytes, or as its name where it is computed."""
        scales: dict[str, bytes | str] = {}
        values = {q.output: q.scale.key for q in self.quantizers if not q.quantizes}
        for node in self.nodes:
            if node.op_type == "DequantizeLinear" and node.output and node.output[0] in values:
                scales[node.output[0]] = values[node.output[0]]
            elif node.op_type == "Concat":
                found = {scales.get(i) for i in node.input}
                if len(found) == 1 and (only := found.pop()) is not None:
                    scales[node.output[0]] = only
            elif node.input and node.input[0] in scales and self._moves(node):
                scales.update((output, scales[node.input[0]]) for output in node.output)
        return scales

    def _moves(self, node: onnx.NodeProto) -> bool:
        if node.op_type == "Cast":
            return attribute(node, "to", 0) in (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16)
        if node.op_type != "Pad":
            return node.op_type in MOVES
        # Padding by a value other than zero runs in float.
        value = self.index.constant(node.input[2]) if len(node.input) > 2 and node.input[2] else None
        return attribute(node, "mode", "constant") != "constant" or value is None or not value.any()

    @cached_property
    def int8_outputs(self) -> frozenset[str]:
        """Outputs of the compute nodes whose data and weight are dequantized."""
        return frozenset(
            n.output[0]
            for n in self.compute_nodes
            if n.op_type != "ConvTranspose" and all(i in self.dequantized for i in n.input[:2])
        )

    def is_constant(self, tensor: str) -> bool:
        """Whether a tensor is an initializer, a Constant node, or an Identity of one."""
        return tensor in self.initializers or constant_behind(self.index, tensor) is not None

    def producer_op(self, tensor: str) -> str:
        """Operator that makes a tensor; empty for inputs and initializers."""
        node = self.index.producer(tensor)
        return "" if node is None else node.op_type

    def origin(self, tensor: str) -> onnx.NodeProto | None:
        """The node that makes a tensor, looking through a BatchNormalization."""
        node = self.index.producer(tensor)
        if node is not None and node.op_type == BATCH_NORM and node.input:
            return self.index.producer(node.input[0])
        return node

    def readers(self, tensor: str) -> Iterator[onnx.NodeProto]:
        """Nodes that read a tensor, in place of a Q/DQ pair those that read the pair's output."""
        for node in self.index.consumers(tensor):
            if is_quantizer(node) and node.output:
                yield from self.readers(node.output[0])
            else:
                yield node
