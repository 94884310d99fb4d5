"""Levels of weights chosen together, by the error that they make at their layer's output, not each the nearest.

The problem is that of M. Nagel et al., "Up or Down? Adaptive Rounding for Post-Training Quantization" (AdaRound), ICML
2020, section 3: with the covariance H of a layer's inputs, choose between the two neighbours of each weight so that
e^T H e is least, where e is the change of the weights of one output channel. It is solved by coordinate descent from
the nearest levels on, so the result is never worse than these, and the same every time. What a change does to the mean
of the output is left to the correction of biases.
"""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from edgeseg.calibration.measure import Feed, Forward
from edgeseg.calibration.ranges import LEVELS
from edgeseg.converters.graph import GraphIndex, attribute, copy_model
from edgeseg.converters.place import Placement, weight_scales
from edgeseg.converters.rounding import level_limits, levels_of
from edgeseg.libraries import require
from edgeseg.machine import usable_processors

__all__ = ["LARGEST_READ", "ChosenLevels", "choose_levels", "descend"]

LARGEST_READ = 1152
"""Weights of one output channel, at most. What a layer of more reads has a covariance too large to hold and search."""

_SAMPLES = 8
_FEWEST_SAMPLES = 8192
"""Samples of what a layer reads, in all: so many for each weight of an output channel, and never fewer than these."""

_HELD = 2**28
"""Bytes of activations and covariances held at once; a network that has more is run several times, part by part."""

_SHRINKAGE = 1e-3
"""Share of the mean variance that is added to each: the covariance of samples is uncertain."""

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class ChosenLevels:
    """Which weights move, and what that does to means.

    Attributes:
        moved: for each tensor of weights that has such ones the positions of those that round to the farther of their
            two levels, flattened, ascending; see `edgeseg.converters.place.moved_weight`.
        changes: by name of the layer (output channels,) float64, by how much moving them raises the mean of its output.
    """

    moved: dict[str, NDArray[np.int64]]
    changes: dict[str, Array]


@dataclass(frozen=True, eq=False)
class _Reader:
    """A convolution, with the shape of its weights: (output channels, input channels of a group, height, width)."""

    node: onnx.NodeProto
    shape: tuple[int, ...]

    @property
    def tensor(self) -> str:
        """Name of what it reads."""
        return str(self.node.input[0])

    @property
    def weight(self) -> str:
        """Name of its weights, which other convolutions may have too."""
        return str(self.node.input[1])

    @property
    def groups(self) -> int:
        return int(attribute(self.node, "group", 1))

    @property
    def size(self) -> int:
        """Weights of one output channel."""
        return math.prod(self.shape[1:])


def choose_levels(
    model: onnx.ModelProto,
    placement: Placement,
    ranges: Mapping[str, float],
    feeds: Iterable[Feed],
    progress: Callable[[int], None] = lambda units: None,
) -> ChosenLevels:
    """Weights that serve their layer's output better when they round to the farther of their two levels.

    Args:
        model: the float graph.
        placement: which layers are quantized.
        ranges: amax of every tensor that they read.
        feeds: for each frame its arrays by name of the graph's input; some eight frames.
        progress: called with 1 after each frame.

    Returns:
        The weights; layers of more than LARGEST_READ weights a channel are left out.

    Raises:
        CalibrationError: for a graph that OpenVINO does not run.
    """
    frames = list(feeds)
    found = ChosenLevels({}, {})
    parts = list(_parts(model, _readers(model, placement)))
    if not parts:
        progress(len(frames))
    for part in parts:
        told = progress if part is parts[-1] else lambda units: None
        _choose(model, part, ranges, frames, found, told)
    return found


