"""WideResNet-38 of stride 8, without its classifier.

Z. Wu, C. Shen, A. van den Hengel, "Wider or Deeper: Revisiting the ResNet Model for Visual Recognition", 2016, arXiv
1611.10080, model A2, in the form in which Gated-SCNN takes it: max-pooling before the second and the third module, one
strided convolution, then dilation.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from edgeseg.models.blocks import ConvBatchNorm, same_padding
from edgeseg.models.width import scaled

__all__ = ["WideResNet38"]


@dataclass(frozen=True)
class _Module:
    """Blocks of one shape.

    Attributes:
        blocks: their number.
        channels: behind each convolution of a block: two of 3x3, or 1x1, 3x3 and 1x1.
        stride: of the first block.
        dilation: of every 3x3 convolution.
        drop: share of channels that is dropped before the last convolution of a block.
    """

    blocks: int
    channels: tuple[int, ...]
    stride: int = 1
    dilation: int = 1
    drop: float = 0.0


_MODULES = (
    _Module(3, (128, 128)),
    _Module(3, (256, 256)),
    _Module(6, (512, 512), stride=2),
    _Module(3, (512, 1024), dilation=2),
    _Module(1, (512, 1024, 2048), dilation=4, drop=0.3),
    _Module(1, (1024, 2048, 4096), dilation=4, drop=0.5),
)
"""Modules 2 to 7."""


class WideResNet38(nn.Module):
    """The seven modules of the network.

    Args:
        deploy: every BatchNorm behind its convolution, into which it folds; see `WideBlock`.
        width: fraction of the channels.

    Attributes:
        channels: of the seven maps that `forward` gives.
    """

    def __init__(self, *, deploy: bool = False, width: float = 1.0) -> None:
        super().__init__()
        channels = [scaled(64, width)]
        self.stem = nn.Conv2d(3, channels[0], 3, padding=1, bias=False)
        self.pool = nn.MaxPool2d(3, stride=2, padding=1)
        self.stages = nn.ModuleList()
        for module in _MODULES:
            narrow = tuple(scaled(count, width) for count in module.channels)
            blocks = []
            for number in range(module.blocks):
                stride, before = (module.stride, channels[-1]) if number == 0 else (1, narrow[-1])
                blocks.append(WideBlock(before, narrow, stride, module.dilation, module.drop, deploy))
            self.stages.append(nn.Sequential(*blocks))
            channels.append(narrow[-1])
        self.channels = tuple(channels)

    def forward(self, image: Tensor) -> list[Tensor]:
        """(N, 3, H, W) to the maps behind each module: at strides 1, 2, 4 and four times 8, sizes rounded up."""
        found = [self.stem(image)]
        for number, stage in enumerate(self.stages):
            found.append(stage(self.pool(found[-1]) if number < 2 else found[-1]))
        return found


class WideBlock(nn.Module):
    """Residual block with two or three convolutions, each behind its BatchNorm and ReLU, and a shortcut.

    The shortcut is the input itself, or a 1x1 convolution of the normalised input where the shape changes. With
    `deploy` BatchNorm and ReLU follow the convolutions, and the sum is activated.

    Args:
        channels_in: of the input.
        channels: behind each convolution.
        stride: of the first convolution.
        dilation: of the 3x3 convolutions.
        drop: share of channels that is dropped before the last convolution.
        deploy: build the variant.
    """

    def __init__(
        self, channels_in: int, channels: tuple[int, ...], stride: int, dilation: int, drop: float, deploy: bool
    ) -> None:
        super().__init__()
        kernels = (3, 3) if len(channels) == 2 else (1, 3, 1)
        shape_changes = stride > 1 or channels_in != channels[-1]
        self.deploy = deploy
        self.norm: nn.Module = nn.Identity() if deploy else _activation(channels_in)
        self.act: nn.Module = nn.ReLU(inplace=True) if deploy else nn.Identity()
        self.shortcut: nn.Module | None = None
        if shape_changes and deploy:
            self.shortcut = ConvBatchNorm(channels_in, channels[-1], 1, stride=stride, activation=False)
        elif shape_changes:
            self.shortcut = nn.Conv2d(channels_in, channels[-1], 1, stride, bias=False)
        layers: list[nn.Module] = []
        before, last = channels_in, len(channels) - 1
        for number, (count, kernel) in enumerate(zip(channels, kernels, strict=True)):
            rate, step = dilation if kernel == 3 else 1, stride if number == 0 else 1
            if number and not deploy:
                layers.append(_activation(before))
            if number == last and drop:
                layers.append(nn.Dropout2d(drop))
            if deploy:
                layers.append(
                    ConvBatchNorm(before, count, kernel, stride=step, dilation=rate, activation=number < last)
                )
            else:
                padding = same_padding(kernel, rate)
                layers.append(nn.Conv2d(before, count, kernel, step, padding, rate, bias=False))
            before = count
        self.convs = nn.Sequential(*layers)

    def forward(self, maps: Tensor) -> Tensor:
        """(N, channels_in, H, W) to (N, channels[-1], H / stride, W / stride)."""
        normalised = self.norm(maps)
        shortcut = maps if self.shortcut is None else self.shortcut(normalised)
        summed: Tensor = self.act(self.convs(normalised) + shortcut)
        return summed


def _activation(channels: int) -> nn.Sequential:
    return nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU(inplace=True))
