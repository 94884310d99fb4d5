"""Per-channel affine maps y = scale * x + shift, as BatchNormalization and arithmetic with constants write them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from edgeseg.converters.graph import GraphIndex, attribute

__all__ = ["ChannelAffine", "per_channel", "read_affine"]

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class ChannelAffine:
    """y = scale * x + shift for each channel.

    Attributes:
        scale, shift: (C,) float64.
    """

    scale: Vector
    shift: Vector

    @property
    def is_identity(self) -> bool:
        return bool(np.all(self.scale == 1) and np.all(self.shift == 0))

    def part(self, start: int, stop: int) -> ChannelAffine:
        """The map of some of the channels."""
        return ChannelAffine(self.scale[start:stop], self.shift[start:stop])

    def without_shift(self) -> ChannelAffine:
        """The scale alone."""
        return ChannelAffine(self.scale, np.zeros_like(self.shift))


def per_channel(value: NDArray[Any], channels: int) -> Vector | None:
    """A constant that broadcasts over (N, C, H, W) by channel, as (C,) float64; None where it varies otherwise."""
    if value.size == 1:
        return np.full(channels, float(value.reshape(())))
    shape = (1,) * (4 - value.ndim) + value.shape
    if len(shape) == 4 and shape == (1, channels, 1, 1):
        return value.reshape(channels).astype(np.float64)
    return None


def read_affine(index: GraphIndex, node: onnx.NodeProto) -> tuple[str, ChannelAffine] | None:
    """The tensor that an affine node reads and the map it applies; None for any other node."""
    if node.op_type == "BatchNormalization":
        return _read_batch_norm(index, node)
    if node.op_type not in ("Mul", "Add", "Sub", "Div"):
        return None
    left, right = node.input
    flipped = index.constant(left) is not None
    data, value = (right, index.constant(left)) if flipped else (left, index.constant(right))
    shape = index.shape(data)
    if value is None or index.constant(data) is not None or shape is None or len(shape) != 4:
        return None
    vector = per_channel(value, shape[1])
    if vector is None or index.shape(node.output[0]) != shape:
        return None
    ones, zeros = np.ones(shape[1]), np.zeros(shape[1])
    if node.op_type == "Mul":
        return data, ChannelAffine(vector, zeros)
    if node.op_type == "Add":
        return data, ChannelAffine(ones, vector)
    if node.op_type == "Sub":
        return data, ChannelAffine(-ones, vector) if flipped else ChannelAffine(ones, -vector)
    if flipped or np.any(vector == 0):
        return None
    return data, ChannelAffine(1 / vector, zeros)


def _read_batch_norm(index: GraphIndex, node: onnx.NodeProto) -> tuple[str, ChannelAffine] | None:
    values = [index.constant(t) for t in node.input[1:5]]
    if attribute(node, "training_mode", 0) or any(v is None for v in values):
        return None
    gain, offset, mean, variance = (np.asarray(v, np.float64) for v in values)
    scale = gain / np.sqrt(variance + attribute(node, "epsilon", 1e-5))
    return node.input[0], ChannelAffine(scale, offset - mean * scale)