def _choose(
    model: onnx.ModelProto,
    readers: list[_Reader],
    ranges: Mapping[str, float],
    frames: list[Feed],
    found: ChosenLevels,
    progress: Callable[[int], None],
) -> None:
    """Add what is found of some layers."""
    steps = {reader.tensor: ranges[reader.tensor] / LEVELS for reader in readers}
    moments = [_Moments(reader, steps[reader.tensor], len(frames)) for reader in readers]
    levels = _Levels(model, steps)
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    sharing: dict[str, list[_Moments]] = {}
    for seen in moments:
        sharing.setdefault(seen.reader.weight, []).append(seen)
    with _small_products() as each:
        for number, feed in enumerate(frames):
            arrays = levels(feed, f"number {number + 1}")
            each(_Moments.add, moments, [arrays[seen.reader.tensor] for seen in moments], itertools.repeat(number))
            progress(1)
        chosen = each(_chosen_for, [weights[name] for name in sharing], sharing.values())
    for part in chosen:
        found.moved.update(part.moved)
        found.changes.update(part.changes)


@contextlib.contextmanager
def _small_products() -> Iterator[Callable[..., list[Any]]]:
    """Gives what `map` does, with as many items at once as there are processors and one thread for an item's products.

    Two threads that share a product as small as these wait for each other for longer than it takes, and twelve times as
    long where another process has one of two processors.
    """
    limits = require("threadpoolctl", "round weights").threadpool_limits
    with limits(1, "blas"), ThreadPoolExecutor(usable_processors()) as pool:
        yield lambda function, *items: list(pool.map(function, *items))


def _chosen_for(tensor: onnx.TensorProto, sharing: list[_Moments]) -> ChosenLevels:
    """What is found of one tensor of weights, from the inputs of all layers that have it."""
    weight = numpy_helper.to_array(tensor)
    ratio = _ratio(weight, sharing[0].reader.groups)
    # The errors of all layers that have the same weights add up.
    covariance = np.sum([seen.covariance() for seen in sharing], axis=0)
    change = descend(ratio, covariance) - np.rint(ratio)
    if not change.any():
        return ChosenLevels({}, {})
    scales = weight_scales(weight)
    means = {seen.reader.node.name: np.matmul(change, seen.mean()[:, :, None]).reshape(-1) for seen in sharing}
    return ChosenLevels({tensor.name: np.flatnonzero(change)}, {layer: mean * scales for layer, mean in means.items()})


