"""BiSeNetV2: a detail branch at stride 8, a light semantic branch at stride 32, and each guiding the other.

C. Yu, C. Gao, J. Wang, G. Yu, C. Shen, N. Sang, "BiSeNet V2: Bilateral Network with Guided Aggregation for Real-time
Semantic Segmentation", IJCV 2021, arXiv 2004.02147. The structure is that of CoinCheung's
code, which upsamples within the network by repetition.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgeseg.models.blocks import ConvBatchNorm, depthwise
from edgeseg.models.network import SegmentationNetwork, initialise

__all__ = ["BiSeNetV2"]

_EXPANSION = 6


class BiSeNetV2(SegmentationNetwork):
    """BiSeNetV2 (section 4): detail branch, semantic branch, bilateral guided aggregation, segmentation head.

    `deploy` changes nothing: every BatchNorm but one on single pixels follows its convolution, the activations are
    ReLU, and the resizes are by repetition or with align_corners=False.

    The auxiliary heads read the semantic branch at strides 4, 8, 16 and 32.

    Args:
        classes: number of logits per pixel.
        deploy: without effect.
    """

    feature_channels = 1024
    feature_stride = 8

    def __init__(self, classes: int, deploy: bool = False) -> None:
        super().__init__(classes)
        self.detail = nn.Sequential(
            ConvBatchNorm(3, 64, 3, stride=2),
            ConvBatchNorm(64, 64, 3),
            ConvBatchNorm(64, 64, 3, stride=2),
            ConvBatchNorm(64, 64, 3),
            ConvBatchNorm(64, 64, 3),
            ConvBatchNorm(64, 128, 3, stride=2),
            ConvBatchNorm(128, 128, 3),
            ConvBatchNorm(128, 128, 3),
        )
        self.stem = Stem(16)
        self.level3 = nn.Sequential(StridedGatherExpansion(16, 32), GatherExpansion(32))
        self.level4 = nn.Sequential(StridedGatherExpansion(32, 64), GatherExpansion(64))
        self.level5 = nn.Sequential(
            StridedGatherExpansion(64, 128), GatherExpansion(128), GatherExpansion(128), GatherExpansion(128)
        )
        self.context = ContextEmbedding(128)
        self.aggregation = GuidedAggregation(128)
        self.head = nn.Sequential(ConvBatchNorm(128, self.feature_channels, 3), nn.Dropout(0.1))
        self.prediction = nn.Conv2d(self.feature_channels, classes, 1)
        self.auxiliary.extend(
            _auxiliary(channels, stride, classes) for channels, stride in ((16, 4), (32, 8), (64, 16), (128, 32))
        )
        initialise(self)

    def encode(self, image: Tensor) -> tuple[Tensor, Sequence[Tensor]]:
        """See `SegmentationNetwork.encode`."""
        level2 = self.stem(image)
        level3 = self.level3(level2)
        level4 = self.level4(level3)
        level5 = self.level5(level4)
        features = self.head(self.aggregation(self.detail(image), self.context(level5)))
        return features, (level2, level3, level4, level5) if self.training else ()

    def predict(self, features: Tensor) -> Tensor:
        """See `SegmentationNetwork.predict`."""
        logits: Tensor = self.prediction(features)
        return logits


class Stem(nn.Module):
    """Stem block (section 4.2): stride 4 by a convolution and by pooling, joined."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = ConvBatchNorm(3, channels, 3, stride=2)
        self.branch = nn.Sequential(
            ConvBatchNorm(channels, channels // 2, 1), ConvBatchNorm(channels // 2, channels, 3, stride=2)
        )
        self.pool = nn.MaxPool2d(3, stride=2, padding=1)
        self.fuse = ConvBatchNorm(2 * channels, channels, 3)

    def forward(self, image: Tensor) -> Tensor:
        """(N, 3, H, W) to (N, channels, H / 4, W / 4), rounded up."""
        maps = self.conv(image)
        fused: Tensor = self.fuse(torch.cat([self.branch(maps), self.pool(maps)], 1))
        return fused


class GatherExpansion(nn.Module):
    """Gather-and-expansion layer (section 4.2) of stride 1: 3x3, depthwise to six times the channels, 1x1 and back."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        wide = channels * _EXPANSION
        self.gather = ConvBatchNorm(channels, channels, 3)
        self.expand = depthwise(channels, wide)
        self.reduce = ConvBatchNorm(wide, channels, 1, activation=False)
        self.act = nn.ReLU(inplace=True)

    def forward(self, maps: Tensor) -> Tensor:
        """(N, channels, H, W) to the same shape."""
        summed: Tensor = self.act(self.reduce(self.expand(self.gather(maps))) + maps)
        return summed


class StridedGatherExpansion(nn.Module):
    """Gather-and-expansion layer of stride 2: two depthwise convolutions, and a separable one as shortcut."""

    def __init__(self, channels_in: int, channels: int) -> None:
        super().__init__()
        wide = channels_in * _EXPANSION
        self.gather = ConvBatchNorm(channels_in, channels_in, 3)
        self.expand = nn.Sequential(depthwise(channels_in, wide, stride=2, activation=False), depthwise(wide, wide))
        self.reduce = ConvBatchNorm(wide, channels, 1, activation=False)
        self.shortcut = nn.Sequential(
            depthwise(channels_in, channels_in, stride=2, activation=False),
            ConvBatchNorm(channels_in, channels, 1, activation=False),
        )
        self.act = nn.ReLU(inplace=True)

    def forward(self, maps: Tensor) -> Tensor:
        """(N, channels_in, H, W) to (N, channels, H / 2, W / 2), rounded up."""
        summed: Tensor = self.act(self.reduce(self.expand(self.gather(maps))) + self.shortcut(maps))
        return summed


class ContextEmbedding(nn.Module):
    """Context embedding block (section 4.2): the mean over the image, added to every pixel, and a 3x3 convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)
        self.whole = ConvBatchNorm(channels, channels, 1)
        self.last = ConvBatchNorm(channels, channels, 3)

    def forward(self, maps: Tensor) -> Tensor:
        """(N, channels, H, W) to the same shape."""
        embedded: Tensor = self.last(self.whole(self.norm(maps.mean((2, 3), keepdim=True))) + maps)
        return embedded


