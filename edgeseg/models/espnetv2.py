"""ESPNetv2 for segmentation: depthwise dilated pyramids, and efficient pyramid pooling from the bottom up.

S. Mehta, M. Rastegari, L. Shapiro, H. Hajishirzi, "ESPNetv2: A Light-weight, Power Efficient, and General Purpose
Convolutional Neural Network", CVPR 2019, arXiv 1811.11431. The structure is that of the authors' later code
(sacmehta/EdgeNets), whose decoder the published segmentation weights have.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from math import ceil, gcd

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgeseg.errors import UsageError
from edgeseg.models.network import SegmentationNetwork, initialise, resize
from edgeseg.models.pooling import average_pool

__all__ = ["WIDTHS", "ESPNetv2"]

WIDTHS: dict[float, tuple[int, int, int, int]] = {
    0.5: (16, 32, 64, 128),
    1.0: (32, 64, 128, 256),
    1.25: (32, 80, 160, 320),
    1.5: (32, 96, 192, 384),
    2.0: (32, 128, 256, 512),
}
"""Channels at stride 2, 4, 8 and 16 by width."""

_DECODER = (64, 48, 32)
_GROUPS = 4
_DEPTHS = (3, 7)
# Four branches with receptive fields of 3, 5, 7 and 9; at stride 16 at most 7, and another of 3 instead.
_DILATIONS = (1, 2, 3, 4)
_DILATIONS_LAST = (1, 1, 2, 3)
_SCALES = (2.0, 1.5, 1.0, 0.5, 0.1)
_SMALLEST = 5


class ESPNetv2(SegmentationNetwork):
    """ESPNetv2 with the pyramid-pooling decoder of EdgeNets.

    An adaptive pooling of its pyramids whose sizes do not divide becomes constant averaging matrices in the exported
    graph (see `edgeseg.models.pooling`), with `deploy` and without: it is the same function.

    With `deploy`, ReLU stands in the place of PReLU, so that every convolution and its activation are one INT8 kernel
    on all engines (PReLU is not fused between quantized layers by every TensorRT); all bilinear resizes sample at the
    centres of pixels (align_corners=False), the only placement that a DLA takes; and the activation that the published
    strided units hold but never use is left out. The variant is trained as such: the published weights do not fit it.

    Args:
        classes: number of logits per pixel; half of it, at most 16, are the channels of the decoder's pyramids.
        deploy: build the variant.
        width: 0.5, 1.0, 1.25, 1.5 or 2.0.

    Raises:
        UsageError: for a value that it does not take.
    """

    feature_stride = 2

    def __init__(self, classes: int, deploy: bool = False, *, width: float = 1.0) -> None:
        if width not in WIDTHS:
            raise UsageError(f"width of espnetv2 must be one of {', '.join(map(str, WIDTHS))}, but is {width}")
        super().__init__(classes)
        self.align_corners = not deploy
        level1, level2, level3, level4 = WIDTHS[width]
        self.stem = _conv_norm_act(3, level1, 3, deploy, stride=2)
        self.down2 = Downsampler(level1, level2, deploy)
        self.down3 = Downsampler(level2, level3, deploy)
        self.level3 = nn.Sequential(*(EESP(level3, level3, deploy, _DILATIONS) for _ in range(_DEPTHS[0])))
        self.down4 = Downsampler(level3, level4, deploy)
        self.level4 = nn.Sequential(*(EESP(level4, level4, deploy, _DILATIONS_LAST) for _ in range(_DEPTHS[1])))
        narrow = self.feature_channels = max(1, min(classes // 2, 16))
        self.pyramids = nn.ModuleList(PyramidPooling(n, narrow, deploy) for n in (level4, *_DECODER))
        self.expand = nn.ModuleList(_conv_norm_act(narrow, n, 1, deploy) for n in _DECODER)
        skips = zip((level3, level2, level1), _DECODER, strict=True)
        self.skips = nn.ModuleList(GatedSkip(channels, n, deploy) for channels, n in skips)
        self.joins = nn.ModuleList(_norm_act(n, deploy) for n in _DECODER)
        self.prediction = nn.Conv2d(narrow, classes, 1)
        initialise(self)

    def encode(self, image: Tensor) -> tuple[Tensor, Sequence[Tensor]]:
        """See `SegmentationNetwork.encode`; the features are those of the last pyramid, at half the image's size."""
        small = _halve(_halve(image))
        level1 = self.stem(image)
        level2 = self.down2(level1, small)
        small = _halve(small)
        level3 = self.level3(self.down3(level2, small))
        level4 = self.level4(self.down4(level3, _halve(small)))
        features = self.pyramids[0](level4)
        for step, skipped in enumerate((level3, level2, level1)):
            height, width = (int(n) for n in skipped.shape[2:])
            larger = resize(self.expand[step](features), height, width, self.align_corners)
            features = self.pyramids[step + 1](self.joins[step](self.skips[step](skipped) + larger))
        return features, ()

    def predict(self, features: Tensor) -> Tensor:
        """See `SegmentationNetwork.predict`."""
        logits: Tensor = self.prediction(features)
        return logits


