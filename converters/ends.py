"""What stands before and behind a network: transposes, and what makes probabilities or a class map of logits.

A network with one logit a pixel, as binary cross-entropy trains it, gets two: its class and the background.
"""

from __future__ import annotations

import logging

import numpy as np
import onnx

from edgeseg.converters.graph import GraphIndex, attribute, insert_nodes, set_constant

__all__ = ["cut_to_logits", "split_single_logit", "take_planar"]

_log = logging.getLogger(__name__)

# Operators behind the logits that never change which class is the largest, and those that stand around an ArgMax.
_MONOTONE = ("Softmax", "LogSoftmax", "Sigmoid", "Identity")
_AROUND_ARGMAX = ("Cast", "Squeeze", "Unsqueeze", "Reshape", "Identity")
_TO_CHANNELS_LAST = [0, 2, 3, 1]
_TO_PLANAR = [0, 3, 1, 2]


def take_planar(model: onnx.ModelProto) -> None:
    """Let the graph take (N, 3, H, W) where all that it does with (N, H, W, 3) is to transpose it, as Keras exports."""
    value = model.graph.input[0]
    shape = value.type.tensor_type.shape
    readers = [node for node in model.graph.node if value.name in node.input]
    channels_last = len(shape.dim) == 4 and shape.dim[3].dim_value == 3 and shape.dim[1].dim_value != 3
    if not channels_last or any(
        node.op_type != "Transpose" or list(attribute(node, "perm", [])) != _TO_PLANAR for node in readers
    ):
        return
    shape.CopyFrom(onnx.TensorShapeProto(dim=[shape.dim[i] for i in _TO_PLANAR]))
    for node in readers:
        # One that ends the graph keeps its output's name this way.
        node.CopyFrom(onnx.helper.make_node("Identity", node.input, node.output, node.name))


def cut_to_logits(model: onnx.ModelProto) -> None:
    """End the graph at the logits where a class map, probabilities or channels that come last end it."""
    index = GraphIndex(model)
    end = index.outputs[0]
    here, channels = _before_argmax(index, end)
    tensor = here if channels == 1 else end
    while (node := index.producer(here)) is not None:
        if node.op_type == "Transpose":
            if list(attribute(node, "perm", [])) != _TO_CHANNELS_LAST or channels == 1:
                break
            channels = 1
        elif node.op_type in _MONOTONE:
            over = attribute(node, "axis", -1) % 4 if node.op_type.endswith("Softmax") else channels
            if channels not in (None, over):
                break
            channels = over
        else:
            break
        here = node.input[0]
        if channels in (None, 1):
            tensor = here
    if tensor != end:
        _log.info("the graph now ends at the logits %s instead of %s: the winning class stays the same", tensor, end)
        del model.graph.output[:]
        model.graph.output.append(
            onnx.helper.make_tensor_value_info(tensor, index.element_type(tensor), index.shape(tensor))
        )


def _before_argmax(index: GraphIndex, tensor: str) -> tuple[str, int | None]:
    """What an ArgMax over the channels reads, where one ends the graph, and their axis; else `tensor` and None."""
    node = index.producer(tensor)
    while node is not None and node.op_type in _AROUND_ARGMAX:
        node = index.producer(node.input[0])
    axis = attribute(node, "axis", 0) % 4 if node is not None and node.op_type == "ArgMax" else None
    return (tensor, None) if node is None or axis not in (1, 3) else (str(node.input[0]), axis)


def split_single_logit(model: onnx.ModelProto) -> None:
    """Make logits -x / 2 and x / 2 of one logit x, in place.

    Their Softmax is 1 - sigmoid(x) and sigmoid(x), so class 1 wins where x is positive. They are made by the layer that
    makes x, or behind it, but before it is resized.
    """
    index = GraphIndex(model)
    tensor = index.outputs[0]
    shape = index.shape(tensor)
    if shape is None or len(shape) != 4 or shape[1] != 1 or index.element_type(tensor) != onnx.TensorProto.FLOAT:
        return
    _log.warning("the network gives one logit a pixel: class 1 where it is positive, class 0 elsewhere")
    reader: onnx.NodeProto | None = None
    node = index.producer(tensor)
    while node is not None and node.op_type == "Resize":
        _resize_both(model, index, node)
        reader, tensor = node, node.input[0]
        node = index.producer(tensor)
    if node is None or len(index.consumers(tensor)) > 1 or not _double_layer(model, index, node):
        _split_behind(model, index, tensor, reader)
    del model.graph.value_info[:]
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 2


def _resize_both(model: onnx.ModelProto, index: GraphIndex, node: onnx.NodeProto) -> None:
    shape = index.shape(node.output[0])
    if len(node.input) > 3 and shape is not None:
        sizes = np.array([shape[0], 2, *shape[2:]], np.int64)
        node.input[3] = set_constant(model, index.fresh(f"{node.output[0]}/sizes"), sizes)


def _double_layer(model: onnx.ModelProto, index: GraphIndex, node: onnx.NodeProto) -> bool:
    """Give a convolution two output channels; False where it is none, or its weights are computed."""
    axis = {"Conv": 0, "ConvTranspose": 1}.get(node.op_type)
    values = [index.constant(name) for name in node.input[1:]]
    parameters = [value for value in values if value is not None]
    if axis is None or attribute(node, "group", 1) != 1 or len(parameters) < len(values):
        return False
    for place, value in enumerate(parameters, 1):
        halves = np.concatenate([-value / 2, value / 2], axis=axis if place == 1 else 0)
        node.input[place] = set_constant(model, index.fresh(f"{node.input[place]}/both"), halves.astype(np.float32))
    return True


def _split_behind(model: onnx.ModelProto, index: GraphIndex, tensor: str, reader: onnx.NodeProto | None) -> None:
    """Multiply what `reader`, or the graph's output, takes."""
    both = index.fresh(f"{tensor}/both")
    signs = set_constant(model, index.fresh(f"{tensor}/signs"), np.array([-0.5, 0.5], np.float32).reshape(1, 2, 1, 1))
    if reader is None:
        model.graph.output[0].name = both
    else:
        reader.input[0] = both
    insert_nodes(model, [onnx.helper.make_node("Mul", [tensor, signs], [both], name=both)])
