"""FC-DenseNet, the "One Hundred Layers Tiramisu": dense blocks on both paths of a U-Net.

S. Jegou, M. Drozdzal, D. Vazquez, A. Romero, Y. Bengio, "The One Hundred Layers Tiramisu: Fully Convolutional
DenseNets for Semantic Segmentation", CVPRW 2017, arXiv 1611.09326. The structure is that of bfortuner's
pytorch_tiramisu, whose FCDenseNet57 is the paper's FC-DenseNet56.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgeseg.models.blocks import ConvBatchNorm
from edgeseg.models.network import SegmentationNetwork, initialise
from edgeseg.models.width import check_choice, check_width, scaled

__all__ = ["DEPTHS", "FCDenseNet"]


@dataclass(frozen=True)
class Depth:
    """Layers and channels of one published network (table 2).

    Attributes:
        growth: channels that each layer adds.
        layers: of the dense blocks on the way down; mirrored on the way up.
        bottleneck: layers of the block between.
    """

    growth: int
    layers: tuple[int, ...]
    bottleneck: int


DEPTHS = {
    56: Depth(12, (4, 4, 4, 4, 4), 4),
    67: Depth(16, (5, 5, 5, 5, 5), 5),
    103: Depth(16, (4, 5, 7, 10, 12), 15),
}

_STEM = 48
_DROPOUT = 0.2


class FCDenseNet(SegmentationNetwork):
    """FC-DenseNet56, 67 or 103 (section 3): every layer of a block reads all maps before it.

    The published network normalises and activates before its convolutions, what they read being concatenations: such a
    BatchNorm folds into no convolution and stays as float work between INT8 kernels. With `deploy` every BatchNorm
    follows its convolution, and concatenations are taken as they are. The variant has the same convolutions and is
    trained as such: published weights do not fit it.

    Args:
        classes: number of logits per pixel.
        deploy: build the variant.
        depth: 56, 67 or 103.
        width: share of the published channels.

    Raises:
        UsageError: for a value that it does not take.
    """

    feature_stride = 1

    def __init__(self, classes: int, deploy: bool = False, *, depth: int = 103, width: float = 1.0) -> None:
        check_choice("fcdensenet", "depth", depth, tuple(DEPTHS))
        check_width("fcdensenet", width)
        super().__init__(classes)
        plan = DEPTHS[depth]
        growth = scaled(plan.growth, width)
        channels = scaled(_STEM, width)
        self.stem = nn.Conv2d(3, channels, 3, padding=1)
        self.down, self.shrink = nn.ModuleList(), nn.ModuleList()
        skips: list[int] = []
        for layers in plan.layers:
            self.down.append(DenseBlock(channels, growth, layers, deploy))
            channels += growth * layers
            skips.append(channels)
            self.shrink.append(_layer(channels, channels, 1, deploy))
        self.bottleneck = DenseBlock(channels, growth, plan.bottleneck, deploy)
        made = growth * plan.bottleneck
        self.grow, self.up = nn.ModuleList(), nn.ModuleList()
        for layers, skip in zip(reversed(plan.layers), reversed(skips), strict=True):
            self.grow.append(nn.ConvTranspose2d(made, made, 3, stride=2))
            channels = made + skip
            self.up.append(DenseBlock(channels, growth, layers, deploy))
            made = growth * layers
        self.feature_channels = channels + made
        self.prediction = nn.Conv2d(self.feature_channels, classes, 1)
        initialise(self)

    def encode(self, image: Tensor) -> tuple[Tensor, Sequence[Tensor]]:
        """See `SegmentationNetwork.encode`."""
        maps = self.stem(image)
        skips: list[Tensor] = []
        for block, shrink in zip(self.down, self.shrink, strict=True):
            maps = torch.cat([maps, block(maps)], 1)
            skips.append(maps)
            maps = functional.max_pool2d(shrink(maps), 2)
        # On the way up only what a block has made goes on, so that the channels do not pile up.
        made = self.bottleneck(maps)
        for grow, block in zip(self.grow, self.up, strict=True):
            skip = skips.pop()
            # The kernel of 3 makes a row and a column more than twice the size: what an odd side needs.
            grown = grow(made)[:, :, : int(skip.shape[2]), : int(skip.shape[3])]
            maps = torch.cat([grown, skip], 1)
            made = block(maps)
        return torch.cat([maps, made], 1), ()

    def predict(self, features: Tensor) -> Tensor:
        """See `SegmentationNetwork.predict`."""
        logits: Tensor = self.prediction(features)
        return logits


class DenseBlock(nn.Module):
    """Dense block: each layer reads the input and what all layers before it have made.

    Args:
        channels_in: of the input.
        growth: channels that each layer makes.
        layers: number of them.
        deploy: see `FCDenseNet`.
    """

    def __init__(self, channels_in: int, growth: int, layers: int, deploy: bool) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_layer(channels_in + n * growth, growth, 3, deploy) for n in range(layers))

    def forward(self, maps: Tensor) -> Tensor:
        """(N, channels_in, H, W) to what the layers have made, (N, layers * growth, H, W)."""
        made: list[Tensor] = []
        for layer in self.layers:
            made.append(layer(torch.cat([maps, *made], 1)))
        return torch.cat(made, 1)


def _layer(channels_in: int, channels: int, kernel: int, deploy: bool) -> nn.Sequential:
    """Normalise, activate, convolve, drop; in the variant the convolution is first and has no bias."""
    if deploy:
        return nn.Sequential(
            OrderedDict(conv=ConvBatchNorm(channels_in, channels, kernel), drop=nn.Dropout2d(_DROPOUT))
        )
    return nn.Sequential(
        OrderedDict(
            norm=nn.BatchNorm2d(channels_in),
            act=nn.ReLU(inplace=True),
            conv=nn.Conv2d(channels_in, channels, kernel, padding=kernel // 2),
            drop=nn.Dropout2d(_DROPOUT),
        )
    )
