"""What the channels of a network's tensors hold, each by itself: one pass over a few frames."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from edgeseg.calibration.measure import Feed, Forward
from edgeseg.errors import CalibrationError
from edgeseg.machine import usable_processors

__all__ = ["ChannelStatistics", "measure_channels"]


@dataclass(frozen=True, eq=False)
class ChannelStatistics:
    """Of every channel of one tensor, over all frames.

    Attributes:
        largest: (channels,) float32, the largest magnitude; the mean of it over the frames.
        energy: (channels,) float32, the mean of the squares.
    """

    largest: NDArray[np.float32]
    energy: NDArray[np.float32]


def measure_channels(
    model: onnx.ModelProto,
    tensors: Sequence[str],
    feeds: Iterable[Feed],
    progress: Callable[[int], None] = lambda units: None,
) -> dict[str, ChannelStatistics]:
    """Statistics by channel of tensors (1, C, ...) of a float network; what is summed up is summed up in the graph.

    Args:
        model: the float graph.
        tensors: names of node outputs.
        feeds: for each frame its arrays by name of the graph's input.
        progress: called with 1 after every frame.

    Raises:
        CalibrationError: without frames.
    """
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    names = {
        tensor: tuple(f"channels_{kind}_{i}" for kind in ("largest", "energy")) for i, tensor in enumerate(tensors)
    }
    for tensor, (largest, energy) in names.items():
        absolute, square = f"{largest}_abs", f"{energy}_square"
        watched.graph.node.extend(
            [
                helper.make_node("Abs", [tensor], [absolute]),
                # Global pooling reduces over all places, of any rank, alike in every opset; reductions do not.
                helper.make_node("GlobalMaxPool", [absolute], [largest]),
                helper.make_node("Mul", [tensor, tensor], [square]),
                helper.make_node("GlobalAveragePool", [square], [energy]),
            ]
        )
        watched.graph.output.extend(onnx.ValueInfoProto(name=name) for name in (largest, energy))
    outputs = [name for pair in names.values() for name in pair]
    forward = Forward(watched, outputs, usable_processors())
    means = forward.means(feeds, progress)
    if not means:
        raise CalibrationError("no frames were given to calibrate on; give a folder, list or video with at least one")
    flat = {name: values.reshape(-1).astype(np.float32) for name, values in means.items()}
    return {tensor: ChannelStatistics(*(flat[name] for name in pair)) for tensor, pair in names.items()}
