"""Levels of weights chosen together, by the error that they make at their layer's output, not each the nearest.

The problem is that of M. Nagel et al., "Up or Down? Adaptive Rounding for Post-Training Quantization" (AdaRound), ICML
2020, section 3: with the covariance H of a layer's inputs, choose between the two neighbours of each weight so that
e^T H e is least, where e is the change of the weights of one output channel. It is solved by coordinate descent from
the nearest levels on, so the result is never worse than these, and the same every time. What a change does to the mean
of the output is left to the correction of biases.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from edgeseg.calibration.measure import Feed, Forward
from edgeseg.calibration.ranges import LEVELS
from edgeseg.converters.graph import GraphIndex, attribute, copy_model
from edgeseg.converters.place import Placement, weight_scales
from edgeseg.machine import usable_processors

__all__ = ["LARGEST_READ", "choose_levels", "descend"]

LARGEST_READ = 1152
"""Weights of one output channel, at most. What a layer of more reads has a covariance too large to hold and search."""

_SAMPLES = 8
_FEWEST_SAMPLES = 8192
"""Samples of what a layer reads, in all: so many for each weight of an output channel, and never fewer than these."""

_SHRINKAGE = 1e-3
"""Share of the mean variance that is added to each: the covariance of samples is uncertain."""

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class _Reader:
    """A convolution and its weights in levels, before rounding: (groups, output channels of one, weights of each)."""

    node: onnx.NodeProto
    ratio: Array
    kernel: tuple[int, int]

    @property
    def tensor(self) -> str:
        """Name of what it reads."""
        return str(self.node.input[0])


def choose_levels(
    model: onnx.ModelProto,
    placement: Placement,
    ranges: Mapping[str, float],
    feeds: Iterable[Feed],
    progress: Callable[[int], None] = lambda units: None,
) -> dict[str, NDArray[np.int64]]:
    """Weights that serve their layer's output better when they round to the farther of their two levels.

    Args:
        model: the float graph.
        placement: which layers are quantized.
        ranges: amax of every tensor that they read.
        feeds: for each frame its arrays by name of the graph's input; some eight frames.
        progress: called with 1 after each frame.

    Returns:
        For each tensor of weights that has such ones their positions in it, flattened, ascending; see
        `edgeseg.converters.place.moved_weight`. Layers of more than LARGEST_READ weights a channel are left out.

    Raises:
        CalibrationError: for a graph that OpenVINO does not run.
    """
    frames = list(feeds)
    readers = _readers(model, placement)
    moments = [_Moments(reader, len(frames)) for reader in readers]
    if not readers:
        return {}
    forward = _forward(model, [reader.tensor for reader in readers])
    for number, feed in enumerate(frames):
        arrays = {**feed, **forward(feed, f"number {number + 1}")}
        for reader, seen in zip(readers, moments, strict=True):
            seen.add(arrays[reader.tensor], ranges[reader.tensor] / LEVELS, number)
        progress(1)
    found = {}
    for reader, seen in zip(readers, moments, strict=True):
        levels = descend(reader.ratio, seen.covariance())
        moved = np.flatnonzero(levels != np.rint(reader.ratio))
        if len(moved):
            found[reader.node.input[1]] = moved
    return found


def _readers(model: onnx.ModelProto, placement: Placement) -> list[_Reader]:
    index = GraphIndex(model)
    quantized = {layer.name for layer in placement.layers if layer.precision == "int8"}
    readers = []
    for node in model.graph.node:
        weight = index.constant(node.input[1]) if node.name in quantized else None
        if weight is None or weight.ndim != 4 or weight[0].size > LARGEST_READ:
            continue
        groups = attribute(node, "group", 1)
        ratio = weight.reshape(len(weight), -1) / weight_scales(weight).astype(np.float64)[:, None]
        shaped = ratio.reshape(groups, len(weight) // groups, -1)
        readers.append(_Reader(node, shaped, (weight.shape[2], weight.shape[3])))
    return readers


def _forward(model: onnx.ModelProto, tensors: list[str]) -> Forward:
    watched = copy_model(model)
    inputs = {value.name for value in model.graph.input}
    names = [name for name in dict.fromkeys(tensors) if name not in inputs]
    present = {value.name for value in model.graph.output}
    watched.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in present)
    return Forward(watched, names, usable_processors())


class _Moments:
    """First and second moments of the rounded patches that a convolution multiplies, over samples of its outputs."""

    def __init__(self, reader: _Reader, frames: int) -> None:
        groups, _, size = reader.ratio.shape
        self._reader = reader
        self._count = max(_FEWEST_SAMPLES, _SAMPLES * size) // max(1, frames) + 1
        self._sum = np.zeros((groups, size))
        self._squares = np.zeros((groups, size, size))
        self._seen = 0

    def add(self, values: NDArray[np.float32], step: float, seed: int) -> None:
        patches = _patches(values, self._reader, self._count, seed)
        patches = np.clip(np.rint(patches / np.float32(step)), -LEVELS - 1, LEVELS) * np.float32(step)
        self._sum += patches.sum(axis=1, dtype=np.float64)
        self._squares += patches.transpose(0, 2, 1) @ patches
        self._seen += patches.shape[1]

    def covariance(self) -> Array:
        """(groups, weights of a channel, the same), with a little added to its diagonal."""
        mean = self._sum / self._seen
        covariance: Array = self._squares / self._seen - mean[:, :, None] * mean[:, None, :]
        size = covariance.shape[-1]
        variance = np.trace(covariance, axis1=1, axis2=2) / size
        covariance += (np.maximum(variance, 0) * _SHRINKAGE + 1e-30)[:, None, None] * np.eye(size)
        return covariance


def _patches(values: NDArray[np.float32], reader: _Reader, count: int, seed: int) -> NDArray[np.float32]:
    """Samples of what a convolution multiplies its weights with: (groups, samples, weights of a channel)."""
    node, (rows, columns), groups = reader.node, reader.kernel, len(reader.ratio)
    strides, dilations = attribute(node, "strides", [1, 1]), attribute(node, "dilations", [1, 1])
    top, left, bottom, right = attribute(node, "pads", [0, 0, 0, 0])
    padded = np.pad(values[0], ((0, 0), (top, bottom), (left, right)))
    height = (padded.shape[1] - dilations[0] * (rows - 1) - 1) // strides[0] + 1
    width = (padded.shape[2] - dilations[1] * (columns - 1) - 1) // strides[1] + 1
    taken = np.random.default_rng(seed).choice(height * width, min(count, height * width), replace=False)
    y, x = taken // width * strides[0], taken % width * strides[1]
    taps = [padded[:, y + r * dilations[0], x + c * dilations[1]] for r in range(rows) for c in range(columns)]
    stacked = np.stack(taps, axis=-1).reshape(groups, -1, len(taken), len(taps))
    return np.ascontiguousarray(stacked.transpose(0, 2, 1, 3)).reshape(groups, len(taken), -1)


def descend(ratio: Array, covariance: Array) -> Array:
    """Levels of least error, by changing one weight of a channel at a time while that helps.

    Args:
        ratio: (groups, channels, weights), in levels, before rounding.
        covariance: (groups, weights, weights) of what the weights of a group are multiplied with.

    Returns:
        Integers like `ratio`, each one of its two neighbours; the largest weight of a channel, which gives it its
        scale, keeps its own.
    """
    groups, channels, size = ratio.shape
    flat = ratio.reshape(-1, size)
    levels = np.rint(flat)
    free = np.abs(flat) < LEVELS - 0.5
    slope = np.matmul(levels.reshape(ratio.shape) - ratio, covariance).reshape(-1, size)
    owner = np.repeat(np.arange(groups), channels)
    curvature = np.diagonal(covariance, axis1=1, axis2=2)
    active = np.arange(len(flat))
    # Every step lowers the error, so this ends; a channel rarely changes more than a tenth of its weights.
    for _ in range(2 * size):
        step = np.where(levels[active] > flat[active], -1.0, 1.0)
        change = np.where(free[active], 2 * step * slope[active] + curvature[owner[active]], 0.0)
        best = change.argmin(axis=1)
        rows = np.arange(len(active))
        better = change[rows, best] < -1e-9 * curvature[owner[active], best]
        active, best, moved = active[better], best[better], step[rows, best][better]
        if not len(active):
            break
        levels[active, best] += moved
        slope[active] += moved[:, None] * covariance[owner[active], best]
    return levels.reshape(ratio.shape)
