"""Attention over positions and over channels, as matrix products and a softmax."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["ChannelAttention", "PositionAttention"]


class PositionAttention(nn.Module):
    """Position attention (J. Fu et al., "Dual Attention Network for Scene Segmentation", CVPR 2019, section 3.2).

    Every position is given the weighted mean of all positions. The weights are a matrix of h*w x h*w: 256 MiB of
    float32 for the features of a 512x1024 image at stride 8.

    Args:
        channels: of the input and of the output.
        narrow: channels of queries and keys.
    """

    def __init__(self, channels: int, narrow: int) -> None:
        super().__init__()
        self.query = nn.Conv2d(channels, narrow, 1)
        self.key = nn.Conv2d(channels, narrow, 1)
        self.value = nn.Conv2d(channels, channels, 1)
        self.gain = nn.Parameter(torch.zeros(1))

    def forward(self, maps: Tensor) -> Tensor:
        """(N, channels, H, W) to the same shape."""
        query, key, value = (layer(maps).flatten(2) for layer in (self.query, self.key, self.value))
        weights = torch.softmax(query.transpose(1, 2) @ key, -1)
        attended = (value @ weights.transpose(1, 2)).reshape(maps.shape)
        summed: Tensor = self.gain * attended + maps
        return summed


class ChannelAttention(nn.Module):
    """Channel attention (J. Fu et al., section 3.3): every channel is given the weighted sum of all channels.

    The published code takes the softmax of the largest product of a row less the products. That is the softmax of the
    products with their sign turned, for a softmax does not change where all its inputs are moved. Here they are moved
    by the smallest one, and the products are those of features divided by the root of the number of positions, which
    is put right after the subtraction: sums over thousands of positions stay within float16 that way.
    """

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.zeros(1))

    def forward(self, maps: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape."""
        rows = maps.flatten(2)
        positions = int(rows.shape[2])
        small = rows * positions**-0.5
        products = small @ small.transpose(1, 2)
        weights = torch.softmax((products.amin(-1, keepdim=True) - products) * positions, -1)
        attended = (weights @ rows).reshape(maps.shape)
        return self.gain * attended + maps
