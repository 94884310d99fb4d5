"""The two stages of MaskLab's detector: boxes where something is, and what is in each of them.

S. Ren, K. He, R. Girshick, J. Sun, "Faster R-CNN: Towards Real-Time Object Detection with Region Proposal Networks",
NIPS 2015, arXiv 1506.01497, on the features of a ResNet as in K. He et al., CVPR 2016, appendix A.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from edgeseg.models.masklab_boxes import anchor_boxes, clip, crop, move, suppress
from edgeseg.models.resnet import residual_stage

__all__ = ["BOX_SCALE", "PROPOSAL_SCALE", "BoxHead", "Proposals", "RegionProposal"]

PROPOSAL_SCALE = (1.0, 1.0)
BOX_SCALE = (0.1, 0.2)
"""Units of the offsets of both stages, so that those of the second, which are small, weigh in its loss as well."""

_SIZES = 5
_RATIOS = (0.5, 1.0, 2.0)
_BEFORE, _AFTER, _OVERLAP = 1000, 300, 0.7
"""Boxes before and after suppression, and its overlap; 300 and 0.7 as published."""
_LEAST_SIDE = 1
"""Pixels; smaller boxes are no proposals."""
_CELLS = 14
"""Cells a side of what is cut out of the features for a box."""


@dataclass(frozen=True, eq=False)
class Proposals:
    """Boxes of one image where something may be, the surest first.

    Attributes:
        boxes: (K, 4) in pixels.
        scores: (K,) logits of being an object.
    """

    boxes: Tensor
    scores: Tensor


class RegionProposal(nn.Module):
    """Region proposal network: for each anchor whether something is there, and where exactly.

    Args:
        channels: of the features.
        narrow: channels of its 3x3 convolution.
        smallest: side of the smallest anchors, pixels.

    Attributes:
        sizes: of the anchors, pixels.
    """

    def __init__(self, channels: int, narrow: int, smallest: int) -> None:
        super().__init__()
        self.sizes = tuple(smallest * 2**step for step in range(_SIZES))
        count = len(self.sizes) * len(_RATIOS)
        self.conv = nn.Sequential(nn.Conv2d(channels, narrow, 3, padding=1), nn.ReLU(inplace=True))
        self.objectness = nn.Conv2d(narrow, count, 1)
        self.shifts = nn.Conv2d(narrow, 4 * count, 1)

    def start_small(self) -> None:
        """Start with anchors as proposals, none of them much surer than the others."""
        for layer in (self.objectness, self.shifts):
            nn.init.normal_(layer.weight, std=0.01)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (N, A, h, w) and offsets (N, 4 A, h, w) of A anchors a cell, from features (N, channels, h, w)."""
        maps = self.conv(features)
        return self.objectness(maps), self.shifts(maps)

    def anchors(self, objectness: Tensor, image: tuple[int, int]) -> Tensor:
        """The anchors (K, 4) that go with `flat`'s results, of an image of (height, width)."""
        grid = int(objectness.shape[2]), int(objectness.shape[3])
        return anchor_boxes(grid, image, self.sizes, _RATIOS).to(objectness.device)

    @staticmethod
    def flat(objectness: Tensor, shifts: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (N, K) and offsets (N, K, 4), float32, in the order of the anchors."""
        images = len(objectness)
        logits = objectness.permute(0, 2, 3, 1).reshape(images, -1)
        return logits.float(), shifts.permute(0, 2, 3, 1).reshape(images, -1, 4).float()

    @torch.no_grad()
    def propose(self, objectness: Tensor, shifts: Tensor, image: tuple[int, int]) -> list[Proposals]:
        """The proposals of each image, from the two results of `forward` and the (height, width) of the images."""
        anchors = self.anchors(objectness, image)
        found = []
        for logits, by in zip(*self.flat(objectness, shifts), strict=True):
            scores, best = logits.topk(min(_BEFORE, len(logits)))
            boxes = clip(move(anchors[best], by[best], PROPOSAL_SCALE), image)
            large = (boxes[:, 2:] - boxes[:, :2] >= _LEAST_SIDE).all(1)
            boxes, scores = boxes[large], scores[large]
            kept = suppress(boxes, scores, _OVERLAP, _AFTER)
            found.append(Proposals(boxes[kept], scores[kept]))
        return found


class BoxHead(nn.Module):
    """What is in a box: a copy of the backbone's last stage on a crop of the features, averaged, and two linear layers.

    Args:
        channels: of the features.
        narrow: channels of the 3x3 convolutions of the stage.
        classes: of objects; one more stands for no object.
    """

    def __init__(self, channels: int, narrow: int, classes: int) -> None:
        super().__init__()
        self.stage = residual_stage(channels, narrow, 2, (1, 1, 1))
        self.classes = nn.Linear(4 * narrow, classes + 1)
        self.shifts = nn.Linear(4 * narrow, 4)

    def start_small(self) -> None:
        """Start with equal classes, and proposals as boxes."""
        for layer, std in ((self.classes, 0.01), (self.shifts, 0.001)):
            nn.init.normal_(layer.weight, std=std)
            nn.init.zeros_(layer.bias)

    def forward(self, features: Tensor, boxes: Tensor, image: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Class logits (K, classes + 1) and offsets (K, 4) of the boxes (K, 4) of one image, float32.

        Args:
            features: (channels, h, w) of that image.
            boxes: in pixels.
            image: its (height, width).
        """
        pooled = self.stage(crop(features, boxes, image, _CELLS)).mean((2, 3))
        return self.classes(pooled).float(), self.shifts(pooled).float()
