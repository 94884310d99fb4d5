"""BiSeNet: a wide shallow path for detail, a classifier's features for context, and a fusion at stride 8.

C. Yu, J. Wang, C. Peng, C. Gao, G. Yu, N. Sang, "BiSeNet: Bilateral Segmentation Network for Real-time Semantic
Segmentation", ECCV 2018, arXiv 1808.00897. The structure is that of its authors' code (TorchSeg) in the setting
for speed.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from edgeseg.errors import UsageError
from edgeseg.models.backbones import BACKBONES
from edgeseg.models.blocks import ConvBatchNorm
from edgeseg.models.network import SegmentationNetwork, initialise, resize

__all__ = ["BiSeNetV1"]

_WIDTH = 128
"""Channels of each path where they meet."""


class BiSeNetV1(SegmentationNetwork):
    """BiSeNet (section 3): spatial path, context path with attention refinement, feature fusion.

    Its layers suit INT8 engines as they are: dense convolutions that their BatchNorms fold into, ReLU, and attention on
    single pixels. With `deploy` all bilinear resizes place their samples with align_corners=False, the only placement
    that a DLA takes. No weight changes, but the variant is trained as such: the published weights lose accuracy on it.

    The auxiliary heads read the refined context at stride 16 and at stride 8.

    Args:
        classes: number of logits per pixel.
        deploy: build the variant.
        backbone: of the context path: resnet18 or xception39.

    Raises:
        UsageError: for a value that it does not take.
    """

    feature_channels = 64
    feature_stride = 8

    def __init__(self, classes: int, deploy: bool = False, *, backbone: str = "resnet18") -> None:
        if backbone not in BACKBONES:
            raise UsageError(f"backbone of bisenetv1 must be one of {', '.join(BACKBONES)}, but is {backbone}")
        super().__init__(classes)
        self.align_corners = not deploy
        self.detail = nn.Sequential(
            ConvBatchNorm(3, 64, 7, stride=2),
            ConvBatchNorm(64, 64, 3, stride=2),
            ConvBatchNorm(64, 64, 3, stride=2),
            ConvBatchNorm(64, _WIDTH, 1),
        )
        self.context = BACKBONES[backbone]()
        _, sixteenth, last = self.context.channels
        self.whole = ConvBatchNorm(last, _WIDTH, 1)
        self.attend32, self.attend16 = AttentionRefinement(last, _WIDTH), AttentionRefinement(sixteenth, _WIDTH)
        self.refine16, self.refine8 = ConvBatchNorm(_WIDTH, _WIDTH, 3), ConvBatchNorm(_WIDTH, _WIDTH, 3)
        self.fusion = FeatureFusion(2 * _WIDTH)
        self.head = ConvBatchNorm(2 * _WIDTH, self.feature_channels, 3)
        self.prediction = nn.Conv2d(self.feature_channels, classes, 1)
        self.auxiliary.extend(
            nn.Sequential(ConvBatchNorm(_WIDTH, 128, 3), nn.Conv2d(128, classes, 1)) for _ in range(2)
        )
        initialise(self)

    def encode(self, image: Tensor) -> tuple[Tensor, Sequence[Tensor]]:
        """See `SegmentationNetwork.encode`."""
        eighth, sixteenth, last = self.context(image)
        # What holds for the whole image is one pixel; the addition spreads it.
        context32 = self.attend32(last) + self.whole(_mean(last))
        context16 = self.refine16(self._grow(context32, sixteenth))
        context8 = self.refine8(self._grow(self.attend16(sixteenth) + context16, eighth))
        features = self.head(self.fusion(torch.cat([self.detail(image), context8], 1)))
        return features, (context16, context8) if self.training else ()

    def predict(self, features: Tensor) -> Tensor:
        """See `SegmentationNetwork.predict`."""
        logits: Tensor = self.prediction(features)
        return logits

    def _grow(self, maps: Tensor, like: Tensor) -> Tensor:
        return resize(maps, int(like.shape[2]), int(like.shape[3]), self.align_corners)


class AttentionRefinement(nn.Module):
    """Attention refinement module (section 3.2): a 3x3 convolution, weighted per channel by its mean."""

    def __init__(self, channels_in: int, channels: int) -> None:
        super().__init__()
        self.conv = ConvBatchNorm(channels_in, channels, 3)
        self.gate = ConvBatchNorm(channels, channels, 1, activation=False)

    def forward(self, maps: Tensor) -> Tensor:
        """(N, channels_in, H, W) to (N, channels, H, W)."""
        refined: Tensor = self.conv(maps)
        return refined * torch.sigmoid(self.gate(_mean(refined)))


class FeatureFusion(nn.Module):
    """Feature fusion module (section 3.3): a 1x1 convolution of both paths, and itself weighted per channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = ConvBatchNorm(channels, channels, 1)
        self.gate = nn.Sequential(
            OrderedDict(
                first=nn.Conv2d(channels, channels, 1, bias=False),
                act=nn.ReLU(inplace=True),
                second=nn.Conv2d(channels, channels, 1, bias=False),
            )
        )

    def forward(self, joined: Tensor) -> Tensor:
        """(N, channels, H, W) to the same shape."""
        fused: Tensor = self.conv(joined)
        return fused + fused * torch.sigmoid(self.gate(_mean(fused)))


def _mean(maps: Tensor) -> Tensor:
    return maps.mean((2, 3), keepdim=True)
