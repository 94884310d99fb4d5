"""Variants of the canonical graph for programs that bring frames and read class maps in their own way.

A variant is made first, and a form of it then.
"""

from __future__ import annotations

from dataclasses import replace

import onnx
from onnx import TensorProto, helper

from edgeseg.converters.embed import append_class_map
from edgeseg.converters.graph import GraphIndex, attribute, copy_model, remove_unused, with_shapes
from edgeseg.errors import UnsupportedModelError
from edgeseg.manifest import InputSpec, OutputSpec

__all__ = ["PLANAR", "with_class_map", "with_planar_input"]

PLANAR = "planar_frame"
"""Input of `with_planar_input`."""


def with_class_map(model: onnx.ModelProto, output: OutputSpec, frame: InputSpec) -> tuple[onnx.ModelProto, OutputSpec]:
    """Upsampling, argmax and a uint8 class map in the graph, as trtexec, DeepStream and Triton read it.

    Args:
        model: the canonical graph.
        output, frame: what its manifest says of it.

    Returns:
        A graph whose output is the class map (1, H, W) uint8 of the manifest's size, and what it gives. A graph that
        has a class map already is given back.

    Raises:
        UnsupportedModelError: for more than 256 classes.
    """
    if output.kind == "class-map":
        return model, output
    height, width = output.map_size(frame)
    finished = append_class_map(model, height, width, output.coordinates)
    tensor = finished.graph.output[0].name
    spec = replace(
        output, tensor=tensor, kind="class-map", height=height, width=width, coordinates=None,
        map_height=height, map_width=width,
    )  # fmt: skip
    return finished, spec


def with_planar_input(model: onnx.ModelProto) -> onnx.ModelProto:
    """A graph that takes what DeepStream's nvinfer and TensorRT before 8.5 give: planar floats instead of uint8 pixels.

    Args:
        model: the canonical graph, input (1, H, W, 3) uint8 RGB.

    Returns:
        The graph with the one input `planar_frame` (1, 3, H, W) float32 RGB, 0..255; colour order, mean and std
        stay in it.

    Raises:
        UnsupportedModelError: for a graph that does not begin with Cast and Transpose.
    """
    result = copy_model(model)
    index = GraphIndex(result)
    frame = index.inputs[0]
    shape = index.shape(frame)
    cast = index.only_consumer(frame)
    transpose = index.only_consumer(cast.output[0]) if cast is not None and cast.op_type == "Cast" else None
    moved = transpose is not None and attribute(transpose, "perm", []) == [0, 3, 1, 2]
    if transpose is None or shape is None or not moved:
        raise UnsupportedModelError(
            f"expected a canonical graph, whose input {frame} goes through Cast and Transpose to (1, 3, H, W), but it "
            "does not; give the model.onnx of a bundle"
        )
    name = index.fresh(PLANAR)
    for node in index.consumers(transpose.output[0]):
        node.input[:] = [name if tensor == transpose.output[0] else tensor for tensor in node.input]
    del result.graph.input[:]
    planar = [shape[0], shape[3], shape[1], shape[2]]
    result.graph.input.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, planar))
    remove_unused(result)
    return with_shapes(result)
