"""Mean field of a dense CRF as a layer whose weights are trained: CRF-as-RNN.

S. Zheng et al., "Conditional Random Fields as Recurrent Neural Networks", ICCV 2015, arXiv 1502.03240. Each iteration
filters the class probabilities with two Gaussian kernels of the frame, mixes the classes of both results by learned
weights, turns the sum into penalties by a learned compatibility, and subtracts them from the logits.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from edgeseg.refine.gaussian import Filter
from edgeseg.refine.learned_crf import (
    COLOUR_DEVIATION,
    POSITION_DEVIATION,
    SMOOTHNESS_DEVIATION,
    LearnedCRF,
    message_filters,
)

__all__ = ["MeanField", "filtered", "mean_field"]

_APPEARANCE, _SMOOTHNESS = 5.0, 3.0
"""Weights of the kernels before training (torrvision/crfasrnn)."""

_TRAINING, _TEST = 5, 10
"""Iterations, as published."""


class MeanField(nn.Module):
    """The layer: three (classes, classes) matrices, all that is learned; the widths of the kernels are fixed.

    Before training it is the dense CRF of the preset `crfasrnn`: each class hears itself alone, 5 from pixels of like
    colour and 3 from near ones, and the compatibility is minus the identity, Potts' up to a constant. It is a
    penalty and subtracted, as in the paper and its Caffe code; crfasrnn_pytorch starts from plus the identity and adds.

    Filtering runs on the processor, by a permutohedral lattice; what comes from a GPU goes there and back.

    Args:
        classes: number of logits per pixel.
    """

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.appearance = nn.Parameter(_APPEARANCE * torch.eye(classes))
        self.smoothness = nn.Parameter(_SMOOTHNESS * torch.eye(classes))
        self.compatibility = nn.Parameter(-torch.eye(classes))

    def forward(self, logits: Tensor, frames: Tensor) -> Tensor:
        """Refine logits.

        Args:
            logits: (N, classes, H, W).
            frames: (N, 3, H, W), the frames in 0..255, rounded to whole steps; they get no gradient.

        Returns:
            (N, classes, H, W) float32 logits: those of the last iteration, 5 in training and 10 in `eval()`.
        """
        if logits.is_meta:  # its sizes alone are asked for
            return logits
        pixels = frames.detach().round().clamp(0, 255).to("cpu", torch.uint8).permute(0, 2, 3, 1).numpy()
        refined = []
        with torch.autocast(logits.device.type, enabled=False):
            for scores, frame in zip(logits.float(), pixels, strict=True):
                deviations = POSITION_DEVIATION, COLOUR_DEVIATION, SMOOTHNESS_DEVIATION
                filters = message_filters(np.ascontiguousarray(frame), *deviations)
                matrices = self.appearance, self.smoothness, self.compatibility
                iterations = _TRAINING if self.training else _TEST
                refined.append(mean_field(scores.flatten(1), filters, matrices, iterations).reshape(scores.shape))
        return torch.stack(refined)

    def learned(self) -> LearnedCRF:
        """The layer's parameters as a refinement of what an engine gives."""
        matrices = (self.appearance, self.smoothness, self.compatibility)
        appearance, smoothness, compatibility = (m.detach().cpu().float().numpy().copy() for m in matrices)
        return LearnedCRF(appearance, smoothness, compatibility, iterations=_TEST)


def mean_field(
    logits: Tensor, filters: tuple[Filter, Filter], matrices: tuple[Tensor, Tensor, Tensor], iterations: int
) -> Tensor:
    """The iterations for one frame (algorithm 1); every step is differentiable.

    Args:
        logits: (classes, pixels).
        filters: the appearance and the smoothness kernel.
        matrices: (classes, classes) weights of both kernels, and the compatibility.
        iterations: number of them.

    Returns:
        (classes, pixels), the logits after the last.
    """
    appearance, smoothness, compatibility = matrices
    refined = logits
    for _ in range(iterations):
        belief = refined.softmax(0)
        message = appearance @ filtered(belief, filters[0]) + smoothness @ filtered(belief, filters[1])
        refined = logits - compatibility @ message
    return refined


def filtered(values: Tensor, kernel: Filter) -> Tensor:
    """Values (classes, pixels) through a kernel; the gradient goes through the transposed kernel."""
    result: Tensor = _Filtering.apply(values, kernel)  # type: ignore[no-untyped-call]
    return result


class _Filtering(torch.autograd.Function):
    """A linear operator that torch does not know. It is not symmetric: rows are normalized, and the order in which a
    lattice blurs its axes matters."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, kernel: Filter) -> Tensor:
        ctx.kernel = kernel
        return _through(kernel, values, transposed=False)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return _through(ctx.kernel, gradient, transposed=True), None


def _through(kernel: Filter, values: Tensor, *, transposed: bool) -> Tensor:
    rows = np.ascontiguousarray(values.detach().cpu().numpy().T)
    result = kernel(rows, transposed=transposed)
    return torch.from_numpy(np.ascontiguousarray(result.T)).to(values.device)
