"""Which channels of a graph's tensors may be rescaled, and which of them only together.

Multiplying a channel by a positive number and dividing it again where it is read leaves the network as it is. A
convolution, BatchNorm or constant factor can take either number into its own weights, so its input and its output are
free of each other. An activation such as ReLU or PReLU, pooling, a resize, an addition or a concatenation passes the
number on: its channels are tied. Everything else, and the network's output, holds its channels where they are.
"""

from __future__ import annotations

import math

import numpy as np
import onnx
from numpy.typing import NDArray

from edgeseg.converters.graph import GraphIndex, attribute

__all__ = ["ChannelTies", "per_channel"]

_PASSING = frozenset(
    {
        "AveragePool",
        "Dropout",
        "GlobalAveragePool",
        "GlobalMaxPool",
        "Identity",
        "LeakyRelu",
        "MaxPool",
        "PRelu",
        "Relu",
        "Resize",
    }
)
"""f(x * s) = f(x) * s for s > 0, channel by channel."""

_ABSORBING = frozenset({"BatchNormalization", "Conv", "ConvTranspose"})
_ARITHMETIC = frozenset({"Add", "Div", "Mul", "Sub"})
_FIXED = 0


class ChannelTies:
    """Channels of all tensors in groups that share one factor.

    Args:
        model: a float graph with static shapes.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self._index = GraphIndex(model)
        self._first: dict[str, int] = {}
        self._count: dict[str, int] = {}
        self._parent = [_FIXED]
        for node in model.graph.node:
            self._visit(node)
        for name in (*self._index.inputs, *self._index.outputs):
            self._fix(name)
        self._parent = [self._root(number) for number in range(len(self._parent))]

    def groups(self, tensor: str) -> NDArray[np.int64] | None:
        """(channels,) int64: the group of each channel of a tensor, 0 where it is held; None for a tensor whose
        channels are not known."""
        channels = self._channels(tensor)
        if channels is None:
            return None
        first = self._first[tensor]
        return np.array(self._parent[first : first + channels], np.int64)

    def _channels(self, tensor: str) -> int | None:
        """Number of channels, axis 1 of (1, C, H, W) float32; None for another rank or type."""
        if tensor in self._count:
            return self._count[tensor] or None
        known = not self._index.is_constant(tensor) and self._index.element_type(tensor) == onnx.TensorProto.FLOAT
        shape = self._index.shape(tensor) if known else None
        count = shape[1] if shape is not None and len(shape) == 4 and shape[1] > 0 else 0
        self._count[tensor], self._first[tensor] = count, len(self._parent)
        self._parent.extend(range(len(self._parent), len(self._parent) + count))
        return count or None

    def _root(self, number: int) -> int:
        while self._parent[number] != number:
            self._parent[number] = self._parent[self._parent[number]]
            number = self._parent[number]
        return number

    def _join(self, first: int, second: int) -> None:
        low, high = sorted((self._root(first), self._root(second)))
        self._parent[high] = low

    def _fix(self, tensor: str) -> None:
        for channel in range(self._channels(tensor) or 0):
            self._join(_FIXED, self._first[tensor] + channel)

    def _tie(self, first: str, second: str, *, offset: int = 0) -> None:
        """Tie the channels of `first`, from an offset on, to those of `second`."""
        count, available = self._channels(second), self._channels(first)
        if count is None or available is None or offset + count > available:
            self._fix(first)
            self._fix(second)
            return
        for channel in range(count):
            self._join(self._first[first] + offset + channel, self._first[second] + channel)

    def _visit(self, node: onnx.NodeProto) -> None:
        computed = [name for name in node.input if name and not self._index.is_constant(name)]
        kind = node.op_type
        if kind in _ABSORBING and computed == [node.input[0]] and not attribute(node, "training_mode", 0):
            return
        if kind in _PASSING and computed[:1] == [node.input[0]] and len(computed) == 1 and self._passes(node):
            self._tie(node.output[0], node.input[0])
        elif kind == "Concat" and len(computed) == len(node.input) and attribute(node, "axis", 1) in (1, -3):
            offset = 0
            for name in node.input:
                self._tie(node.output[0], name, offset=offset)
                offset += self._channels(name) or 0
        elif kind in _ARITHMETIC:
            self._visit_arithmetic(node, computed)
        elif kind == "MatMul" and len(computed) == 1 and self._passes(node, computed[0]):
            # Over height or width alone, as an exported adaptive pooling does.
            self._tie(node.output[0], computed[0])
        elif kind == "Reshape" and (shuffled := self._shuffled(node)) is not None:
            # What stands between the two is of rank 5, so that nothing else is tied by it.
            self._permute(node, *shuffled)
        elif self._inside_shuffle(node):
            return
        else:
            self._hold(node)

    def _shuffled(self, node: onnx.NodeProto) -> tuple[str, int] | None:
        """Where a Reshape begins a channel shuffle (Reshape, Transpose, Reshape): its result and number of groups."""
        between = self._index.shape(node.output[0])
        turn = self._index.only_consumer(node.output[0])
        if between is None or len(between) != 5 or turn is None or turn.op_type != "Transpose":
            return None
        back = self._index.only_consumer(turn.output[0])
        shape = self._index.shape(node.input[0])
        if attribute(turn, "perm", None) != [0, 2, 1, 3, 4] or back is None or back.op_type != "Reshape":
            return None
        if shape is None or self._index.shape(back.output[0]) != shape:
            return None
        if between[0] != shape[0] or between[3:] != shape[2:]:
            return None
        return back.output[0], between[1]

    def _inside_shuffle(self, node: onnx.NodeProto) -> bool:
        for _ in range(2):
            before = self._index.producer(node.input[0]) if node.input else None
            if before is None:
                return False
            if before.op_type == "Reshape" and self._shuffled(before) is not None:
                return True
            node = before
        return False

    def _permute(self, node: onnx.NodeProto, output: str, groups: int) -> None:
        count, available = self._channels(node.input[0]), self._channels(output)
        if count is None or available != count:
            self._fix(node.input[0])
            self._fix(output)
            return
        sources = np.arange(count).reshape(groups, -1).T.reshape(-1)
        for place, source in enumerate(sources.tolist()):
            self._join(self._first[output] + place, self._first[node.input[0]] + source)

    def _passes(self, node: onnx.NodeProto, tensor: str | None = None) -> bool:
        before, after = self._index.shape(tensor or node.input[0]), self._index.shape(node.output[0])
        same = before is not None and after is not None and len(before) == len(after) == 4 and before[:2] == after[:2]
        # Outside its region a cropping Resize writes a number of its own.
        crops = attribute(node, "coordinate_transformation_mode", "") == "tf_crop_and_resize"
        return same and len(node.output) == 1 and not crops

    def _visit_arithmetic(self, node: onnx.NodeProto, computed: list[str]) -> None:
        shapes = [self._index.shape(name) for name in (*node.input, *node.output)]
        channels = self._channels(node.output[0])
        if channels is None or any(shape is None for shape in shapes):
            self._hold(node)
        elif len(computed) == 1 and node.input[0] == computed[0] and self._channels(computed[0]) == channels:
            constant = self._index.constant(node.input[1])
            if constant is None or per_channel(constant, channels) is None:
                self._hold(node)
            elif node.op_type in ("Add", "Sub"):
                self._tie(node.output[0], node.input[0])
        elif len(computed) == 2 and node.op_type in ("Add", "Sub") and shapes[0] == shapes[1]:
            self._tie(node.output[0], node.input[0])
            self._tie(node.output[0], node.input[1])
        elif len(computed) == 2 and node.op_type == "Mul" and shapes[2] in shapes[:2]:
            # A gate: the factor with the fewer values is held, the other one's channels go through.
            gate, gated = sorted(node.input, key=lambda name: math.prod(self._index.shape(name) or ()))
            self._fix(gate)
            self._tie(node.output[0], gated)
        else:
            self._hold(node)

    def _hold(self, node: onnx.NodeProto) -> None:
        for name in (*node.input, *node.output):
            if name:
                self._fix(name)


def per_channel(constant: NDArray[np.float32], channels: int) -> NDArray[np.float32] | None:
    """A constant operand as one value per channel of (1, C, H, W), (channels,); None where it varies otherwise."""
    shape = (1,) * (4 - constant.ndim) + constant.shape
    if len(shape) != 4 or shape[0] != 1 or shape[2:] != (1, 1) or shape[1] not in (1, channels):
        return None
    values: NDArray[np.float32] = np.broadcast_to(constant.reshape(shape[1]), (channels,)).astype(np.float32)
    return values
