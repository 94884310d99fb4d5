"""The operators of canonical graphs in torch, as ONNX opset 17 defines them, for any batch.

Sizes, axes and other numbers that steer an operator are constants of the graph; a batch of 1 among them stands for any.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from edgeseg.training.moving import MOVING
from edgeseg.training.step import Operator, Step, unsupported
from edgeseg.upsample import sampling

__all__ = ["OPERATORS", "resample"]


def resample(maps: Tensor, size: tuple[int, int], coordinates: str) -> Tensor:
    """Bilinear resizing as ONNX Resize defines it, mode "linear".

    Args:
        maps: (N, C, h, w).
        size: (height, width) of the result.
        coordinates: rule of ONNX Resize, see `edgeseg.manifest.Coordinates`.
    """
    if coordinates == "align_corners" or (coordinates.endswith("half_pixel") and min(size) > 1):
        resized: Tensor = functional.interpolate(
            maps, size, mode="bilinear", align_corners=coordinates == "align_corners"
        )
        return resized
    for axis, pixels in zip((2, 3), size, strict=True):
        rule: Any = coordinates
        place = sampling(pixels, pixels, maps.shape[axis], rule)
        weight = torch.from_numpy(place.weight.copy()).to(maps)
        weight = weight[:, None] if axis == 2 else weight
        lower, upper = (
            maps.index_select(axis, torch.from_numpy(i.copy()).to(maps.device)) for i in (place.lower, place.upper)
        )
        maps = lower + (upper - lower) * weight
    return maps


def _padding(step: Step, x: Tensor, fill: float = 0.0) -> tuple[Tensor, tuple[int, int]]:
    """The maps and the padding that torch must add on both sides; an uneven one is added here."""
    if step.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        raise unsupported(step, "its padding is automatic, expected numbers")
    top, left, bottom, right = step.get("pads", [0] * 4)
    if (top, left) == (bottom, right):
        return x, (top, left)
    return functional.pad(x, (left, right, top, bottom), value=fill), (0, 0)


def _conv(step: Step, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    x, padding = _padding(step, x)
    strides, dilations = step.get("strides", [1, 1]), step.get("dilations", [1, 1])
    return functional.conv2d(x, weight, bias, strides, padding, dilations, step.get("group", 1))


def _conv_transpose(step: Step, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    if step.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID") or "output_shape" in step.attributes:
        raise unsupported(step, "its padding follows from the size of its output, expected numbers")
    full = functional.conv_transpose2d(
        x,
        weight,
        bias,
        step.get("strides", [1, 1]),
        0,
        step.get("output_padding", [0, 0]),
        step.get("group", 1),
        step.get("dilations", [1, 1]),
    )
    top, left, bottom, right = step.get("pads", [0] * 4)
    return full[:, :, top : full.shape[2] - bottom, left : full.shape[3] - right]


def _average_pool(step: Step, x: Tensor) -> Tensor:
    counted = bool(step.get("count_include_pad", 0))
    padded, padding = _padding(step, x)
    if padded is not x and not counted:
        raise unsupported(step, "its padding is uneven and not counted")
    kernel, strides = step.get("kernel_shape", [1, 1]), step.get("strides", [1, 1])
    return functional.avg_pool2d(padded, kernel, strides, padding, bool(step.get("ceil_mode", 0)), counted)


def _max_pool(step: Step, x: Tensor) -> Tensor:
    x, padding = _padding(step, x, -torch.inf)
    kernel, strides, dilations = (step.get(n, [1, 1]) for n in ("kernel_shape", "strides", "dilations"))
    return functional.max_pool2d(x, kernel, strides, padding, dilations, bool(step.get("ceil_mode", 0)))


def _resize(step: Step, x: Tensor, *rest: Tensor | None) -> Tensor:
    mode, rule = step.get("mode", "nearest"), step.get("coordinate_transformation_mode", "half_pixel")
    if step.shape is None or len(step.shape) != 4 or step.shape[1] != x.shape[1]:
        raise unsupported(step, "expected a new height and width alone")
    size = (step.shape[2], step.shape[3])
    if mode == "nearest" and rule == "asymmetric" and step.get("nearest_mode", "round_prefer_floor") == "floor":
        return functional.interpolate(x, size, mode="nearest")
    if mode != "linear" or rule not in ("align_corners", "half_pixel", "pytorch_half_pixel", "asymmetric"):
        raise unsupported(step, f"its mode is {mode} with {rule}")
    return resample(x, size, rule)


def _prelu(step: Step, x: Tensor, slope: Tensor) -> Tensor:
    if slope.numel() == 1 or (slope.ndim == 3 and slope.numel() == slope.shape[0] == x.shape[1]):
        return functional.prelu(x, slope.reshape(-1))
    return torch.where(x < 0, slope * x, x)


def _batch_norm(step: Step, x: Tensor, scale: Tensor, shift: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    return functional.batch_norm(x, mean, variance, scale, shift, False, 0.0, step.get("epsilon", 1e-5))


def _clip(step: Step, x: Tensor, *rest: Tensor | None) -> Tensor:
    low, high = (None if v is None else float(v.reshape(())) for v in (*step.constants[1:], None, None)[:2])
    return x if low is None and high is None else x.clamp(low, high)


def _gemm(step: Step, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    x = x.T if step.get("transA", 0) else x
    product: Tensor = step.get("alpha", 1.0) * (x @ (weight.T if step.get("transB", 0) else weight))
    return product if bias is None else product + step.get("beta", 1.0) * bias


def _axes(step: Step, x: Tensor) -> list[int]:
    """What a reduction runs over: an attribute, or for ReduceSum an input; all axes where neither says."""
    if len(step.inputs) > 1 and step.inputs[1]:
        return step.integers(1)
    axes: list[int] = step.get("axes", list(range(x.ndim)))
    return axes


def _maximum(step: Step, *x: Tensor) -> Tensor:
    del step
    return functools.reduce(torch.maximum, x)


def _minimum(step: Step, *x: Tensor) -> Tensor:
    del step
    return functools.reduce(torch.minimum, x)


def _instance_norm(step: Step, x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    return functional.instance_norm(x, weight=scale, bias=shift, eps=step.get("epsilon", 1e-5))


def _layer_norm(step: Step, x: Tensor, scale: Tensor, shift: Tensor | None = None) -> Tensor:
    axes = list(range(step.get("axis", -1) % x.ndim, x.ndim))
    variance, mean = torch.var_mean(x, axes, correction=0, keepdim=True)
    normalised = (x - mean) * torch.rsqrt(variance + step.get("epsilon", 1e-5)) * scale
    return normalised if shift is None else normalised + shift


OPERATORS: dict[str, Operator] = {
    **MOVING,
    "Abs": lambda step, x: x.abs(),
    "Add": lambda step, x, y: x + y,
    "AveragePool": _average_pool,
    "BatchNormalization": _batch_norm,
    "Cast": lambda step, x: x.float(),  # of the frame; what it is cast to is float in every canonical graph
    "Clip": _clip,
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Div": lambda step, x, y: x / y,
    "Einsum": lambda step, *x: torch.einsum(step.get("equation", ""), *x),
    "Elu": lambda step, x: functional.elu(x, step.get("alpha", 1.0)),
    "Erf": lambda step, x: torch.erf(x),
    "Exp": lambda step, x: torch.exp(x),
    "Gemm": _gemm,
    "GlobalAveragePool": lambda step, x: x.mean((2, 3), keepdim=True),
    "GlobalMaxPool": lambda step, x: x.amax((2, 3), keepdim=True),
    "GreaterOrEqual": lambda step, x, y: x >= y,
    "HardSigmoid": lambda step, x: (step.get("alpha", 0.2) * x + step.get("beta", 0.5)).clamp(0, 1),
    "HardSwish": lambda step, x: functional.hardswish(x),
    "InstanceNormalization": _instance_norm,
    "LayerNormalization": _layer_norm,
    "LeakyRelu": lambda step, x: functional.leaky_relu(x, step.get("alpha", 0.01)),
    "Log": lambda step, x: torch.log(x),
    "MatMul": lambda step, x, y: x @ y,
    "Max": _maximum,
    "MaxPool": _max_pool,
    "Min": _minimum,
    "Mul": lambda step, x, y: x * y,
    "Neg": lambda step, x: -x,
    "PRelu": _prelu,
    "Pow": lambda step, x, y: torch.pow(x, y),
    "Reciprocal": lambda step, x: x.reciprocal(),
    "ReduceL2": lambda step, x: torch.linalg.vector_norm(x, dim=_axes(step, x), keepdim=bool(step.get("keepdims", 1))),
    "ReduceMax": lambda step, x: x.amax(_axes(step, x), bool(step.get("keepdims", 1))),
    "ReduceMean": lambda step, x: x.mean(_axes(step, x), bool(step.get("keepdims", 1))),
    "ReduceMin": lambda step, x: x.amin(_axes(step, x), bool(step.get("keepdims", 1))),
    "ReduceSum": lambda step, x, *axes: x.sum(_axes(step, x), bool(step.get("keepdims", 1))),
    "Relu": lambda step, x: functional.relu(x),
    "Resize": _resize,
    "Selu": lambda step, x: functional.selu(x),
    "Sigmoid": lambda step, x: torch.sigmoid(x),
    "Softmax": lambda step, x: torch.softmax(x, step.get("axis", -1)),
    "Softplus": lambda step, x: functional.softplus(x),
    "Sqrt": lambda step, x: torch.sqrt(x),
    "Sub": lambda step, x, y: x - y,
    "Tanh": lambda step, x: torch.tanh(x),
}
"""Every operator that can be trained through, by its ONNX name."""
