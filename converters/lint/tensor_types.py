"""Rules on the element types of tensors: uint8 at the edges only, one float type a layer."""

from __future__ import annotations

from collections.abc import Iterator

import onnx
from onnx import TensorProto

from edgeseg.converters.graph import attribute
from edgeseg.converters.lint.element_types import type_name
from edgeseg.converters.lint.findings import Problem, rule
from edgeseg.converters.lint.operator_tables import INTEGER_OPERATORS
from edgeseg.converters.lint.quantizers import is_quantizer
from edgeseg.converters.lint.subject import Subject, node_name

__all__: list[str] = []

_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16)
_EVERYWHERE = frozenset(
    {
        TensorProto.BOOL, TensorProto.DOUBLE, TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.INT8,
        TensorProto.INT32, TensorProto.INT64, TensorProto.UINT8,
    }
)  # fmt: skip
_SINCE_10 = frozenset({TensorProto.BFLOAT16, TensorProto.FLOAT8E4M3FN, TensorProto.INT4, TensorProto.FLOAT4E2M1})


def _uint8_inputs(subject: Subject) -> Iterator[str]:
    return (i for i in subject.index.inputs if subject.types.get(i) == TensorProto.UINT8)


@rule("T101", "refused", "uint8 input whose first node is not a Cast")
def _first_node(subject: Subject) -> Iterator[Problem]:
    for tensor in _uint8_inputs(subject):
        for node in subject.index.consumers(tensor):
            if node.op_type not in ("Cast", "DequantizeLinear"):
                yield Problem(
                    node_name(node),
                    f"{node.op_type} reads the uint8 input {tensor}; TensorRT moves and computes nothing in uint8",
                    f"cast {tensor} to float32 first, then {node.op_type}",
                )


@rule("T102", "refused", "uint8 input read by DequantizeLinear")
def _dequantized_input(subject: Subject) -> Iterator[Problem]:
    for tensor in _uint8_inputs(subject):
        for node in subject.index.consumers(tensor):
            if node.op_type == "DequantizeLinear":
                yield Problem(
                    node_name(node),
                    f"DequantizeLinear reads the uint8 input {tensor}; TensorRT says: Found unsupported input type of "
                    "UINT8",
                    f"cast {tensor} to float32 and multiply by the scale",
                )


@rule("T103", "refused", "uint8 tensor inside the graph")
def _inner_uint8(subject: Subject) -> Iterator[Problem]:
    inputs = set(subject.index.inputs)
    for node in subject.nodes:
        if is_quantizer(node) or node.op_type in INTEGER_OPERATORS:
            continue
        for tensor in node.input:
            producer = subject.index.producer(tensor)
            inner = tensor not in inputs and not (producer is not None and producer.op_type == "QuantizeLinear")
            if inner and subject.types.get(tensor) == TensorProto.UINT8:
                yield Problem(
                    node_name(node),
                    f"{node.op_type} reads the uint8 tensor {tensor}; TensorRT knows uint8 only as an input that is "
                    "cast or an output that was cast",
                    "do this step in float32 or int32 and make the cast to uint8 the last node",
                )


@rule("T104", "portability", "cast between uint8 and an integer type", fixed_in=(10, 0))
def _integer_cast(subject: Subject) -> Iterator[Problem]:
    for node in subject.nodes:
        if node.op_type != "Cast" or not node.input:
            continue
        source, target = subject.types.get(node.input[0], 0), attribute(node, "to", 0)
        other = target if source == TensorProto.UINT8 else source if target == TensorProto.UINT8 else 0
        if other and other not in _FLOATS and other != TensorProto.UINT8:
            yield Problem(
                node_name(node),
                f"Cast from {type_name(source)} to {type_name(target)}; TensorRT 8 says: UINT8 type casting is only "
                "supported from FP types",
                "cast to float32 in between (ArgMax, Cast to FLOAT, Cast to UINT8)",
            )


@rule("T105", "refused", "data and weight of different types")
def _mixed(subject: Subject) -> Iterator[Problem]:
    for node in subject.compute_nodes:
        kinds = [subject.types.get(i, 0) for i in node.input if i]
        if all(kinds) and len(set(kinds)) > 1:
            words = " and ".join(f"{i} is {type_name(k)}" for i, k in zip(filter(None, node.input), kinds, strict=True))
            yield Problem(
                node_name(node),
                f"{words}; TensorRT says: input and kernel must be of same type (a DequantizeLinear gives the type of "
                "its scale)",
                "store weight, bias and both scales in one float type, or put a Cast behind DequantizeLinear",
            )


@rule("T106", "portability", "int64 input or output", fixed_in=(10, 0))
def _int64_edge(subject: Subject) -> Iterator[Problem]:
    for kind, tensors in (("input", subject.index.inputs), ("output", subject.index.outputs)):
        for tensor in tensors:
            if subject.types.get(tensor) == TensorProto.INT64:
                yield Problem(
                    tensor,
                    f"{kind} {tensor} is int64: an int64 buffer for TensorRT 10 and newer, an int32 buffer for 8",
                    "cast it inside the graph, a class map through FLOAT to UINT8 or to INT32",
                )


@rule("T107", "refused", "element type that TensorRT does not have")
def _foreign(subject: Subject) -> Iterator[Problem]:
    known = _EVERYWHERE | (_SINCE_10 if subject.profile.oldest >= (10, 0) else frozenset())
    known -= {TensorProto.UINT8} if subject.profile.oldest < (8, 5) else set()
    for tensor in dict.fromkeys((*subject.index.inputs, *subject.index.outputs)):
        if subject.producer_op(tensor) == "Cast":
            continue  # the Cast is named below
        kind = subject.types.get(tensor, 0)
        if kind and kind not in known:
            yield _foreign_type(subject, tensor, f"{tensor} is {type_name(kind)}")
    for node in subject.nodes:
        target = attribute(node, "to", 0) if node.op_type == "Cast" else 0
        if target and target not in known:
            yield _foreign_type(subject, node_name(node), f"Cast to {type_name(target)}")
        for tensor in node.input if not is_quantizer(node) else ():
            kind = subject.types.get(tensor, 0) if tensor in subject.initializers else 0
            if kind and kind not in known:
                yield _foreign_type(subject, node_name(node), f"initializer {tensor} is {type_name(kind)}")


@rule("T108", "refused", "operator on two float types")
def _two_floats(subject: Subject) -> Iterator[Problem]:
    compute = {id(node) for node in subject.compute_nodes}  # T105 is theirs
    for node in subject.nodes:
        known = onnx.defs.has(node.op_type, subject.opset, node.domain)
        if id(node) in compute or is_quantizer(node) or not known:
            continue
        formal = onnx.defs.get_schema(node.op_type, subject.opset, node.domain).inputs
        groups: dict[str, dict[int, str]] = {}
        for place, tensor in enumerate(node.input):
            kind = subject.types.get(tensor, 0)
            if kind in _FLOATS and formal:
                groups.setdefault(formal[min(place, len(formal) - 1)].type_str, {})[kind] = tensor
        for found in groups.values():
            if len(found) > 1:
                words = " and ".join(f"{tensor} is {type_name(kind)}" for kind, tensor in found.items())
                yield Problem(
                    node_name(node),
                    f"{words}, but {node.op_type} computes in one type; with strong typing TensorRT casts nothing by "
                    "itself",
                    "put a Cast before the one that is not of the type wanted",
                )


def _foreign_type(subject: Subject, name: str, what: str) -> Problem:
    return Problem(
        name,
        f"{what}, a type that {subject.profile.versions} cannot import",
        "use float32, float16, int32 or bool, and uint8 at the graph's edges",
    )
