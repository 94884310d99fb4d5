"""What TensorRT 8 wants beyond newer versions, written in an exactly equal form.

Sources: onnx/onnx-tensorrt, branches 8.2-GA, 8.5-GA and 8.6-GA. What has no equal form
stays as it is, and the linter names it.
"""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from edgeseg.converters.graph import (
    GraphIndex,
    attribute,
    copy_model,
    drop_attributes,
    insert_nodes,
    name_nodes,
    remove_unused,
    set_constant,
    with_shapes,
)
from edgeseg.converters.opset import OPSET, opset_of, to_target_opset
from edgeseg.converters.place import remove_qdq
from edgeseg.converters.targets.variants import with_planar_input
from edgeseg.converters.write_out import Replacement, write_out
from edgeseg.errors import UnsupportedModelError

__all__ = ["JETPACK_4_OPSET", "to_jetpack4", "to_tensorrt8"]

JETPACK_4_OPSET = 13

_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16)


def to_tensorrt8(model: onnx.ModelProto) -> onnx.ModelProto:
    """Bring a Q/DQ graph into the form that the ONNX importer of TensorRT 8 takes.

    Opset 17 or older; a Cast between uint8 and an integer goes through float32; scales and zero points are
    initializers, not behind Identity; weights are stored in float32 with Q and DQ behind them, not as int8;
    LayerNormalization, which came by 8.6, is written as simpler operators.

    Args:
        model: a graph with Q/DQ; the canonical graph of a bundle comes out as it is.

    Raises:
        UnsupportedModelError: for an operator that opset 17 does not have.
    """
    result = to_target_opset(model) if opset_of(model) > OPSET else copy_model(model)
    name_nodes(result)
    _store_parameters(result)
    _store_float_weights(result)
    _cast_through_float(result)
    write_out(result, _WRITERS)
    remove_unused(result)
    return with_shapes(result)


def to_jetpack4(model: onnx.ModelProto) -> onnx.ModelProto:
    """A graph without Q/DQ as TensorRT 8.2 imports it: planar float input, opset 13.

    That version has no uint8, and its boards (Nano, TX1, TX2) no INT8; the FP16 flag of the builder chooses the types.

    Args:
        model: the canonical graph of a bundle that gives logits.

    Raises:
        UnsupportedModelError: for a node that opset 13 does not have. What changed in its operators up to 17 are the
            types that they take, so a node that opset 13 allows means the same there.
    """
    result = with_planar_input(remove_qdq(model))
    write_out(result, _WRITERS)
    _drop_defaults(result, JETPACK_4_OPSET)
    del result.opset_import[:]
    result.opset_import.append(helper.make_opsetid("", JETPACK_4_OPSET))
    result.ir_version = 7
    try:
        onnx.checker.check_model(result, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        reason = next(line for line in str(error).splitlines() if line.strip())
        raise UnsupportedModelError(
            f"expected a graph that opset {JETPACK_4_OPSET} can hold, the newest of TensorRT 8.2, but ONNX says: "
            f"{reason}; replace the operator in the network"
        ) from error
    return result


def _drop_defaults(model: onnx.ModelProto, opset: int) -> None:
    """Take out attributes that an older opset does not know, where they have their default value."""
    for node in model.graph.node:
        if not onnx.defs.has(node.op_type, opset, node.domain):
            continue
        older = onnx.defs.get_schema(node.op_type, opset, node.domain).attributes
        newer = onnx.defs.get_schema(node.op_type, opset_of(model), node.domain).attributes
        for item in [a for a in node.attribute if a.name not in older]:
            default = newer[item.name].default_value
            if helper.get_attribute_value(item) == helper.get_attribute_value(default):
                drop_attributes(node, item.name)


def _store_parameters(model: onnx.ModelProto) -> None:
    index = GraphIndex(model)
    for node in model.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            for place, tensor in enumerate(node.input[1:], 1):
                maker = index.producer(tensor)
                while maker is not None and maker.op_type == "Identity":
                    tensor = maker.input[0]
                    maker = index.producer(tensor)
                node.input[place] = tensor


def _store_float_weights(model: onnx.ModelProto) -> None:
    index = GraphIndex(model)
    added = []
    for node in model.graph.node:
        stored = index.constant(node.input[0]) if node.op_type == "DequantizeLinear" else None
        scale = index.constant(node.input[1]) if stored is not None else None
        if stored is None or scale is None or stored.dtype != np.int8 or len(node.input) < 3:
            continue
        axis = attribute(node, "axis", 1)
        weight = set_constant(model, index.fresh(f"{node.input[0]}_float"), _dequantized(stored, scale, axis))
        quantized = index.fresh(f"{node.input[0]}_quantized")
        name = index.fresh(f"{node.name}/QuantizeLinear")
        added.append(helper.make_node("QuantizeLinear", [weight, *node.input[1:]], [quantized], name=name, axis=axis))
        node.input[0] = quantized
    insert_nodes(model, added)


def _dequantized(stored: NDArray[np.int8], scale: NDArray[np.float32], axis: int) -> NDArray[np.float32]:
    """Float weights that QuantizeLinear brings back to the stored levels exactly (zero point 0)."""
    if scale.size > 1:
        scale = scale.reshape([-1 if place == axis % stored.ndim else 1 for place in range(stored.ndim)])
    return (stored.astype(np.float32) * scale).astype(np.float32)


def _cast_through_float(model: onnx.ModelProto) -> None:
    index = GraphIndex(model)
    added = []
    for node in model.graph.node:
        if node.op_type != "Cast":
            continue
        kinds = {index.element_type(node.input[0]), attribute(node, "to", 0)}
        if TensorProto.UINT8 in kinds and len(kinds) == 2 and kinds.isdisjoint(_FLOATS):
            inner = index.fresh(f"{node.output[0]}_float")
            name = index.fresh(f"{node.name}/float")
            added.append(helper.make_node("Cast", [node.input[0]], [inner], name=name, to=TensorProto.FLOAT))
            node.input[0] = inner
    insert_nodes(model, added)


def _layer_normalization(node: Replacement) -> bool:
    """(x - mean) / sqrt(variance + epsilon) * scale + bias, by the operator's definition in ONNX."""
    data, *factors = node.inputs
    shape = node.shape(data)
    if shape is None:
        return False
    axes = list(range(node.attribute("axis", -1) % len(shape), len(shape)))
    centred = node.add("Sub", data, node.add("ReduceMean", data, axes=axes))
    square = node.add("Pow", centred, node.constant("two", 2.0))
    epsilon = node.constant("epsilon", node.attribute("epsilon", 1e-5))
    variance = node.add("Add", node.add("ReduceMean", square, axes=axes), epsilon)
    value = node.add("Div", centred, node.add("Sqrt", variance))
    for kind, factor in zip(("Mul", "Add"), filter(None, factors), strict=False):
        value = node.add(kind, value, factor)
    return True


_WRITERS = {"LayerNormalization": _layer_normalization}
