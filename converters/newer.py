"""Operators that came after opset 17, in the form that PyTorch's exporter gives them for opset 17."""

from __future__ import annotations

import math

import numpy as np
import onnx

from edgeseg.converters.write_out import Replacement, Writer, write_out

__all__ = ["write_newer_operators"]


def write_newer_operators(model: onnx.ModelProto, opset: int) -> None:
    """Write Gelu, Mish and GroupNormalization as operators of opset 17, in place.

    Args:
        model: float32, of any opset.
        opset: its opset; ONNX withdrew the GroupNormalization of 18 to 20, whose scales are those of groups.
    """
    write_out(model, {**_WRITERS, "GroupNormalization": _group_normalization} if opset >= 21 else _WRITERS)


def _gelu(node: Replacement) -> bool:
    """x (1 + erf(x / sqrt 2)) / 2, or with `approximate` x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2."""
    (x,) = node.inputs
    if node.attribute("approximate", "none") == "tanh":
        cube = node.add("Mul", node.add("Pow", x, node.constant("three", 3.0)), node.constant("share", 0.044715))
        factor = node.constant("factor", math.sqrt(2 / math.pi))
        bent = node.add("Tanh", node.add("Mul", node.add("Add", x, cube), factor))
    else:
        bent = node.add("Erf", node.add("Mul", x, node.constant("factor", math.sqrt(0.5))))
    half = node.add("Mul", x, node.constant("half", 0.5))
    node.add("Mul", half, node.add("Add", bent, node.constant("one", 1.0)))
    return True


def _mish(node: Replacement) -> bool:
    """x tanh(softplus(x))."""
    (x,) = node.inputs
    node.add("Mul", x, node.add("Tanh", node.add("Softplus", x)))
    return True


def _group_normalization(node: Replacement) -> bool:
    scale = node.known(node.inputs[1])
    if scale is None:
        return False
    groups = node.attribute("num_groups", 1)
    ones, zeros = node.constant("ones", np.ones(groups)), node.constant("zeros", np.zeros(groups))
    # Groups as the channels of an InstanceNormalization, which TensorRT computes in float32.
    grouped = node.add("Reshape", node.inputs[0], node.constant("groups", (0, groups, -1), np.int64))
    epsilon = node.attribute("epsilon", 1e-5)
    normalised = node.add("InstanceNormalization", grouped, ones, zeros, epsilon=epsilon)
    axis = node.constant("axis", [1], np.int64)
    value = node.add("Reshape", normalised, node.constant("channels", (0, len(scale), -1), np.int64))
    for kind, factor in zip(("Mul", "Add"), node.inputs[1:], strict=True):
        value = node.add(kind, value, node.add("Unsqueeze", factor, axis))
    node.add("Reshape", value, node.add("Shape", node.inputs[0]))
    return True


_WRITERS: dict[str, Writer] = {"Gelu": _gelu, "Mish": _mish}
