"""Cross-layer equalization: channels of one tensor brought to like magnitudes, with the network's function unchanged.

One scale serves all channels of an activation, so that a channel a hundred times smaller than the largest is left with
one or two INT8 levels. Dividing each channel where it is made and multiplying it where it is read costs nothing at run
time. For depthwise convolutions, whose weights have a scale for every input channel, it costs no accuracy either; for
others the difficulty moves into the weights, and how far it may is weighed by the noise that both make.

After M. Nagel, M. van Baalen, T. Blankevoort, M. Welling, "Data-Free Quantization Through Weight Equalization and Bias
Correction", ICCV 2019, section 4.1, which scales pairs of layers by their weights. Here measured activations are
weighed against weights, as in G. Xiao et al., "SmoothQuant", ICML 2023, and channels that pooling, additions or
concatenations tie (`edgeseg.converters.channels`) are scaled together.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from edgeseg.calibration.channels import ChannelStatistics
from edgeseg.calibration.ranges import LEVELS
from edgeseg.converters.channels import ChannelTies, per_channel
from edgeseg.converters.graph import GraphIndex, attribute, copy_model, remove_unused, set_constant

__all__ = ["channel_factors", "scale_channels"]

SMALLEST = 2.0**-8
"""Least factor: beyond that a channel hardly counts, and its weights would leave the range of FP16."""

STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Exponents that are tried: 0 leaves the channels alone, 1 makes their magnitudes equal."""

Array = NDArray[np.float64]


@dataclass(frozen=True)
class _Reader:
    """A convolution that reads a tensor: magnitudes and energies of its weights by output and input channel.

    Attributes:
        largest: (output channels, input channels) float64, 0 where the group does not connect them.
        energy: of the same shape, sums of squares over the kernel.
        taps: kernel positions.
    """

    largest: Array
    energy: Array
    taps: int


def channel_factors(model: onnx.ModelProto, tensors: Mapping[str, ChannelStatistics]) -> dict[str, NDArray[np.float64]]:
    """By what each channel of the tensors is to be divided.

    Args:
        model: the float graph.
        tensors: the tensors that will be quantized, with what was measured of their channels.

    Returns:
        For every tensor of the graph with a factor other than 1: (channels,) float64, positive.
    """
    index, ties = GraphIndex(model), ChannelTies(model)
    # A network that overflows is refused with the frame's name when its ranges are measured.
    finite = [name for name, statistics in tensors.items() if np.isfinite(statistics.energy).all()]
    groups = {name: found for name in finite if (found := ties.groups(name)) is not None}
    readers = {name: _readers(index, name) for name in groups}
    size = 1 + max((int(g.max()) for g in groups.values()), default=0)
    magnitude = _largest_by_group(groups, tensors, size)
    chosen = np.ones(size)
    for component in _components(groups):
        best = None
        for strength in STRENGTHS:
            factors = np.ones(size)
            factors[magnitude > 0] = np.maximum(magnitude[magnitude > 0] ** strength, SMALLEST)
            factors[0] = 1.0
            noise = sum(_noise(factors[groups[name]], tensors[name], readers[name]) for name in component)
            if best is None or noise < best[0] * 0.999:
                best = (noise, factors)
        assert best is not None
        members = np.unique(np.concatenate([groups[name] for name in component]))
        chosen[members] = best[1][members]
    return _by_tensor(model, ties, chosen)


def _largest_by_group(
    groups: Mapping[str, NDArray[np.int64]], tensors: Mapping[str, ChannelStatistics], size: int
) -> Array:
    """(groups,) float64: the largest magnitude of a group's channels over that of their tensor."""
    largest = np.zeros(size)
    for name, group in groups.items():
        amax = tensors[name].largest.astype(np.float64)
        np.maximum.at(largest, group, amax / max(float(amax.max()), 1e-30))
    return largest


def _components(groups: Mapping[str, NDArray[np.int64]]) -> list[list[str]]:
    """Tensors that share a free group, together."""
    of_group: dict[int, list[str]] = defaultdict(list)
    for name, group in groups.items():
        for number in np.unique(group[group > 0]).tolist():
            of_group[number].append(name)
    found: list[list[str]] = []
    seen: set[str] = set()
    for start in groups:
        if start in seen or not (groups[start] > 0).any():
            continue
        component, waiting = [], [start]
        seen.add(start)
        while waiting:
            name = waiting.pop()
            component.append(name)
            for number in np.unique(groups[name][groups[name] > 0]).tolist():
                for other in of_group[number]:
                    if other not in seen:
                        seen.add(other)
                        waiting.append(other)
        found.append(component)
    return found


def _readers(index: GraphIndex, tensor: str) -> list[_Reader]:
    readers = []
    for node in index.consumers(tensor):
        weight = index.constant(node.input[1]) if node.op_type == "Conv" and node.input[0] == tensor else None
        if weight is None:
            continue
        groups = attribute(node, "group", 1)
        outputs, inputs = weight.shape[0], weight.shape[1] * groups
        largest, energy = np.zeros((outputs, inputs)), np.zeros((outputs, inputs))
        flat = np.abs(weight.reshape(outputs, weight.shape[1], -1)).astype(np.float64)
        for output in range(outputs):
            first = output * groups // outputs * weight.shape[1]
            largest[output, first : first + weight.shape[1]] = flat[output].max(axis=1)
            energy[output, first : first + weight.shape[1]] = (flat[output] ** 2).sum(axis=1)
        readers.append(_Reader(largest, energy, flat.shape[2]))
    return readers


