"""What it costs on a target to compute a layer in float, and not in INT8."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import onnx

from edgeseg.converters.graph import GraphIndex, attribute
from edgeseg.converters.options import TARGETS
from edgeseg.errors import UsageError, unknown_name
from edgeseg.manifest import Layer

__all__ = ["float_costs"]


@dataclass(frozen=True)
class _TargetCost:
    """How a target computes.

    Attributes:
        float_time: of a multiply-accumulate outside INT8, in units of one in INT8.
        tensor_cores: whether INT8 runs on tensor cores, which take whole blocks of channels: layers of few channels and
            depthwise ones gain nothing there.
    """

    float_time: float
    tensor_cores: bool


_COSTS: dict[str, _TargetCost] = {
    "cpu": _TargetCost(4.0, tensor_cores=False),
    "orin": _TargetCost(2.0, tensor_cores=True),
    "thor": _TargetCost(2.0, tensor_cores=True),
}
"""A CPU with VNNI adds four products of 8 bits where it adds one of float32; tensor cores from Ampere on multiply INT8
at twice the rate of FP16 (NVIDIA A100 white paper, table 3, and the Jetson data sheets)."""

_LEAST = 0.02
"""Share of a layer's work that leaving it in float costs at least: its tensors are then larger to move."""


def float_costs(model: onnx.ModelProto, layers: tuple[Layer, ...], target: str) -> Mapping[str, float]:
    """What leaving each layer in float adds to the time of a frame, in INT8 multiply-accumulates.

    Args:
        model: the float graph.
        layers: its compute layers with their multiply-accumulates.
        target: one of `edgeseg.converters.options.TARGETS`.

    Returns:
        By layer, positive for every layer that computes anything.

    Raises:
        UsageError: for an unknown target.
    """
    if target not in TARGETS:
        raise UsageError(unknown_name("target", target, TARGETS))
    cost, index = _COSTS[target], GraphIndex(model)
    nodes = {node.name: node for node in model.graph.node}
    return {
        layer.name: layer.macs * max(_gain(index, nodes[layer.name], cost), _LEAST)
        for layer in layers
        if layer.name in nodes
    }


def _gain(index: GraphIndex, node: onnx.NodeProto, cost: _TargetCost) -> float:
    """How many times its INT8 time a layer takes longer in float."""
    gain = cost.float_time - 1
    if not cost.tensor_cores:
        return gain
    shape = index.shape(node.input[1]) if node.op_type == "Conv" else None
    if shape is None:
        return gain
    groups = attribute(node, "group", 1)
    # TensorRT gains from INT8 from 16 channels on both sides of a group; NVIDIA's own quantizer leaves out others
    # (Model Optimizer, find_nodes_from_convs_to_exclude).
    return gain if shape[1] >= 16 and shape[0] // groups >= 16 else 0.0
