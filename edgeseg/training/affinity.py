"""Feature affinity: how alike two feature maps relate their pixels to each other."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

__all__ = ["feature_affinity"]

CHUNK = 1 << 22
"""Similarities held at a time: 16 MiB in float32."""


def feature_affinity(first: Tensor, second: Tensor, chunk: int = CHUNK) -> Tensor:
    """Mean absolute difference of the two similarity matrices, over all pairs of pixels.

    Each pixel's features are divided by their L2 norm, so that only their direction counts; a pixel without any
    features is similar to nothing. From Wang et al., CVPR 2020, section 3.3, with p = 2 and q = 1.

    Args:
        first, second: (N, C, H, W) and (N, D, H, W) floating point.
        chunk: similarities held at a time; a matrix has (H * W) ** 2 of them and is never held whole, neither in the
            forward nor in the backward pass.

    Returns:
        A scalar in float32 from 0 to 2.
    """
    loss: Tensor = _Affinity.apply(_directions(first), _directions(second), chunk)  # type: ignore[no-untyped-call]
    return loss


def _directions(features: Tensor) -> Tensor:
    """(N, C, P) float32, each pixel of length 1, or 0 where it was."""
    return functional.normalize(features.float().flatten(2), dim=1, eps=1e-12)


class _Affinity(torch.autograd.Function):
    """The loss and its gradient in one pass over rows of the similarity matrices.

    With A (C, P), S = A^T A and G = sign(S - T) / P^2, the gradient of the loss is 2 A G, because S and G are
    symmetric. A row of G is enough for one column of the gradient, so nothing of the matrices must be kept.
    """

    @staticmethod
    def forward(ctx: Any, first: Tensor, second: Tensor, chunk: int) -> Tensor:
        images, _, pixels = first.shape
        rows = max(1, chunk // pixels)
        gradients = [torch.zeros_like(first), torch.zeros_like(second)] if any(ctx.needs_input_grad) else []
        total = first.new_zeros((), dtype=torch.float64)
        with torch.autocast(first.device.type, enabled=False):
            for a, b, *into in zip(first, second, *gradients, strict=True):
                for start in range(0, pixels, rows):
                    part = slice(start, start + rows)
                    difference = a[:, part].T @ a
                    difference -= b[:, part].T @ b
                    total += difference.abs().sum(dtype=torch.float64)
                    if into:
                        difference.sign_()
                        into[0][:, part] = a @ difference.T
                        into[1][:, part] = b @ difference.T
        pairs = images * pixels * pixels
        if gradients:
            ctx.save_for_backward(gradients[0].mul_(2 / pairs), gradients[1].mul_(-2 / pairs))
        return (total / pairs).float()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, scale: Tensor) -> tuple[Tensor, Tensor, None]:
        first, second = ctx.saved_tensors
        return first * scale, second * scale, None
