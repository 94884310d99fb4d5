"""MaskLab: boxes of a detector, segmented by what their pixels are and by which way the middle of their object lies.

L.-C. Chen, A. Hermans, G. Papandreou, F. Schroff, P. Wang, H. Adam, "MaskLab: Instance Segmentation by Refining Object
Detection with Semantic and Direction Features", CVPR 2018, arXiv 1712.04837. Its code was not published.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgeseg.errors import ShapeError, UsageError
from edgeseg.models.masklab_boxes import clip, move, paste, suppress
from edgeseg.models.masklab_detector import BOX_SCALE, BoxHead, Proposals, RegionProposal
from edgeseg.models.masklab_masks import MaskHead
from edgeseg.models.network import SegmentationNetwork, initialise
from edgeseg.models.resnet import DEPTHS, DilatedResNet
from edgeseg.models.width import check_choice, check_width, scaled

__all__ = ["Instances", "MaskLab", "Maps"]

_CROP = 41
"""Cells a side of what is cut out for a mask."""


@dataclass(frozen=True, eq=False)
class Instances:
    """The objects found in one image, the surest first.

    Attributes:
        boxes: (K, 4) float32: left, top, right, bottom in pixels; pixel (row, column) covers [column, column + 1).
        classes: (K,) int64, class index.
        scores: (K,) float32, 0..1, of the class.
        masks: (K, H, W) bool; masks of different objects may share pixels.
    """

    boxes: NDArray[np.float32]
    classes: NDArray[np.int64]
    scores: NDArray[np.float32]
    masks: NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Maps:
    """What is computed once per image, for all boxes.

    Attributes:
        low: features of the stem at stride 2 and of the first stage at stride 4, for the hypercolumn.
        shared: features of the third stage, which boxes are proposed and classified from.
        semantic: (N, classes, h, w) logits.
        direction: (N, directions * distances, h, w) logits.
        objectness, shifts: of the anchors; see `RegionProposal`.
    """

    low: tuple[Tensor, Tensor]
    shared: Tensor
    semantic: Tensor
    direction: Tensor
    objectness: Tensor
    shifts: Tensor


class MaskLab(SegmentationNetwork):
    """MaskLab: a semantic segmentation network that can tell instances apart.

    As a `SegmentationNetwork` it is the backbone and the semantic logits: this is what is exported, converted and
    quantized. `detect` gives instances, in torch; `edgeseg.training.instance_loss` trains all of it.

    Taken from the paper: Faster R-CNN on a dilated ResNet shared up to its third stage; a copy of the fourth stage for
    the boxes; semantic and direction logits by a 1x1 convolution each on the fourth stage itself; per box the semantic
    channel of its class and the assembled direction logits, a class-agnostic 1x1 convolution on both, and three
    convolutions on its result and on features of low layers.

    Believed to be the paper's, but not read in it, as its text was not at hand: 8 directions and 4 distances, crops of
    41 cells, the stem and the first stage as low features, 64 channels and 5x5 kernels in the refinement.

    Chosen here: the middle of an instance is that of its box, and directions and distances are measured in half sides
    of the box, so that all boxes are assembled alike; distances are nested boxes; a cross-entropy on the direction
    logits beside the loss of the masks; classes of boxes are those of the pixels, stuff included, which simply never
    has boxes; one box per proposal whatever its class; nothing is cropped deformably.

    Args:
        classes: number of logits per pixel; a box has one of these classes.
        deploy: changes nothing; the part that is exported suits INT8 engines as it is.
        backbone: resnet50 or resnet101.
        output_stride: 16, or 8 for denser features with the same weights.
        directions: parts of the circle, at least 2.
        distances: parts of the distance to the middle, at least 1.
        smallest_anchor: side of the smallest anchors in pixels; five sizes, each twice the one before.
        width: fraction of the published channels, above 0 and at most 1.

    Raises:
        UsageError: for a value that it does not take.
    """

    def __init__(
        self,
        classes: int,
        deploy: bool = False,
        *,
        backbone: str = "resnet101",
        output_stride: int = 16,
        directions: int = 8,
        distances: int = 4,
        smallest_anchor: int = 32,
        width: float = 1.0,
    ) -> None:
        check_choice("masklab", "backbone", backbone, tuple(DEPTHS))
        check_choice("masklab", "output_stride", output_stride, (8, 16))
        check_width("masklab", width)
        for option, value, least in (
            ("directions", directions, 2),
            ("distances", distances, 1),
            ("smallest_anchor", smallest_anchor, 1),
        ):
            if value < least:
                raise UsageError(f"{option} of masklab must be at least {least}, but is {value}")
        super().__init__(classes)
        self.feature_stride = output_stride
        self.directions, self.distances = directions, distances
        self.backbone = DilatedResNet(backbone, output_stride=output_stride, width=width)
        first, _, third, self.feature_channels = self.backbone.channels
        self.prediction = nn.Conv2d(self.feature_channels, classes, 1)
        self.direction = nn.Conv2d(self.feature_channels, directions * distances, 1)
        self.proposal = RegionProposal(third, scaled(512, width), smallest_anchor)
        self.box = BoxHead(third, scaled(512, width), classes)
        self.mask = MaskHead(scaled(64, width) + first, scaled(64, width), _CROP, directions, distances)
        initialise(self)
        self.proposal.start_small()
        self.box.start_small()

    def encode(self, image: Tensor) -> tuple[Tensor, Sequence[Tensor]]:
        """See `SegmentationNetwork.encode`."""
        return self.backbone(image)[3], ()

    def predict(self, features: Tensor) -> Tensor:
        """See `SegmentationNetwork.predict`."""
        logits: Tensor = self.prediction(features)
        return logits

    def drop_undeployed(self) -> None:
        """See `SegmentationNetwork.drop_undeployed`: the semantic network stays."""
        super().drop_undeployed()
        del self.direction, self.proposal, self.box, self.mask

    def maps(self, image: Tensor) -> Maps:
        """All that is computed densely for images (N, 3, H, W) float32, normalised."""
        conv, pool = self.backbone.stem
        stem: Tensor = conv(image)
        first, _, third, last = self.backbone.run_stages(pool(stem))
        objectness, shifts = self.proposal(third)
        return Maps(
            low=(stem, first),
            shared=third,
            semantic=self.predict(last),
            direction=self.direction(last),
            objectness=objectness,
            shifts=shifts,
        )

    @torch.no_grad()
    def detect(
        self, images: Tensor, *, score: float = 0.5, overlap: float = 0.5, limit: int = 100
    ) -> tuple[Instances, ...]:
        """The objects in images; call `eval()` first, so that BatchNorm does not depend on the batch.

        Args:
            images: (N, 3, H, W) float32, normalised.
            score: least probability of a box's class, 0..1.
            overlap: intersection over union above which the less sure of two boxes of one class goes, 0..1.
            limit: how many objects are kept per image at the most.

        Returns:
            One value per image.

        Raises:
            ShapeError: for images of another shape.
            UsageError: for a threshold outside 0..1, a limit below 1, or a network in training.
        """
        _check_detection(images, self.training, score, overlap, limit)
        size = int(images.shape[2]), int(images.shape[3])
        maps = self.maps(images)
        proposals = self.proposal.propose(maps.objectness, maps.shifts, size)
        return tuple(
            self._instances(maps, number, found, size, (score, overlap, limit))
            for number, found in enumerate(proposals)
        )

    def _instances(
        self, maps: Maps, number: int, proposals: Proposals, size: tuple[int, int], limits: tuple[float, float, int]
    ) -> Instances:
        """The objects of one image of the batch."""
        logits, by = self.box(maps.shared[number], proposals.boxes, size)
        boxes = clip(move(proposals.boxes, by, BOX_SCALE), size)
        # The last class is that of no object.
        scores, classes = logits.softmax(1)[:, : self.classes].max(1)
        sure = ((scores >= limits[0]) & (boxes[:, 2:] - boxes[:, :2] >= 1).all(1)).nonzero()[:, 0]
        # Boxes of different classes are put so far apart that they cannot hide each other.
        apart = boxes[sure] + classes[sure, None] * (2 * max(size))
        kept = sure[suppress(apart, scores[sure], limits[1], limits[2])]
        boxes, classes = boxes[kept], classes[kept]
        refined = self.masks(maps, number, boxes, classes, size)[1]
        return Instances(
            boxes=boxes.cpu().numpy(),
            classes=classes.cpu().numpy(),
            scores=scores[kept].cpu().numpy(),
            masks=(paste(refined.float(), boxes, size) > 0).cpu().numpy(),
        )

    def masks(
        self, maps: Maps, number: int, boxes: Tensor, classes: Tensor, size: tuple[int, int]
    ) -> tuple[Tensor, Tensor]:
        """Coarse and refined logits of boxes (K, 4) of classes (K,) in image `number`; see `MaskHead`."""
        low = tuple(features[number] for features in maps.low)
        coarse, refined = self.mask(maps.semantic[number], maps.direction[number], low, boxes, classes, size)
        return coarse, refined


def _check_detection(images: Tensor, training: bool, score: float, overlap: float, limit: int) -> None:
    if images.ndim != 4 or images.shape[1] != 3:
        raise ShapeError(f"images must be (N, 3, H, W), but are {tuple(images.shape)}; add a batch with image[None]")
    if training:
        raise UsageError("detect needs a network in eval(), but it is in train(); call network.eval() first")
    for name, value in (("score", score), ("overlap", overlap)):
        if not 0 <= value <= 1:
            raise UsageError(f"{name} must be 0 to 1, but is {value}")
    if limit < 1:
        raise UsageError(f"limit must be at least 1, but is {limit}")
