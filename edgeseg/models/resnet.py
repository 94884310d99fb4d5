"""ResNet-50 and ResNet-101 without their classifier, dilated where features finer than stride 32 are wanted.

K. He, X. Zhang, S. Ren, J. Sun, "Deep Residual Learning for Image Recognition", CVPR 2016, table 1. The stride of a
bottleneck is in its 3x3 convolution, as in torchvision, and not in the 1x1 before it, as in the paper.
"""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn

from edgeseg.models.blocks import ConvBatchNorm
from edgeseg.models.width import scaled

__all__ = ["DEPTHS", "Bottleneck", "DilatedResNet", "residual_stage"]

DEPTHS: dict[str, tuple[int, int, int, int]] = {"resnet50": (3, 4, 6, 3), "resnet101": (3, 4, 23, 3)}
"""Bottlenecks of the four stages, by name."""

_EXPANSION = 4

_STEPS: dict[int, tuple[tuple[int, int, int, int], tuple[int, int, int, int]]] = {
    8: ((1, 2, 1, 1), (1, 1, 2, 4)),
    16: ((1, 2, 2, 1), (1, 1, 1, 2)),
    32: ((1, 2, 2, 2), (1, 1, 1, 1)),
}
"""Strides and dilations of the four stages, by output stride."""


class DilatedResNet(nn.Module):
    """The stem and the four stages of a ResNet; a stage whose stride is dropped is dilated instead.

    All bottlenecks of such a stage are dilated, the first one too, as in the codes of PSPNet and of DeepLab that the
    cards name; torchvision leaves the first one at the dilation of the stage before.

    Args:
        name: a key of `DEPTHS`.
        output_stride: of the last stage: 8, 16 or 32.
        multi_grid: factors on the dilation of the three bottlenecks of the last stage (DeepLabv3, section 3.1.1).
        deep_stem: three 3x3 convolutions in place of one 7x7, as PSPNet's authors use.
        width: fraction of the channels.

    Attributes:
        channels: of the four stages.
    """

    def __init__(
        self,
        name: str,
        *,
        output_stride: int = 32,
        multi_grid: tuple[int, int, int] = (1, 1, 1),
        deep_stem: bool = False,
        width: float = 1.0,
    ) -> None:
        super().__init__()
        strides, dilations = _STEPS[output_stride]
        narrow = [scaled(64 * 2**stage, width) for stage in range(4)]
        self.channels = tuple(_EXPANSION * channels for channels in narrow)
        self.stem = _deep_stem(width) if deep_stem else _stem(width)
        before = scaled(128 if deep_stem else 64, width)
        stages = []
        for stage, count in enumerate(DEPTHS[name]):
            grid = multi_grid if stage == 3 else (1,) * count
            rates = tuple(dilations[stage] * factor for factor in grid)
            stages.append(residual_stage(before, narrow[stage], strides[stage], rates))
            before = self.channels[stage]
        self.stages = nn.ModuleList(stages)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(N, 3, H, W) to the features of the four stages; odd sizes are rounded up at each stride."""
        return self.run_stages(self.stem(image))

    def run_stages(self, maps: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """What `forward` gives, from the maps of the stem."""
        found = []
        for stage in self.stages:
            maps = stage(maps)
            found.append(maps)
        first, second, third, fourth = found
        return first, second, third, fourth


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolution and a shortcut, a 1x1 convolution where the shape changes.

    Args:
        channels_in: of the input.
        narrow: channels of the 3x3 convolution; the output has four times as many.
        stride, dilation: of the 3x3 convolution.
    """

    def __init__(self, channels_in: int, narrow: int, stride: int, dilation: int) -> None:
        super().__init__()
        channels = _EXPANSION * narrow
        self.reduce = ConvBatchNorm(channels_in, narrow, 1)
        self.conv = ConvBatchNorm(narrow, narrow, 3, stride=stride, dilation=dilation)
        self.expand = ConvBatchNorm(narrow, channels, 1, activation=False)
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or channels_in != channels:
            self.shortcut = ConvBatchNorm(channels_in, channels, 1, stride=stride, activation=False)
        self.act = nn.ReLU(inplace=True)

    def forward(self, maps: Tensor) -> Tensor:
        """(N, channels_in, H, W) to (N, 4 * narrow, H / stride, W / stride)."""
        summed: Tensor = self.act(self.expand(self.conv(self.reduce(maps))) + self.shortcut(maps))
        return summed


def residual_stage(channels_in: int, narrow: int, stride: int, rates: tuple[int, ...]) -> nn.Sequential:
    """Bottlenecks one after the other, the first of them strided, each with its own dilation."""
    blocks = [Bottleneck(channels_in, narrow, stride, rates[0])]
    blocks += [Bottleneck(_EXPANSION * narrow, narrow, 1, rate) for rate in rates[1:]]
    return nn.Sequential(*blocks)


def _stem(width: float) -> nn.Sequential:
    return nn.Sequential(
        OrderedDict(conv=ConvBatchNorm(3, scaled(64, width), 7, stride=2), pool=nn.MaxPool2d(3, stride=2, padding=1))
    )


def _deep_stem(width: float) -> nn.Sequential:
    narrow = scaled(64, width)
    return nn.Sequential(
        OrderedDict(
            first=ConvBatchNorm(3, narrow, 3, stride=2),
            second=ConvBatchNorm(narrow, narrow, 3),
            third=ConvBatchNorm(narrow, scaled(128, width), 3),
            pool=nn.MaxPool2d(3, stride=2, padding=1),
        )
    )
