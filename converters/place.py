"""Where Q/DQ stands: the inputs and weights of convolutions, and on request the skip inputs of sums.

The plain recipe. Quantizing Add, Concat, PReLU or BatchNorm separately is what costs light networks their accuracy;
TensorRT needs pairs at the two inputs of a convolution and nowhere else for it to run in INT8 (NVIDIA TensorRT guide,
"Q/DQ Layer-Placement Recommendations"); those that save it time elsewhere are in `partners`. Symmetric: int8, zero
point 0, one scalar scale an activation tensor, one scale an output channel for weights, bias in float.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from edgeseg.calibration.ranges import LEVELS
from edgeseg.converters.graph import GraphIndex, copy_model, remove_unused, set_constant
from edgeseg.converters.macs import COMPUTE, macs
from edgeseg.converters.partners import PartnerRule, Skip, find_partners
from edgeseg.errors import CalibrationError, UnsupportedModelError
from edgeseg.manifest import Layer

__all__ = [
    "Placement",
    "correct_biases",
    "moved_weight",
    "place_qdq",
    "plan_placement",
    "remove_qdq",
    "weight_scales",
]

_BEYOND = 0.01
"""How far beyond the middle between two levels a weight is put that is to round to the farther one, in levels."""


@dataclass(frozen=True)
class Placement:
    """What is quantized.

    Attributes:
        layers: every compute node with its precision, MACs, and the reason where it stays in float.
        tensors: activation tensors that INT8 layers read, in the order of the graph.
        skips: inputs of sums that are quantized too, or can be.
        groups: tensors that one concatenation brings together and that can have one range.
    """

    layers: tuple[Layer, ...]
    tensors: tuple[str, ...]
    skips: tuple[Skip, ...] = ()
    groups: tuple[tuple[str, ...], ...] = ()

    @property
    def quantized(self) -> tuple[str, ...]:
        """Every activation tensor that gets a Q/DQ pair: `tensors`, and those of skips alone."""
        return tuple(dict.fromkeys((*self.tensors, *(skip.tensor for skip in self.skips))))


def plan_placement(
    model: onnx.ModelProto, keep_float: Mapping[str, str] | None = None, *, partners: PartnerRule = "none"
) -> Placement:
    """Decide for each compute node whether it is quantized.

    Args:
        model: the float graph, with named nodes and static shapes.
        keep_float: why layers stay in float that could be quantized, by name.
        partners: which skip inputs of sums and which tensors brought together by concatenations can be taken too.

    Raises:
        UnsupportedModelError: when no convolution can be quantized.
    """
    constants = {initializer.name for initializer in model.graph.initializer}
    work = macs(model)
    layers, tensors = [], dict[str, None]()
    for node in model.graph.node:
        if node.op_type not in COMPUTE:
            continue
        reason = _reason_for_float(node, constants) or (keep_float or {}).get(node.name, "")
        layers.append(Layer(node.name, node.op_type, "float" if reason else "int8", work[node.name], reason))
        if not reason:
            tensors[node.input[0]] = None
    if not tensors:
        if keep_float:
            raise UnsupportedModelError(
                "expected convolutions to quantize, but every one is to stay in float; give fewer --keep-float or a "
                "larger --budget"
            )
        raise UnsupportedModelError("expected convolutions with constant weights, but the graph has none to quantize")
    int8 = {layer.name for layer in layers if layer.precision == "int8"}
    return Placement(tuple(layers), tuple(tensors), *find_partners(model, int8, tuple(tensors), partners))


def _reason_for_float(node: onnx.NodeProto, constants: set[str]) -> str:
    """Why a compute node stays in float; empty for one that is quantized."""
    if node.op_type == "ConvTranspose":
        return "TensorRT runs quantized deconvolutions in float"
    if node.op_type != "Conv":
        return "a matrix product outside a convolution gains nothing and loses accuracy"
    if node.input[1] not in constants:
        return "its weights are computed at run time"
    if node.input[0] in constants:
        return "its input is a constant"
    return ""


def weight_scales(weight: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scale per output channel by the largest magnitude.

    Args:
        weight: (output channels, input channels / groups, height, width) float32.

    Returns:
        (output channels,) float32, always positive: TensorRT refuses a scale of zero, so a channel of (almost) zeros
        takes a millionth of the largest channel's.
    """
    amax = np.abs(weight).reshape(len(weight), -1).max(axis=1)
    floor = max(float(amax.max()) * 1e-6, 1e-6)
    scales: NDArray[np.float32] = (np.maximum(amax, floor) / LEVELS).astype(np.float32)
    return scales


