"""The operators of canonical graphs in torch, as ONNX opset 17 defines them, for any batch.

Sizes, axes and other numbers that steer an operator are constants of the graph; a batch of 1 among them stands for any.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from edgeseg.errors import UnsupportedModelError
from edgeseg.upsample import sampling

__all__ = ["OPERATORS", "Step", "resample", "unsupported"]


@dataclass(frozen=True)
class Step:
    """One node.

    Attributes:
        name: of the node.
        op: its ONNX operator.
        inputs: tensors that it reads; empty text for one that is left out.
        outputs: tensors that it makes.
        attributes: its attributes, text decoded.
        constants: by input, the value where it is a number or integers known beforehand, else None.
        shape: of the first output in the graph, whose batch is 1; None where inference does not know it.
    """

    name: str
    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]
    constants: tuple[NDArray[Any] | None, ...]
    shape: tuple[int, ...] | None

    def get(self, name: str, default: Any) -> Any:
        """An attribute, or `default`."""
        return self.attributes.get(name, default)

    def integers(self, place: int) -> list[int]:
        """A constant input as integers.

        Raises:
            UnsupportedModelError: where it is computed.
        """
        value = self.constants[place] if place < len(self.constants) else None
        if value is None:
            raise unsupported(self, f"its input {place} is computed, expected a constant")
        return [int(v) for v in value.reshape(-1)]


def unsupported(step: Step, why: str) -> UnsupportedModelError:
    """The error for a node that cannot be trained."""
    return UnsupportedModelError(
        f"the graph cannot be fine-tuned, because of node {step.name!r} ({step.op}): {why}; use the bundle as it was "
        "quantized after training"
    )


Operator = Callable[..., Any]
"""Takes the step and its inputs; gives a tensor, or a tuple for several outputs."""


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


def _reshape(step: Step, x: Tensor, *rest: Tensor | None) -> Tensor:
    shape = step.integers(1)
    # The graph's batch is 1 and comes first; whatever else stands there would mix the frames of a batch.
    if shape[0] not in (-1, 0, 1) and x.shape[0] != 1:
        raise unsupported(step, f"it reshapes to {shape}, which does not keep the batch apart")
    if shape[0] == 1:
        shape[0] = x.shape[0]
    return x.reshape([x.shape[i] if n == 0 else n for i, n in enumerate(shape)])


def _gather(step: Step, x: Tensor, *rest: Tensor | None) -> Tensor:
    chosen = step.constants[1]
    if chosen is None or chosen.ndim != 1:
        raise unsupported(step, "expected a constant list of indices")
    return x.index_select(step.get("axis", 0), torch.from_numpy(chosen.astype(np.int64)).to(x.device))


def _slice(step: Step, x: Tensor, *rest: Tensor | None) -> Tensor:
    starts, ends = step.integers(1), step.integers(2)
    axes = step.integers(3) if len(step.inputs) > 3 and step.inputs[3] else list(range(len(starts)))
    strides = step.integers(4) if len(step.inputs) > 4 else [1] * len(starts)
    if min(strides) < 1:
        raise unsupported(step, "it runs backwards")
    places: list[Any] = [slice(None)] * x.ndim
    for axis, *bounds in zip(axes, starts, ends, strides, strict=True):
        places[axis] = slice(*bounds)
    return x[tuple(places)]


def _split(step: Step, x: Tensor, *rest: Tensor | None) -> tuple[Tensor, ...]:
    axis = step.get("axis", 0)
    sizes = step.integers(1) if len(step.inputs) > 1 else [x.shape[axis] // len(step.outputs)] * len(step.outputs)
    return torch.split(x, sizes, axis)


def _clip(step: Step, x: Tensor, *rest: Tensor | None) -> Tensor:
    low, high = (None if v is None else float(v.reshape(())) for v in (*step.constants[1:], None, None)[:2])
    return x if low is None and high is None else x.clamp(low, high)


def _gemm(step: Step, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    x = x.T if step.get("transA", 0) else x
    product: Tensor = step.get("alpha", 1.0) * (x @ (weight.T if step.get("transB", 0) else weight))
    return product if bias is None else product + step.get("beta", 1.0) * bias


def _depth_to_space(step: Step, x: Tensor) -> Tensor:
    if step.get("mode", "DCR") != "CRD":
        raise unsupported(step, "its mode is DCR, expected CRD")
    return functional.pixel_shuffle(x, step.get("blocksize", 1))


def _unsqueeze(step: Step, x: Tensor, *_: Tensor) -> Tensor:
    for axis in sorted(step.integers(1)):
        x = x.unsqueeze(axis)
    return x


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


OPERATORS: dict[str, Operator] = {
    "Add": lambda step, x, y: x + y,
    "AveragePool": _average_pool,
    "BatchNormalization": _batch_norm,
    "Cast": lambda step, x: x.float(),  # of the frame; what it is cast to is float in every canonical graph
    "Clip": _clip,
    "Concat": lambda step, *x: torch.cat(x, step.get("axis", 1)),
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "DepthToSpace": _depth_to_space,
    "Div": lambda step, x, y: x / y,
    "Flatten": lambda step, x: x.flatten(step.get("axis", 1)),
    "Gather": _gather,
    "Gemm": _gemm,
    "GlobalAveragePool": lambda step, x: x.mean((2, 3), keepdim=True),
    "GlobalMaxPool": lambda step, x: x.amax((2, 3), keepdim=True),
    "GreaterOrEqual": lambda step, x, y: x >= y,
    "HardSigmoid": lambda step, x: (step.get("alpha", 0.2) * x + step.get("beta", 0.5)).clamp(0, 1),
    "HardSwish": lambda step, x: functional.hardswish(x),
    "Identity": lambda step, x: x,
    "LeakyRelu": lambda step, x: functional.leaky_relu(x, step.get("alpha", 0.01)),
    "MatMul": lambda step, x, y: x @ y,
    "Max": _maximum,
    "MaxPool": _max_pool,
    "Min": _minimum,
    "Mul": lambda step, x, y: x * y,
    "Neg": lambda step, x: -x,
    "PRelu": _prelu,
    "ReduceMax": lambda step, x: x.amax(_axes(step, x), bool(step.get("keepdims", 1))),
    "ReduceMean": lambda step, x: x.mean(_axes(step, x), bool(step.get("keepdims", 1))),
    "ReduceMin": lambda step, x: x.amin(_axes(step, x), bool(step.get("keepdims", 1))),
    "ReduceSum": lambda step, x, *axes: x.sum(_axes(step, x), bool(step.get("keepdims", 1))),
    "Relu": lambda step, x: functional.relu(x),
    "Reshape": _reshape,
    "Resize": _resize,
    "Sigmoid": lambda step, x: torch.sigmoid(x),
    "Slice": _slice,
    "Softmax": lambda step, x: torch.softmax(x, step.get("axis", -1)),
    "Split": _split,
    "Sqrt": lambda step, x: torch.sqrt(x),
    "Sub": lambda step, x, y: x - y,
    "Tanh": lambda step, x: torch.tanh(x),
    "Transpose": lambda step, x: x.permute(step.get("perm", list(range(x.ndim))[::-1])),
    "Unsqueeze": _unsqueeze,
    "Where": lambda step, condition, x, y: torch.where(condition, x, y),
}
"""Every operator that can be trained through, by its ONNX name."""