class EESP(nn.Module):
    """Extremely efficient spatial pyramid of depthwise dilated convolutions (section 3.1).

    Args:
        channels_in: of the input.
        channels: of the output.
        deploy: see `ESPNetv2`.
        dilations: of the four branches.
        stride: 1, where the input is added to the result, or 2.
    """

    def __init__(
        self, channels_in: int, channels: int, deploy: bool, dilations: tuple[int, ...], *, stride: int = 1
    ) -> None:
        super().__init__()
        self.stride = stride
        narrow = channels // _GROUPS
        self.reduce = _conv_norm_act(channels_in, narrow, 1, deploy, groups=_GROUPS)
        self.branches = nn.ModuleList(
            _conv(narrow, narrow, 3, stride=stride, dilation=dilation, groups=narrow) for dilation in dilations
        )
        self.join = _norm_act(channels, deploy)
        self.expand = nn.Sequential(
            OrderedDict(conv=_conv(channels, channels, 1, groups=_GROUPS), norm=nn.BatchNorm2d(channels))
        )
        # Published weights and parameter counts hold it at stride 2 too, where it is not used.
        if stride == 1 or not deploy:
            self.act = _activation(channels, deploy)

    def forward(self, maps: Tensor) -> Tensor:
        """(N, channels_in, H, W) to (N, channels, H / stride, W / stride)."""
        reduced = self.reduce(maps)
        joined = [self.branches[0](reduced)]
        for branch in list(self.branches)[1:]:
            joined.append(branch(reduced) + joined[-1])
        expanded: Tensor = self.expand(self.join(torch.cat(joined, 1)))
        if self.stride > 1:
            return expanded
        activated: Tensor = self.act(expanded + maps)
        return activated


class Downsampler(nn.Module):
    """Strided EESP beside an average pooling, and a shortcut from the image (section 3.2).

    Args:
        channels_in: of the input.
        channels: of the output.
        deploy: see `ESPNetv2`.
    """

    def __init__(self, channels_in: int, channels: int, deploy: bool) -> None:
        super().__init__()
        self.eesp = EESP(channels_in, channels - channels_in, deploy, _DILATIONS, stride=2)
        self.reinforce = nn.Sequential(
            _conv_norm_act(3, 3, 3, deploy),
            nn.Sequential(OrderedDict(conv=_conv(3, channels, 1), norm=nn.BatchNorm2d(channels))),
        )
        self.act = _activation(channels, deploy)

    def forward(self, maps: Tensor, image: Tensor) -> Tensor:
        """(N, channels_in, H, W) and the image at half that size to (N, channels, H / 2, W / 2)."""
        halved = torch.cat([_halve(maps), self.eesp(maps)], 1)
        activated: Tensor = self.act(halved + self.reinforce(image))
        return activated


