"""What exporters put before and behind a network: transposes, and what makes probabilities or a class map of logits."""

from __future__ import annotations

import logging

import onnx

from edgeseg.converters.graph import GraphIndex, attribute

__all__ = ["cut_to_logits", "take_planar"]

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
    planar = onnx.TensorShapeProto(dim=[shape.dim[i] for i in _TO_PLANAR])
    shape.CopyFrom(planar)
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