def moved_weight(weight: NDArray[np.float32], positions: NDArray[np.int64]) -> NDArray[np.float32]:
    """Weights of which some round to the farther of their two levels: they are put just beyond the middle between them.

    So a graph that holds them rounds as wanted, and says nearly the same in float.

    Args:
        weight: (output channels, ...) float32.
        positions: of those that are to move, in the flattened array, see `edgeseg.converters.levels.choose_levels`.

    Raises:
        CalibrationError: for positions that the array does not have.
    """
    if len(positions) and not 0 <= positions.min() <= positions.max() < weight.size:
        raise CalibrationError(f"weights number {positions.min()} to {positions.max()} were to move, of {weight.size}")
    scales = np.repeat(weight_scales(weight), weight[0].size)[positions].astype(np.float64)
    result: NDArray[np.float32] = weight.reshape(-1).copy()
    levels = result[positions] / scales
    nearest = np.rint(levels)
    beyond = np.where(levels > nearest, 0.5 + _BEYOND, -0.5 - _BEYOND)
    result[positions] = (nearest + beyond) * scales
    return result.reshape(weight.shape)


def place_qdq(
    model: onnx.ModelProto,
    placement: Placement,
    ranges: Mapping[str, float],
    shifts: Mapping[str, NDArray[np.float64]] | None = None,
    moved: Mapping[str, NDArray[np.int64]] | None = None,
) -> onnx.ModelProto:
    """Put Q/DQ pairs on the inputs and weights of the INT8 layers.

    Args:
        model: the float graph that `placement` was planned on.
        placement: from `plan_placement`.
        ranges: largest magnitude (amax) by activation tensor.
        shifts: what is added to the biases of INT8 layers, (output channels,) by layer, see `correct_biases`.
        moved: which weights of INT8 layers round to the farther of their two levels, see `moved_weight`.

    Returns:
        A new graph; one pair serves all quantized consumers of a tensor.

    Raises:
        CalibrationError: when a tensor has no range, or one that is no positive finite number.
    """
    quantized = {layer.name for layer in placement.layers if layer.precision == "int8"}
    skips = {skip.node: skip.tensor for skip in placement.skips}
    placed = correct_biases(model, {name: shift for name, shift in (shifts or {}).items() if name in quantized})
    graph = placed.graph
    index = GraphIndex(placed)
    weights = {i.name: i for i in graph.initializer}
    pairs = {tensor: _activation_pair(index, tensor, ranges) for tensor in placement.quantized}
    waiting = dict(pairs)
    nodes: list[onnx.NodeProto] = []
    done: dict[str, str] = {}

    def follow(available: str) -> None:
        pair = waiting.pop(available, None)
        if pair is not None:
            nodes.extend(pair.nodes)

    for value in graph.input:
        follow(value.name)
    for node in graph.node:
        if node.name in quantized:
            weight = node.input[1]
            if weight not in done:
                values, name = numpy_helper.to_array(weights[weight]), weight
                if moved and weight in moved:
                    values = moved_weight(values, moved[weight])
                    if all(reader.name in quantized for reader in index.consumers(weight)):
                        weights[weight].CopyFrom(numpy_helper.from_array(values, weight))
                    else:  # a layer in float reads them too, as they are
                        name = index.fresh(f"{weight}_moved")
                        graph.initializer.append(numpy_helper.from_array(values, name))
                pair = _weight_pair(index, name, values)
                graph.initializer.extend(pair.initializers)
                nodes.extend(pair.nodes)
                done[weight] = pair.output
            node.input[0] = pairs[node.input[0]].output
            node.input[1] = done[weight]
        if node.name in skips:
            node.input[list(node.input).index(skips[node.name])] = pairs[skips[node.name]].output
        nodes.append(node)
        for output in node.output:
            follow(output)
    for pair in pairs.values():
        graph.initializer.extend(pair.initializers)
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)
    return placed


