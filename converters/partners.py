"""Partners of a quantized tensor: what must be quantized with it, and by the same scale, for TensorRT to stay in INT8.

A sum joins the convolution before it in one INT8 kernel where its other input, the skip, is quantized too. A
concatenation runs in INT8 where all that it brings together has one scale; with several, each branch is quantized once
more (NVIDIA TensorRT guide, "Q/DQ Layer-Placement Recommendations"; the lint rules A101 and A104 name the places).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import onnx

from edgeseg.converters.graph import GraphIndex, attribute

__all__ = ["Skip", "residual_skips", "shared_groups"]

_SUMS = ("Add", "Sum")

_MOVES = (
    "Concat",
    "DepthToSpace",
    "Flatten",
    "MaxPool",
    "Reshape",
    "Slice",
    "Split",
    "Squeeze",
    "Transpose",
    "Unsqueeze",
)
"""Operators over which a quantizer can be moved: they pick or rearrange values and compute none."""


@dataclass(frozen=True)
class Skip:
    """The skip input of a residual sum.

    Attributes:
        node: name of the sum.
        tensor: its input that no INT8 layer before it computes in the same kernel.
    """

    node: str
    tensor: str


def residual_skips(model: onnx.ModelProto, int8_layers: Collection[str]) -> tuple[Skip, ...]:
    """The skip inputs of sums of an INT8 convolution and something else.

    Args:
        model: the float graph, with named nodes.
        int8_layers: names of the layers in INT8.

    Returns:
        In the order of the graph. Of two convolutions the one computed last keeps its place in the sum's kernel.
    """
    index = GraphIndex(model)
    position = {name: number for number, node in enumerate(model.graph.node) for name in node.output}
    skips = []
    for node in model.graph.node:
        if node.op_type not in _SUMS or len(node.input) != 2 or any(index.constant(i) is not None for i in node.input):
            continue
        if index.shape(node.input[0]) != index.shape(node.input[1]):
            continue  # a broadcast, not a residual
        branches = [name for name in node.input if _made_by(index, name) in int8_layers]
        if branches:
            branch = max(branches, key=lambda name: position[name])
            skips.append(Skip(node.name, next(name for name in node.input if name != branch)))
    return tuple(skips)


def _made_by(index: GraphIndex, tensor: str) -> str:
    """The convolution whose kernel can take in a sum that reads a tensor; empty for none."""
    node = index.producer(tensor)
    return node.name if node is not None and index.only_consumer(tensor) is not None else ""


def shared_groups(model: onnx.ModelProto, tensors: Collection[str]) -> tuple[tuple[str, ...], ...]:
    """Quantized tensors that one concatenation brings together.

    Args:
        model: the float graph.
        tensors: what is quantized.

    Returns:
        Groups of two or more that should have one scale, in the order of `tensors`.
    """
    index, leader = GraphIndex(model), {tensor: tensor for tensor in tensors}

    def find(tensor: str) -> str:
        while leader[tensor] != tensor:
            tensor = leader[tensor]
        return tensor

    for node in model.graph.node:
        if node.op_type != "Concat" or attribute(node, "axis", 0) == 0:
            continue
        members = [*_quantized_behind(index, node.output[0], leader)]
        if members:  # nothing reads the concatenation in INT8 otherwise
            members += [name for i in node.input for name in _quantized_before(index, i, leader)]
        for member in members[1:]:
            leader[find(member)] = find(members[0])
    groups: dict[str, list[str]] = {}
    for tensor in tensors:
        groups.setdefault(find(tensor), []).append(tensor)
    return tuple(tuple(group) for group in groups.values() if len(group) > 1)


def _quantized_behind(index: GraphIndex, tensor: str, quantized: Collection[str]) -> Iterator[str]:
    if tensor in quantized:
        yield tensor
    for node in index.consumers(tensor):
        if node.op_type in _MOVES and node.input[0] == tensor:
            for output in node.output:
                yield from _quantized_behind(index, output, quantized)


def _quantized_before(index: GraphIndex, tensor: str, quantized: Collection[str]) -> Iterator[str]:
    if tensor in quantized:
        yield tensor
        return
    node = index.producer(tensor)
    if node is not None and node.op_type in _MOVES:
        for name in node.input if node.op_type == "Concat" else node.input[:1]:
            yield from _quantized_before(index, name, quantized)
