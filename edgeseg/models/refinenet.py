"""RefineNet: the features of all four ResNet stages, refined from the coarsest to the finest.

G. Lin, A. Milan, C. Shen, I. Reid, "RefineNet: Multi-Path Refinement Networks for High-Resolution Semantic
Segmentation", CVPR 2017, arXiv 1611.06612. The structure is that of DrSleep/refinenet-pytorch.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional

from edgeseg.models.network import SegmentationNetwork, initialise, resize
from edgeseg.models.resnet import DEPTHS, DilatedResNet
from edgeseg.models.width import check_choice, check_width, scaled

__all__ = ["RefineNet"]

_POOLINGS = 4
"""Links of a pooling chain."""


class RefineNet(SegmentationNetwork):
    """RefineNet (section 3): four refinement blocks, the finest of them at stride 4.

    With `deploy` all bilinear resizes place their samples with align_corners=False, the only placement that a DLA
    takes. No weight changes, but the variant is trained as such.

    Args:
        classes: number of logits per pixel.
        deploy: build the variant.
        backbone: resnet50 or resnet101.
        width: fraction of the published channels, above 0 and at most 1.

    Raises:
        UsageError: for a value that it does not take.
    """

    feature_stride = 4

    def __init__(self, classes: int, deploy: bool = False, *, backbone: str = "resnet101", width: float = 1.0) -> None:
        check_choice("refinenet", "backbone", backbone, tuple(DEPTHS))
        check_width("refinenet", width)
        super().__init__(classes)
        self.align_corners = not deploy
        self.feature_channels = scaled(256, width)
        self.backbone = DilatedResNet(backbone, width=width)
        wide, narrow = scaled(512, width), self.feature_channels
        deepest = RefinementBlock(self.backbone.channels[3], wide, deeper=None, align_corners=self.align_corners)
        finer = [
            RefinementBlock(channels, narrow, deeper=deeper, align_corners=self.align_corners)
            for channels, deeper in zip(self.backbone.channels[2::-1], (wide, narrow, narrow), strict=True)
        ]
        self.blocks = nn.ModuleList([deepest, *finer])
        self.drop = nn.Dropout(0.5)
        self.prediction = _conv(self.feature_channels, classes, bias=True)
        # The decoder keeps torch's own start, as in that code: without BatchNorm, Kaiming weights in its two dozen
        # residual units and pooling chains give logits of 100,000, from which no training recovers.
        initialise(self.backbone)

    def encode(self, image: Tensor) -> tuple[Tensor, Sequence[Tensor]]:
        """See `SegmentationNetwork.encode`."""
        first, second, third, fourth = self.backbone(image)
        deepest, *finer = self.blocks
        maps = deepest(self.drop(fourth), None)
        for block, stage in zip(finer, (self.drop(third), second, first), strict=True):
            maps = block(stage, maps)
        return self.drop(maps), ()

    def predict(self, features: Tensor) -> Tensor:
        """See `SegmentationNetwork.predict`."""
        logits: Tensor = self.prediction(features)
        return logits


class RefinementBlock(nn.Module):
    """Refinement block (section 3.2): two residual units per input, fusion, chained pooling, three residual units.

    Args:
        channels_in: of the backbone's features.
        channels: of the output.
        deeper: channels of the deeper block's output; None for the deepest block, which fuses nothing.
        align_corners: of the resize of the deeper block's output.
    """

    def __init__(self, channels_in: int, channels: int, *, deeper: int | None, align_corners: bool) -> None:
        super().__init__()
        self.align_corners = align_corners
        self.reduce = _conv(channels_in, channels)
        self.adapt = nn.Sequential(ResidualUnit(channels), ResidualUnit(channels))
        self.fuse_own: nn.Module = nn.Identity()
        self.fuse_deeper: nn.Module = nn.Identity()
        if deeper is not None:
            self.fuse_own, self.fuse_deeper = _conv(channels, channels), _conv(deeper, channels)
        self.pooling = ChainedPooling(channels)
        self.out = nn.Sequential(*(ResidualUnit(channels) for _ in range(3)))

    def forward(self, maps: Tensor, deeper: Tensor | None) -> Tensor:
        """Features (N, channels_in, H, W) and the deeper block's output of any size to (N, channels, H, W)."""
        own: Tensor = self.fuse_own(self.adapt(self.reduce(maps)))
        if deeper is not None:
            # A resize and a convolution swap up to the borders; the convolution is cheaper before it.
            size = int(own.shape[2]), int(own.shape[3])
            own = own + resize(self.fuse_deeper(deeper), *size, self.align_corners)
        refined: Tensor = self.out(self.pooling(own))
        return refined


class ResidualUnit(nn.Module):
    """Residual convolution unit: ReLU and 3x3 convolution twice, added to the input; no BatchNorm."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = _conv(channels, channels, bias=True)
        self.second = _conv(channels, channels)

    def forward(self, maps: Tensor) -> Tensor:
        """(N, channels, H, W) to the same shape."""
        summed: Tensor = self.second(functional.relu(self.first(functional.relu(maps)))) + maps
        return summed


class ChainedPooling(nn.Module):
    """Chained residual pooling: one ReLU, then a 5x5 max-pooling and a 3x3 convolution after each other, all summed."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.pool = nn.MaxPool2d(5, stride=1, padding=2)
        self.convs = nn.ModuleList(_conv(channels, channels) for _ in range(_POOLINGS))

    def forward(self, maps: Tensor) -> Tensor:
        """(N, channels, H, W) to the same shape."""
        link = total = functional.relu(maps)
        for conv in self.convs:
            link = conv(self.pool(link))
            total = total + link
        return total


def _conv(channels_in: int, channels: int, *, bias: bool = False) -> nn.Conv2d:
    return nn.Conv2d(channels_in, channels, 3, padding=1, bias=bias)
