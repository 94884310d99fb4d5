"""Rules on where Q/DQ stands."""

from __future__ import annotations

from collections.abc import Iterator

import onnx

from edgeseg.converters.lint.findings import Problem, rule
from edgeseg.converters.lint.profiles import JETPACK_4, NO_QUANTIZERS
from edgeseg.converters.lint.quantizers import is_quantizer
from edgeseg.converters.lint.subject import MOVES, Subject, node_name
from edgeseg.converters.macs import COMPUTE

__all__: list[str] = []

_ACTIVATIONS = frozenset(
    {
        "Celu", "Clip", "Elu", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu", "Mish", "PRelu", "Relu", "Selu",
        "Sigmoid", "Softplus", "Softsign", "Tanh", "ThresholdedRelu",
    }
)  # fmt: skip
# What a network ends with; none of them works in INT8.
_ENDS = frozenset({"ArgMax", "ArgMin", "Cast", "LogSoftmax", "ReduceMax", "Softmax", "TopK"})
_PASSED = MOVES | {"Concat", "Pad", "Resize"}


@rule("Q201", "silent", "only one of data and weight has Q/DQ")
def _half_quantized(subject: Subject) -> Iterator[Problem]:
    for node in subject.compute_nodes:
        data, weight = (i in subject.dequantized for i in node.input[:2])
        if node.op_type == "ConvTranspose" or data == weight:
            continue
        missing = node.input[1] if data else node.input[0]
        source = subject.producer_op(missing)
        origin = f" ({missing} comes from {source}, which gives float)" if source else ""
        yield Problem(
            node_name(node),
            f"the {'data' if data else 'weight'} of this {node.op_type} is quantized, but its "
            f"{'weight' if data else 'data'} is not{origin}; TensorRT runs it in float",
            f"put QuantizeLinear and DequantizeLinear on {missing} too, or let the node read float on both inputs",
        )


@rule("Q202", "silent", "quantized ConvTranspose")
def _deconvolution(subject: Subject) -> Iterator[Problem]:
    for node in subject.compute_nodes:
        if node.op_type == "ConvTranspose" and any(i in subject.dequantized for i in node.input[:2]):
            yield Problem(
                node_name(node),
                "this ConvTranspose has Q/DQ; TensorRT dequantizes and runs it in float, so it loses accuracy for "
                "nothing",
                "let it read its data and its weight without Q/DQ",
            )


@rule("Q203", "silent", "Q/DQ between a layer and its activation")
def _before_activation(subject: Subject) -> Iterator[Problem]:
    for node, origin in _quantized_outputs(subject):
        activation = next((r for r in subject.readers(node.output[0]) if r.op_type in _ACTIVATIONS), None)
        if activation is not None:
            yield Problem(
                node_name(node),
                f"Q/DQ stands between {origin.op_type} {node_name(origin)} and its {activation.op_type} "
                f"{node_name(activation)}: the two are no longer one kernel, and negative values take half of the "
                "range",
                f"let {node_name(activation)} read {node.input[0]}, and put Q/DQ on what it gives",
            )


@rule("Q204", "silent", "Q/DQ on logits")
def _on_logits(subject: Subject) -> Iterator[Problem]:
    for node, origin in _quantized_outputs(subject):
        ends = set(_ends(subject, node.output[0]))
        if ends and ends <= _ENDS | {"output"}:
            yield Problem(
                node_name(node),
                f"Q/DQ on what {origin.op_type} {node_name(origin)} gives rounds the network's result to 8 bits, and "
                f"no INT8 layer reads it (only {', '.join(sorted(ends))})",
                "leave the last layer's output in float",
            )


@rule("Q205", "refused", "Q/DQ where none is taken", profiles=(NO_QUANTIZERS, JETPACK_4))
def _not_taken(subject: Subject) -> Iterator[Problem]:
    for quantizer in subject.distinct_quantizers:
        yield Problem(
            node_name(quantizer.node),
            f"{quantizer.node.op_type} on {quantizer.role} {quantizer.source}; a calibration cache does not go "
            "together with Q/DQ, DLA up to TensorRT 10.7 has none, and boards without INT8 cannot run it",
            "take the form without Q/DQ, see docs/targets.md",
        )


def _quantized_outputs(subject: Subject) -> Iterator[tuple[onnx.NodeProto, onnx.NodeProto]]:
    """Each QuantizeLinear that reads what a compute node gives, also through BatchNormalization, with that node."""
    for quantizer in subject.quantizers:
        if quantizer.quantizes:
            origin = subject.origin(quantizer.source)
            if origin is not None and origin.op_type in COMPUTE:
                yield quantizer.node, origin


def _ends(subject: Subject, tensor: str) -> Iterator[str]:
    """Operators that read a quantized tensor in the end, past those that only move or resize it; "output" for a float
    output of the graph."""
    waiting, seen = [tensor], {tensor}
    while waiting:
        for node in subject.index.consumers(waiting.pop()):
            if not is_quantizer(node) and node.op_type not in _PASSED:
                yield node.op_type
                continue
            for output in node.output:
                if output in subject.outputs and node.op_type != "QuantizeLinear":
                    yield "output"
                if output not in seen:
                    seen.add(output)
                    waiting.append(output)
