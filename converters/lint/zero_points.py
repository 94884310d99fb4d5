"""Rules on zero points, and on what is stored as integers."""

from __future__ import annotations

from collections.abc import Iterator

from onnx import TensorProto

from edgeseg.converters.lint.element_types import type_name
from edgeseg.converters.lint.findings import Problem, rule
from edgeseg.converters.lint.quantizers import Quantizer
from edgeseg.converters.lint.subject import Subject, node_name

__all__: list[str] = []

_SINCE_10 = (TensorProto.FLOAT8E4M3FN, TensorProto.INT4, TensorProto.FLOAT4E2M1)
_SYMMETRIC = "quantize symmetrically: int8, zero point 0, scale = amax / 127"


@rule("Q108", "portability", "zero point left out")
def _missing(subject: Subject) -> Iterator[Problem]:
    for quantizer in subject.distinct_quantizers:
        if quantizer.zero_point is None and not _is_integer_bias(subject, quantizer):
            yield Problem(
                node_name(quantizer.node),
                f"{quantizer.node.op_type} of {quantizer.role} {quantizer.source} has no zero point: uint8 by ONNX, "
                "int8 for TensorRT, and an error (requires 3 inputs) for TensorRT 8.0 to 8.5",
                "give an int8 initializer of zeros with as many elements as the scale",
            )


@rule(
    "Q109",
    "portability",
    "scale or zero point behind Identity, or zero points that are not as many as scales",
    fixed_in=(10, 0),
)
def _not_stored(subject: Subject) -> Iterator[Problem]:
    for quantizer in subject.distinct_quantizers:
        name, scale, zero = node_name(quantizer.node), quantizer.scale, quantizer.zero_point
        for what, parameter in (("scale", scale), ("zero point", zero)):
            if parameter is not None and parameter.value is not None and not parameter.stored:
                yield Problem(
                    name,
                    f"the {what} of {quantizer.role} {quantizer.source} stands behind an Identity; TensorRT 8 wants "
                    "initializers",
                    "fold constants, for example with onnxsim",
                )
        if (
            zero is not None
            and zero.value is not None
            and scale.value is not None
            and zero.value.size != scale.value.size
        ):
            yield Problem(
                name,
                f"{quantizer.role} {quantizer.source} has {scale.value.size} scales but {zero.value.size} zero points; "
                "TensorRT 8 says: The scale and zero-point must have the same size",
                "store a zero point for every scale",
            )


@rule("Q110", "refused", "zero point other than 0")
def _not_zero(subject: Subject) -> Iterator[Problem]:
    for quantizer in subject.distinct_quantizers:
        zero = quantizer.zero_point
        if zero is not None and zero.value is not None and zero.value.astype("float64").any():
            first = next(v for v in zero.value.astype("float64").flat if v)
            yield Problem(
                node_name(quantizer.node),
                f"{quantizer.role} {quantizer.source} has zero point {first:g} ({zero.value.dtype}); TensorRT says: "
                "Non-zero zero point is not supported",
                _SYMMETRIC,
            )


@rule("Q111", "silent", "uint8 zero point")
def _uint8(subject: Subject) -> Iterator[Problem]:
    for quantizer in subject.distinct_quantizers:
        zero = quantizer.zero_point
        if zero is None or _type(subject, zero.tensor) != TensorProto.UINT8:
            continue
        # What is uint8 before it comes here (stored weights, a graph input) has rules of its own.
        if quantizer.quantizes or _type(subject, quantizer.source) != TensorProto.UINT8:
            yield Problem(
                node_name(quantizer.node),
                f"{quantizer.role} {quantizer.source} is quantized to uint8; TensorRT up to 10.9 refuses that, newer "
                "versions take int8 instead and clip at 127, so that half of the range is lost",
                _SYMMETRIC,
            )


@rule("Q112", "refused", "quantization to another type than int8")
def _other_type(subject: Subject) -> Iterator[Problem]:
    known = {TensorProto.INT8, TensorProto.UINT8, TensorProto.INT32}
    known.update(_SINCE_10 if subject.profile.oldest >= (10, 0) else ())
    for quantizer in subject.distinct_quantizers:
        kind = 0 if quantizer.zero_point is None else _type(subject, quantizer.zero_point.tensor)
        kind = kind or _stored_as(subject, quantizer)
        if kind and kind not in known:
            yield Problem(
                node_name(quantizer.node),
                f"{quantizer.role} {quantizer.source} is quantized to {type_name(kind)}; {subject.profile.versions} "
                "cannot import it",
                _SYMMETRIC,
            )


@rule("Q113", "refused", "int32 through DequantizeLinear, as quantizers write biases")
def _int32(subject: Subject) -> Iterator[Problem]:
    for quantizer in subject.distinct_quantizers:
        if _is_integer_bias(subject, quantizer):
            yield Problem(
                node_name(quantizer.node),
                f"{quantizer.role} {quantizer.source} is int32; TensorRT's DequantizeLinear wants int8",
                "leave biases in float32 (in ONNX Runtime's quantizer: extra_options={'QuantizeBias': False})",
            )


@rule("Q114", "silent", "bias behind Q/DQ")
def _bias(subject: Subject) -> Iterator[Problem]:
    for quantizer in subject.distinct_quantizers:
        if quantizer.role == "bias" and not _is_integer_bias(subject, quantizer):
            yield Problem(
                node_name(quantizer.node),
                f"bias {quantizer.source} is rounded to 8 bits and then added in float all the same; TensorRT 8 says: "
                "only activation types allowed as input to this layer",
                "leave biases in float32 without Q/DQ",
            )


@rule("Q115", "refused", "weights stored as uint8")
def _uint8_weights(subject: Subject) -> Iterator[Problem]:
    for quantizer in subject.distinct_quantizers:
        if _stored_as(subject, quantizer) == TensorProto.UINT8:
            yield Problem(
                node_name(quantizer.node),
                f"{quantizer.role} {quantizer.source} is stored as uint8; TensorRT says: Found unsupported input type "
                "of UINT8",
                "store float32 weights with QuantizeLinear and DequantizeLinear (int8, zero point 0) behind them",
            )


@rule("Q116", "portability", "weights stored as int8", fixed_in=(10, 0))
def _int8_weights(subject: Subject) -> Iterator[Problem]:
    for quantizer in subject.distinct_quantizers:
        if _stored_as(subject, quantizer) == TensorProto.INT8:
            yield Problem(
                node_name(quantizer.node),
                f"{quantizer.role} {quantizer.source} is stored as int8; TensorRT 8.5 and older says: invalid weights "
                "type of Int8",
                "store float32 weights with QuantizeLinear and DequantizeLinear behind them",
            )


def _type(subject: Subject, tensor: str) -> int:
    return subject.types.get(tensor, 0)


def _stored_as(subject: Subject, quantizer: Quantizer) -> int:
    """Type of the constant that a DequantizeLinear reads; 0 for other nodes, also behind a QuantizeLinear."""
    own = not quantizer.quantizes and quantizer.stored and quantizer.source == quantizer.node.input[0]
    return _type(subject, quantizer.source) if own else 0


def _is_integer_bias(subject: Subject, quantizer: Quantizer) -> bool:
    return not quantizer.quantizes and _type(subject, quantizer.node.input[0]) == TensorProto.INT32
