"""What several networks read their context with: pyramid pooling, and atrous spatial pyramid pooling."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn

from edgeseg.models.blocks import ConvBatchNorm
from edgeseg.models.network import resize
from edgeseg.models.pooling import average_pool

__all__ = ["ASPP", "AtrousBranches", "PyramidPooling", "separable_atrous"]


class PyramidPooling(nn.Module):
    """Pyramid pooling module (H. Zhao et al., "Pyramid Scene Parsing Network", CVPR 2017, section 3.2).

    Means over some numbers of bins per side, each reduced by a 1x1 convolution, resized and joined to the input, which
    doubles its channels.

    Args:
        channels: of the input.
        align_corners: of the resizes.
        bins: sides of the pooled maps.
    """

    def __init__(self, channels: int, align_corners: bool, bins: tuple[int, ...] = (1, 2, 3, 6)) -> None:
        super().__init__()
        self.align_corners = align_corners
        self.bins = bins
        self.levels = nn.ModuleList(ConvBatchNorm(channels, channels // len(bins), 1) for _ in bins)

    def forward(self, maps: Tensor) -> Tensor:
        """(N, channels, H, W) to (N, 2 * channels, H, W)."""
        height, width = int(maps.shape[2]), int(maps.shape[3])
        joined = [maps]
        for bins, level in zip(self.bins, self.levels, strict=True):
            joined.append(resize(level(average_pool(maps, bins, bins)), height, width, self.align_corners))
        return torch.cat(joined, 1)


class AtrousBranches(nn.Module):
    """The branches of atrous spatial pyramid pooling (L.-C. Chen et al., arXiv 1706.05587, section 3.3).

    A 1x1 convolution, three 3x3 convolutions of different rates and the mean of the whole image behind a 1x1
    convolution; BatchNorm and ReLU after each.

    Args:
        channels_in, channels: of the input and of the output.
        output_stride: of the input, 8 or 16; the rates are 6, 12 and 18 at 16 and twice these at 8.
        align_corners: of the resize of the image-level features, which are one pixel; any value gives the same maps.
        separable: whether the 3x3 convolutions are depthwise separable.
    """

    def __init__(
        self, channels_in: int, channels: int, output_stride: int, *, align_corners: bool, separable: bool = False
    ) -> None:
        super().__init__()
        self.align_corners = align_corners
        rates = [rate * 16 // output_stride for rate in (6, 12, 18)]
        branches: list[nn.Module] = [ConvBatchNorm(channels_in, channels, 1)]
        for rate in rates:
            if separable:
                branches.append(separable_atrous(channels_in, channels, rate))
            else:
                branches.append(ConvBatchNorm(channels_in, channels, 3, dilation=rate))
        self.branches = nn.ModuleList(branches)
        self.whole = ConvBatchNorm(channels_in, channels, 1)

    def read(self, maps: Tensor) -> list[Tensor]:
        """(N, channels_in, H, W) to five maps (N, channels, H, W)."""
        found = [branch(maps) for branch in self.branches]
        whole = self.whole(maps.mean((2, 3), keepdim=True))
        return [*found, resize(whole, int(maps.shape[2]), int(maps.shape[3]), self.align_corners)]


class ASPP(AtrousBranches):
    """Atrous spatial pyramid pooling with image-level features: the branches, joined and projected.

    Args:
        channels_in, channels, output_stride, align_corners, separable: see `AtrousBranches`.
    """

    def __init__(
        self, channels_in: int, channels: int, output_stride: int, *, align_corners: bool, separable: bool = False
    ) -> None:
        super().__init__(channels_in, channels, output_stride, align_corners=align_corners, separable=separable)
        self.project = ConvBatchNorm((len(self.branches) + 1) * channels, channels, 1)

    def forward(self, maps: Tensor) -> Tensor:
        """(N, channels_in, H, W) to (N, channels, H, W)."""
        projected: Tensor = self.project(torch.cat(self.read(maps), 1))
        return projected


def separable_atrous(channels_in: int, channels: int, rate: int = 1) -> nn.Sequential:
    """Atrous separable convolution: a 3x3 depthwise convolution with a rate, then 1x1 with BatchNorm and ReLU.

    Nothing is between the two, as in segmentation_models_pytorch; `edgeseg.models.blocks.separable` has BatchNorm and
    ReLU there.
    """
    return nn.Sequential(
        OrderedDict(
            depthwise=nn.Conv2d(channels_in, channels_in, 3, 1, rate, rate, groups=channels_in, bias=False),
            pointwise=ConvBatchNorm(channels_in, channels, 1),
        )
    )
