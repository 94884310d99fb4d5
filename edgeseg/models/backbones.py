"""Classifiers without their last layers, whose features of stride 8, 16 and 32 a segmentation network reads."""

from __future__ import annotations

from collections import OrderedDict
from itertools import pairwise

from torch import Tensor, nn

from edgeseg.models.blocks import ConvBatchNorm

__all__ = ["BACKBONES", "Backbone", "BasicBlock", "resnet18", "xception39"]


class Backbone(nn.Module):
    """A stem of stride 4 and stages behind it.

    Args:
        stem: from the image to features of stride 4.
        stages: one after the other; the last three end at strides 8, 16 and 32.
        channels: of the features of stride 8, 16 and 32.
    """

    def __init__(self, stem: nn.Module, stages: list[nn.Module], channels: tuple[int, int, int]) -> None:
        super().__init__()
        self.stem = stem
        self.stages = nn.ModuleList(stages)
        self.channels = channels

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(N, 3, H, W) to features of stride 8, 16 and 32; odd sizes are rounded up."""
        maps = self.stem(image)
        found = []
        for stage in self.stages:
            maps = stage(maps)
            found.append(maps)
        eighth, sixteenth, last = found[-3:]
        return eighth, sixteenth, last


def resnet18() -> Backbone:
    """ResNet-18 (K. He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, table 1)."""
    widths = (64, 64, 128, 256, 512)
    stages: list[nn.Module] = [
        nn.Sequential(BasicBlock(before, width, 1 if before == width else 2), BasicBlock(width, width, 1))
        for before, width in pairwise(widths)
    ]
    return Backbone(_stem(64, 7), stages, (128, 256, 512))


def xception39() -> Backbone:
    """Xception39, the narrow Xception of BiSeNet's authors, as published with it."""
    widths, depths = (8, 64, 128, 256), (4, 8, 4)
    stages: list[nn.Module] = [
        nn.Sequential(SeparableBlock(before, width, 2), *(SeparableBlock(width, width, 1) for _ in range(depth - 1)))
        for (before, width), depth in zip(pairwise(widths), depths, strict=True)
    ]
    return Backbone(_stem(8, 3), stages, (64, 128, 256))


BACKBONES = {"resnet18": resnet18, "xception39": xception39}
"""How each backbone is built, by name."""


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut, a strided 1x1 convolution where the shape changes."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.first = ConvBatchNorm(channels_in, channels, 3, stride=stride)
        self.second = ConvBatchNorm(channels, channels, 3, activation=False)
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or channels_in != channels:
            self.shortcut = ConvBatchNorm(channels_in, channels, 1, stride=stride, activation=False)
        self.act = nn.ReLU(inplace=True)

    def forward(self, maps: Tensor) -> Tensor:
        """(N, channels_in, H, W) to (N, channels, H / stride, W / stride)."""
        summed: Tensor = self.act(self.second(self.first(maps)) + self.shortcut(maps))
        return summed


class SeparableBlock(nn.Module):
    """Three separable convolutions on a quarter of the channels, and a shortcut, separable too where it is strided."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        narrow = channels // 4
        self.branch = nn.Sequential(
            _bare_separable(channels_in, narrow, stride, activation=True),
            _bare_separable(narrow, narrow, 1, activation=True),
            _bare_separable(narrow, channels, 1, activation=False),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1:
            self.shortcut = _bare_separable(channels_in, channels, stride, activation=False)
        self.act = nn.ReLU(inplace=True)

    def forward(self, maps: Tensor) -> Tensor:
        """(N, channels_in, H, W) to (N, channels, H / stride, W / stride)."""
        summed: Tensor = self.act(self.branch(maps) + self.shortcut(maps))
        return summed


def _bare_separable(channels_in: int, channels: int, stride: int, *, activation: bool) -> nn.Sequential:
    """Separable convolution whose depthwise half has no BatchNorm, unlike `edgeseg.models.blocks.separable`."""
    return nn.Sequential(
        OrderedDict(
            depthwise=nn.Conv2d(channels_in, channels_in, 3, stride, 1, groups=channels_in, bias=False),
            pointwise=ConvBatchNorm(channels_in, channels, 1, activation=activation),
        )
    )


def _stem(channels: int, kernel: int) -> nn.Sequential:
    return nn.Sequential(
        OrderedDict(conv=ConvBatchNorm(3, channels, kernel, stride=2), pool=nn.MaxPool2d(3, stride=2, padding=1))
    )
