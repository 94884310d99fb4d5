"""Moving per-channel work from behind a Concat into its branches."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper

from edgeseg.converters.affine import ChannelAffine, per_channel, read_affine
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

__all__ = ["sink_into_concat"]

_UNARY = ("Relu", "LeakyRelu", "Clip", "Sigmoid", "Tanh", "HardSwish", "HardSigmoid", "Elu")


def sink_into_concat(model: onnx.ModelProto) -> onnx.ModelProto:
    """Apply BatchNormalization and activations before a Concat over channels instead of behind it.

    Such operators work on each channel alone, so both orders compute the same values; inside the branches an engine can
    fuse them with the convolution that stands there. Fold afterwards: a branch that ends in a convolution read by
    nothing else takes its BatchNormalization in.

    Returns:
        A new model; the Concat's result takes the name of the last operator moved.
    """
    result = copy_model(model)
    name_nodes(result)
    while _sink_one(result):
        pass
    remove_unused(result)
    return with_shapes(result)


def _sink_one(model: onnx.ModelProto) -> bool:
    index = GraphIndex(model)
    for concat in model.graph.node:
        if concat.op_type != "Concat" or attribute(concat, "axis", 0) not in (1, -3):
            continue
        node = index.only_consumer(concat.output[0])
        widths = [(index.shape(branch) or (0, 0))[1] for branch in concat.input]
        if node is None or min(widths) == 0 or not _is_per_channel(index, node, sum(widths)):
            continue
        branches = [_branch_copy(model, index, node, concat, i, widths) for i in range(len(widths))]
        joined = helper.make_node("Concat", [b.output[0] for b in branches], [node.output[0]], name=concat.name, axis=1)
        insert_nodes(model, [*branches, joined], replace=[concat.name, node.name])
        return True
    return False


def _is_per_channel(index: GraphIndex, node: onnx.NodeProto, channels: int) -> bool:
    if node.op_type in _UNARY:
        return all(index.constant(i) is not None for i in node.input[1:] if i)
    if node.op_type == "PRelu":
        slope = index.constant(node.input[1])
        return slope is not None and per_channel(slope, channels) is not None
    return read_affine(index, node) is not None


def _branch_copy(
    model: onnx.ModelProto,
    index: GraphIndex,
    node: onnx.NodeProto,
    concat: onnx.NodeProto,
    branch: int,
    widths: list[int],
) -> onnx.NodeProto:
    """The operator for one branch, with the constants of its channels."""
    start = sum(widths[:branch])
    stop = start + widths[branch]
    name = index.fresh(f"{node.name}/{branch}")
    data, result = concat.input[branch], index.fresh(f"{node.output[0]}/{branch}")
    affine = read_affine(index, node)
    if affine is not None:
        return _batch_norm(model, name, data, result, affine[1].part(start, stop))
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    copy.name = name
    copy.input[0] = data
    copy.output[:] = [result]
    if node.op_type == "PRelu":
        slope = per_channel(np.asarray(index.constant(node.input[1])), sum(widths))
        part = np.asarray(slope)[start:stop].astype(np.float32).reshape(-1, 1, 1)
        copy.input[1] = set_constant(model, f"{name}.slope", part)
    return copy


def _batch_norm(model: onnx.ModelProto, name: str, data: str, result: str, affine: ChannelAffine) -> onnx.NodeProto:
    """An affine map as BatchNormalization, the one node that every engine knows to fuse."""
    values = (affine.scale, affine.shift, np.zeros_like(affine.scale), np.ones_like(affine.scale))
    parts = zip(("scale", "shift", "mean", "variance"), values, strict=True)
    inputs = [set_constant(model, f"{name}.{part}", value.astype(np.float32)) for part, value in parts]
    return helper.make_node("BatchNormalization", [data, *inputs], [result], name=name, epsilon=0.0)
