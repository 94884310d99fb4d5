"""Labels of instances: masks, classes and boxes, and where the middle of each pixel's instance lies."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from edgeseg.errors import LabelError, ShapeError
from edgeseg.models.masklab_boxes import crop
from edgeseg.models.masklab_masks import direction_of
from edgeseg.training.losses import IGNORE_INDEX

__all__ = ["InstanceLabels", "cut_masks", "direction_labels"]


@dataclass(frozen=True, eq=False)
class InstanceLabels:
    """The instances of one image.

    Attributes:
        masks: (K, H, W) bool.
        classes: (K,) int64, class index.
        boxes: (K, 4) float32, the smallest around each mask: left, top, right, bottom in pixels.
    """

    masks: Tensor
    classes: Tensor
    boxes: Tensor

    @classmethod
    def of(cls, masks: Tensor, classes: Tensor) -> InstanceLabels:
        """From masks (K, H, W) bool and their classes (K,) int64; K may be 0.

        Raises:
            ShapeError: for other shapes or types.
            LabelError: for a mask without a pixel.
        """
        if masks.ndim != 3 or masks.dtype != torch.bool or classes.shape != masks.shape[:1]:
            raise ShapeError(
                "instances need masks (K, H, W) bool and classes (K,), but got "
                f"{tuple(masks.shape)} {masks.dtype} and {tuple(classes.shape)}"
            )
        boxes = masks.new_zeros((len(masks), 4), dtype=torch.float32)
        for number, mask in enumerate(masks):
            rows, columns = mask.any(1).nonzero(), mask.any(0).nonzero()
            if not len(rows):
                raise LabelError(f"the mask of instance {number} has no pixel; leave it out")
            edges = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
            boxes[number] = torch.stack(edges).float()
        return cls(masks, classes.long(), boxes)


def direction_labels(truth: InstanceLabels, directions: int, distances: int) -> Tensor:
    """The direction channel of each pixel of an instance, (H, W) int64; the ignore index elsewhere."""
    height, width = truth.masks.shape[1:]
    labels = truth.classes.new_full((height, width), IGNORE_INDEX)
    y, x = (torch.arange(side, device=labels.device) + 0.5 for side in (height, width))
    for mask, (left, top, right, bottom) in zip(truth.masks, truth.boxes, strict=True):
        across = (2 * x - left - right) / (right - left)
        down = (2 * y - top - bottom) / (bottom - top)
        channels = direction_of(across.expand(height, -1), down[:, None].expand(-1, width), directions, distances)
        labels = torch.where(mask, channels, labels)
    return labels


def cut_masks(masks: Tensor, boxes: Tensor, size: int) -> Tensor:
    """Each of the masks (K, H, W) cut by its own box (K, 4): (K, size, size) float32, 1 where mostly foreground."""
    image = int(masks.shape[1]), int(masks.shape[2])
    cut = [crop(mask[None].float(), box[None], image, size)[0, 0] for mask, box in zip(masks, boxes, strict=True)]
    return (torch.stack(cut) >= 0.5).float()
