"""Partners of a quantized tensor: what must be quantized with it, and by the same scale, for TensorRT to stay in INT8.

A sum joins the convolution before it in one INT8 kernel where its other input, the skip, is quantized too. A
concatenation runs in INT8 where all that it brings together has one scale; with several, each branch is quantized once
more (NVIDIA TensorRT guide, "Q/DQ Layer-Placement Recommendations"; the lint rules A101 and A104 name the places).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Literal

import onnx

from edgeseg.converters.graph import GraphIndex, attribute

__all__ = ["PartnerRule", "Skip", "find_partners", "residual_skips", "shared_groups", "useful_groups", "useful_skips"]

PartnerRule = Literal["auto", "all", "none"]
"""Which partners can be taken: those that can save something, every one, or none."""

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


def find_partners(
    model: onnx.ModelProto, int8_layers: Collection[str], tensors: Collection[str], rule: PartnerRule
) -> tuple[tuple[Skip, ...], tuple[tuple[str, ...], ...]]:
    """Skip inputs of sums that can be quantized, and groups of tensors that can have one range.

    Args:
        model: the float graph, with named nodes.
        int8_layers: names of the layers in INT8.
        tensors: what they read, in the order of the graph.
        rule: which are wanted.
    """
    if rule == "none":
        return (), ()
    skips = residual_skips(model, int8_layers)
    if rule == "auto":
        skips = useful_skips(model, skips, int8_layers, tensors)
    groups = shared_groups(model, dict.fromkeys((*tensors, *(skip.tensor for skip in skips))))
    return skips, useful_groups(model, groups, int8_layers) if rule == "auto" else groups


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


def useful_skips(
    model: onnx.ModelProto, skips: Collection[Skip], int8_layers: Collection[str], quantized: Collection[str]
) -> tuple[Skip, ...]:
    """The skips that nothing reads in float any more once they are quantized.

    Elsewhere the float tensor has to be written all the same, and its INT8 twin comes on top.

    Args:
        model: the float graph, with named nodes.
        skips: from `residual_skips`.
        int8_layers: names of the layers in INT8.
        quantized: the tensors that these read.
    """
    index, sums = GraphIndex(model), {(skip.node, skip.tensor) for skip in skips}

    def in_int8(reader: onnx.NodeProto, tensor: str) -> bool:
        if reader.name in int8_layers or (reader.name, tensor) in sums:
            return True
        return reader.op_type in _MOVES and any(
            True for o in reader.output for _ in _quantized_behind(index, o, quantized)
        )

    return tuple(
        skip
        for skip in skips
        if skip.tensor not in index.outputs and all(in_int8(node, skip.tensor) for node in index.consumers(skip.tensor))
    )


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


def useful_groups(
    model: onnx.ModelProto, groups: Collection[tuple[str, ...]], int8_layers: Collection[str]
) -> tuple[tuple[str, ...], ...]:
    """The groups that save a kernel.

    A tensor that is only moved together has no kernel that could round it in passing, as one that is computed has:
    where something else than INT8 layers reads it too, it is written in float, and each rounding of it is a kernel.

    Args:
        model: the float graph, with named nodes.
        groups: from `shared_groups`.
        int8_layers: names of the layers in INT8.
    """
    index = GraphIndex(model)

    def moved_on(tensor: str) -> bool:
        producer = index.producer(tensor)
        moved = producer is not None and producer.op_type in _MOVES
        return moved and any(node.name not in int8_layers for node in index.consumers(tensor))

    return tuple(group for group in groups if any(moved_on(tensor) for tensor in group))


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
