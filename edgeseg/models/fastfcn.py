"""FastFCN: a ResNet of stride 32, joint pyramid upsampling in place of dilation, and one of three heads.

H. Wu, J. Zhang, K. Huang, K. Liang, Y. Yu, "FastFCN: Rethinking Dilated Convolution in the Backbone for Semantic
Segmentation", 2019, arXiv 1903.11816. The structure is that of the code published with it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from edgeseg.models.blocks import ConvBatchNorm, auxiliary_head
from edgeseg.models.network import SegmentationNetwork, initialise, resize
from edgeseg.models.pyramid import ASPP, PyramidPooling
from edgeseg.models.resnet import DEPTHS, DilatedResNet
from edgeseg.models.width import check_choice, check_width, scaled

__all__ = ["FastFCN", "JointPyramidUpsampling"]

_RATES = (1, 2, 4, 8)
"""Dilations of the four separable convolutions."""


class FastFCN(SegmentationNetwork):
    """FastFCN (sections 3.3 and 4): features of stride 8 from the last three stages of a ResNet.

    The published code holds ImageNet's classifier (2,049,000 parameters) too, which nothing reads. Joint pyramid
    upsampling keeps the 2048 channels of the last stage, so that each head is the one of a dilated ResNet.

    In an exported graph the pooling of the head `psp` to sizes that do not divide is a product with constant averaging
    matrices; see `edgeseg.models.pooling`. With `deploy` all bilinear resizes place their samples with
    align_corners=False, the only placement that a DLA takes. No weight changes, but the variant is trained as such.

    The auxiliary head reads the features of the third stage.

    Args:
        classes: number of logits per pixel.
        deploy: build the variant.
        backbone: resnet50 or resnet101.
        head: "fcn", "psp" (pyramid pooling) or "deeplabv3" (atrous spatial pyramid pooling).
        jpu: False for the dilated ResNet that joint pyramid upsampling stands in for.
        width: fraction of the published channels, above 0 and at most 1.

    Raises:
        UsageError: for a value that it does not take.
    """

    feature_stride = 8

    def __init__(
        self,
        classes: int,
        deploy: bool = False,
        *,
        backbone: str = "resnet50",
        head: str = "psp",
        jpu: bool = True,
        width: float = 1.0,
    ) -> None:
        check_choice("fastfcn", "backbone", backbone, tuple(DEPTHS))
        check_choice("fastfcn", "head", head, ("fcn", "psp", "deeplabv3"))
        check_width("fastfcn", width)
        super().__init__(classes)
        self.align_corners = not deploy
        self.backbone = DilatedResNet(backbone, output_stride=32 if jpu else 8, deep_stem=True, width=width)
        second, third, last = self.backbone.channels[1:]
        self.upsampling: JointPyramidUpsampling | None = None
        if jpu:
            self.upsampling = JointPyramidUpsampling((second, third, last), last // 4, self.align_corners)
        self.context, self.feature_channels = _head(head, last, self.align_corners)
        self.prediction = nn.Conv2d(self.feature_channels, classes, 1)
        self.auxiliary.append(auxiliary_head(third, scaled(256, width), classes))
        initialise(self)

    def encode(self, image: Tensor) -> tuple[Tensor, Sequence[Tensor]]:
        """See `SegmentationNetwork.encode`."""
        _, second, third, last = self.backbone(image)
        maps = last if self.upsampling is None else self.upsampling(second, third, last)
        features: Tensor = self.context(maps)
        return features, (third,) if self.training else ()

    def predict(self, features: Tensor) -> Tensor:
        """See `SegmentationNetwork.predict`."""
        logits: Tensor = self.prediction(features)
        return logits


class JointPyramidUpsampling(nn.Module):
    """Joint pyramid upsampling (section 3.3): maps of three strides to one of the finest, with four fields of view.

    Args:
        channels: of the three inputs, the finest first.
        narrow: channels of each convolution; the output has four times as many.
        align_corners: of the resizes.
    """

    def __init__(self, channels: tuple[int, int, int], narrow: int, align_corners: bool) -> None:
        super().__init__()
        self.align_corners = align_corners
        self.reduce = nn.ModuleList(ConvBatchNorm(count, narrow, 3) for count in channels)
        joined = narrow * len(channels)
        self.fields = nn.ModuleList(
            nn.Sequential(
                ConvBatchNorm(joined, joined, 3, dilation=rate, groups=joined, activation=False),
                ConvBatchNorm(joined, narrow, 1),
            )
            for rate in _RATES
        )

    def forward(self, finest: Tensor, middle: Tensor, coarsest: Tensor) -> Tensor:
        """Three maps (N, channels, h, w) to (N, 4 * narrow, H, W) at the size of the finest."""
        size = int(finest.shape[2]), int(finest.shape[3])
        reduced = [reduce(maps) for reduce, maps in zip(self.reduce, (finest, middle, coarsest), strict=True)]
        joined = torch.cat([resize(maps, *size, self.align_corners) for maps in reversed(reduced)], 1)
        return torch.cat([field(joined) for field in self.fields], 1)


def _head(name: str, channels: int, align_corners: bool) -> tuple[nn.Sequential, int]:
    """What stands between the features of stride 8 and the prediction, and the channels that it gives."""
    drop = nn.Dropout2d(0.1)
    if name == "deeplabv3":
        narrow = channels // 8
        context = ASPP(channels, narrow, 8, align_corners=align_corners)
        return nn.Sequential(context, nn.Dropout2d(0.5), ConvBatchNorm(narrow, narrow, 3), drop), narrow
    narrow = channels // 4
    if name == "psp":
        pyramid = PyramidPooling(channels, align_corners)
        return nn.Sequential(pyramid, ConvBatchNorm(2 * channels, narrow, 3), drop), narrow
    return nn.Sequential(ConvBatchNorm(channels, narrow, 3), drop), narrow
