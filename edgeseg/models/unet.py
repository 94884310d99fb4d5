"""U-Net: a contracting path, an expanding path, and the maps of each level joined across.

O. Ronneberger, P. Fischer, T. Brox, "U-Net: Convolutional Networks for Biomedical Image Segmentation", MICCAI 2015,
arXiv 1505.04597. Convolutions keep the size and have BatchNorm, as in the Pytorch-UNet of milesial.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgeseg.models.blocks import ConvBatchNorm
from edgeseg.models.network import SegmentationNetwork, initialise, resize
from edgeseg.models.width import check_choice, check_width, scaled

__all__ = ["UNet"]

_CHANNELS = (64, 128, 256, 512, 1024)
_UPSAMPLINGS = ("transposed", "bilinear")


class UNet(SegmentationNetwork):
    """U-Net whose class map has the size of its image, whatever that is.

    The network of 2015 has convolutions without padding, a smaller class map than image, and no BatchNorm;
    `batch_norm=False` gives its layers, with padding.

    With `deploy` bilinear resizes place their samples with align_corners=False, the only placement that a DLA takes.
    Transposed convolutions stay as they are.

    Args:
        classes: number of logits per pixel.
        deploy: build the variant.
        upsampling: "transposed" (2x2, as published) or "bilinear", with half the channels below.
        batch_norm: whether BatchNorm follows each 3x3 convolution; without it the convolution has a bias.
        width: share of the published channels.

    Raises:
        UsageError: for a value that it does not take.
    """

    feature_stride = 1

    def __init__(
        self,
        classes: int,
        deploy: bool = False,
        *,
        upsampling: str = "transposed",
        batch_norm: bool = True,
        width: float = 1.0,
    ) -> None:
        check_choice("unet", "upsampling", upsampling, _UPSAMPLINGS)
        check_width("unet", width)
        super().__init__(classes)
        self.align_corners = not deploy
        bilinear = upsampling == "bilinear"
        wide = [scaled(channels, width) for channels in _CHANNELS]
        if bilinear:
            wide[-1] = wide[-2]
        self.feature_channels = wide[0]
        self.down = nn.ModuleList()
        before = 3
        for channels in wide:
            self.down.append(_pair(before, channels, channels, batch_norm))
            before = channels
        self.up = nn.ModuleList()
        for level in (3, 2, 1, 0):
            after = wide[max(level - 1, 0)] if bilinear else wide[level]
            self.up.append(Expansion(before, wide[level], after, bilinear, batch_norm, self.align_corners))
            before = after
        self.prediction = nn.Conv2d(self.feature_channels, classes, 1)
        initialise(self)

    def encode(self, image: Tensor) -> tuple[Tensor, Sequence[Tensor]]:
        """See `SegmentationNetwork.encode`."""
        levels = [self.down[0](image)]
        for contract in list(self.down)[1:]:
            levels.append(contract(functional.max_pool2d(levels[-1], 2)))
        maps = levels.pop()
        for expand in self.up:
            maps = expand(maps, levels.pop())
        return maps, ()

    def predict(self, features: Tensor) -> Tensor:
        """See `SegmentationNetwork.predict`."""
        logits: Tensor = self.prediction(features)
        return logits


class Expansion(nn.Module):
    """One level of the expanding path: twice the size, joined to the level's own maps, two convolutions.

    Args:
        channels_in: of the map from below.
        skip: channels of the level's own maps.
        channels: of the output.
        bilinear: resize instead of a transposed convolution.
        batch_norm, align_corners: see `UNet`.
    """

    def __init__(
        self, channels_in: int, skip: int, channels: int, bilinear: bool, batch_norm: bool, align_corners: bool
    ) -> None:
        super().__init__()
        self.align_corners = align_corners
        self.grow = None if bilinear else nn.ConvTranspose2d(channels_in, skip, 2, stride=2)
        joined = skip + (channels_in if bilinear else skip)
        self.convs = _pair(joined, joined // 2 if bilinear else channels, channels, batch_norm)

    def forward(self, maps: Tensor, skip: Tensor) -> Tensor:
        """(N, channels_in, h, w) and (N, skip, H, W) to (N, channels, H, W)."""
        height, width = int(maps.shape[2]), int(maps.shape[3])
        grown = resize(maps, 2 * height, 2 * width, self.align_corners) if self.grow is None else self.grow(maps)
        # Pooling dropped the last row or column of an odd side.
        missing = int(skip.shape[2]) - 2 * height, int(skip.shape[3]) - 2 * width
        if any(missing):
            grown = functional.pad(grown, (0, missing[1], 0, missing[0]))
        convolved: Tensor = self.convs(torch.cat([skip, grown], 1))
        return convolved


def _pair(channels_in: int, between: int, channels: int, batch_norm: bool) -> nn.Sequential:
    return nn.Sequential(_conv(channels_in, between, batch_norm), _conv(between, channels, batch_norm))


def _conv(channels_in: int, channels: int, batch_norm: bool) -> nn.Sequential:
    if batch_norm:
        return ConvBatchNorm(channels_in, channels, 3)
    return nn.Sequential(nn.Conv2d(channels_in, channels, 3, padding=1), nn.ReLU(inplace=True))