class PyramidPooling(nn.Module):
    """Efficient pyramid pooling: depthwise convolutions of a few channels at five scales, shuffled and fused.

    Args:
        channels_in: of the input.
        channels: of a scale, and of the output.
        deploy: see `ESPNetv2`.
    """

    def __init__(self, channels_in: int, channels: int, deploy: bool) -> None:
        super().__init__()
        self.align_corners = not deploy
        self.project = _conv_norm_act(channels_in, channels, 1, deploy)
        self.branches = nn.ModuleList(_conv(channels, channels, 3, groups=channels) for _ in _SCALES)
        self.join = _norm_act(len(_SCALES) * channels, deploy)
        self.fuse = _conv_norm_act(len(_SCALES) * channels, channels, 3, deploy, groups=channels)

    def forward(self, maps: Tensor) -> Tensor:
        """(N, channels_in, H, W) to (N, channels, H, W)."""
        projected = self.project(maps)
        scales = zip(_SCALES, self.branches, strict=True)
        joined = self.join(torch.cat([self._at_scale(projected, scale, branch) for scale, branch in scales], 1))
        # Every group of the fusing convolution reads one channel of each scale.
        count, channels, height, width = joined.shape
        shuffled = joined.reshape(count, len(_SCALES), channels // len(_SCALES), height, width).transpose(1, 2)
        fused: Tensor = self.fuse(shuffled.reshape(count, channels, height, width))
        return fused

    def _at_scale(self, maps: Tensor, scale: float, branch: nn.Module) -> Tensor:
        height, width = (int(n) for n in maps.shape[2:])
        rows, columns = (max(ceil(n * scale), _SMALLEST) for n in (height, width))
        if scale < 1:
            return resize(branch(average_pool(maps, rows, columns)), height, width, self.align_corners)
        if scale > 1:
            return average_pool(branch(resize(maps, rows, columns, self.align_corners)), height, width)
        convolved: Tensor = branch(maps)
        return convolved


class GatedSkip(nn.Module):
    """Features of the encoder for the decoder: a grouped convolution, each channel weighed by the whole image.

    Args:
        channels_in: of the input.
        channels: of the output.
        deploy: see `ESPNetv2`.
    """

    def __init__(self, channels_in: int, channels: int, deploy: bool) -> None:
        super().__init__()
        self.gate = _conv(channels_in, channels, 1)
        self.expand = _conv_norm_act(channels_in, channels, 3, deploy, groups=gcd(channels_in, channels))

    def forward(self, maps: Tensor) -> Tensor:
        """(N, channels_in, H, W) to (N, channels, H, W)."""
        weights = torch.sigmoid(self.gate(functional.adaptive_avg_pool2d(maps, 1)))
        weighed: Tensor = self.expand(maps) * weights
        return weighed


def _halve(maps: Tensor) -> Tensor:
    return functional.avg_pool2d(maps, 3, stride=2, padding=1)


def _conv(
    channels_in: int, channels: int, kernel: int, *, stride: int = 1, dilation: int = 1, groups: int = 1
) -> nn.Conv2d:
    padding = dilation * (kernel // 2)
    return nn.Conv2d(channels_in, channels, kernel, stride, padding, dilation, groups, bias=False)


def _activation(channels: int, deploy: bool) -> nn.Module:
    return nn.ReLU(inplace=True) if deploy else nn.PReLU(channels)


def _norm_act(channels: int, deploy: bool) -> nn.Sequential:
    return nn.Sequential(OrderedDict(norm=nn.BatchNorm2d(channels), act=_activation(channels, deploy)))


def _conv_norm_act(
    channels_in: int, channels: int, kernel: int, deploy: bool, *, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    conv = _conv(channels_in, channels, kernel, stride=stride, groups=groups)
    return nn.Sequential(OrderedDict(conv=conv, norm=nn.BatchNorm2d(channels), act=_activation(channels, deploy)))
