"""The training of MaskLab: one loss over boxes, semantic and direction logits, and masks."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgeseg.errors import LabelError, ShapeError
from edgeseg.models.masklab import Maps, MaskLab
from edgeseg.models.masklab_boxes import box_overlap, offsets
from edgeseg.models.masklab_detector import BOX_SCALE, PROPOSAL_SCALE
from edgeseg.models.network import resize
from edgeseg.training.instances import InstanceLabels, cut_masks, direction_labels
from edgeseg.training.losses import CrossEntropy

__all__ = ["BACKGROUND", "UNDECIDED", "InstanceLoss", "match"]

BACKGROUND, UNDECIDED = -1, -2
_ANCHORS, _ANCHOR_SHARE, _ANCHOR_LIMITS = 256, 0.5, (0.3, 0.7)
_BOX_SHARE, _BOX_LIMITS = 0.25, (0.5, 0.5)
"""Boxes in a loss, share of them with an object, and the overlaps below and above which a box has none or has one."""
_SMOOTH = 1 / 9
"""Error of an offset up to which its loss is a square, from Faster R-CNN's code."""


class InstanceLoss(nn.Module):
    """All that MaskLab learns, each part of weight 1.

    Anchors and boxes are chosen and weighed as in Faster R-CNN; the masks of the boxes that have an object are learned
    before and after their refinement, with binary cross-entropy.

    Args:
        network: what is trained.
        loss: of the semantic logits (N, C, H, W) against labels (N, H, W).
        boxes: how many of an image are classified, at most a quarter of them with an object; 128 as published.
    """

    def __init__(
        self, network: MaskLab, loss: Callable[[Tensor, Tensor], Tensor] | None = None, *, boxes: int = 128
    ) -> None:
        super().__init__()
        self.network = network
        self.boxes = boxes
        self.semantic = CrossEntropy() if loss is None else loss

    def forward(self, image: Tensor, labels: Tensor, instances: Sequence[InstanceLabels]) -> dict[str, Tensor]:
        """The loss and its parts.

        Args:
            image: (N, 3, H, W) float32, normalised.
            labels: (N, H, W) int64, class index of each pixel.
            instances: of each image.

        Returns:
            Scalars: `loss`, the sum; `semantic`, `direction`, `objectness`, `proposals` (offsets of the anchors),
            `classes` and `boxes` (of the proposals), `masks`. What an image without instances cannot teach is 0.

        Raises:
            ShapeError: where the instances are not one value per image, of the image's size.
            LabelError: for a class that the network does not have.
        """
        size = int(image.shape[2]), int(image.shape[3])
        self._check(image, instances)
        maps = self.network.maps(image)
        ways = [direction_labels(truth, self.network.directions, self.network.distances) for truth in instances]
        parts = {
            "semantic": self.semantic(resize(maps.semantic, *size, self.network.align_corners), labels),
            "direction": CrossEntropy()(resize(maps.direction, *size, self.network.align_corners), torch.stack(ways)),
        }
        found = [
            self._anchors(maps, n, truth, size) | self._boxes(maps, n, truth, size) for n, truth in enumerate(instances)
        ]
        parts |= {name: torch.stack([single[name] for single in found]).mean() for name in found[0]}
        return {"loss": torch.stack([*parts.values()]).sum(), **parts}

    def _anchors(self, maps: Maps, number: int, truth: InstanceLabels, size: tuple[int, int]) -> dict[str, Tensor]:
        """Loss of the region proposal network on one image."""
        proposal = self.network.proposal
        logits, by = (values[number] for values in proposal.flat(maps.objectness, maps.shifts))
        anchors = proposal.anchors(maps.objectness, size)
        matches = match(anchors, truth.boxes, _ANCHOR_LIMITS, best=True)
        some, none = _sample(matches, _ANCHORS, _ANCHOR_SHARE)
        chosen = torch.cat([some, none])
        goal = torch.cat([torch.ones_like(some), torch.zeros_like(none)]).float()
        right = offsets(anchors[some], truth.boxes[matches[some]], PROPOSAL_SCALE)
        return {
            "objectness": functional.binary_cross_entropy_with_logits(logits[chosen], goal),
            "proposals": _offset_loss(by[some], right, len(chosen)),
        }

    def _boxes(self, maps: Maps, number: int, truth: InstanceLabels, size: tuple[int, int]) -> dict[str, Tensor]:
        """Loss of the second stage and of the masks on one image; its true boxes are proposals too."""
        single = maps.objectness[number : number + 1], maps.shifts[number : number + 1]
        boxes = torch.cat([truth.boxes, self.network.proposal.propose(*single, size)[0].boxes])
        matches = match(boxes, truth.boxes, _BOX_LIMITS, best=False)
        some, none = _sample(matches, self.boxes, _BOX_SHARE)
        chosen = torch.cat([some, none])
        logits, by = self.network.box(maps.shared[number], boxes[chosen], size)
        goal = torch.full_like(chosen, self.network.classes)
        goal[: len(some)] = truth.classes[matches[some]]
        right = offsets(boxes[some], truth.boxes[matches[some]], BOX_SCALE)
        parts = {
            "classes": functional.cross_entropy(logits, goal),
            "boxes": _offset_loss(by[: len(some)], right, len(chosen)),
            "masks": logits.new_zeros(()),
        }
        if len(some):
            masks = self.network.masks(maps, number, boxes[some], truth.classes[matches[some]], size)
            target = cut_masks(truth.masks[matches[some]], boxes[some], self.network.mask.size)
            losses = [functional.binary_cross_entropy_with_logits(found.float(), target) for found in masks]
            parts["masks"] = torch.stack(losses).sum()
        return parts

    def _check(self, image: Tensor, instances: Sequence[InstanceLabels]) -> None:
        sizes = [tuple(truth.masks.shape[1:]) for truth in instances]
        if sizes != [tuple(image.shape[2:])] * len(image):
            raise ShapeError(
                f"expected the instances of {len(image)} images of {tuple(image.shape[2:])}, but got those of {sizes}"
            )
        classes = self.network.classes
        for truth in instances:
            if any(not 0 <= number < classes for number in truth.classes.tolist()):
                raise LabelError(f"instances must have classes 0 to {classes - 1}, but have {truth.classes.tolist()}")


