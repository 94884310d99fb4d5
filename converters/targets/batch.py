"""A graph of one frame as a graph of any number of frames."""

from __future__ import annotations

import numpy as np
import onnx

from edgeseg.converters.graph import (
    GraphIndex,
    attribute,
    copy_model,
    drop_attributes,
    remove_unused,
    set_constant,
    with_shapes,
)
from edgeseg.errors import ModelError, UnsupportedModelError

__all__ = ["BATCH", "with_dynamic_batch"]

BATCH = "batch"
"""Name of the dynamic dimension."""


def with_dynamic_batch(model: onnx.ModelProto) -> onnx.ModelProto:
    """Make the first dimension of every input and output dynamic; a form is derived before that.

    What holds a batch of 1 in its constants is changed: the shapes of Reshape, and the sizes of Resize, which become
    scales.

    Args:
        model: a graph of one frame in any form; it is not changed.

    Raises:
        UnsupportedModelError: for a node that mixes the frames of a batch, or needs one frame.
    """
    result = copy_model(model)
    index = GraphIndex(result)
    for node in result.graph.node:
        if node.op_type == "Reshape":
            _free_reshape(result, index, node)
        elif node.op_type == "Resize" and len(node.input) > 3 and node.input[3]:
            _free_resize(result, index, node)
        elif node.op_type in ("Expand", "ConstantOfShape", "Tile"):
            _require_no_batch(index, node)
    del result.graph.value_info[:]
    remove_unused(result)
    _check(index, result)
    for tensor in (*result.graph.input, *result.graph.output):
        tensor.type.tensor_type.shape.dim[0].Clear()
        tensor.type.tensor_type.shape.dim[0].dim_param = BATCH
    return with_shapes(result)


def _free_reshape(model: onnx.ModelProto, index: GraphIndex, node: onnx.NodeProto) -> None:
    """Let the first number of a Reshape's shape be that of its input: 0 says so."""
    target, given = index.constant(node.input[1]), index.shape(node.input[0])
    if index.constant(node.input[0]) is not None:
        return
    if target is None or given is None or not len(target):
        raise _unfit(node, "its shape is not a constant")
    shape = [int(size) for size in target]
    copies = not attribute(node, "allowzero", 0)
    if shape[0] == 0 and copies:
        return
    if shape[0] != 1 or given[:1] != (1,) or (0 in shape and not copies):
        raise _unfit(node, f"it turns {given} into {tuple(shape)}, which takes the batch apart")
    drop_attributes(node, "allowzero")
    node.input[1] = set_constant(model, index.fresh(f"{node.input[1]}_batch"), np.array([0, *shape[1:]], np.int64))


def _free_resize(model: onnx.ModelProto, index: GraphIndex, node: onnx.NodeProto) -> None:
    """Scales for a Resize that states its output's sizes, the batch among them."""
    sizes, given = index.constant(node.input[3]), index.shape(node.input[0])
    if sizes is None or given is None or len(sizes) != len(given):
        raise _unfit(node, "its sizes are not constants")
    scales = np.array([_scale(extent, int(size)) for extent, size in zip(given, sizes, strict=True)], np.float32)
    node.input[2] = set_constant(model, index.fresh(f"{node.input[3]}_scales"), scales)
    del node.input[3:]


def _scale(extent: int, size: int) -> float:
    """The least float32 whose product with `extent`, rounded down, is `size` in float32 and in float64 alike."""
    scale = np.float32(size / extent)
    while int(extent * float(scale)) < size:
        scale = np.nextafter(scale, np.float32(np.inf))
    return float(scale)


def _require_no_batch(index: GraphIndex, node: onnx.NodeProto) -> None:
    shape = index.shape(node.output[0])
    if index.constant(node.output[0]) is None and shape is not None and len(shape) > 1 and shape[0] == 1:
        raise _unfit(node, "its shape is that of one frame")


def _check(before: GraphIndex, model: onnx.ModelProto) -> None:
    """Whatever is computed from the frame must hold two frames when two come in, and be as it was otherwise."""
    two = copy_model(model)
    for tensor in two.graph.input:
        tensor.type.tensor_type.shape.dim[0].dim_value = 2
    for tensor in two.graph.output:
        tensor.type.tensor_type.shape.dim[0].Clear()
    try:
        after = GraphIndex(with_shapes(two))
    except ModelError as error:
        raise UnsupportedModelError(f"the graph takes one frame only: {error}; build without --batch") from error
    held = set(before.inputs)
    for node in model.graph.node:
        if held.isdisjoint(node.input) or node.op_type == "Shape":
            continue
        held.update(node.output)
        for tensor in filter(None, node.output):
            old, new = before.shape(tensor), after.shape(tensor)
            if old is None or new is None or new != (2, *old[1:]) or old[:1] != (1,):
                raise _unfit(node, f"with two frames it gives {new}, with one {old}")


def _unfit(node: onnx.NodeProto, why: str) -> UnsupportedModelError:
    return UnsupportedModelError(
        f"{node.name} ({node.op_type}) does not take a dynamic batch: {why}; build the engine without --batch"
    )