def _ratio(weight: NDArray[np.float32], groups: int) -> Array:
    """Weights in levels, before rounding: (groups, output channels of one, weights of each)."""
    ratio = weight.reshape(len(weight), -1) / weight_scales(weight).astype(np.float64)[:, None]
    return ratio.reshape(groups, len(weight) // groups, -1)


def _readers(model: onnx.ModelProto, placement: Placement) -> list[_Reader]:
    shapes = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    quantized = {layer.name for layer in placement.layers if layer.precision == "int8"}
    convolutions = (node for node in model.graph.node if node.name in quantized)
    readers = [_Reader(node, shapes[node.input[1]]) for node in convolutions]
    return [reader for reader in readers if len(reader.shape) == 4 and reader.size <= LARGEST_READ]


def _parts(model: onnx.ModelProto, readers: list[_Reader]) -> Iterator[list[_Reader]]:
    """Readers that are measured in one run, of one weight always together."""
    index = GraphIndex(model)
    sharing: dict[str, list[_Reader]] = {}
    for reader in readers:
        sharing.setdefault(reader.weight, []).append(reader)
    part: list[_Reader] = []
    held = 0
    for group in sharing.values():
        if len({reader.groups for reader in group}) > 1:
            continue  # covariances of other shapes, which do not add up
        tensors = (math.prod(index.shape(reader.tensor) or ()) for reader in group)
        needed = sum(tensors) + sum(8 * reader.groups * reader.size**2 for reader in group)
        if part and held + needed > _HELD:
            yield part
            part, held = [], 0
        part, held = part + group, held + needed
    if part:
        yield part


class _Levels:
    """The network as far as it makes some tensors, and their levels.

    Args:
        model: the float graph.
        steps: the scale of each tensor.
    """

    def __init__(self, model: onnx.ModelProto, steps: Mapping[str, float]) -> None:
        watched = copy_model(model)
        graph = watched.graph
        del graph.output[:]
        graph.initializer.extend(level_limits("levels"))
        self._outputs = {tensor: f"levels_{number}" for number, tensor in enumerate(steps)}
        for number, (tensor, output) in enumerate(self._outputs.items()):
            step = f"levels_step_{number}"
            graph.initializer.append(numpy_helper.from_array(np.array(steps[tensor], np.float32), step))
            nodes = levels_of(tensor, step, "levels", number)
            # A quarter of what the tensors themselves would take, since all are held until the network has been run.
            cast = helper.make_node("Cast", [nodes[-1].output[0]], [output], to=onnx.TensorProto.INT8)
            graph.node.extend([*nodes, cast])
            graph.output.append(onnx.ValueInfoProto(name=output))
        self._forward = Forward(watched, list(self._outputs.values()), usable_processors())

    def __call__(self, feed: Feed, where: str) -> dict[str, NDArray[np.int8]]:
        """Levels by tensor, each of its shape."""
        arrays = self._forward(feed, where)
        return {tensor: arrays[output] for tensor, output in self._outputs.items()}


class _Moments:
    """First and second moments of the rounded patches that a convolution multiplies, over samples of its outputs."""

    def __init__(self, reader: _Reader, step: float, frames: int) -> None:
        groups, size = reader.groups, reader.size
        self.reader = reader
        self._step = step
        self._count = max(_FEWEST_SAMPLES, _SAMPLES * size) // max(1, frames) + 1
        self._sum = np.zeros((groups, size))
        self._squares = np.zeros((groups, size, size))
        self._seen = 0

    def add(self, levels: NDArray[np.int8], seed: int) -> None:
        patches = _patches(levels, self.reader, self._count, seed)
        self._sum += patches.sum(axis=1, dtype=np.float64)
        self._squares += patches.transpose(0, 2, 1) @ patches
        self._seen += patches.shape[1]

    def mean(self) -> Array:
        """(groups, weights of a channel)."""
        return self._sum * (self._step / self._seen)

    def covariance(self) -> Array:
        """(groups, weights of a channel, the same), with a little added to its diagonal."""
        mean = self.mean()
        covariance: Array = self._squares * (self._step**2 / self._seen) - mean[:, :, None] * mean[:, None, :]
        size = covariance.shape[-1]
        variance = np.trace(covariance, axis1=1, axis2=2) / size
        covariance += (np.maximum(variance, 0) * _SHRINKAGE + 1e-30)[:, None, None] * np.eye(size)
        return covariance


def _patches(levels: NDArray[np.int8], reader: _Reader, count: int, seed: int) -> NDArray[np.float32]:
    """Samples of what a convolution multiplies its weights with: (groups, samples, weights of a channel)."""
    node, (rows, columns), groups = reader.node, reader.shape[2:], reader.groups
    strides, dilations = attribute(node, "strides", [1, 1]), attribute(node, "dilations", [1, 1])
    top, left, bottom, right = attribute(node, "pads", [0, 0, 0, 0])
    padded = np.pad(levels[0], ((0, 0), (top, bottom), (left, right)))
    height = (padded.shape[1] - dilations[0] * (rows - 1) - 1) // strides[0] + 1
    width = (padded.shape[2] - dilations[1] * (columns - 1) - 1) // strides[1] + 1
    taken = np.random.default_rng(seed).choice(height * width, min(count, height * width), replace=False)
    y, x = taken // width * strides[0], taken % width * strides[1]
    taps = [padded[:, y + r * dilations[0], x + c * dilations[1]] for r in range(rows) for c in range(columns)]
    stacked = np.stack(taps, axis=-1).reshape(groups, -1, len(taken), len(taps))
    patches: NDArray[np.float32] = stacked.transpose(0, 2, 1, 3).astype(np.float32, order="C")
    return patches.reshape(groups, len(taken), -1)


def descend(ratio: Array, covariance: Array) -> Array:
    """Levels of least error, by changing one weight of a channel at a time while that helps.

    Args:
        ratio: (groups, channels, weights), in levels, before rounding.
        covariance: (groups, weights, weights) of what the weights of a group are multiplied with.

    Returns:
        Integers like `ratio`, each one of its two neighbours; what is an integer stays, and so does the largest weight
        of a channel, which gives it its scale.
    """
    groups, channels, size = ratio.shape
    flat = ratio.reshape(-1, size)
    levels = np.rint(flat)
    free = (np.abs(flat) < LEVELS - 0.5) & (flat != levels)
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
