"""Losses of segmentation: cross-entropy, with the hardest pixels alone, focal and Dice.

Each takes logits (N, C, H, W) and labels (N, H, W) int64 and gives a scalar in float32. Pixels of the ignore index
count nowhere; a batch without any other pixel gives 0, and a gradient of zeros.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgeseg.errors import LabelError, ShapeError, UsageError

__all__ = ["IGNORE_INDEX", "LOSSES", "CrossEntropy", "Dice", "Focal", "HardCrossEntropy", "SegmentationLoss"]

IGNORE_INDEX = 255


class _PixelLoss(nn.Module):
    """What every loss here shares: which pixels count, and how probable each one's right class is."""

    weights: Tensor | None

    def __init__(self, ignore_index: int, weights: Sequence[float] | None = None) -> None:
        super().__init__()
        if weights is not None and (not all(math.isfinite(w) and w >= 0 for w in weights) or not any(weights)):
            raise UsageError(f"class weights must be finite, not negative and not all 0, but are {list(weights)}")
        self.ignore_index = ignore_index
        # Not part of a checkpoint: the recipe states them.
        self.register_buffer("weights", None if weights is None else torch.tensor(weights).float(), persistent=False)

    def read(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Log probabilities (N, C, H, W) in float32, labels with 0 at ignored pixels, and which pixels count.

        Raises:
            ShapeError: where logits and labels differ in size.
            LabelError: for a label that is no class.
            UsageError: where the class weights are of another number of classes.
        """
        classes = logits.shape[1]
        if labels.shape != (logits.shape[0], *logits.shape[2:]):
            raise ShapeError(
                f"labels must be (N, H, W) of the logits' {tuple(logits.shape)}, but are {tuple(labels.shape)}; "
                "resize the logits to the labels"
            )
        if self.weights is not None and len(self.weights) != classes:
            raise UsageError(f"there are {len(self.weights)} class weights, but {classes} classes")
        counts = labels != self.ignore_index
        right = torch.where(counts, labels, 0)
        if right.numel() and (int(right.max()) >= classes or int(right.min()) < 0):
            wrong = int(right.max()) if int(right.max()) >= classes else int(right.min())
            raise LabelError(
                f"labels must be 0 to {classes - 1} or the ignore index {self.ignore_index}, but {wrong} occurs; map "
                "the labels to the network's classes"
            )
        return functional.log_softmax(logits.float(), 1), right, counts

    def pixel_weights(self, right: Tensor, counts: Tensor) -> Tensor:
        """(N, H, W) float32: the weight of each pixel's class, 0 where it is ignored."""
        return counts.float() if self.weights is None else self.weights[right] * counts

    def amount(self, labels: Tensor) -> Tensor:
        """What the mean over (N, H, W) labels divides by, float32: the pixels that count, each with its weight."""
        counts = labels != self.ignore_index
        return self.pixel_weights(torch.where(counts, labels, 0), counts).sum()


def _pick(maps: Tensor, right: Tensor) -> Tensor:
    """(N, H, W): of the maps (N, C, H, W), the one of each pixel's class."""
    return maps.gather(1, right[:, None]).squeeze(1)


def _mean(values: Tensor, weights: Tensor) -> Tensor:
    """Weighted mean; 0 with a gradient where all weights are 0."""
    total = weights.sum()
    return (values * weights).sum() / torch.where(total > 0, total, 1)


class CrossEntropy(_PixelLoss):
    """Mean of -log p of the right class; with class weights the weighted mean, as torch's.

    Args:
        ignore_index: label of the pixels that do not count.
        weights: one per class; None for equal ones.
    """

    def __init__(self, ignore_index: int = IGNORE_INDEX, weights: Sequence[float] | None = None) -> None:
        super().__init__(ignore_index, weights)

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """See the module."""
        log_p, right, counts = self.read(logits, labels)
        return _mean(-_pick(log_p, right), self.pixel_weights(right, counts))


class HardCrossEntropy(_PixelLoss):
    """Cross-entropy of the hardest pixels alone (online hard example mining).

    Pixels whose right class is less probable than `probability` are kept; where these are fewer than `share` of the
    pixels that count, the least probable ones up to that share. After Shrivastava et al., "Training Region-based Object
    Detectors with Online Hard Example Mining", CVPR 2016, as the code of BiSeNet takes it over to pixels.

    Args:
        ignore_index: label of the pixels that do not count.
        weights: one per class; None for equal ones. They weigh the pixels and do not choose them.
        probability: above 0 and at most 1.
        share: of the pixels of a batch, from 0 to 1.
    """

    def __init__(
        self,
        ignore_index: int = IGNORE_INDEX,
        weights: Sequence[float] | None = None,
        probability: float = 0.7,
        share: float = 1 / 16,
    ) -> None:
        super().__init__(ignore_index, weights)
        if not 0 < probability <= 1:
            raise UsageError(f"probability must be above 0 and at most 1, but is {probability}")
        if not 0 <= share <= 1:
            raise UsageError(f"share must be 0 to 1, but is {share}")
        self.probability = probability
        self.share = share

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """See the module."""
        log_p, right, counts = self.read(logits, labels)
        losses = -_pick(log_p, right)
        return _mean(losses, self.pixel_weights(right, self.hardest(losses.detach(), counts)))

    def hardest(self, losses: Tensor, counts: Tensor) -> Tensor:
        """(N, H, W) bool: the pixels that are kept."""
        ranked = torch.where(counts, losses, -1.0)  # below every loss
        least = math.ceil(self.share * int(counts.sum()))
        kept: Tensor = counts & (losses > -math.log(self.probability))
        if int(kept.sum()) < least:
            kept = torch.zeros_like(counts)
            kept.view(-1)[ranked.flatten().topk(least).indices] = True
        return kept


class Focal(_PixelLoss):
    """Mean of -alpha (1 - p)^gamma log p of the right class over the pixels that count.

    T.-Y. Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017, equations 4 and 5.

    Args:
        ignore_index: label of the pixels that do not count.
        weights: alpha, one factor per class; None for 1. Unlike those of cross-entropy they do not enter the divisor.
        gamma: how fast sure pixels lose weight; 0 gives cross-entropy.
    """

    def __init__(
        self, ignore_index: int = IGNORE_INDEX, weights: Sequence[float] | None = None, gamma: float = 2.0
    ) -> None:
        super().__init__(ignore_index, weights)
        if not (math.isfinite(gamma) and gamma >= 0):
            raise UsageError(f"gamma must be finite and not negative, but is {gamma}")
        self.gamma = gamma

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """See the module."""
        log_p, right, counts = self.read(logits, labels)
        picked = _pick(log_p, right)
        # Below gamma 1 the power's slope at 0 is infinite, which times log 1 would be NaN.
        doubt = (-torch.expm1(picked)).clamp_min(1e-12)
        losses = -(doubt**self.gamma) * picked * self.pixel_weights(right, counts)
        return losses.sum() / counts.sum().clamp_min(1)

    def amount(self, labels: Tensor) -> Tensor:
        """See `CrossEntropy`; here the weights do not enter the divisor."""
        return (labels != self.ignore_index).sum().float()


class Dice(_PixelLoss):
    """1 - D, mean over the classes that the batch's labels hold; D = 2 sum(p t) / denominator over all its pixels.

    Classes that no label of the batch holds are left out of the mean: their D is 0 whatever the network says. So every
    denominator is at least 1 and needs no smoothing, which also bounds the gradient of the squared one. F. Milletari
    et al., "V-Net", 3DV 2016.

    Args:
        ignore_index: label of the pixels that do not count.
        weights: of each class in the mean; None for equal ones.
        squared: whether the denominator is sum(p^2 + t^2), as in V-Net, or sum(p + t).
    """

    def __init__(
        self, ignore_index: int = IGNORE_INDEX, weights: Sequence[float] | None = None, squared: bool = False
    ) -> None:
        super().__init__(ignore_index, weights)
        self.squared = squared

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """See the module."""
        log_p, right, counts = self.read(logits, labels)
        p = log_p.exp() * counts[:, None]
        zeros = p.new_zeros(p.shape[1])
        shared = zeros.index_add(0, right.flatten(), _pick(p, right).flatten())
        target = zeros.index_add(0, right.flatten(), counts.flatten().float())
        predicted = (p * p if self.squared else p).sum((0, 2, 3))
        scores = 2 * shared / (predicted + target).clamp_min(1)
        present = (target > 0).float()
        return _mean(1 - scores, present if self.weights is None else present * self.weights)


LOSSES: dict[str, Callable[..., nn.Module]] = {
    "cross_entropy": CrossEntropy,
    "dice": Dice,
    "focal": Focal,
    "hard_cross_entropy": HardCrossEntropy,
}
"""Every loss by name; called with `ignore_index`, `weights` and its own options."""


class SegmentationLoss(nn.Module):
    """A loss of all that a network gives in training.

    Args:
        loss: of logits (N, C, H, W) against labels (N, H, W): one of this module's.
        auxiliary_weight: of each auxiliary head.
    """

    def __init__(self, loss: Callable[[Tensor, Tensor], Tensor], auxiliary_weight: float = 0.4) -> None:
        super().__init__()
        self.criterion = loss
        self.auxiliary_weight = auxiliary_weight

    def forward(self, outputs: Tensor | tuple[Tensor, ...], labels: Tensor) -> dict[str, Tensor]:
        """The loss and its parts.

        Args:
            outputs: logits of the network, or a tuple of them and each auxiliary head's.
            labels: (N, H, W) int64.

        Returns:
            Scalars: `loss`, the total; `segmentation`, of the network's own logits; `auxiliary`, the sum over the
            auxiliary heads before their weight, where there are any.
        """
        logits, *auxiliary = (outputs,) if isinstance(outputs, Tensor) else outputs
        main = self.criterion(logits, labels)
        if not auxiliary:
            return {"loss": main, "segmentation": main}
        extra = torch.stack([self.criterion(head, labels) for head in auxiliary]).sum()
        return {"loss": main + self.auxiliary_weight * extra, "segmentation": main, "auxiliary": extra}

    def amount(self, labels: Tensor) -> Tensor:
        """How much these labels count in a mean over several processes: see each loss; else the number of pixels."""
        if isinstance(self.criterion, _PixelLoss):
            return self.criterion.amount(labels)
        return labels.new_tensor(labels.numel(), dtype=torch.float32)
