"""Aligned Xception-65 of DeepLabv3+, without its classifier.

L.-C. Chen, Y. Zhu, G. Papandreou, F. Schroff, H. Adam, "Encoder-Decoder with Atrous Separable Convolution for Semantic
Image Segmentation", ECCV 2018, arXiv 1802.02611, section 3.2 and figure 4: every max-pooling is a strided depthwise
separable convolution, and BatchNorm and ReLU follow each 3x3 depthwise convolution. Public codes leave that ReLU out
inside residual blocks; it has no weights, so the counts are the same.
"""

from __future__ import annotations

from torch import Tensor, nn

from edgeseg.models.blocks import ConvBatchNorm
from edgeseg.models.width import scaled

__all__ = ["AlignedXception65", "XceptionBlock"]

_MIDDLE = 16
"""Blocks of the middle flow."""


class AlignedXception65(nn.Module):
    """The three flows of the network: entry to stride 8 or 16, middle, exit.

    Args:
        output_stride: 8 or 16.
        width: fraction of the channels.

    Attributes:
        channels: of the three feature maps that `forward` gives.
    """

    def __init__(self, *, output_stride: int = 16, width: float = 1.0) -> None:
        super().__init__()
        c32, c64, c128, c256, c728, c1024, c1536, c2048 = (
            scaled(n, width) for n in (32, 64, 128, 256, 728, 1024, 1536, 2048)
        )
        # The strides that output stride 8 drops double the rates behind them.
        rate = 16 // output_stride
        self.channels = (c128, c256, c2048)
        self.stem = nn.Sequential(ConvBatchNorm(3, c32, 3, stride=2), ConvBatchNorm(c32, c64, 3))
        self.entry1 = XceptionBlock((c64, c128, c128, c128), stride=2, activate_first=False)
        self.entry2 = XceptionBlock((c128, c256, c256, c256), stride=2)
        self.entry3 = XceptionBlock((c256, c728, c728, c728), stride=output_stride // 8)
        self.middle = nn.Sequential(*(XceptionBlock((c728, c728, c728, c728), dilation=rate) for _ in range(_MIDDLE)))
        self.exit = XceptionBlock((c728, c728, c1024, c1024), dilation=rate)
        self.act = nn.ReLU()
        self.last = nn.Sequential(
            SeparableUnit(c1024, c1536, dilation=2 * rate, activation=True),
            SeparableUnit(c1536, c1536, dilation=2 * rate, activation=True),
            SeparableUnit(c1536, c2048, dilation=2 * rate, activation=True),
        )

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(N, 3, H, W) to two maps of stride 4, after entry block 1 and before the stride of block 2, and the last."""
        first = self.entry1(self.stem(image))
        before_stride = self.entry2.before_last(first)
        maps = self.entry2.finish(before_stride, first)
        maps = self.exit(self.middle(self.entry3(maps)))
        last: Tensor = self.last(self.act(maps))
        return self.act(first), self.act(before_stride), last


class SeparableUnit(nn.Module):
    """3x3 depthwise convolution with BatchNorm and ReLU, then 1x1 with BatchNorm."""

    def __init__(
        self, channels_in: int, channels: int, *, stride: int = 1, dilation: int = 1, activation: bool = False
    ) -> None:
        super().__init__()
        self.depthwise = ConvBatchNorm(
            channels_in, channels_in, 3, stride=stride, dilation=dilation, groups=channels_in
        )
        self.pointwise = ConvBatchNorm(channels_in, channels, 1, activation=activation)

    def forward(self, maps: Tensor) -> Tensor:
        """(N, channels_in, H, W) to (N, channels, H / stride, W / stride)."""
        mixed: Tensor = self.pointwise(self.depthwise(maps))
        return mixed


class XceptionBlock(nn.Module):
    """Three separable convolutions, the last one strided, each behind a ReLU, and a shortcut.

    Args:
        channels: of the input and behind each convolution.
        stride: of the last convolution.
        dilation: of all three, or of the first two where the last is strided.
        activate_first: whether a ReLU comes before the first convolution.
    """

    def __init__(
        self, channels: tuple[int, int, int, int], *, stride: int = 1, dilation: int = 1, activate_first: bool = True
    ) -> None:
        super().__init__()
        channels_in, first, second, last = channels
        self.activate_first = activate_first
        # Not in place: the shortcut, and the decoder, read the same maps.
        self.act = nn.ReLU()
        self.first = SeparableUnit(channels_in, first, dilation=dilation)
        self.second = SeparableUnit(first, second, dilation=dilation)
        self.third = SeparableUnit(second, last, stride=stride, dilation=1 if stride > 1 else dilation)
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or channels_in != last:
            self.shortcut = ConvBatchNorm(channels_in, last, 1, stride=stride, activation=False)

    def forward(self, maps: Tensor) -> Tensor:
        """(N, channels[0], H, W) to (N, channels[3], H / stride, W / stride)."""
        return self.finish(self.before_last(maps), maps)

    def before_last(self, maps: Tensor) -> Tensor:
        """What the last convolution reads, before its ReLU: (N, channels[2], H, W)."""
        second: Tensor = self.second(self.act(self.first(self.act(maps) if self.activate_first else maps)))
        return second

    def finish(self, before_last: Tensor, maps: Tensor) -> Tensor:
        """The block's output from what `before_last` gave and its input."""
        summed: Tensor = self.third(self.act(before_last)) + self.shortcut(maps)
        return summed
