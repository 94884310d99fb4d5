"""DeepLab (v1): VGG-16 with dilated last layers, and its form with features of several scales.

L.-C. Chen, G. Papandreou, I. Kokkinos, K. Murphy, A. L. Yuille, "Semantic Image Segmentation with Deep Convolutional
Nets and Fully Connected CRFs", ICLR 2015, arXiv 1412.7062. Pooling is that of the released LargeFOV model: 3x3, and
averages behind the last stage. The CRF behind the network is no part of it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from edgeseg.models.network import SegmentationNetwork, initialise
from edgeseg.models.vgg import VGG16
from edgeseg.models.width import check_choice, check_width, scaled

__all__ = ["DeepLabv1", "dilated_vgg16", "large_field"]

_FIELD = 12
"""Dilation of fc6, which gives the large field of view (table 2)."""

_WIDE = 1024
"""Channels of fc6 and fc7."""

_BRANCH = 128
"""Channels of each branch of the multi-scale form (section 4.3)."""


class DeepLabv1(SegmentationNetwork):
    """DeepLab-LargeFOV and DeepLab-MSc-LargeFOV (sections 3.1 and 4.3): logits at stride 8.

    The multi-scale form convolves the image and the outputs of the first four poolings by 3x3 and 1x1 to 128 channels
    each, and joins them to the last features, as the paper says. The released model sums the logits of each branch
    instead.

    Args:
        classes: number of logits per pixel.
        deploy: changes nothing; every layer suits INT8 engines as it is.
        variant: "largefov", or "msc" for the multi-scale form.
        width: fraction of the published channels, above 0 and at most 1.

    Raises:
        UsageError: for a value that it does not take.
    """

    feature_stride = 8

    def __init__(self, classes: int, deploy: bool = False, *, variant: str = "largefov", width: float = 1.0) -> None:
        check_choice("deeplabv1", "variant", variant, ("largefov", "msc"))
        check_width("deeplabv1", width)
        super().__init__(classes)
        self.backbone, self.pools = dilated_vgg16(width)
        channels = self.backbone.channels
        wide = scaled(_WIDE, width)
        self.last = large_field(channels[-1], wide)
        self.branches = nn.ModuleList()
        self.feature_channels = wide
        if variant == "msc":
            narrow = scaled(_BRANCH, width)
            for source, stride in zip((3, *channels[:4]), (8, 4, 2, 1, 1), strict=True):
                self.branches.append(
                    nn.Sequential(*_conv(source, narrow, 3, stride=stride), *_conv(narrow, narrow, 1), nn.Dropout(0.5))
                )
            self.feature_channels += len(self.branches) * narrow
        self.prediction = nn.Conv2d(self.feature_channels, classes, 1)
        initialise(self)

    def encode(self, image: Tensor) -> tuple[Tensor, Sequence[Tensor]]:
        """See `SegmentationNetwork.encode`."""
        found = [image]
        for stage, pool in zip(self.backbone.stages, self.pools, strict=True):
            found.append(pool(stage(found[-1])))
        features: Tensor = self.last(found[-1])
        if len(self.branches):
            scales = [branch(maps) for branch, maps in zip(self.branches, found, strict=False)]
            features = torch.cat([features, *scales], 1)
        return features, ()

    def predict(self, features: Tensor) -> Tensor:
        """See `SegmentationNetwork.predict`."""
        logits: Tensor = self.prediction(features)
        return logits


def dilated_vgg16(width: float) -> tuple[VGG16, nn.ModuleList]:
    """VGG-16's convolutions, the last three dilated, and the five poolings behind its stages: features of stride 8."""
    backbone = VGG16(width)
    # The hole algorithm: the fourth pooling keeps the size, so the layers behind it are dilated.
    for module in backbone.stages[-1].modules():
        if isinstance(module, nn.Conv2d):
            module.dilation = module.padding = (2, 2)
    return backbone, nn.ModuleList(nn.MaxPool2d(3, stride=stride, padding=1) for stride in (2, 2, 2, 1, 1))


def large_field(channels_in: int, channels: int) -> nn.Sequential:
    """fc6 and fc7 with the large field of view, (N, channels_in, H, W) to (N, channels, H, W)."""
    return nn.Sequential(
        nn.AvgPool2d(3, stride=1, padding=1),
        *_conv(channels_in, channels, 3, dilation=_FIELD),
        nn.Dropout(0.5),
        *_conv(channels, channels, 1),
        nn.Dropout(0.5),
    )


def _conv(channels_in: int, channels: int, kernel: int, *, stride: int = 1, dilation: int = 1) -> list[nn.Module]:
    """Convolution with bias and ReLU: VGG has no BatchNorm."""
    padding = kernel // 2 * dilation
    return [nn.Conv2d(channels_in, channels, kernel, stride, padding, dilation), nn.ReLU(inplace=True)]
