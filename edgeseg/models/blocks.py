"""Layers that several networks share: a convolution with its BatchNorm, and what is made of it."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

__all__ = ["ConvBatchNorm", "auxiliary_head", "depthwise", "same_padding", "separable"]


class ConvBatchNorm(nn.Sequential):
    """Convolution without bias, BatchNorm and ReLU, in the order that folds into one INT8 kernel.

    Args:
        channels_in, channels: of the input and of the output.
        kernel: side of the kernel, odd, or (height, width).
        stride: of the convolution.
        padding: zeros at each side, or (vertical, horizontal); by default what keeps the size at stride 1.
        dilation: of the convolution.
        groups: of the convolution.
        activation: whether ReLU follows.
    """

    def __init__(
        self,
        channels_in: int,
        channels: int,
        kernel: int | tuple[int, int],
        *,
        stride: int = 1,
        padding: int | None = None,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        activation: bool = True,
    ) -> None:
        around = same_padding(kernel, dilation) if padding is None else padding
        layers: OrderedDict[str, nn.Module] = OrderedDict(
            conv=nn.Conv2d(channels_in, channels, kernel, stride, around, dilation, groups, bias=False),
            norm=nn.BatchNorm2d(channels),
        )
        if activation:
            layers["act"] = nn.ReLU(inplace=True)
        super().__init__(layers)


def same_padding(kernel: int | tuple[int, int], dilation: int | tuple[int, int] = 1) -> tuple[int, int]:
    """Zeros (vertical, horizontal) that keep the size of maps under a convolution of stride 1."""
    height, width = (kernel, kernel) if isinstance(kernel, int) else kernel
    down, right = (dilation, dilation) if isinstance(dilation, int) else dilation
    return height // 2 * down, width // 2 * right


def auxiliary_head(channels_in: int, channels: int, classes: int) -> nn.Sequential:
    """Logits from an earlier stage of a backbone: 3x3 with BatchNorm and ReLU, dropout, 1x1."""
    return nn.Sequential(ConvBatchNorm(channels_in, channels, 3), nn.Dropout2d(0.1), nn.Conv2d(channels, classes, 1))


def depthwise(channels_in: int, channels: int, *, stride: int = 1, activation: bool = True) -> ConvBatchNorm:
    """3x3 convolution of each channel for itself, with BatchNorm; `channels` is a multiple of `channels_in`."""
    return ConvBatchNorm(channels_in, channels, 3, stride=stride, groups=channels_in, activation=activation)


def separable(channels_in: int, channels: int, *, stride: int = 1) -> nn.Sequential:
    """Depthwise separable convolution: `depthwise` with the stride, then 1x1, each with BatchNorm and ReLU."""
    return nn.Sequential(
        OrderedDict(
            depthwise=depthwise(channels_in, channels_in, stride=stride),
            pointwise=ConvBatchNorm(channels_in, channels, 1),
        )
    )
