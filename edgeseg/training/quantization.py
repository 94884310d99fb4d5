"""Q/DQ pairs that can be trained through: rounding forward, a straight line backward, and scales that are learned."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from edgeseg.calibration.ranges import LEVELS
from edgeseg.converters.place import weight_scales

__all__ = ["ActivationQuantization", "WeightQuantization", "fake_quantize"]


def fake_quantize(values: Tensor, scale: Tensor) -> Tensor:
    """QuantizeLinear and DequantizeLinear of symmetric INT8, with a gradient.

    The gradient of rounding is taken as 1 (straight-through), so that values inside the range learn as if they were not
    quantized, clipped ones not at all, and the scale by the step size's gradient of LSQ (Esser et al., "Learned Step
    Size Quantization", ICLR 2020, equation 3).

    Args:
        values: float32 of any shape.
        scale: positive, of a shape that goes with it.
    """
    # ONNX saturates to all of int8: the canonical graph's scale is symmetric, its level -128 is still reached.
    levels = (values / scale).clamp(-LEVELS - 1, LEVELS)
    rounded = levels + (levels.round() - levels).detach()
    return rounded * scale


class ActivationQuantization(nn.Module):
    """A pair on an activation tensor, whose one scale is learned.

    The logarithm of its growth is the parameter: a step changes the range by a share of itself and never its sign, and
    at 0 the scale is exactly that of the graph.

    Args:
        scale: that of the graph.
    """

    start: Tensor

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.register_buffer("start", torch.tensor(scale))
        self.growth = nn.Parameter(torch.zeros(()))

    @property
    def scale(self) -> Tensor:
        """The scale, a positive scalar."""
        return self.start * self.growth.exp()

    def forward(self, values: Tensor) -> Tensor:
        """Values (N, ...) float32 as INT8 holds them."""
        # LSQ, section 2.2: the gradients of a tensor's values add up in its one scale.
        factor = 1 / math.sqrt(values[0].numel() * LEVELS)
        scale = self.scale
        return fake_quantize(values, scale * factor + (scale * (1 - factor)).detach())


class WeightQuantization(nn.Module):
    """A pair on the weights of a convolution; each output channel's scale is that which the converter would choose.

    The scales are taken anew in every pass: with older ones, a weight that grew would be clipped in training and not in
    the graph that is written.
    """

    def forward(self, weight: Tensor) -> Tensor:
        """Weights (output channels, ...) float32 as INT8 holds them."""
        scales = torch.from_numpy(weight_scales(weight.detach().cpu().numpy())).to(weight.device)
        return fake_quantize(weight, scales.reshape(-1, *[1] * (weight.ndim - 1)))