def _noise(factors: Array, statistics: ChannelStatistics, readers: list[_Reader]) -> float:
    """Expected noise of the convolutions that read a tensor, relative to their outputs, in sum over output channels.

    Rounding to steps of width d makes noise of variance d^2 / 12, which is left out here as it is in all terms; a
    channel divided by its factor is rounded to steps of `factor` times the tensor's.
    """
    amax, energy = statistics.largest.astype(np.float64), statistics.energy.astype(np.float64)
    step = float((amax / factors).max()) / LEVELS
    # A channel rounded to zero loses what it holds and no more, a dead one nothing; else it would outweigh all others.
    rounding = np.minimum((step * factors) ** 2, 12 * energy)
    total = 0.0
    for reader in readers:
        signal = reader.energy @ energy + 1e-30
        by_activation = reader.energy @ rounding
        steps = (reader.largest * factors).max(axis=1) / LEVELS
        connected = (reader.largest > 0) * reader.taps
        by_weight = steps**2 * (connected @ (energy / factors**2))
        total += float(((by_activation + by_weight) / signal).mean())
    return total


def _by_tensor(model: onnx.ModelProto, ties: ChannelTies, chosen: Array) -> dict[str, Array]:
    factors = {}
    for name in dict.fromkeys(o for node in model.graph.node for o in node.output):
        group = ties.groups(name)
        if group is None:
            continue
        inside = group < len(chosen)
        values = np.where(inside, chosen[np.where(inside, group, 0)], 1.0)
        if (values != 1.0).any():
            factors[name] = values
    return factors


def scale_channels(model: onnx.ModelProto, factors: Mapping[str, NDArray[np.float64]]) -> onnx.ModelProto:
    """Divide channels where they are made and multiply them where they are read.

    Args:
        model: the float graph.
        factors: from `channel_factors`.

    Returns:
        A new graph with other weights, whose outputs are the same but for rounding.
    """
    scaled = copy_model(model)
    index = GraphIndex(scaled)
    for node in scaled.graph.node:
        before = factors.get(node.input[0]) if node.input else None
        after = factors.get(node.output[0])
        if before is None and after is None:
            continue
        if node.op_type in ("Conv", "ConvTranspose"):
            _scale_convolution(scaled, index, node, before, after)
        elif node.op_type == "BatchNormalization":
            _scale_batch_norm(scaled, index, node, before, after)
        elif node.op_type in ("Add", "Sub", "Mul", "Div") and index.constant(node.input[1]) is not None:
            _scale_constant(scaled, index, node, before, after)
    remove_unused(scaled)
    return scaled


def _replace(model: onnx.ModelProto, index: GraphIndex, node: onnx.NodeProto, place: int, value: Array) -> None:
    """A constant of its own for a node: others may share the present one."""
    name = index.fresh(f"{node.input[place]}_equalized")
    node.input[place] = set_constant(model, name, value.astype(np.float32))


def _constant(index: GraphIndex, name: str) -> NDArray[np.float32]:
    value = index.constant(name)
    assert value is not None  # or the channels around it would be held
    return value


def _scale_convolution(
    model: onnx.ModelProto, index: GraphIndex, node: onnx.NodeProto, before: Array | None, after: Array | None
) -> None:
    weight = _constant(index, node.input[1])
    groups = attribute(node, "group", 1)
    transposed = node.op_type == "ConvTranspose"
    # (groups, outputs or inputs of a group, inputs or outputs of a group, height, width)
    split = weight.astype(np.float64).reshape(groups, weight.shape[0] // groups, *weight.shape[1:])
    reads, writes = (1, 2) if transposed else (2, 1)
    for axis, factor in ((reads, before), (writes, None if after is None else 1 / after)):
        if factor is not None:
            shape = [groups, 1, 1, *(1 for _ in weight.shape[2:])]
            shape[axis] = -1
            split = split * factor.reshape(shape)
    _replace(model, index, node, 1, split.reshape(weight.shape))
    if after is not None and len(node.input) > 2 and node.input[2]:
        _replace(model, index, node, 2, _constant(index, node.input[2]) / after)


def _scale_batch_norm(
    model: onnx.ModelProto, index: GraphIndex, node: onnx.NodeProto, before: Array | None, after: Array | None
) -> None:
    gamma, beta, mean = (_constant(index, name) for name in node.input[1:4])
    before = np.ones(len(gamma)) if before is None else before
    after = np.ones(len(gamma)) if after is None else after
    _replace(model, index, node, 1, gamma * before / after)
    _replace(model, index, node, 2, beta / after)
    _replace(model, index, node, 3, mean / before)


def _scale_constant(
    model: onnx.ModelProto, index: GraphIndex, node: onnx.NodeProto, before: Array | None, after: Array | None
) -> None:
    channels = len(after if after is not None else before)  # type: ignore[arg-type]
    values = per_channel(_constant(index, node.input[1]), channels)
    assert values is not None  # or its channels would be held
    before = np.ones(channels) if before is None else before
    after = np.ones(channels) if after is None else after
    wide = values.astype(np.float64)
    scaled = {
        "Add": wide / after,
        "Sub": wide / after,
        "Mul": wide * before / after,
        "Div": wide * after / before,
    }[node.op_type]
    _replace(model, index, node, 1, scaled.reshape(1, -1, 1, 1))
