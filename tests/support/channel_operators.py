"""Operators, each between a tensor (1, 8, 8, 8) and another of that shape, with what they do to factors of channels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from onnx import numpy_helper
from support.graphs import Array, GraphBuilder

from edgeseg.calibration.channels import ChannelStatistics
from edgeseg.converters.channels import ChannelTies

CHANNELS = 8
SIZE = 8

Fate = Literal["free", "held", "permuted", "tied"]


@dataclass(frozen=True)
class Operator:
    """What stands between two tensors.

    Attributes:
        fate: of the first tensor's channels: free of those of the result, held, tied to them, or tied in another order.
        build: adds the nodes behind a tensor and, where two are read, another one; returns the result's name.
    """

    fate: Fate
    build: Callable[[GraphBuilder, str, str], str]


def _values(b: GraphBuilder, *shape: int) -> str:
    """A constant away from zero, of both signs."""
    return b.constant((b.random.uniform(0.5, 2, shape) * b.random.choice([-1, 1], shape)).astype(np.float32))


def _numbers(b: GraphBuilder, *numbers: int) -> str:
    return b.constant(np.array(numbers, np.int64))


def _weight(b: GraphBuilder) -> str:
    return b.constant(b.random.normal(0, 0.3, (CHANNELS, CHANNELS, 1, 1)).astype(np.float32))


def _conv_transpose(b: GraphBuilder, x: str, group: int) -> str:
    weight = b.constant(b.random.normal(0, 0.4, (CHANNELS, CHANNELS // group, 3, 3)).astype(np.float32))
    bias = b.constant(b.random.normal(0, 0.3, CHANNELS).astype(np.float32))
    return b.add("ConvTranspose", x, weight, bias, kernel_shape=[3, 3], pads=[1] * 4, group=group)


def _shared(b: GraphBuilder, x: str, y: str) -> str:
    weight, bias = _weight(b), b.constant(b.random.normal(0, 0.3, CHANNELS).astype(np.float32))
    return b.add("Add", b.add("Sigmoid", b.add("Conv", x, weight, bias)), b.add("Conv", y, weight, bias))


def _dynamic_weight(b: GraphBuilder, x: str) -> str:
    return b.add("Conv", x, b.add("Neg", _weight(b)))


def _dynamic_bias(b: GraphBuilder, x: str) -> str:
    return b.add("Conv", x, _weight(b), b.add("Neg", _values(b, CHANNELS)))


def _constant_node(b: GraphBuilder, x: str) -> str:
    values = b.random.normal(0, 1, (1, CHANNELS, 1, 1)).astype(np.float32)
    return b.add("Add", x, b.add("Constant", value=numpy_helper.from_array(values)))


def _pooled(b: GraphBuilder, x: str) -> str:
    return b.add("Sigmoid", b.add("GlobalAveragePool", x))


def _shrink(b: GraphBuilder, x: str) -> str:
    return b.add("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])


def _enlarge(b: GraphBuilder, x: str) -> str:
    return b.resize(x, SIZE, mode="nearest", coordinates="asymmetric")


def _crop(b: GraphBuilder, x: str) -> str:
    region = b.constant(np.array([0, 0, -0.5, -0.5, 1, 1, 1.5, 1.5], np.float32))
    scales = b.constant(np.array([1, 1, 2, 2], np.float32))
    rule = "tf_crop_and_resize"
    return b.add(
        "Resize", x, region, scales, mode="linear", coordinate_transformation_mode=rule, extrapolation_value=3.0
    )


def _padded(b: GraphBuilder, x: str) -> str:
    return b.add("Pad", x, _numbers(b, 0, 0, 4, 4, 0, 0, 4, 4), b.constant(np.float32(5)))


def _turn(b: GraphBuilder, x: str, *between: int) -> str:
    turned = b.add("Transpose", b.add("Reshape", x, _numbers(b, *between)), perm=[0, 2, 1, 3, 4])
    return b.add("Reshape", turned, _numbers(b, 1, CHANNELS, SIZE, SIZE))


def _halves(b: GraphBuilder, x: str) -> str:
    first = b.add("Split", x, _numbers(b, 4, 4), outputs=2, axis=1)
    return b.add("Concat", f"{first}1", first, axis=1)


def _divided(b: GraphBuilder, x: str, y: str) -> str:
    return b.add("Div", x, b.add("Add", b.add("Sigmoid", y), b.constant(np.float32(1))))


def _joined(b: GraphBuilder, x: str, y: str) -> str:
    wide = b.batch_norm(b.add("Concat", x, y, axis=1), 2 * CHANNELS)
    return b.conv(b.prelu(wide, 2 * CHANNELS), 2 * CHANNELS, CHANNELS)


def _with_constant(b: GraphBuilder, x: str) -> str:
    return b.conv(b.add("Concat", _values(b, 1, 2, SIZE, SIZE), x, axis=1), CHANNELS + 2, CHANNELS)


OPERATORS: dict[str, Operator] = {
    "conv": Operator("free", lambda b, x, y: b.conv(x, 8, 8)),
    "conv without bias": Operator("free", lambda b, x, y: b.conv(x, 8, 8, bias=False)),
    "depthwise conv": Operator("free", lambda b, x, y: b.conv(x, 8, 8, group=8)),
    "grouped conv": Operator("free", lambda b, x, y: b.conv(x, 8, 8, group=2)),
    "conv with a bias from its input": Operator("held", lambda b, x, y: b.add("Conv", x, _weight(b), _mean_of(b, x))),
    "conv with a weight of run time": Operator("held", lambda b, x, y: _dynamic_weight(b, x)),
    "conv with a bias of run time": Operator("held", lambda b, x, y: _dynamic_bias(b, x)),
    "transposed conv": Operator("free", lambda b, x, y: _conv_transpose(b, x, 1)),
    "grouped transposed conv": Operator("free", lambda b, x, y: _conv_transpose(b, x, 4)),
    "two convs of one weight": Operator("free", _shared),
    "BatchNorm": Operator("free", lambda b, x, y: b.batch_norm(x, 8)),
    "Relu": Operator("tied", lambda b, x, y: b.add("Relu", x)),
    "LeakyRelu": Operator("tied", lambda b, x, y: b.add("LeakyRelu", x, alpha=0.2)),
    "PRelu": Operator("tied", lambda b, x, y: b.prelu(x, 8)),
    "PRelu of one slope": Operator("tied", lambda b, x, y: b.add("PRelu", x, _values(b, 1, 1, 1))),
    "PRelu of a slope an element": Operator("tied", lambda b, x, y: b.add("PRelu", x, _values(b, 8, 8, 8))),
    "PRelu with a slope of run time": Operator("held", lambda b, x, y: b.add("PRelu", x, b.add("Tanh", y))),
    "PRelu by itself": Operator("held", lambda b, x, y: b.add("Tanh", b.add("PRelu", x, x))),
    "Identity": Operator("tied", lambda b, x, y: b.add("Identity", x)),
    "MaxPool": Operator("tied", lambda b, x, y: b.add("MaxPool", x, kernel_shape=[3, 3], pads=[1] * 4)),
    "MaxPool with places": Operator(
        "held", lambda b, x, y: b.add("MaxPool", x, kernel_shape=[3, 3], pads=[1] * 4, outputs=2)
    ),
    "AveragePool": Operator(
        "tied", lambda b, x, y: b.add("AveragePool", x, kernel_shape=[3, 3], pads=[1] * 4, count_include_pad=1)
    ),
    "Resize and MaxPool": Operator("tied", lambda b, x, y: _shrink(b, b.resize(x, 2))),
    **{
        f"{pool} and Resize": Operator("tied", lambda b, x, y, pool=pool: _enlarge(b, b.add(pool, x)))
        for pool in ("GlobalAveragePool", "GlobalMaxPool")
    },
    "Dropout": Operator("tied", lambda b, x, y: b.add("Dropout", x)),
    "cropping Resize": Operator("held", lambda b, x, y: _shrink(b, _crop(b, x))),
    "GlobalAveragePool in a sum": Operator("held", lambda b, x, y: b.add("Add", x, b.add("GlobalAveragePool", x))),
    "Add": Operator("tied", lambda b, x, y: b.add("Add", x, y)),
    "Sub": Operator("tied", lambda b, x, y: b.add("Sub", x, y)),
    "Add to itself": Operator("tied", lambda b, x, y: b.add("Add", x, x)),
    "Mul by itself": Operator("held", lambda b, x, y: b.add("Tanh", b.add("Mul", x, x))),
    "Mul of equal shapes": Operator("held", lambda b, x, y: b.add("Tanh", b.add("Mul", x, y))),
    "Div of two": Operator("held", _divided),
    "gate": Operator("tied", lambda b, x, y: b.add("Mul", _pooled(b, y), x)),
    "gate from the tensor itself": Operator("held", lambda b, x, y: b.add("Mul", x, _pooled(b, x))),
    "gate by place": Operator("tied", lambda b, x, y: b.add("Mul", x, b.add("Sigmoid", b.conv(y, 8, 1)))),
    "gate of neither shape": Operator(
        "held", lambda b, x, y: b.add("Mul", b.add("GlobalAveragePool", x), b.conv(y, 8, 1))
    ),
    "places times channels": Operator("free", lambda b, x, y: b.add("Mul", _pooled(b, y), b.conv(x, 8, 1))),
    **{
        f"{op} {kind}": Operator(fate, build)
        for op, passed in {"Add": "tied", "Sub": "tied", "Mul": "free", "Div": "free"}.items()
        for kind, fate, build in (
            ("constant by channel", passed, lambda b, x, y, op=op: b.add(op, x, _values(b, 1, 8, 1, 1))),
            ("constant of rank 3", passed, lambda b, x, y, op=op: b.add(op, x, _values(b, 8, 1, 1))),
            ("number", passed, lambda b, x, y, op=op: b.add(op, x, _values(b))),
            ("constant by place", "held", lambda b, x, y, op=op: b.add(op, x, _values(b, 8, 8))),
            ("constant by value", "held", lambda b, x, y, op=op: b.add(op, x, _values(b, 1, 8, 8, 8))),
        )
    },
    **{
        f"{op} constant first": Operator(
            "held", lambda b, x, y, op=op: b.add("Tanh", b.add(op, _values(b, 1, 8, 1, 1), x))
        )
        for op in ("Add", "Sub", "Mul")
    },
    "Div constant first": Operator("held", lambda b, x, y: b.add("Div", _values(b, 1, 8, 1, 1), b.add("Exp", x))),
    "Add Constant node": Operator("tied", lambda b, x, y: _constant_node(b, x)),
    "Concat, BatchNorm and PRelu": Operator("free", _joined),
    "Concat with itself": Operator("free", lambda b, x, y: b.conv(b.add("Concat", x, x, axis=-3), 16, 8)),
    "Concat with a constant": Operator("held", lambda b, x, y: _with_constant(b, x)),
    "Concat over height": Operator(
        "held", lambda b, x, y: b.add("MaxPool", b.add("Concat", x, y, axis=2), kernel_shape=[2, 1], strides=[2, 1])
    ),
    "MatMul over width": Operator("tied", lambda b, x, y: b.add("MatMul", x, _values(b, 8, 8))),
    "MatMul over height": Operator("tied", lambda b, x, y: b.add("MatMul", _values(b, 8, 8), x)),
    "MatMul by channel": Operator("tied", lambda b, x, y: b.add("MatMul", x, _values(b, 1, 8, 8, 8))),
    "MatMul of two": Operator("held", lambda b, x, y: b.add("Tanh", b.add("MatMul", x, y))),
    "channel shuffle": Operator("permuted", lambda b, x, y: _turn(b, x, 1, 2, 4, 8, 8)),
    "shuffle of each half": Operator("held", lambda b, x, y: _turn(b, x, 2, 2, 2, 8, 8)),
    "shuffle that mixes places": Operator("held", lambda b, x, y: _turn(b, x, 1, 8, 8, 4, 2)),
    "Sigmoid": Operator("held", lambda b, x, y: b.add("Sigmoid", x)),
    "Clip": Operator("held", lambda b, x, y: b.add("Clip", x, b.constant(np.float32(-1)), b.constant(np.float32(1)))),
    "HardSwish": Operator("held", lambda b, x, y: b.add("HardSwish", x)),
    "Softmax": Operator("held", lambda b, x, y: b.add("Softmax", x, axis=1)),
    "Reshape to rank 3": Operator(
        "held", lambda b, x, y: b.add("Reshape", b.add("Reshape", x, _numbers(b, 1, 8, 64)), _numbers(b, 1, 8, 8, 8))
    ),
    "Reshape to its own shape": Operator("held", lambda b, x, y: b.add("Reshape", x, _numbers(b, 1, 8, 8, 8))),
    "Transpose": Operator("held", lambda b, x, y: b.add("Transpose", x, perm=[0, 2, 1, 3])),
    "Split": Operator("held", lambda b, x, y: _halves(b, x)),
    "Pad": Operator("held", lambda b, x, y: _shrink(b, _padded(b, x))),
}
"""By a name for messages."""


def _mean_of(b: GraphBuilder, x: str) -> str:
    return b.add("Reshape", b.add("GlobalAveragePool", x), _numbers(b, CHANNELS))


def random_factors(ties: ChannelTies, tensors: list[str], seed: int) -> dict[str, Array]:
    """Factors from 1/8 to 8 that are one number in every free group, for the tensors of which any is not 1."""
    random = np.random.default_rng(seed)
    by_group = {0: 1.0}
    factors = {}
    for tensor in tensors:
        groups = ties.groups(tensor)
        if groups is not None and groups.any():
            values = [by_group.setdefault(g, float(8 ** random.uniform(-1, 1))) for g in groups.tolist()]
            factors[tensor] = np.array(values)
    return factors


def statistics(largest: list[float]) -> ChannelStatistics:
    """Of channels that reach up to `largest` and are spread as a trained network's are."""
    amax = np.array(largest, np.float32)
    return ChannelStatistics(amax, (amax / 4) ** 2)
