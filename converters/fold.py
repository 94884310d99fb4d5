"""Folding BatchNormalization, and constant scales and offsets by channel, into convolutions.

TensorRT joins a convolution, a residual Add and an activation in one kernel only where no BatchNormalization stands
between, and a folded scale costs nothing on any engine. Every rule here is an identity of real arithmetic; results
differ by rounding alone. A BatchNormalization that no rule reaches stays as it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from edgeseg.converters.affine import ChannelAffine, read_affine
from edgeseg.converters.graph import (
    GraphIndex,
    attribute,
    copy_model,
    insert_nodes,
    name_nodes,
    remove_unused,
    set_constant,
    with_shapes,
)

__all__ = ["fold_batch_norms", "remaining_batch_norms"]


@dataclass(frozen=True)
class _NewParameters:
    """Weights and bias (or gain and offset of a BatchNormalization) that a node gets."""

    node: str
    weight: NDArray[Any]
    bias: NDArray[Any]


def fold_batch_norms(model: onnx.ModelProto) -> onnx.ModelProto:
    """Fold every per-channel affine node that folds exactly.

    Backwards into Conv, ConvTranspose or BatchNormalization, directly or through what it commutes with (Concat over
    channels, Add, pooling, bilinear and nearest Resize; ReLU, LeakyReLU and PReLU for a positive scale without shift),
    as long as nothing else reads the tensors between; else forwards into convolutions without padding.

    Returns:
        A new model; tensors keep their names, but what a folded node read now holds what it gave.
    """
    result = copy_model(model)
    name_nodes(result)
    while _fold_one(result):
        pass
    remove_unused(result)
    return with_shapes(result)


def remaining_batch_norms(model: onnx.ModelProto) -> tuple[str, ...]:
    """Names of the BatchNormalization nodes in a graph."""
    return tuple(n.name for n in model.graph.node if n.op_type == "BatchNormalization")


def _fold_one(model: onnx.ModelProto) -> bool:
    index = GraphIndex(model)
    for node in model.graph.node:
        found = read_affine(index, node)
        if found is None:
            continue
        data, affine = found
        if node.output[0] in index.outputs and (index.producer(data) is None or data in index.outputs):
            continue
        edits = _plan_backward(index, data, affine)
        if edits is not None:
            _apply(model, index, edits)
            _bypass(model, index, node, data, keep_result=True)
            return True
        edits = _plan_forward(index, node.output[0], affine)
        if edits is not None:
            _apply(model, index, edits)
            _bypass(model, index, node, data, keep_result=False)
            return True
    return False


def _bypass(model: onnx.ModelProto, index: GraphIndex, node: onnx.NodeProto, data: str, *, keep_result: bool) -> None:
    """Take an affine node out; the tensor that stays has the name of its result or of what it read."""
    name, result = node.name, node.output[0]
    producer = index.producer(data)
    old, new = (data, result) if keep_result and producer is not None and data not in index.outputs else (result, data)
    if old == data and producer is not None:
        producer.output[:] = [new if o == old else o for o in producer.output]
    for reader in index.consumers(old):
        reader.input[:] = [new if i == old else i for i in reader.input]
    insert_nodes(model, [], replace=[name])


def _apply(model: onnx.ModelProto, index: GraphIndex, edits: list[_NewParameters]) -> None:
    nodes = {n.name: n for n in model.graph.node}
    for edit in edits:
        node = nodes[edit.node]
        # New initializers: the old ones may be shared with other nodes.
        weight = set_constant(model, index.fresh(f"{edit.node}.weight"), edit.weight.astype(np.float32))
        bias = set_constant(model, index.fresh(f"{edit.node}.bias"), edit.bias.astype(np.float32))
        node.input[:] = [node.input[0], weight, bias, *node.input[3:]]


# Backwards: what stands before the affine node.


def _plan_backward(index: GraphIndex, tensor: str, affine: ChannelAffine) -> list[_NewParameters] | None:
    """Edits that make `tensor` come out already mapped by `affine`; None where that is not possible."""
    if affine.is_identity:
        return []
    node = index.producer(tensor)
    if node is None or index.only_consumer(tensor) is None or tensor != node.output[0]:
        return None
    if node.op_type in ("Conv", "ConvTranspose"):
        return _into_convolution(index, node, affine)
    if node.op_type == "BatchNormalization":
        return _into_batch_norm(index, node, affine)
    if node.op_type == "Concat":
        return _into_concat(index, node, affine)
    if node.op_type == "Add":
        return _into_add(index, node, affine)
    return _plan_backward(index, node.input[0], affine) if _commutes(index, node, affine) else None


def _into_convolution(index: GraphIndex, node: onnx.NodeProto, affine: ChannelAffine) -> list[_NewParameters] | None:
    weight = index.constant(node.input[1])
    bias = index.constant(node.input[2]) if len(node.input) > 2 and node.input[2] else np.zeros(len(affine.scale))
    if weight is None or bias is None or weight.ndim != 4:
        return None
    weight = weight.astype(np.float64)
    if node.op_type == "Conv":
        weight = weight * affine.scale[:, None, None, None]
    else:
        # ConvTranspose weights are (C_in, C_out / group, kh, kw); group g holds a block of each axis.
        group = attribute(node, "group", 1)
        blocks = weight.reshape(group, weight.shape[0] // group, *weight.shape[1:])
        weight = (blocks * affine.scale.reshape(group, 1, -1, 1, 1)).reshape(weight.shape)
    return [_NewParameters(node.name, weight, bias * affine.scale + affine.shift)]


def _into_batch_norm(index: GraphIndex, node: onnx.NodeProto, affine: ChannelAffine) -> list[_NewParameters] | None:
    gain, offset = index.constant(node.input[1]), index.constant(node.input[2])
    if gain is None or offset is None:
        return None
    return [_NewParameters(node.name, gain * affine.scale, offset * affine.scale + affine.shift)]


def _into_concat(index: GraphIndex, node: onnx.NodeProto, affine: ChannelAffine) -> list[_NewParameters] | None:
    if attribute(node, "axis", 0) not in (1, -3) or len(set(node.input)) != len(node.input):
        return None
    edits: list[_NewParameters] = []
    start = 0
    for branch in node.input:
        shape = index.shape(branch)
        if shape is None:
            return None
        part = _plan_backward(index, branch, affine.part(start, start + shape[1]))
        if part is None:
            return None
        edits += part
        start += shape[1]
    return edits


def _into_add(index: GraphIndex, node: onnx.NodeProto, affine: ChannelAffine) -> list[_NewParameters] | None:
    left, right = node.input
    if left == right or index.shape(left) != index.shape(right) or index.shape(left) is None:
        return None
    # The shift must enter once: with the left branch.
    first = _plan_backward(index, left, affine)
    second = _plan_backward(index, right, affine.without_shift())
    return None if first is None or second is None else first + second


def _commutes(index: GraphIndex, node: onnx.NodeProto, affine: ChannelAffine) -> bool:
    """Whether node(affine(x)) equals affine(node(x))."""
    positive = bool(np.all(affine.scale > 0))
    shifted = bool(np.any(affine.shift != 0))
    if node.op_type in ("Relu", "LeakyRelu"):
        return positive and not shifted
    if node.op_type == "PRelu":
        return positive and not shifted and index.constant(node.input[1]) is not None
    if node.op_type in ("MaxPool", "GlobalMaxPool"):
        return positive and len(node.output) == 1
    if node.op_type == "GlobalAveragePool":
        return True
    if node.op_type == "AveragePool":
        # Padding with zeros that count would pull the shift towards zero.
        return not shifted or not attribute(node, "count_include_pad", 0) or _is_unpadded(node)
    if node.op_type == "Resize":
        rule = attribute(node, "coordinate_transformation_mode", "half_pixel")
        return attribute(node, "mode", "nearest") in ("linear", "nearest") and rule != "tf_crop_and_resize"
    return False


def _is_unpadded(node: onnx.NodeProto) -> bool:
    return attribute(node, "auto_pad", "NOTSET") in ("NOTSET", "VALID") and not any(attribute(node, "pads", []))


# Forwards: what reads the affine node's result.


def _plan_forward(index: GraphIndex, tensor: str, affine: ChannelAffine) -> list[_NewParameters] | None:
    """Edits that let convolutions read what stands before the affine node; None where that is not exact."""
    readers = index.consumers(tensor)
    if not readers or tensor in index.outputs:
        return None
    edits = []
    for node in readers:
        weight = index.constant(node.input[1]) if node.op_type == "Conv" and len(node.input) > 1 else None
        if weight is None or weight.ndim != 4 or list(node.input).count(tensor) != 1 or node.input[0] != tensor:
            return None
        # Zero padding stands behind the shift: the border would see 0 instead of the shift.
        if np.any(affine.shift != 0) and not _is_unpadded(node):
            return None
        bias = index.constant(node.input[2]) if len(node.input) > 2 and node.input[2] else np.zeros(weight.shape[0])
        if bias is None:
            return None
        edits.append(_forward_edit(node, weight.astype(np.float64), bias.astype(np.float64), affine))
    return edits


def _forward_edit(
    node: onnx.NodeProto, weight: NDArray[np.float64], bias: NDArray[np.float64], affine: ChannelAffine
) -> _NewParameters:
    group = attribute(node, "group", 1)
    blocks = weight.reshape(group, weight.shape[0] // group, *weight.shape[1:])
    scale, shift = (v.reshape(group, 1, -1, 1, 1) for v in (affine.scale, affine.shift))
    added = (blocks * shift).sum(axis=(2, 3, 4)).reshape(-1)
    return _NewParameters(node.name, (blocks * scale).reshape(weight.shape), bias + added)
