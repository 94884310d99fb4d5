"""Pre- and post-processing as part of the graph.

The canonical graph takes the frame `frame` (1, H, W, 3) uint8 RGB and gives `logits` (1, C, h, w) float32, cut before
the network's last bilinear upsampling; `append_class_map` is the variant that gives the class map itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import onnx
from onnx import TensorProto, helper

from edgeseg.converters.graph import (
    GraphIndex,
    attribute,
    copy_model,
    insert_nodes,
    name_nodes,
    remove_unused,
    rename_tensor,
    set_constant,
    with_shapes,
)
from edgeseg.errors import ModelError, UnsupportedModelError
from edgeseg.manifest import Coordinates

__all__ = ["CLASS_MAP", "FRAME", "LOGITS", "append_class_map", "cut_upsampling", "embed_preprocessing"]

FRAME = "frame"
LOGITS = "logits"
CLASS_MAP = "class_map"

_COORDINATES: tuple[Coordinates, ...] = ("align_corners", "half_pixel", "pytorch_half_pixel", "asymmetric")


def embed_preprocessing(
    model: onnx.ModelProto, *, color_order: Literal["RGB", "BGR"], mean: Sequence[float], std: Sequence[float]
) -> onnx.ModelProto:
    """Let the graph take the frame itself: cast, colour order, layout and normalisation.

    Args:
        model: one input (1, 3, H, W) float32.
        color_order: the order in which the network was trained.
        mean, std: three values each, in the network's order, in units of 0..255; the graph applies (x - mean) / std.

    Returns:
        A new model with the one input `frame` (1, H, W, 3) uint8 RGB. The first node is a Cast: TensorRT takes nothing
        else behind a uint8 input.

    Raises:
        ModelError: for another input than the one expected.
    """
    result = copy_model(model)
    image = result.graph.input[0].name
    shape = GraphIndex(result).shape(image)
    if shape is None or len(shape) != 4 or shape[:2] != (1, 3):
        raise ModelError(
            f"expected an input (1, 3, H, W) of fixed size, but {image} is {shape}; load it by load_network"
        )
    image = _free_name(result, FRAME, image)
    del result.graph.input[:]
    frame_shape = [1, shape[2], shape[3], 3]
    result.graph.input.append(helper.make_tensor_value_info(FRAME, TensorProto.UINT8, frame_shape))
    nodes: list[onnx.NodeProto] = []
    index = GraphIndex(result)

    def step(op: str, label: str, inputs: list[str], output: str | None = None, **attributes: Any) -> str:
        name = index.fresh(f"preprocess/{label}")
        nodes.append(helper.make_node(op, inputs, [output or f"{name}_output"], name=name, **attributes))
        return str(nodes[-1].output[0])

    def constant(label: str, value: object, dtype: type) -> str:
        return set_constant(result, index.fresh(f"preprocess/{label}"), np.asarray(value, dtype))

    x = step("Cast", "cast", [FRAME], to=TensorProto.FLOAT)
    x = step("Transpose", "transpose", [x], perm=[0, 3, 1, 2])
    if color_order == "BGR":
        x = step("Gather", "bgr", [x, constant("bgr_order", [2, 1, 0], np.int64)], axis=1)
    x = step("Sub", "mean", [x, constant("mean_values", np.reshape(mean, (1, 3, 1, 1)), np.float32)])
    factor = 1 / np.reshape(np.asarray(std, np.float64), (1, 3, 1, 1))
    step("Mul", "scale", [x, constant("scale_values", factor, np.float32)], image)
    insert_nodes(result, nodes)
    return with_shapes(result)


def _free_name(model: onnx.ModelProto, wanted: str, tensor: str) -> str:
    """Make `wanted` free for a new tensor, and return the name that `tensor` has afterwards."""
    index = GraphIndex(model)
    if wanted in index.names():
        other = index.fresh(f"{wanted}_of_network")
        rename_tensor(model, wanted, other)
        return other if tensor == wanted else tensor
    return tensor


def cut_upsampling(
    model: onnx.ModelProto, size: tuple[int, int] | None = None
) -> tuple[onnx.ModelProto, Coordinates | None]:
    """End the graph before a last bilinear Resize to the class map's size.

    Args:
        model: one output of logits (1, C, H, W) or smaller.
        size: (H, W) of the class map; None for the input's size.

    Returns:
        A new model with the one output `logits`, and the rule that brings it to the class map's size: that of the
        Resize which was cut; `half_pixel` where the network itself ends at a smaller size (the default of ONNX's Resize
        and of PyTorch's interpolate); None where the logits have the class map's size.
    """
    result = copy_model(model)
    name_nodes(result)
    index = GraphIndex(result)
    end = index.outputs[0]
    size = size or _input_size(index)
    logits, rule = _before_upsampling(index, end, size)
    shape = index.shape(logits)
    if shape is None or len(shape) != 4:
        raise ModelError(
            f"expected logits (1, C, h, w) of fixed size, but {logits} is {shape}; load it by load_network"
        )
    if rule is None and shape[2:] != size:
        rule = "half_pixel"
    del result.graph.output[:]
    result.graph.output.append(helper.make_tensor_value_info(logits, TensorProto.FLOAT, shape))
    remove_unused(result)
    if logits != LOGITS:
        if logits in {i.name for i in result.graph.input}:
            raise UnsupportedModelError(f"expected a network between {logits} and its output, but there is none")
        _free_name(result, LOGITS, logits)
        rename_tensor(result, logits, LOGITS)
    return with_shapes(result), rule


def _input_size(index: GraphIndex) -> tuple[int, int]:
    name = index.inputs[0]
    shape = index.shape(name)
    if shape is None or len(shape) != 4:
        raise ModelError(f"expected an image input of fixed size, but {name} is {shape}; load it by load_network")
    channels_last = index.element_type(name) == TensorProto.UINT8
    return (shape[1], shape[2]) if channels_last else (shape[2], shape[3])


def _before_upsampling(index: GraphIndex, end: str, size: tuple[int, int]) -> tuple[str, Coordinates | None]:
    """The low-resolution logits and the Resize's rule; `end` and None where no Resize of the known kind makes `end`."""
    node = index.producer(end)
    if node is None or node.op_type != "Resize" or attribute(node, "mode", "nearest") != "linear":
        return end, None
    small, large = index.shape(node.input[0]), index.shape(end)
    rule = attribute(node, "coordinate_transformation_mode", "half_pixel")
    known = next((c for c in _COORDINATES if c == rule), None)
    if known is None or small is None or large is None or len(small) != 4 or small[:2] != large[:2]:
        return end, None
    if large[2:] != size or small[2] > large[2] or small[3] > large[3] or index.producer(node.input[0]) is None:
        return end, None
    # Where scales are not the ratio of the sizes, coordinates follow the scales: no rule by sizes is equal.
    scales = index.constant(node.input[2]) if len(node.input) > 2 and node.input[2] else None
    if scales is not None and scales.size == 4 and known != "align_corners":
        exact = np.array([b / a for a, b in zip(small, large, strict=True)])
        if not np.allclose(scales, exact, rtol=1e-6, atol=0):
            return end, None
    return str(node.input[0]), known


def append_class_map(
    model: onnx.ModelProto, height: int, width: int, coordinates: Coordinates | None
) -> onnx.ModelProto:
    """Put bilinear upsampling and argmax behind the logits.

    Args:
        model: one output of logits (1, C, h, w) float32.
        height, width: size of the class map in pixels.
        coordinates: rule of the upsampling; None where the logits have that size already.

    Returns:
        A new model with the one output `class_map` (1, height, width) uint8. The class map is cast through float:
        TensorRT 8.5 makes uint8 from float types only.

    Raises:
        UnsupportedModelError: for more than 256 classes.
        ModelError: where `coordinates` is None and the sizes differ.
    """
    result = copy_model(model)
    name_nodes(result)
    index = GraphIndex(result)
    logits = index.outputs[0]
    shape = index.shape(logits)
    if shape is None or len(shape) != 4:
        raise ModelError(
            f"expected logits (1, C, h, w) of fixed size, but {logits} is {shape}; load it by load_network"
        )
    if shape[1] > 256:
        raise UnsupportedModelError(f"a uint8 class map holds at most 256 classes, but the network has {shape[1]}")
    if coordinates is None and shape[2:] != (height, width):
        raise ModelError(f"expected a rule that brings {shape[2]}x{shape[3]} logits to {height}x{width}, but got none")
    logits = _free_name(result, CLASS_MAP, logits)
    index = GraphIndex(result)
    nodes: list[onnx.NodeProto] = []

    def step(op: str, label: str, inputs: list[str], output: str | None = None, **attributes: Any) -> str:
        name = index.fresh(f"postprocess/{label}")
        nodes.append(helper.make_node(op, inputs, [output or f"{name}_output"], name=name, **attributes))
        return str(nodes[-1].output[0])

    x = logits
    if coordinates is not None:
        sizes = np.array([1, shape[1], height, width], np.int64)
        inputs = [x, "", "", set_constant(result, index.fresh("postprocess/sizes"), sizes)]
        x = step("Resize", "resize", inputs, mode="linear", coordinate_transformation_mode=coordinates)
    x = step("ArgMax", "argmax", [x], axis=1, keepdims=0)
    x = step("Cast", "float", [x], to=TensorProto.FLOAT)
    step("Cast", "uint8", [x], CLASS_MAP, to=TensorProto.UINT8)
    del result.graph.output[:]
    result.graph.output.append(helper.make_tensor_value_info(CLASS_MAP, TensorProto.UINT8, [1, height, width]))
    insert_nodes(result, nodes)
    return with_shapes(result)
