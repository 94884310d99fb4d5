"""Fast-SCNN: a shared shallow stem, bottlenecks at low resolution, and their fusion at stride 8.

R. P. K. Poudel, S. Liwicki, R. Cipolla, "Fast-SCNN: Fast Semantic Segmentation Network", BMVC 2019, arXiv 1902.04502.
Where the paper is silent, the structure is that of the Efficient-Segmentation-Networks collection of X. Yu.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from edgeseg.models.blocks import ConvBatchNorm, depthwise, separable
from edgeseg.models.network import SegmentationNetwork, initialise, resize
from edgeseg.models.pooling import average_pool

__all__ = ["FastSCNN"]

_BINS = (1, 2, 3, 6)
"""Sides of the pooled maps of the pyramid."""

_EXPANSION = 6


class FastSCNN(SegmentationNetwork):
    """Fast-SCNN (section 3): learning to downsample, global feature extractor, feature fusion, classifier.

    With `deploy` all bilinear resizes place their samples with align_corners=False, the only placement that a DLA
    takes. No weight changes, but the variant is trained as such: published weights lose accuracy on it.

    In an exported graph the pyramid's pooling is the same in both: constant averaging matrices where its sizes do not
    divide; see `edgeseg.models.pooling`.

    The auxiliary head reads the features of the stem.

    Args:
        classes: number of logits per pixel.
        deploy: build the variant.
    """

    feature_channels = 128
    feature_stride = 8

    def __init__(self, classes: int, deploy: bool = False) -> None:
        super().__init__(classes)
        self.align_corners = not deploy
        self.stem = nn.Sequential(
            ConvBatchNorm(3, 32, 3, stride=2, padding=0), separable(32, 48, stride=2), separable(48, 64, stride=2)
        )
        self.context = nn.Sequential(
            *_bottlenecks(64, 64, stride=2), *_bottlenecks(64, 96, stride=2), *_bottlenecks(96, 128, stride=1)
        )
        self.pyramid = PyramidPooling(128, 128, self.align_corners)
        self.fusion = FeatureFusion(64, 128, 128, self.align_corners)
        self.classifier = nn.Sequential(separable(128, 128), separable(128, 128), nn.Dropout(0.1))
        self.prediction = nn.Conv2d(self.feature_channels, classes, 1)
        self.auxiliary.append(nn.Sequential(ConvBatchNorm(64, 32, 3), nn.Dropout(0.1), nn.Conv2d(32, classes, 1)))
        initialise(self)

    def encode(self, image: Tensor) -> tuple[Tensor, Sequence[Tensor]]:
        """See `SegmentationNetwork.encode`."""
        detail = self.stem(image)
        context = self.pyramid(self.context(detail))
        features = self.classifier(self.fusion(detail, context))
        return features, (detail,) if self.training else ()

    def predict(self, features: Tensor) -> Tensor:
        """See `SegmentationNetwork.predict`."""
        logits: Tensor = self.prediction(features)
        return logits


class InvertedBottleneck(nn.Module):
    """Inverted residual of MobileNetV2: expand, depthwise, reduce without activation; the input is added if it fits."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        wide = channels_in * _EXPANSION
        self.residual = stride == 1 and channels_in == channels
        self.expand = ConvBatchNorm(channels_in, wide, 1)
        self.depthwise = depthwise(wide, wide, stride=stride)
        self.reduce = ConvBatchNorm(wide, channels, 1, activation=False)

    def forward(self, maps: Tensor) -> Tensor:
        """(N, channels_in, H, W) to (N, channels, H / stride, W / stride), rounded up."""
        reduced: Tensor = self.reduce(self.depthwise(self.expand(maps)))
        return maps + reduced if self.residual else reduced


class PyramidPooling(nn.Module):
    """Pyramid pooling module (Zhao et al. 2017): means over 1, 2, 3 and 6 bins per side, joined to the input."""

    def __init__(self, channels_in: int, channels: int, align_corners: bool) -> None:
        super().__init__()
        self.align_corners = align_corners
        self.levels = nn.ModuleList(ConvBatchNorm(channels_in, channels_in // len(_BINS), 1) for _ in _BINS)
        self.out = ConvBatchNorm(2 * channels_in, channels, 1)

    def forward(self, maps: Tensor) -> Tensor:
        """(N, channels_in, H, W) to (N, channels, H, W)."""
        height, width = int(maps.shape[2]), int(maps.shape[3])
        joined = [maps]
        for bins, level in zip(_BINS, self.levels, strict=True):
            joined.append(resize(level(average_pool(maps, bins, bins)), height, width, self.align_corners))
        out: Tensor = self.out(torch.cat(joined, 1))
        return out


class FeatureFusion(nn.Module):
    """Feature fusion module (section 3.2.3): the context, resized to the detail, and the detail, summed."""

    def __init__(self, detail_channels: int, context_channels: int, channels: int, align_corners: bool) -> None:
        super().__init__()
        self.align_corners = align_corners
        self.depthwise = depthwise(context_channels, channels)
        self.context = _biased(channels, channels)
        self.detail = _biased(detail_channels, channels)
        self.act = nn.ReLU(inplace=True)

    def forward(self, detail: Tensor, context: Tensor) -> Tensor:
        """Detail (N, detail_channels, H, W) and context of any size to (N, channels, H, W)."""
        resized = resize(context, int(detail.shape[2]), int(detail.shape[3]), self.align_corners)
        fused: Tensor = self.act(self.detail(detail) + self.context(self.depthwise(resized)))
        return fused


def _bottlenecks(channels_in: int, channels: int, *, stride: int) -> list[InvertedBottleneck]:
    rest = [InvertedBottleneck(channels, channels, 1) for _ in range(2)]
    return [InvertedBottleneck(channels_in, channels, stride), *rest]


def _biased(channels_in: int, channels: int) -> nn.Sequential:
    """1x1 convolution with a bias before its BatchNorm, as in the public code: counted, but without effect."""
    return nn.Sequential(OrderedDict(conv=nn.Conv2d(channels_in, channels, 1), norm=nn.BatchNorm2d(channels)))