def correct_biases(model: onnx.ModelProto, shifts: Mapping[str, NDArray[np.float64]]) -> onnx.ModelProto:
    """Add to biases what quantization takes from the mean of a layer's output on average over frames.

    After M. Nagel, M. van Baalen, T. Blankevoort, M. Welling, "Data-Free Quantization Through Weight Equalization and
    Bias Correction", ICCV 2019, section 4.2, with means measured on calibration frames.

    Args:
        model: the float graph.
        shifts: mean of float minus quantized output, (output channels,), by name of a convolution.

    Returns:
        A new graph.
    """
    corrected = copy_model(model)
    index = GraphIndex(corrected)
    for node in corrected.graph.node:
        shift = shifts.get(node.name)
        if shift is None:
            continue
        biased = len(node.input) > 2 and bool(node.input[2])
        present = index.constant(node.input[2]) if biased else None
        if biased and present is None:
            continue  # computed at run time
        name = index.fresh(f"{node.name}_corrected_bias")
        set_constant(corrected, name, (shift if present is None else present + shift).astype(np.float32))
        node.input[:] = [node.input[0], node.input[1], name]
    if shifts:
        remove_unused(corrected)
    return corrected


def remove_qdq(model: onnx.ModelProto) -> onnx.ModelProto:
    """The float graph again: what `place_qdq` was given, with the weights and biases as it left them.

    Args:
        model: a graph with Q/DQ pairs.
    """
    result = copy_model(model)
    index = GraphIndex(result)
    sources = {}
    for node in index.graph.node:
        first = index.producer(node.input[0]) if node.op_type == "DequantizeLinear" else None
        if first is not None and first.op_type == "QuantizeLinear":
            sources[node.output[0]] = first.input[0]
    for node in result.graph.node:
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            node.input[:] = [sources.get(name, name) for name in node.input]
    remove_unused(result)
    return result


@dataclass(frozen=True)
class _Pair:
    nodes: tuple[onnx.NodeProto, onnx.NodeProto]
    initializers: tuple[onnx.TensorProto, onnx.TensorProto]
    output: str


def _pair(
    index: GraphIndex, tensor: str, scale: NDArray[np.float32], zero_point: NDArray[np.int8], axis: int | None
) -> _Pair:
    """QuantizeLinear and DequantizeLinear for one tensor, all three inputs given (TensorRT 8 requires them)."""
    scale_name, zero_name = index.fresh(f"{tensor}_scale"), index.fresh(f"{tensor}_zero_point")
    inside, output = index.fresh(f"{tensor}_quantized"), index.fresh(f"{tensor}_dequantized")
    names = index.fresh(f"{tensor}/QuantizeLinear"), index.fresh(f"{tensor}/DequantizeLinear")
    options: dict[str, Any] = {} if axis is None else {"axis": axis}
    quantize = helper.make_node("QuantizeLinear", [tensor, scale_name, zero_name], [inside], name=names[0], **options)
    dequantize = helper.make_node(
        "DequantizeLinear", [inside, scale_name, zero_name], [output], name=names[1], **options
    )
    constants = (numpy_helper.from_array(scale, scale_name), numpy_helper.from_array(zero_point, zero_name))
    return _Pair((quantize, dequantize), constants, output)


def _activation_pair(index: GraphIndex, tensor: str, ranges: Mapping[str, float]) -> _Pair:
    amax = ranges.get(tensor)
    if amax is None:
        raise CalibrationError(f"tensor {tensor} has no range; calibrate the network again")
    if not (np.isfinite(amax) and amax > 0):
        raise CalibrationError(f"tensor {tensor} has range {amax}, expected a positive number; check the frames")
    # A scalar, not [1]: with a one-element vector TensorRT silently runs the convolution in float.
    return _pair(index, tensor, np.array(amax / LEVELS, np.float32), np.array(0, np.int8), None)


def _weight_pair(index: GraphIndex, name: str, weight: NDArray[np.float32]) -> _Pair:
    scales = weight_scales(weight)
    return _pair(index, name, scales, np.zeros(len(scales), np.int8), 0)
