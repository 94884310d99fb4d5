"""Rounding to INT8 in float operators: what Q/DQ computes, for graphs that try quantization out.

A real pair of Q/DQ would be run by INT8 kernels, or not, as the CPU has them.
"""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from edgeseg.calibration.ranges import LEVELS
from edgeseg.converters.place import weight_scales

__all__ = ["level_limits", "levels_of", "rounded_weight", "rounding"]

_LIMITS = {"lowest": -LEVELS - 1, "highest": LEVELS}


def rounded_weight(weight: NDArray[np.float32]) -> NDArray[np.float32]:
    """What the INT8 kernels compute with: a weight (output channels, ...) rounded to its levels, float32."""
    scales = weight_scales(weight).reshape(-1, *(1 for _ in weight.shape[1:]))
    levels = np.clip(np.rint(weight / scales), -LEVELS, LEVELS)
    rounded: NDArray[np.float32] = (levels * scales).astype(np.float32)
    return rounded


def level_limits(prefix: str) -> list[onnx.TensorProto]:
    """Initializers that every `rounding` of the same prefix reads."""
    return [numpy_helper.from_array(np.array(level, np.float32), f"{prefix}_{n}") for n, level in _LIMITS.items()]


def rounding(tensor: str, step: str, prefix: str, number: int) -> list[onnx.NodeProto]:
    """Nodes that round an activation; the result is PREFIX_rounded_NUMBER.

    Args:
        tensor: what is rounded.
        step: name of its scale, a scalar tensor.
        prefix: of all names, as for `level_limits`.
        number: that no other rounding of the prefix has.
    """
    nodes = levels_of(tensor, step, prefix, number)
    return [*nodes, helper.make_node("Mul", [nodes[-1].output[0], step], [f"{prefix}_rounded_{number}"])]


def levels_of(tensor: str, step: str, prefix: str, number: int) -> list[onnx.NodeProto]:
    """Nodes that give the levels of an activation, float32, with the arguments of `rounding`."""
    divided, level, clipped = (f"{prefix}_{name}_{number}" for name in ("divided", "level", "clipped"))
    return [
        helper.make_node("Div", [tensor, step], [divided]),
        helper.make_node("Round", [divided], [level]),
        helper.make_node("Clip", [level, *(f"{prefix}_{name}" for name in _LIMITS)], [clipped]),
    ]
