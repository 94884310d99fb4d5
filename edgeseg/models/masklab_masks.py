"""MaskLab's masks: which way and how far an instance's middle is, and foreground from semantic and direction logits."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from edgeseg.models.masklab_boxes import crop

__all__ = ["MaskHead", "assemble", "direction_channels", "direction_of"]

_KERNEL = 5


def direction_of(across: Tensor, down: Tensor, directions: int, distances: int) -> Tensor:
    """The direction channel of points in a box, by where its middle lies as seen from them.

    Args:
        across, down: of each point from the middle, 1 at the box's right and lower edge.
        directions: equal parts of the circle; part 0 has its middle to the right, the next ones follow clockwise.
        distances: equal parts of the larger of both distances, so that they are nested boxes; what is beyond the edge
            belongs to the last one.

    Returns:
        direction * distances + distance, int64, of the points' shape.
    """
    part = 2 * math.pi / directions
    # The vector to the middle; y goes down in images, so that growing angles turn clockwise.
    direction = torch.div(torch.atan2(-down, -across) + part / 2, part, rounding_mode="floor").long() % directions
    away = torch.maximum(across.abs(), down.abs())
    distance = (away * distances).long().clamp_max(distances - 1)
    return direction * distances + distance


def direction_channels(size: int, directions: int, distances: int) -> Tensor:
    """The direction channel of each cell of a size x size crop, (size, size) int64: the same for every box."""
    steps = (torch.arange(size) + 0.5) * 2 / size - 1
    across, down = torch.meshgrid(steps, steps, indexing="xy")
    return direction_of(across, down, directions, distances)


def assemble(crops: Tensor, channels: Tensor) -> Tensor:
    """The assembling operation: each cell of a box takes the logit of the direction that an instance there would have.

    It is that of J. Dai et al., "Instance-sensitive Fully Convolutional Networks", ECCV 2016, section 3.2, whose
    regions are a grid; here they are the directions to the middle.

    Args:
        crops: (K, directions * distances, size, size), direction logits.
        channels: (size, size) int64, see `direction_channels`.

    Returns:
        (K, 1, size, size).
    """
    return crops.gather(1, channels.expand(len(crops), 1, -1, -1))


class MaskHead(nn.Module):
    """Foreground of a box from the semantic and direction logits, then refined with features of low layers.

    A 1x1 convolution on both gives the coarse logits, whatever the class; these and the low features (a hypercolumn,
    B. Hariharan et al., CVPR 2015) go through three convolutions to the mask.

    Args:
        low: channels of the low features together.
        narrow: channels between the three convolutions.
        size: cells of a crop a side.
        directions, distances: see `direction_of`.
    """

    channels: Tensor

    def __init__(self, low: int, narrow: int, size: int, directions: int, distances: int) -> None:
        super().__init__()
        self.size = size
        # Not part of a checkpoint: it follows from the options.
        self.register_buffer("channels", direction_channels(size, directions, distances), persistent=False)
        self.coarse = nn.Conv2d(2, 1, 1)
        self.refine = nn.Sequential(
            nn.Conv2d(1 + low, narrow, _KERNEL, padding=_KERNEL // 2),
            nn.ReLU(inplace=True),
            nn.Conv2d(narrow, narrow, _KERNEL, padding=_KERNEL // 2),
            nn.ReLU(inplace=True),
            nn.Conv2d(narrow, 1, _KERNEL, padding=_KERNEL // 2),
        )

    def forward(
        self,
        semantic: Tensor,
        direction: Tensor,
        low: tuple[Tensor, ...],
        boxes: Tensor,
        classes: Tensor,
        image: tuple[int, int],
    ) -> tuple[Tensor, Tensor]:
        """Masks of the boxes of one image.

        Args:
            semantic: (classes, h, w) logits.
            direction: (directions * distances, h, w) logits.
            low: features (C, h, w), each of its own size.
            boxes: (K, 4) in pixels of the image.
            classes: (K,) int64, of the boxes.
            image: its (height, width).

        Returns:
            Coarse and refined logits, (K, size, size) each; foreground above 0.
        """
        chosen = classes[:, None, None, None].expand(-1, 1, self.size, self.size)
        label = crop(semantic, boxes, image, self.size).gather(1, chosen)
        pointed = assemble(crop(direction, boxes, image, self.size), self.channels)
        coarse = self.coarse(torch.cat([label, pointed], 1))
        columns = [crop(maps, boxes, image, self.size) for maps in low]
        refined = self.refine(torch.cat([coarse, *columns], 1))
        return coarse[:, 0], refined[:, 0]
