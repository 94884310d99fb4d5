"""Rules on operators and their attributes."""

from __future__ import annotations

import math
from collections.abc import Iterator

import onnx

from edgeseg.converters.graph import attribute
from edgeseg.converters.lint.findings import Problem, rule
from edgeseg.converters.lint.operator_tables import INTEGER_OPERATORS, KNOWN, NEWER, WRITTEN_OUT
from edgeseg.converters.lint.quantizers import is_quantizer
from edgeseg.converters.lint.subject import Subject, node_name

__all__: list[str] = []

_UNPOOLING = "MaxUnpool"
_POOLS = ("AveragePool", "LpPool", "MaxPool")
# nvinfer1's plausibility check on a pooling window: its volume must be below 100 000 in two and 10 000 000 in three
# dimensions (NVIDIA/TensorRT#2094, onnx/onnx-tensorrt#937: 316 x 316 builds, 317 x 317 does not).
_WINDOW_LIMIT = {2: 100_000, 3: 10_000_000}
_COORDINATES = ("align_corners", "asymmetric", "half_pixel", "pytorch_half_pixel", "tf_half_pixel_for_nn")
_MODES = ("linear", "nearest")


@rule("O101", "refused", "quantized operator other than Q/DQ")
def _integer_operator(subject: Subject) -> Iterator[Problem]:
    for node in subject.nodes:
        if node.op_type in INTEGER_OPERATORS:
            yield Problem(
                node_name(node),
                f"TensorRT has no {node.op_type}; QuantizeLinear and DequantizeLinear around float operators are its "
                "one form of quantization",
                "convert the float network again (in ONNX Runtime's quantizer: quant_format=QuantFormat.QDQ)",
            )


@rule("O102", "refused", "operator that TensorRT does not know")
def _unknown(subject: Subject) -> Iterator[Problem]:
    for node in subject.nodes:
        local = _is_local(subject, node)
        special = node.op_type in INTEGER_OPERATORS or node.op_type == _UNPOOLING
        if local or special or is_quantizer(node):
            continue
        own = node.domain in ("", "ai.onnx")
        if not own or (node.op_type not in KNOWN and node.op_type not in NEWER):
            where = "" if own else f" of domain {node.domain}"
            yield Problem(
                node_name(node),
                f"TensorRT has no {node.op_type}{where} and looks for a plug-in of that name",
                "export the network without this operator, or rewrite it with operators of ONNX's own set",
            )


@rule("O103", "portability", "operator that only newer versions know")
def _newer(subject: Subject) -> Iterator[Problem]:
    oldest = subject.profile.oldest
    for node in subject.nodes:
        if node.op_type in WRITTEN_OUT and oldest >= (8, 5):
            continue
        local = _is_local(subject, node)
        since = (10, 0) if local else NEWER.get(node.op_type) if node.domain in ("", "ai.onnx") else None
        if since is not None and since > oldest:
            what = f"the model-local function {node.op_type}" if local else node.op_type
            yield Problem(
                node_name(node),
                f"TensorRT {oldest[0]}.{oldest[1]} has no {what}; it came by {since[0]}.{since[1]}",
                "export with an older opset or inline functions, so that it is written as simpler operators",
            )


def _is_local(subject: Subject, node: onnx.NodeProto) -> bool:
    return any(f.name == node.op_type and f.domain == node.domain for f in subject.model.functions)


@rule("O104", "refused", "max pooling with indices, or unpooling")
def _indices(subject: Subject) -> Iterator[Problem]:
    for node in subject.nodes:
        with_indices = node.op_type == "MaxPool" and len(node.output) > 1 and bool(node.output[1])
        if with_indices or node.op_type == _UNPOOLING:
            yield Problem(
                node_name(node),
                "no TensorRT version has MaxPool with its Indices output, nor MaxUnpool",
                "replace unpooling by a bilinear Resize or a ConvTranspose and fine-tune the network",
            )


@rule("O105", "refused", "coordinate rule of Resize that TensorRT does not have")
def _coordinates(subject: Subject) -> Iterator[Problem]:
    for node in subject.nodes:
        rule_of_node = attribute(node, "coordinate_transformation_mode", "half_pixel")
        if node.op_type == "Resize" and rule_of_node not in _COORDINATES:
            yield Problem(
                node_name(node),
                f"Resize uses coordinates {rule_of_node}; TensorRT has {', '.join(_COORDINATES)}",
                "export the upsampling as bilinear with align_corners or half_pixel coordinates",
            )


@rule("O106", "portability", "Resize that is not plain nearest or linear")
def _interpolation(subject: Subject) -> Iterator[Problem]:
    for node in subject.nodes:
        if node.op_type not in ("Resize", "Upsample"):
            continue
        mode = attribute(node, "mode", "nearest")
        asked = [
            what
            for what, present in (
                (f"mode {mode}", mode not in _MODES),
                ("antialias", attribute(node, "antialias", 0) != 0),
                ("exclude_outside", attribute(node, "exclude_outside", 0) != 0),
                ("keep_aspect_ratio_policy", attribute(node, "keep_aspect_ratio_policy", "stretch") != "stretch"),
            )
            if present
        ]
        if asked:
            yield Problem(
                node_name(node),
                f"{node.op_type} asks for {', '.join(asked)}; TensorRT's documentation names nearest and linear only",
                "use linear (bilinear) or nearest without these options",
            )


@rule("O107", "refused", "pooling window too large")
def _window(subject: Subject) -> Iterator[Problem]:
    for node in subject.nodes:
        kernel = attribute(node, "kernel_shape", None) if node.op_type in _POOLS else None
        limit = _WINDOW_LIMIT.get(len(kernel)) if kernel else None
        if kernel and limit and math.prod(kernel) >= limit:
            yield Problem(
                node_name(node),
                f"{node.op_type} has a window of {'x'.join(map(str, kernel))} = {math.prod(kernel)} values, but "
                f"TensorRT takes fewer than {limit}",
                "where the window covers the whole map, use GlobalAveragePool, GlobalMaxPool or ReduceMean",
            )


@rule("O108", "refused", "dilated pooling")
def _dilation(subject: Subject) -> Iterator[Problem]:
    for node in subject.nodes:
        dilations = attribute(node, "dilations", None) if node.op_type in _POOLS else None
        if dilations and any(d != 1 for d in dilations):
            yield Problem(
                node_name(node),
                f"{node.op_type} has dilations {'x'.join(map(str, dilations))}; TensorRT takes 1 only",
                "replace it by pooling without dilation and fine-tune the network",
            )
