"""ParseNet: DeepLab's VGG-16 whose last features are joined by their mean over the image, both normalised.

W. Liu, A. Rabinovich, A. C. Berg, "ParseNet: Looking Wider to See Better", 2015, arXiv 1506.04579.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from edgeseg.models.deeplabv1 import dilated_vgg16, large_field
from edgeseg.models.network import SegmentationNetwork, initialise, resize
from edgeseg.models.width import check_width, scaled

__all__ = ["ParseNet", "ScaledNorm"]

_SCALE = 10.0
"""What the learned scales start from (section 3.3)."""

_SMALLEST = 1e-6
"""Below this a vector counts as zero."""


class ParseNet(SegmentationNetwork):
    """ParseNet (section 3) as for PASCAL VOC: DeepLab-LargeFOV with the context of its last layer.

    The mean of fc7 over the image is normalised, spread over all pixels again ("unpooled") and joined to the
    normalised features of each pixel. The trunk is that of `deeplabv1`; the authors' own definition was not at hand, so
    that details of its layers may differ, and no count of theirs is published. Their models for SiftFlow and
    PASCAL-Context start from FCN-32s and join earlier layers too; they are not built.

    Args:
        classes: number of logits per pixel.
        deploy: changes nothing; every layer suits INT8 engines as it is.
        width: fraction of the published channels, above 0 and at most 1.

    Raises:
        UsageError: for a width that it does not take.
    """

    feature_stride = 8

    def __init__(self, classes: int, deploy: bool = False, *, width: float = 1.0) -> None:
        check_width("parsenet", width)
        super().__init__(classes)
        self.backbone, self.pools = dilated_vgg16(width)
        channels = scaled(1024, width)
        self.last = large_field(self.backbone.channels[-1], channels)
        self.feature_channels = 2 * channels
        self.norm, self.norm_context = ScaledNorm(channels), ScaledNorm(channels)
        self.prediction = nn.Conv2d(self.feature_channels, classes, 1)
        initialise(self)

    def encode(self, image: Tensor) -> tuple[Tensor, Sequence[Tensor]]:
        """See `SegmentationNetwork.encode`."""
        maps = image
        for stage, pool in zip(self.backbone.stages, self.pools, strict=True):
            maps = pool(stage(maps))
        maps = self.last(maps)
        context = self.norm_context(maps.mean((2, 3), keepdim=True))
        spread = resize(context, int(maps.shape[2]), int(maps.shape[3]), self.align_corners)
        return torch.cat([self.norm(maps), spread], 1), ()

    def predict(self, features: Tensor) -> Tensor:
        """See `SegmentationNetwork.predict`."""
        logits: Tensor = self.prediction(features)
        return logits


class ScaledNorm(nn.Module):
    """L2 normalisation of each pixel's vector, then a learned scale for each channel (section 3.3).

    A vector is divided by its largest magnitude before its squares are summed, so that the sum stays within float16.

    Args:
        channels: of the input.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.full((1, channels, 1, 1), _SCALE))

    def forward(self, maps: Tensor) -> Tensor:
        """(N, channels, H, W), none of it negative, to the same shape."""
        small = maps / maps.amax(1, keepdim=True).clamp(min=_SMALLEST)
        length = (small * small).sum(1, keepdim=True).clamp(min=_SMALLEST).sqrt()
        return small / length * self.scale