def match(boxes: Tensor, truth: Tensor, limits: tuple[float, float], *, best: bool) -> Tensor:
    """Which instance each box is to find.

    Args:
        boxes, truth: (K, 4) and (L, 4); L may be 0.
        limits: overlap below which a box has no object, and from which on it has one.
        best: whether the boxes that overlap an instance most have it, too, however little that is.

    Returns:
        (K,) int64: index of the instance, `BACKGROUND` or `UNDECIDED`.
    """
    if not len(truth):
        return torch.full((len(boxes),), BACKGROUND, device=boxes.device)
    overlap = box_overlap(boxes, truth)
    most, which = overlap.max(1)
    found = torch.where(most < limits[0], BACKGROUND, torch.where(most < limits[1], UNDECIDED, which))
    if best:
        top = overlap.max(0).values
        rows, columns = ((overlap == top) & (top > 0)).nonzero(as_tuple=True)
        found[rows] = columns
    return found


def _sample(matches: Tensor, count: int, share: float) -> tuple[Tensor, Tensor]:
    """Indices of boxes with an object, at most a share of `count`, and of boxes without one, up to `count` in all."""
    some, none = (matches >= 0).nonzero()[:, 0], (matches == BACKGROUND).nonzero()[:, 0]
    some = some[torch.randperm(len(some), device=some.device)[: int(count * share)]]
    return some, none[torch.randperm(len(none), device=none.device)[: count - len(some)]]


def _offset_loss(found: Tensor, right: Tensor, count: int) -> Tensor:
    """Smooth L1 of offsets (K, 4), divided by the number of boxes in the loss, with and without objects."""
    return functional.smooth_l1_loss(found, right, beta=_SMOOTH, reduction="sum") / max(count, 1)