class GuidedAggregation(nn.Module):
    """Bilateral guided aggregation layer (section 4.3): at both strides, one branch gates the other; then their sum."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.detail = _gate(channels)
        self.detail_shrunk = nn.Sequential(
            ConvBatchNorm(channels, channels, 3, stride=2, activation=False), nn.AvgPool2d(3, stride=2, padding=1)
        )
        self.semantic_grown = ConvBatchNorm(channels, channels, 3, activation=False)
        self.semantic = _gate(channels)
        self.fuse = ConvBatchNorm(channels, channels, 3)

    def forward(self, detail: Tensor, semantic: Tensor) -> Tensor:
        """Detail (N, channels, H, W) and semantic (N, channels, H / 4, W / 4), rounded up, to (N, channels, H, W)."""
        at_detail = self.detail(detail) * torch.sigmoid(_repeat(self.semantic_grown(semantic), detail))
        at_semantic = self.detail_shrunk(detail) * torch.sigmoid(self.semantic(semantic))
        fused: Tensor = self.fuse(at_detail + _repeat(at_semantic, detail))
        return fused


def _gate(channels: int) -> nn.Sequential:
    last = nn.Conv2d(channels, channels, 1, bias=False)
    return nn.Sequential(depthwise(channels, channels, activation=False), last)


def _repeat(maps: Tensor, like: Tensor) -> Tensor:
    return functional.interpolate(maps, (int(like.shape[2]), int(like.shape[3])), mode="nearest")


def _auxiliary(channels: int, stride: int, classes: int) -> nn.Sequential:
    return nn.Sequential(
        ConvBatchNorm(channels, 128, 3),
        nn.Dropout(0.1),
        nn.Upsample(scale_factor=2, mode="nearest"),
        ConvBatchNorm(128, stride * stride, 3),
        nn.Conv2d(stride * stride, classes, 1),
    )
