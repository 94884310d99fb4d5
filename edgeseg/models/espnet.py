"""ESPNet: spatial pyramids of dilated convolutions on few channels, and a decoder as wide as there are classes.

S. Mehta, M. Rastegari, A. Caspi, L. Shapiro, H. Hajishirzi, "ESPNet: Efficient Spatial Pyramid of Dilated Convolutions
for Semantic Segmentation", ECCV 2018, arXiv 1803.06815. The structure is that of the code published with it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from edgeseg.errors import ShapeError, UsageError
from edgeseg.models.network import SegmentationNetwork, initialise

__all__ = ["DEPTHS", "ESPNet"]

DEPTHS = (3, 5, 8)
"""Published numbers of ESP modules at stride 8 (q)."""

_MODULES_AT_STRIDE_4 = 2
_DILATIONS = (1, 2, 4, 8, 16)
_EPSILON = 1e-3
"""Of every BatchNorm; the published weights were trained with it."""


class ESPNet(SegmentationNetwork):
    """ESPNet with p = 2 (sections 3 and 4): ESPNet-C as encoder, a decoder that joins its features of stride 4 and 2.

    With `deploy`, ReLU stands in the place of PReLU, so that every convolution and its activation are one INT8 kernel
    on all engines; PReLU is not fused between quantized layers by every TensorRT and runs on a DLA only with a constant
    slope. The variant has fewer parameters and is trained as such: the published weights do not fit it.

    Args:
        classes: number of logits per pixel. The decoder has as many channels, but at least 5.
        deploy: build the variant.
        q: number of ESP modules at stride 8: 3, 5 or 8.

    Raises:
        UsageError: for a value that it does not take.
    """

    feature_stride = 2

    def __init__(self, classes: int, deploy: bool = False, *, q: int = 8) -> None:
        if q not in DEPTHS:
            raise UsageError(f"q of espnet must be one of {', '.join(map(str, DEPTHS))}, but is {q}")
        super().__init__(classes)
        # The five branches of the decoder's pyramid need a channel each.
        width = self.feature_channels = max(classes, len(_DILATIONS))
        self.shrink = nn.AvgPool2d(3, stride=2, padding=1)
        self.stem = nn.Sequential(
            OrderedDict(conv=_conv(3, 16, 3, stride=2), norm=_norm(16), act=_activation(16, deploy))
        )
        self.join1 = _norm_act(16 + 3, deploy)
        self.down2 = SpatialPyramid(16 + 3, 64, deploy, stride=2)
        self.level2 = nn.Sequential(
            *(SpatialPyramid(64, 64, deploy, residual=True) for _ in range(_MODULES_AT_STRIDE_4))
        )
        self.join2 = _norm_act(2 * 64 + 3, deploy)
        self.down3 = SpatialPyramid(2 * 64 + 3, 128, deploy, stride=2)
        self.level3 = nn.Sequential(*(SpatialPyramid(128, 128, deploy, residual=True) for _ in range(q)))
        self.join3 = _norm_act(2 * 128, deploy)
        self.score3 = nn.Sequential(OrderedDict(conv=_conv(2 * 128, width, 1), norm=_norm(width)))
        self.up3 = _double(width, width)
        self.score2 = _conv(2 * 64 + 3, width, 1)
        self.combine = nn.Sequential(_norm_act(2 * width, deploy), SpatialPyramid(2 * width, width, deploy))
        self.up2 = nn.Sequential(_double(width, width), _norm_act(width, deploy))
        self.last = nn.Sequential(
            OrderedDict(conv=_conv(width + 16 + 3, width, 3), norm=_norm(width), act=_activation(width, deploy))
        )
        self.prediction = _double(width, classes)
        initialise(self)

    def encode(self, image: Tensor) -> tuple[Tensor, Sequence[Tensor]]:
        """See `SegmentationNetwork.encode`; the features are those that the last transposed convolution reads.

        Raises:
            ShapeError: for an image whose height or width is no multiple of 8.
        """
        height, width = int(image.shape[2]), int(image.shape[3])
        if height % 8 or width % 8:
            raise ShapeError(
                f"espnet takes images whose height and width are multiples of 8, but got {height}x{width}; "
                f"resize them to {_multiple(height)}x{_multiple(width)}"
            )
        half = self.shrink(image)
        level1 = self.join1(torch.cat([self.stem(image), half], 1))
        first = self.down2(level1)
        level2 = self.join2(torch.cat([self.level2(first), first, self.shrink(half)], 1))
        first = self.down3(level2)
        level3 = self.join3(torch.cat([first, self.level3(first)], 1))
        decoded = torch.cat([self.score2(level2), self.up3(self.score3(level3))], 1)
        decoded = self.up2(self.combine(decoded))
        return self.last(torch.cat([decoded, level1], 1)), ()

    def predict(self, features: Tensor) -> Tensor:
        """See `SegmentationNetwork.predict`."""
        logits: Tensor = self.prediction(features)
        return logits


class SpatialPyramid(nn.Module):
    """ESP module (section 3): reduce, convolve at five dilations, and sum up the results before they are joined.

    Args:
        channels_in: of the input.
        channels: of the output; a fifth of it, and what is left over for the undilated branch, is that of a branch.
        deploy: see `ESPNet`.
        stride: 2 halves the size with a 3x3 convolution as the reduction; 1 reduces with a 1x1 convolution.
        residual: add the input.
    """

    def __init__(
        self, channels_in: int, channels: int, deploy: bool, *, stride: int = 1, residual: bool = False
    ) -> None:
        super().__init__()
        self.residual = residual
        narrow = channels // len(_DILATIONS)
        self.reduce = _conv(channels_in, narrow, 1 if stride == 1 else 3, stride=stride)
        self.branches = nn.ModuleList(
            _conv(narrow, narrow if dilation > 1 else channels - 4 * narrow, 3, dilation=dilation)
            for dilation in _DILATIONS
        )
        self.out = _norm_act(channels, deploy)

    def forward(self, maps: Tensor) -> Tensor:
        """(N, channels_in, H, W) to (N, channels, H / stride, W / stride)."""
        reduced = self.reduce(maps)
        undilated, summed, *wider = (branch(reduced) for branch in self.branches)
        joined = [undilated, summed]
        # Sums over neighbouring dilations take away the grid that a dilated convolution leaves (section 3.2).
        for branch in wider:
            summed = summed + branch
            joined.append(summed)
        result = torch.cat(joined, 1)
        activated: Tensor = self.out(maps + result if self.residual else result)
        return activated


def _multiple(length: int) -> int:
    return max(round(length / 8), 1) * 8


def _conv(channels_in: int, channels: int, kernel: int, *, stride: int = 1, dilation: int = 1) -> nn.Conv2d:
    padding = dilation * (kernel // 2)
    return nn.Conv2d(channels_in, channels, kernel, stride, padding, dilation, bias=False)


def _double(channels_in: int, channels: int) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(channels_in, channels, 2, stride=2, bias=False)


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=_EPSILON)


def _activation(channels: int, deploy: bool) -> nn.Module:
    return nn.ReLU(inplace=True) if deploy else nn.PReLU(channels)


def _norm_act(channels: int, deploy: bool) -> nn.Sequential:
    return nn.Sequential(OrderedDict(norm=_norm(channels), act=_activation(channels, deploy)))
