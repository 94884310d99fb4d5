"""A graph without its weights: for shape inference and everything else that reads how a network is wired.

ONNX's C++ side gets a model as bytes and gives bytes back: of a network of 500 MB that makes four copies each time. No
shape depends on the values of a large tensor, so that it only has to know what shape those have.
"""

from __future__ import annotations

import math

import onnx
from onnx import helper

__all__ = ["LARGEST_KEPT", "inferred_shapes", "is_large", "without_weights"]

LARGEST_KEPT = 1024
"""Elements of an initializer whose values stay; those of Reshape, Slice and Resize are far below."""


def is_large(tensor: onnx.TensorProto) -> bool:
    """Whether an initializer is one of those that `without_weights` takes out."""
    return int(math.prod(tensor.dims)) > LARGEST_KEPT


def without_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which large initializers are inputs of their shape and type."""
    light = onnx.ModelProto(ir_version=model.ir_version)
    light.opset_import.extend(model.opset_import)
    light.functions.extend(model.functions)
    graph, source = light.graph, model.graph
    graph.name = source.name
    graph.node.extend(source.node)
    graph.input.extend(source.input)
    graph.output.extend(source.output)
    graph.value_info.extend(source.value_info)
    graph.sparse_initializer.extend(source.sparse_initializer)
    named = {value.name for value in source.input}
    for tensor in source.initializer:
        if not is_large(tensor):
            graph.initializer.append(tensor)
        elif tensor.name not in named:
            graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims)))
    return light


def inferred_shapes(model: onnx.ModelProto, *, strict: bool = False) -> onnx.GraphProto:
    """A graph that holds every shape that inference knows, and not the weights.

    Args:
        model: left as it is.
        strict: refuse shapes that do not fit together, infer every one anew instead of believing those that the model
            notes, and compute with the values of small tensors.

    Returns:
        A graph of the same outputs, whose `value_info` and `output` have the shapes; see `without_weights`.

    Raises:
        onnx.shape_inference.InferenceError: where `strict` refuses.
    """
    light = without_weights(model)
    if strict:
        del light.graph.value_info[:]
    return onnx.shape_inference.infer_shapes(light, strict_mode=strict, data_prop=strict).graph
