"""DABNet: depthwise asymmetric convolutions in two branches, one of them dilated, and no decoder.

G. Li, I. Yun, J. Kim, J. Kim, "DABNet: Depth-wise Asymmetric Bottleneck for Real-time Semantic Segmentation", BMVC
2019, arXiv 1907.11357. The structure is that of the code published with it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgeseg.models.blocks import ConvBatchNorm, same_padding
from edgeseg.models.network import SegmentationNetwork, initialise

__all__ = ["DABNet"]

_DILATIONS_AT_STRIDE_4 = (2, 2, 2)
_DILATIONS_AT_STRIDE_8 = (4, 4, 8, 8, 16, 16)
_EPSILON = 1e-3
"""Of every BatchNorm of the published network; its weights were trained with it."""


class DABNet(SegmentationNetwork):
    """DABNet (sections 3.1 and 3.2): the image, shrunk, is joined to the features at each stride.

    The published network normalises and activates (BatchNorm, PReLU) before its convolutions: a BatchNorm that follows
    an addition, a concatenation or a pooling folds into no convolution and stays as float work between INT8 kernels.
    With `deploy` every BatchNorm follows its convolution and ReLU stands in the place of PReLU: a module adds its
    input to the normalised 1x1 convolution and activates the sum, concatenations are taken as they are, and only what
    convolutions give is activated. The variant has the same convolutions and is trained as such: the published weights
    do not fit it.

    Args:
        classes: number of logits per pixel.
        deploy: build the variant.
    """

    feature_channels = 2 * 128 + 3
    feature_stride = 8

    def __init__(self, classes: int, deploy: bool = False) -> None:
        super().__init__(classes)
        self.shrink = nn.AvgPool2d(3, stride=2, padding=1)
        self.stem = nn.Sequential(_conv(3, 32, 3, deploy, stride=2), _conv(32, 32, 3, deploy), _conv(32, 32, 3, deploy))
        self.join1 = _join(32 + 3, deploy)
        self.down2 = Downsampling(32 + 3, 64, deploy)
        self.level2 = nn.Sequential(*(AsymmetricBottleneck(64, d, deploy) for d in _DILATIONS_AT_STRIDE_4))
        self.join2 = _join(2 * 64 + 3, deploy)
        self.down3 = Downsampling(2 * 64 + 3, 128, deploy)
        self.level3 = nn.Sequential(*(AsymmetricBottleneck(128, d, deploy) for d in _DILATIONS_AT_STRIDE_8))
        self.join3 = _join(self.feature_channels, deploy)
        self.prediction = nn.Conv2d(self.feature_channels, classes, 1, bias=False)
        initialise(self)

    def encode(self, image: Tensor) -> tuple[Tensor, Sequence[Tensor]]:
        """See `SegmentationNetwork.encode`."""
        half = self.shrink(image)
        quarter = self.shrink(half)
        level1 = self.join1(torch.cat([self.stem(image), half], 1))
        first = self.down2(level1)
        level2 = self.join2(torch.cat([self.level2(first), first, quarter], 1))
        first = self.down3(level2)
        return self.join3(torch.cat([self.level3(first), first, self.shrink(quarter)], 1)), ()

    def predict(self, features: Tensor) -> Tensor:
        """See `SegmentationNetwork.predict`."""
        logits: Tensor = self.prediction(features)
        return logits


class AsymmetricBottleneck(nn.Module):
    """DAB module (section 3.1): half the channels, two depthwise 3x1 and 1x3 branches, their sum, and back.

    Args:
        channels: of the input and of the output.
        dilation: of the second branch.
        deploy: see `DABNet`.
    """

    def __init__(self, channels: int, dilation: int, deploy: bool) -> None:
        super().__init__()
        narrow = channels // 2
        self.before = nn.Identity() if deploy else _norm_act(channels)
        self.reduce = _conv(channels, narrow, 3, deploy)
        self.local = _asymmetric(narrow, 1, deploy)
        self.context = _asymmetric(narrow, dilation, deploy)
        self.between = nn.Identity() if deploy else _norm_act(narrow)
        self.expand: nn.Module
        if deploy:
            self.expand = ConvBatchNorm(narrow, channels, 1, activation=False)
        else:
            self.expand = nn.Conv2d(narrow, channels, 1, bias=False)
        self.after = nn.ReLU(inplace=True) if deploy else nn.Identity()

    def forward(self, maps: Tensor) -> Tensor:
        """(N, channels, H, W) to the same shape."""
        reduced = self.reduce(self.before(maps))
        expanded = self.expand(self.between(self.local(reduced) + self.context(reduced)))
        activated: Tensor = self.after(expanded + maps)
        return activated


class Downsampling(nn.Module):
    """Half the size (section 3.2): a strided 3x3 convolution, joined to the pooled input where channels are added.

    Args:
        channels_in, channels: of the input and of the output.
        deploy: see `DABNet`.
    """

    def __init__(self, channels_in: int, channels: int, deploy: bool) -> None:
        super().__init__()
        self.pools = channels_in < channels
        made = channels - channels_in if self.pools else channels
        self.conv: nn.Module
        if deploy:
            self.conv = ConvBatchNorm(channels_in, made, 3, stride=2)
        else:
            self.conv = nn.Conv2d(channels_in, made, 3, stride=2, padding=1, bias=False)
        self.after = nn.Identity() if deploy else _norm_act(channels)

    def forward(self, maps: Tensor) -> Tensor:
        """(N, channels_in, H, W) to (N, channels, H / 2, W / 2), rounded up."""
        halved = self.conv(maps)
        if self.pools:
            # A side of odd length: the convolution rounds up, and so must the pooling.
            odd = maps.shape[2] % 2 == 1 or maps.shape[3] % 2 == 1
            halved = torch.cat([halved, functional.max_pool2d(maps, 2, ceil_mode=odd)], 1)
        activated: Tensor = self.after(halved)
        return activated


def _asymmetric(channels: int, dilation: int, deploy: bool) -> nn.Sequential:
    return nn.Sequential(
        _conv(channels, channels, (3, 1), deploy, dilation=(dilation, 1), groups=channels),
        _conv(channels, channels, (1, 3), deploy, dilation=(1, dilation), groups=channels),
    )


def _conv(
    channels_in: int,
    channels: int,
    kernel: int | tuple[int, int],
    deploy: bool,
    *,
    stride: int = 1,
    dilation: int | tuple[int, int] = 1,
    groups: int = 1,
) -> nn.Sequential:
    if deploy:
        return ConvBatchNorm(channels_in, channels, kernel, stride=stride, dilation=dilation, groups=groups)
    padding = same_padding(kernel, dilation)
    conv = nn.Conv2d(channels_in, channels, kernel, stride, padding, dilation, groups, bias=False)
    return nn.Sequential(OrderedDict(conv=conv, after=_norm_act(channels)))


def _join(channels: int, deploy: bool) -> nn.Module:
    return nn.Identity() if deploy else _norm_act(channels)


def _norm_act(channels: int) -> nn.Sequential:
    return nn.Sequential(OrderedDict(norm=nn.BatchNorm2d(channels, eps=_EPSILON), act=nn.PReLU(channels)))
