"""The operators of canonical graphs that move values and compute none, in torch."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from edgeseg.training.step import Operator, Step, unsupported

__all__ = ["MOVING"]


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


def _depth_to_space(step: Step, x: Tensor) -> Tensor:
    side = step.get("blocksize", 1)
    if step.get("mode", "DCR") == "CRD":
        return functional.pixel_shuffle(x, side)
    frames, channels, height, width = x.shape
    apart = x.reshape(frames, side, side, channels // side**2, height, width).permute(0, 3, 4, 1, 5, 2)
    return apart.reshape(frames, -1, height * side, width * side)


def _space_to_depth(step: Step, x: Tensor) -> Tensor:
    side = step.get("blocksize", 1)
    frames, channels, height, width = x.shape
    apart = x.reshape(frames, channels, height // side, side, width // side, side).permute(0, 3, 5, 1, 2, 4)
    return apart.reshape(frames, -1, height // side, width // side)


def _unsqueeze(step: Step, x: Tensor, *_: Tensor) -> Tensor:
    for axis in sorted(step.integers(1)):
        x = x.unsqueeze(axis)
    return x


def _squeeze(step: Step, x: Tensor, *_: Tensor) -> Tensor:
    if len(step.inputs) < 2:
        raise unsupported(step, "it names no axes")
    return x.squeeze(step.integers(1))


def _expand(step: Step, x: Tensor, *_: Tensor) -> Tensor:
    # The graph's batch is 1, which leaves that of the frames as it is.
    return x * x.new_ones(step.integers(1))


_PAD_MODES = {"constant": "constant", "edge": "replicate", "reflect": "reflect"}


def _pad(step: Step, x: Tensor, *_: Tensor | None) -> Tensor:
    amounts, mode = step.integers(1), step.get("mode", "constant")
    begins, ends = amounts[: x.ndim], amounts[x.ndim :]
    if mode not in _PAD_MODES or (mode != "constant" and any(begins[:-2] + ends[:-2])):
        raise unsupported(step, f"its mode is {mode}, expected zeros, or reflection or edges of height and width")
    axes = range(x.ndim - 1, -1 if mode == "constant" else x.ndim - 3, -1)
    pads = [side for axis in axes for side in (begins[axis], ends[axis])]
    if mode != "constant":
        return functional.pad(x, pads, _PAD_MODES[mode])
    fill = step.constants[2] if len(step.inputs) > 2 and step.inputs[2] else np.float32(0)
    if fill is None:
        raise unsupported(step, "what it pads with is computed")
    return functional.pad(x, pads, value=float(fill.reshape(())))


MOVING: dict[str, Operator] = {
    "Concat": lambda step, *x: torch.cat(x, step.get("axis", 1)),
    "DepthToSpace": _depth_to_space,
    "Expand": _expand,
    "Flatten": lambda step, x: x.flatten(step.get("axis", 1)),
    "Gather": _gather,
    "Identity": lambda step, x: x,
    "Pad": _pad,
    "Reshape": _reshape,
    "Slice": _slice,
    "SpaceToDepth": _space_to_depth,
    "Split": _split,
    "Squeeze": _squeeze,
    "Transpose": lambda step, x: x.permute(step.get("perm", list(range(x.ndim))[::-1])),
    "Unsqueeze": _unsqueeze,
    "Where": lambda step, condition, x, y: torch.where(condition, x, y),
}
"""By ONNX name."""
