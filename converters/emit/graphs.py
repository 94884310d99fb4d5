"""Variants of the canonical graph that single programs want: other ends, a larger batch, plain node names."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper

from edgeseg.converters.graph import (
    GraphIndex,
    copy_model,
    insert_nodes,
    name_nodes,
    remove_unused,
    rename_tensor,
    set_constant,
    with_shapes,
)
from edgeseg.errors import ModelError, UnsupportedModelError
from edgeseg.manifest import InputSpec, OutputSpec

__all__ = [
    "PROBABILITIES",
    "with_batch",
    "with_name",
    "with_normalised_input",
    "with_plain_names",
    "with_probabilities",
]

PROBABILITIES = "probabilities"
"""Output of `with_probabilities`."""

_NO_PLAIN_NAME = re.compile(r"[^\w./+-]")
_SHAPE_INPUTS = {"Reshape": 1, "Expand": 1, "Resize": 3}
"""Which input of an operator may hold a shape with the batch in it."""


def with_probabilities(
    model: onnx.ModelProto, output: OutputSpec, frame: InputSpec, *, logits_size: bool = False
) -> onnx.ModelProto:
    """Upsampling and Softmax in the graph, for programs that compare scores against a threshold of 0 or more.

    Args:
        model: the canonical graph, whose output is logits.
        output, frame: what its manifest says of it.
        logits_size: leave the upsampling away.

    Returns:
        A graph whose output `probabilities` (1, C, H, W) float32 sums to 1 over the classes; the largest is that of the
        largest logit.
    """
    result = copy_model(model)
    name_nodes(result)
    index = GraphIndex(result)
    logits = index.outputs[0]
    if PROBABILITIES in index.names():
        rename_tensor(result, PROBABILITIES, index.fresh(PROBABILITIES))
        logits = result.graph.output[0].name
    height, width = (output.height, output.width) if logits_size else output.map_size(frame)
    shape, x, nodes = [1, output.channels, height, width], logits, []
    if output.coordinates is not None and not logits_size:
        sizes = set_constant(result, index.fresh("postprocess/sizes"), np.array(shape, np.int64))
        name = index.fresh("postprocess/resize")
        nodes.append(
            helper.make_node(
                "Resize", [x, "", "", sizes], [f"{name}_output"], name=name, mode="linear",
                coordinate_transformation_mode=output.coordinates,
            )
        )  # fmt: skip
        x = f"{name}_output"
    nodes.append(helper.make_node("Softmax", [x], [PROBABILITIES], name=index.fresh("postprocess/softmax"), axis=1))
    del result.graph.output[:]
    result.graph.output.append(helper.make_tensor_value_info(PROBABILITIES, TensorProto.FLOAT, shape))
    insert_nodes(result, nodes)
    return with_shapes(result)


def with_normalised_input(
    model: onnx.ModelProto, mean: Sequence[float], std: Sequence[float], name: str
) -> onnx.ModelProto:
    """A graph for a program that normalises frames in its own way: it turns them back into pixels first.

    Args:
        model: input (1, 3, H, W) float32 RGB, 0..255.
        mean, std: what the program applies, red, green and blue, in units of 0..255: (x - mean) / std.
        name: of the new input, (1, 3, H, W) float32.
    """
    result = copy_model(model)
    if name in GraphIndex(result).names():
        rename_tensor(result, name, GraphIndex(result).fresh(name))
    index = GraphIndex(result)
    pixels = index.inputs[0]
    value = result.graph.input[0]
    shape = [d.dim_value for d in value.type.tensor_type.shape.dim]
    nodes = []
    x = name
    for op, label, values, output in (
        ("Mul", "undo_std", std, index.fresh("preprocess/undo_std_output")),
        ("Add", "undo_mean", mean, pixels),
    ):
        constant = np.asarray(values, np.float32).reshape(1, 3, 1, 1)
        inputs = [x, set_constant(result, index.fresh(f"preprocess/{label}_values"), constant)]
        nodes.append(helper.make_node(op, inputs, [output], name=index.fresh(f"preprocess/{label}")))
        x = output
    del result.graph.input[:]
    result.graph.input.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
    insert_nodes(result, nodes)
    return with_shapes(result)


def with_name(model: onnx.ModelProto, old: str, new: str) -> tuple[onnx.ModelProto, dict[str, str]]:
    """A graph one of whose tensors has another name; a tensor that has it already makes way.

    Returns:
        The graph, and the new names of tensors by their old ones.
    """
    result, names = copy_model(model), {old: new}
    if old != new and new in GraphIndex(result).names():
        names[new] = GraphIndex(result).fresh(new)
        rename_tensor(result, new, names[new])
    rename_tensor(result, old, new)
    return result, names


def with_plain_names(model: onnx.ModelProto) -> onnx.ModelProto:
    """A graph whose node names can stand in lists of layers, which programs split at commas, colons and semicolons."""
    result = copy_model(model)
    for node in result.graph.node:
        node.name = _NO_PLAIN_NAME.sub("_", node.name)
    name_nodes(result)
    return result


def with_batch(model: onnx.ModelProto, batch: int) -> onnx.ModelProto:
    """A graph that takes several frames at once.

    Args:
        model: a graph with one input and batch 1.
        batch: number of frames, fixed.

    Raises:
        UnsupportedModelError: for a network in which the batch does not stay the first dimension throughout.
    """
    if batch == 1:
        return model
    result = copy_model(model)
    index = GraphIndex(with_shapes(model))
    for value in (*result.graph.input, *result.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = batch
    for node in result.graph.node:
        place = _SHAPE_INPUTS.get(node.op_type)
        if place is None or len(node.input) <= place or not node.input[place]:
            continue
        shape, data = index.constant(node.input[place]), index.shape(node.input[0])
        if shape is not None and data is not None and shape.size and shape[0] == 1 and data[:1] == (1,):
            constant = np.concatenate([[batch], shape[1:]]).astype(shape.dtype)
            node.input[place] = set_constant(result, index.fresh(f"{node.input[place]}_of_{batch}"), constant)
    try:
        result = with_shapes(result)
    except ModelError as error:
        raise _batch_error(batch, str(error)) from error
    _check_batch(index, GraphIndex(result), batch)
    remove_unused(result)
    return result


def _check_batch(before: GraphIndex, after: GraphIndex, batch: int) -> None:
    """Every tensor that holds one frame's values must now hold those of all, and nothing else may have changed."""
    for node in before.graph.node:
        for tensor in node.output:
            old, new = before.shape(tensor), after.shape(tensor)
            if old is None or new is None or before.constant(tensor) is not None:
                continue
            if new not in ((batch, *old[1:]), old) or (new == old and _has_frames(before, node, after, batch)):
                raise _batch_error(batch, f"node {node.name} ({node.op_type}) gives {new} instead of {old}")


def _has_frames(before: GraphIndex, node: onnx.NodeProto, after: GraphIndex, batch: int) -> bool:
    """Whether a node reads a tensor that now holds several frames."""
    changed = [(before.shape(i), after.shape(i)) for i in node.input if i and before.constant(i) is None]
    return node.op_type != "Shape" and any(old is not None and new == (batch, *old[1:]) != old for old, new in changed)


def _batch_error(batch: int, why: str) -> UnsupportedModelError:
    return UnsupportedModelError(
        f"expected a network that can take {batch} frames at once, but the batch of 1 is written into it: {why}; "
        "use --batch 1"
    )
