"""Element types of all tensors of a graph, one pass, without ONNX's shape inference, which stops at a broken graph."""

from __future__ import annotations

import onnx
from onnx import TensorProto

__all__ = ["element_types", "type_name"]

_INT64 = ("ArgMax", "ArgMin", "NonZero", "Shape", "Size")
_BOOL = (
    "And", "Equal", "Greater", "GreaterOrEqual", "IsInf", "IsNaN", "Less", "LessOrEqual", "Not", "Or", "Xor",
)  # fmt: skip
# Operators whose result has the type of an input other than the first.
_TYPE_OF_INPUT = {"CastLike": 1, "OneHot": 2, "Where": 1}
_INT64_SECOND = ("MaxPool", "TopK", "Unique")
_UNKNOWN = ("If", "Loop", "Scan")


def type_name(element_type: int) -> str:
    """Name of an element type as ONNX writes it, such as UINT8."""
    return str(TensorProto.DataType.Name(element_type))


def element_types(graph: onnx.GraphProto) -> dict[str, int]:
    """Element type by tensor name, as onnx.TensorProto numbers them; a tensor whose type is not known is missing.

    Args:
        graph: its nodes in an order that runs; a later producer leaves its reader's type unknown.
    """
    types = {v.name: v.type.tensor_type.elem_type for v in graph.input}
    types.update((i.name, i.data_type) for i in graph.initializer)
    stated = {v.name: v.type.tensor_type.elem_type for v in (*graph.value_info, *graph.output)}
    for node in graph.node:
        for place, output in enumerate(node.output):
            kind = _output_type(node, place, types) or stated.get(output, 0)
            if output and kind:
                types[output] = kind
    return {name: kind for name, kind in types.items() if kind}


def _output_type(node: onnx.NodeProto, place: int, types: dict[str, int]) -> int:
    """Type of one output; 0 where it is not known."""
    op = node.op_type
    if op in _UNKNOWN or node.domain not in ("", "ai.onnx", "com.microsoft"):
        return 0
    if op in _INT64 or (op in _INT64_SECOND and place):
        return TensorProto.INT64
    if op in _BOOL or (op == "Dropout" and place):
        return TensorProto.BOOL
    if op in ("ConvInteger", "MatMulInteger"):
        return TensorProto.INT32
    if op in ("QuantizeLinear", "DynamicQuantizeLinear"):
        return _quantized_type(node, place, types)
    if op == "DequantizeLinear":
        return types.get(node.input[1], 0) if len(node.input) > 1 else 0
    if op in ("Constant", "ConstantOfShape", "Cast", "EyeLike") or op.startswith("Random"):
        return _stated_type(node)
    source = _TYPE_OF_INPUT.get(op, 0)
    return types.get(node.input[source], 0) if len(node.input) > source else 0


def _quantized_type(node: onnx.NodeProto, place: int, types: dict[str, int]) -> int:
    if node.op_type == "DynamicQuantizeLinear":
        return TensorProto.FLOAT if place == 1 else TensorProto.UINT8
    if len(node.input) > 2 and node.input[2]:
        return types.get(node.input[2], 0)
    return next((a.i for a in node.attribute if a.name == "output_dtype" and a.i), TensorProto.UINT8)


def _stated_type(node: onnx.NodeProto) -> int:
    for item in node.attribute:
        if item.name in ("to", "dtype"):
            return int(item.i)
        if item.name == "value":
            return int(item.t.data_type)
        if item.name.startswith("value_"):
            return TensorProto.INT64 if item.name.startswith("value_int") else TensorProto.FLOAT
    return TensorProto.FLOAT if node.op_type != "Cast" else 0
