"""Rewriting what TensorRT refuses, and what hides a simpler operator, into an exactly equal form.

Every pattern is a function that looks at one node and either edits the model and returns True, or returns False. They
run until none applies.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np
import onnx
from onnx import helper

from edgeseg.converters.graph import (
    GraphIndex,
    attribute,
    copy_model,
    drop_attributes,
    insert_nodes,
    name_nodes,
    remove_unused,
    with_shapes,
)

__all__ = ["PATTERNS", "pattern", "rewrite_for_tensorrt"]

_log = logging.getLogger(__name__)

Pattern = Callable[[onnx.ModelProto, GraphIndex, onnx.NodeProto], bool]

PATTERNS: dict[str, tuple[frozenset[str], Pattern]] = {}


def pattern(name: str, *operators: str) -> Callable[[Pattern], Pattern]:
    """Register a rewrite under a name, for nodes of some operators.

    Raises:
        ValueError: where the name is taken.
    """

    def register(function: Pattern) -> Pattern:
        if name in PATTERNS:
            raise ValueError(f"the rewrite {name!r} is registered already")
        PATTERNS[name] = (frozenset(operators), function)
        return function

    return register


def rewrite_for_tensorrt(model: onnx.ModelProto) -> onnx.ModelProto:
    """Apply every pattern until none fits; the network computes the same.

    Returns:
        A new model with all nodes named.
    """
    result = copy_model(model)
    name_nodes(result)
    while _rewrite_one(result):
        pass
    remove_unused(result)
    return with_shapes(result)


def _rewrite_one(model: onnx.ModelProto) -> bool:
    index = GraphIndex(model)
    for node in model.graph.node:
        name = node.name
        for label, (operators, function) in PATTERNS.items():
            if node.op_type in operators and function(model, index, node):
                _log.debug("rewrote %s: %s", name, label)
                return True
    return False


_WINDOWS = ("Conv", "ConvTranspose", "AveragePool", "MaxPool")


@pattern("explicit padding", *_WINDOWS)
def explicit_padding(model: onnx.ModelProto, index: GraphIndex, node: onnx.NodeProto) -> bool:
    """`auto_pad` becomes pads, so that every later rule and engine reads the same numbers.

    Importers differ in SAME_LOWER and in `auto_pad` beside strides.
    """
    mode = attribute(node, "auto_pad", "NOTSET")
    if mode == "NOTSET" or (node.op_type == "ConvTranspose" and mode != "VALID"):
        return False
    source, result = index.shape(node.input[0]), index.shape(node.output[0])
    kernel = attribute(node, "kernel_shape", None) or (index.shape(node.input[1]) or ())[2:]
    if source is None or result is None or not kernel:
        return False
    rank = len(kernel)
    pads = [0] * (2 * rank)
    if mode != "VALID":
        strides, dilations = attribute(node, "strides", [1] * rank), attribute(node, "dilations", [1] * rank)
        for axis in range(rank):
            reach = (result[2 + axis] - 1) * strides[axis] + (kernel[axis] - 1) * dilations[axis] + 1
            total = max(0, reach - source[2 + axis])
            before = total // 2 if mode == "SAME_UPPER" else total - total // 2
            pads[axis], pads[rank + axis] = before, total - before
    drop_attributes(node, "auto_pad", "pads")
    node.attribute.append(helper.make_attribute("pads", pads))
    return True


@pattern("global pooling", "AveragePool", "MaxPool")
def global_pooling(model: onnx.ModelProto, index: GraphIndex, node: onnx.NodeProto) -> bool:
    """A pool whose window covers the whole input becomes a global one.

    TensorRT limits the volume of a pooling window (its parser refuses 256x512), but not of a global reduction.
    """
    source, result = index.shape(node.input[0]), index.shape(node.output[0])
    if source is None or result is None or len(source) != 4 or result[2:] != (1, 1) or len(node.output) > 1:
        return False
    if attribute(node, "auto_pad", "NOTSET") != "NOTSET":
        return False
    kernel, pads = attribute(node, "kernel_shape", [1, 1]), attribute(node, "pads", [0, 0, 0, 0])
    dilations = attribute(node, "dilations", [1, 1])
    covers = all(kernel[axis] - pads[axis] >= source[2 + axis] for axis in range(2))
    average = node.op_type == "AveragePool"
    # Padding that counts divides by the whole window, so the average is another one.
    if not covers or dilations != [1, 1] or (average and any(pads) and attribute(node, "count_include_pad", 0)):
        return False
    # With ceil_mode, the window may hang over the end of input and pads; only what lies inside counts, as here.
    replacement = helper.make_node(f"Global{node.op_type}", [node.input[0]], [node.output[0]], name=node.name)
    insert_nodes(model, [replacement], replace=[node.name])
    return True


@pattern("pad into window", "Pad")
def pad_into_window(model: onnx.ModelProto, index: GraphIndex, node: onnx.NodeProto) -> bool:
    """Zero padding of height and width moves into the convolution or average pool that alone reads it.

    A Pad of its own is a copy of the whole tensor, and keeps Q/DQ apart from the convolution.
    """
    reader = index.only_consumer(node.output[0])
    pads = index.constant(node.input[1])
    if reader is None or pads is None or pads.size != 8 or attribute(node, "mode", "constant") != "constant":
        return False
    if len(node.input) > 2 and node.input[2]:
        value = index.constant(node.input[2])
        if value is None or np.any(value != 0):
            return False
    if pads.min() < 0 or pads[[0, 1, 4, 5]].any() or attribute(reader, "auto_pad", "NOTSET") != "NOTSET":
        return False
    own = attribute(reader, "pads", [0, 0, 0, 0])
    total = [int(a + b) for a, b in zip(own, pads[[2, 3, 6, 7]], strict=True)]
    if reader.op_type == "AveragePool":
        counted = not any(own) or attribute(reader, "count_include_pad", 0)
        # No engine takes pads as large as the window.
        if (
            not counted
            or attribute(reader, "ceil_mode", 0)
            or max(total) >= min(attribute(reader, "kernel_shape", [1]))
        ):
            return False
        drop_attributes(reader, "count_include_pad")
        reader.attribute.append(helper.make_attribute("count_include_pad", 1))
    elif reader.op_type != "Conv" or reader.input[0] != node.output[0]:
        return False
    drop_attributes(reader, "pads")
    reader.attribute.append(helper.make_attribute("pads", total))
    reader.input[0] = node.input[0]
    insert_nodes(model, [], replace=[node.name])
    return True


@pattern("unused outputs", "MaxPool")
def unused_outputs(model: onnx.ModelProto, index: GraphIndex, node: onnx.NodeProto) -> bool:
    """Second outputs that nothing reads go: no TensorRT version imports a MaxPool with indices."""
    extra = list(node.output[1:])
    if not extra or any(index.consumers(o) or o in index.outputs for o in extra):
        return False
    del node.output[1:]
    return True


@pattern("clip to relu", "Clip")
def clip_to_relu(model: onnx.ModelProto, index: GraphIndex, node: onnx.NodeProto) -> bool:
    """Clip from zero without an upper limit is ReLU, which engines fuse with a convolution."""
    low = index.constant(node.input[1]) if len(node.input) > 1 and node.input[1] else None
    high = index.constant(node.input[2]) if len(node.input) > 2 and node.input[2] else None
    bounded = len(node.input) > 2 and node.input[2] and (high is None or float(high) < np.finfo(np.float32).max)
    if low is None or float(low) != 0 or bounded:
        return False
    insert_nodes(
        model, [helper.make_node("Relu", [node.input[0]], [node.output[0]], name=node.name)], replace=[node.name]
    )
    return True


@pattern("plain slope", "PRelu")
def plain_slope(model: onnx.ModelProto, index: GraphIndex, node: onnx.NodeProto) -> bool:
    """A slope of zero everywhere is ReLU; one and the same slope everywhere is LeakyReLU."""
    slope = index.constant(node.input[1])
    if slope is None or slope.size == 0 or np.any(slope != slope.flat[0]):
        return False
    value = float(slope.flat[0])
    replacement = helper.make_node("Relu", [node.input[0]], [node.output[0]], name=node.name)
    if value != 0:
        replacement.op_type = "LeakyRelu"
        replacement.attribute.append(helper.make_attribute("alpha", value))
    insert_nodes(model, [replacement], replace=[node.name])
    return True


@pattern("mean over the image", "ReduceMean")
def mean_over_image(model: onnx.ModelProto, index: GraphIndex, node: onnx.NodeProto) -> bool:
    """ReduceMean over height and width with kept dimensions is GlobalAveragePool: one form for every later rule."""
    source = index.shape(node.input[0])
    if source is None or len(source) != 4 or len(node.input) > 1 or not attribute(node, "keepdims", 1):
        return False
    if sorted(axis % 4 for axis in attribute(node, "axes", [])) != [2, 3]:
        return False
    replacement = helper.make_node("GlobalAveragePool", [node.input[0]], [node.output[0]], name=node.name)
    insert_nodes(model, [replacement], replace=[node.name])
    return True
