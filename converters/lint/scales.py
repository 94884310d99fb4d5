"""Rules on the scales of Q/DQ: their values, their shape, where they come from."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from edgeseg.converters.graph import attribute
from edgeseg.converters.lint.findings import Problem, rule
from edgeseg.converters.lint.quantizers import Quantizer
from edgeseg.converters.lint.subject import Subject, node_name

__all__ = ["LARGEST_SCALE", "SMALLEST_SCALE"]

SMALLEST_SCALE = 1e-9
LARGEST_SCALE = 1e6
"""A scale beyond these is an accident of calibration: no layer of a network works in ranges of 1e-7 or 1e8."""


@rule("Q101", "refused", "scale that is zero, negative or not a number")
def _not_positive(subject: Subject) -> Iterator[Problem]:
    for quantizer in subject.distinct_quantizers:
        values = quantizer.scale.value
        if values is None or bool(np.all(values > 0)):
            continue
        bad = values[~(values > 0)]
        yield Problem(
            node_name(quantizer.node),
            f"{bad.size} of the {values.size} scales of {quantizer.role} {quantizer.source} are not positive (first: "
            f"{float(bad.flat[0]):g}); TensorRT says: Scale coefficients must all be positive",
            "clamp the range of a channel whose weights are all zero to a small positive number"
            if quantizer.role == "weight"
            else "calibrate again with frames in which this tensor is not constant zero and has no NaN",
        )


@rule("Q102", "silent", "scale that is infinite, or absurdly small or large")
def _out_of_range(subject: Subject) -> Iterator[Problem]:
    for quantizer in subject.distinct_quantizers:
        values = quantizer.scale.value
        if values is None:
            continue
        wide = values.astype(np.float64)
        bad = wide[(wide > 0) & ~((wide >= SMALLEST_SCALE) & (wide <= LARGEST_SCALE))]
        if bad.size:
            yield Problem(
                node_name(quantizer.node),
                f"{bad.size} of the {wide.size} scales of {quantizer.role} {quantizer.source} lie outside "
                f"{SMALLEST_SCALE:g} to {LARGEST_SCALE:g} (first: {bad[0]:g}); TensorRT takes them and "
                "the values are lost",
                "look for a dead or overflowing layer, then calibrate again; clamp the range of a dead weight channel",
            )


@rule("Q103", "silent", "activation scale of shape [1] instead of a scalar")
def _vector_of_one(subject: Subject) -> Iterator[Problem]:
    for quantizer in subject.distinct_quantizers:
        values = quantizer.scale.value
        if quantizer.role == "activation" and values is not None and values.size == 1 and values.ndim > 0:
            yield Problem(
                node_name(quantizer.node),
                f"the scale of activation {quantizer.source} has shape {list(values.shape)}; TensorRT then runs the "
                "layers that read it in float, without a warning",
                "store the scale as a scalar, shape []",
            )


@rule("Q104", "silent", "activation scale per channel")
def _activation_per_channel(subject: Subject) -> Iterator[Problem]:
    for quantizer in subject.distinct_quantizers:
        values = quantizer.scale.value
        if quantizer.role == "activation" and values is not None and values.size > 1:
            yield Problem(
                node_name(quantizer.node),
                f"activation {quantizer.source} has {values.size} scales; TensorRT quantizes activations per tensor "
                "only and runs the layers that read it in float",
                "use one scalar scale for the tensor; scales per channel are for weights",
            )


@rule("Q105", "silent", "weight scales that do not belong to the output channels")
def _weight_axis(subject: Subject) -> Iterator[Problem]:
    for quantizer in subject.distinct_quantizers:
        values, wanted = quantizer.scale.value, _output_axis(subject, quantizer)
        if wanted is None or values is None or values.size == 1:
            continue
        weight = subject.index.constant(quantizer.source)
        shape = None if weight is None else weight.shape
        axis = quantizer.axis % len(shape) if shape else quantizer.axis
        fits = axis == wanted and values.ndim == 1 and (shape is None or values.size == shape[axis])
        if not fits:
            yield Problem(
                node_name(quantizer.node),
                f"weight {quantizer.source} has scales of shape {list(values.shape)} on axis {axis}, but the output "
                f"channels are axis {wanted}" + (f" with {shape[wanted]} values" if shape else "") + "; "
                "TensorRT then runs the layer in float or refuses it",
                f"quantize the weight per output channel, axis={wanted}, or with one scale",
            )


def _output_axis(subject: Subject, quantizer: Quantizer) -> int | None:
    """Axis of the output channels of a weight; None for what is no weight of an INT8 layer."""
    node = quantizer.consumer
    if quantizer.role != "weight" or node is None or node.op_type == "ConvTranspose":
        return None
    if node.op_type == "Conv":
        return 0
    if node.op_type == "Gemm":
        return 0 if attribute(node, "transB", 0) else 1
    weight = subject.index.constant(quantizer.source)
    return None if weight is None else weight.ndim - 1


@rule("Q106", "refused", "scale or zero point computed while the network runs")
def _computed(subject: Subject) -> Iterator[Problem]:
    for quantizer in subject.distinct_quantizers:
        for what, parameter in (("scale", quantizer.scale), ("zero point", quantizer.zero_point)):
            if parameter is not None and parameter.value is None:
                yield Problem(
                    node_name(quantizer.node),
                    f"the {what} {parameter.tensor} of {quantizer.role} {quantizer.source} is computed by "
                    f"{subject.producer_op(parameter.tensor) or 'the caller (a graph input)'}; TensorRT's builder "
                    "crashes",
                    f"calibrate the network and store the {what} as an initializer",
                )


@rule("Q107", "portability", "scale that is not float32", fixed_in=(10, 0))
def _not_float32(subject: Subject) -> Iterator[Problem]:
    for quantizer in subject.distinct_quantizers:
        values = quantizer.scale.value
        if values is not None and values.dtype != np.float32:
            yield Problem(
                node_name(quantizer.node),
                f"the scale of {quantizer.role} {quantizer.source} is {values.dtype}; TensorRT 8 reads its bytes as "
                "float32 and gets another number",
                "store the scale as float32; where the network computes in float16, put a Cast before QuantizeLinear "
                "and after DequantizeLinear",
            )
