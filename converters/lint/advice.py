"""Rules that cost speed, never the result; `lint` leaves them out, `advise` gives them alone."""

from __future__ import annotations

from collections.abc import Iterator

import onnx

from edgeseg.converters.graph import attribute
from edgeseg.converters.lint.findings import Problem, rule
from edgeseg.converters.lint.subject import BATCH_NORM, Subject, node_name
from edgeseg.converters.macs import COMPUTE

__all__: list[str] = []

_SUMS = ("Add", "Sum")


def _computed_inputs(subject: Subject, node: onnx.NodeProto) -> list[str]:
    return [i for i in node.input if i and not subject.is_constant(i)]


@rule("A101", "advice", "residual sum without a quantized input")
def _float_skip(subject: Subject) -> Iterator[Problem]:
    for node in subject.nodes:
        inputs = _computed_inputs(subject, node) if node.op_type in _SUMS else []
        branch = any(_is_int8(subject, i) for i in inputs)
        if len(inputs) > 1 and branch and not any(i in subject.dequantized for i in inputs):
            yield Problem(
                node_name(node),
                f"no input of this {node.op_type} is quantized, so that a float copy of the skip input stays alive",
                "put Q/DQ on the skip input, not on the convolution's branch, where accuracy allows",
            )


@rule("A102", "advice", "residual sum with Q/DQ on the convolution's branch too")
def _both_quantized(subject: Subject) -> Iterator[Problem]:
    for node in subject.nodes:
        inputs = _computed_inputs(subject, node) if node.op_type in _SUMS else []
        branches = [i for i in inputs if (source := _before_pair(subject, i)) and _is_int8(subject, source)]
        if len(inputs) > 1 and branches and all(i in subject.dequantized for i in inputs):
            yield Problem(
                node_name(node),
                f"every input of this {node.op_type} has Q/DQ, also a convolution's output ({branches[0]}): the sum "
                "is no longer part of the convolution's kernel",
                "take Q/DQ off one convolution's branch",
            )


@rule("A103", "advice", "concatenation of quantized and float tensors")
def _mixed_concat(subject: Subject) -> Iterator[Problem]:
    for node in subject.nodes:
        quantized = [i for i in node.input if i in subject.dequantized]
        if node.op_type == "Concat" and 0 < len(quantized) < len(_computed_inputs(subject, node)):
            yield Problem(
                node_name(node),
                f"{len(quantized)} of the {len(node.input)} inputs are quantized; the concatenation runs in float",
                "quantize all inputs with one scale, or none of them and what is read behind",
            )


@rule("A104", "advice", "concatenation of different scales")
def _concat_scales(subject: Subject) -> Iterator[Problem]:
    for node in subject.nodes:
        scales = {subject.dequantized.get(i, "") for i in node.input}
        if node.op_type == "Concat" and "" not in scales and len(scales) > 1:
            yield Problem(
                node_name(node),
                f"the inputs have {len(scales)} different scales; each branch is quantized once more",
                "give all inputs the largest of the scales, where their ranges are alike",
            )


@rule("A105", "advice", "input channels that are no multiple of 4")
def _padding(subject: Subject) -> Iterator[Problem]:
    for node in subject.compute_nodes:
        if node.op_type != "Conv" or node.output[0] not in subject.int8_outputs or attribute(node, "group", 1) != 1:
            continue
        weight = _weight(subject, node)
        if weight is not None and weight[1] % 4:
            yield Problem(
                node_name(node),
                f"the INT8 convolution reads {weight[1]} channels and is padded to {-(-weight[1] // 4) * 4} by a "
                "concatenation",
                "choose a multiple of 4, best of 32, when the network is trained again",
            )


@rule("A106", "advice", "quantized depthwise convolution")
def _depthwise(subject: Subject) -> Iterator[Problem]:
    for node in subject.compute_nodes:
        weight, group = _weight(subject, node), attribute(node, "group", 1)
        if node.output[0] in subject.int8_outputs and weight is not None and group > 1 and weight[1] == 1:
            yield Problem(
                node_name(node),
                f"the INT8 depthwise convolution of {group} channels is expanded to 4 channels a group",
                "measure on the board, and leave it in float where that is as fast",
            )


@rule("A107", "advice", "bilinear Resize between Q/DQ")
def _resize(subject: Subject) -> Iterator[Problem]:
    for node in subject.nodes:
        linear = node.op_type == "Resize" and attribute(node, "mode", "nearest") != "nearest"
        after = linear and any(r.op_type == "QuantizeLinear" for r in subject.index.consumers(node.output[0]))
        if after and node.input[0] in subject.dequantized:
            yield Problem(
                node_name(node),
                "the bilinear Resize dequantizes, computes in float and quantizes again",
                "keep Q/DQ before it only where it comes from a convolution and goes to a quantized one",
            )


@rule("A108", "advice", "quantized global pooling")
def _global_pool(subject: Subject) -> Iterator[Problem]:
    for node in subject.nodes:
        if node.op_type in ("GlobalAveragePool", "ReduceMean") and node.input[0] in subject.dequantized:
            yield Problem(
                node_name(node),
                f"{node.op_type} dequantizes and computes in float",
                "let it read the tensor before QuantizeLinear",
            )


@rule("A109", "advice", "BatchNormalization that could be part of a convolution")
def _batch_norm(subject: Subject) -> Iterator[Problem]:
    for node in subject.nodes:
        origin = subject.index.producer(node.input[0]) if node.op_type == BATCH_NORM else None
        if origin is not None and origin.op_type in COMPUTE:
            yield Problem(
                node_name(node),
                f"BatchNormalization follows {origin.op_type} {node_name(origin)} and keeps it from joining a sum or "
                "an activation in one kernel",
                "fold it into the weights before quantization; edgeseg convert does so",
            )


@rule("A110", "advice", "tensor quantized more than once")
def _twice(subject: Subject) -> Iterator[Problem]:
    scales: dict[str, set[bytes | str]] = {}
    first: dict[str, onnx.NodeProto] = {}
    for quantizer in subject.quantizers:
        if quantizer.quantizes and quantizer.role == "activation":
            scales.setdefault(quantizer.source, set()).add(quantizer.scale.key)
            first.setdefault(quantizer.source, quantizer.node)
    for tensor, values in scales.items():
        if len(values) > 1:
            yield Problem(
                node_name(first[tensor]),
                f"{tensor} is quantized with {len(values)} different scales",
                "let one pair serve all its readers",
            )


def _is_int8(subject: Subject, tensor: str) -> bool:
    """Whether an INT8 layer makes a tensor, also through BatchNormalization."""
    origin = subject.origin(tensor)
    return origin is not None and bool(origin.output) and origin.output[0] in subject.int8_outputs


def _before_pair(subject: Subject, tensor: str) -> str:
    """The float tensor that a DequantizeLinear's output stands for; empty for a tensor without a pair."""
    last = subject.index.producer(tensor)
    first = subject.index.producer(last.input[0]) if last is not None and last.op_type == "DequantizeLinear" else None
    return first.input[0] if first is not None and first.op_type == "QuantizeLinear" else ""


def _weight(subject: Subject, node: onnx.NodeProto) -> tuple[int, ...] | None:
    """Shape of a convolution's weight, (output channels, input channels / groups, ...), also behind Q/DQ."""
    tensor = node.input[1]
    weight = subject.index.constant(_before_pair(subject, tensor) or tensor)
    if weight is None and (last := subject.index.producer(tensor)) is not None and last.op_type == "DequantizeLinear":
        weight = subject.index.constant(last.input[0])
    return None if weight is None or weight.ndim < 3 else weight.shape
