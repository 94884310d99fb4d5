"""Gated-SCNN: a stream of shape beside the features of a classifier, and a pyramid that reads both.

T. Takikawa, D. Acuna, V. Jampani, S. Fidler, "Gated-SCNN: Gated Shape CNNs for Semantic Segmentation", ICCV 2019,
arXiv 1907.05740. The structure is that of the code published with it, apart from what `GatedSCNN` says.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgeseg.models.backbones import BasicBlock
from edgeseg.models.blocks import ConvBatchNorm
from edgeseg.models.network import SegmentationNetwork, initialise, resize
from edgeseg.models.pyramid import AtrousBranches
from edgeseg.models.resnet import DEPTHS, DilatedResNet
from edgeseg.models.wideresnet import WideResNet38
from edgeseg.models.width import check_choice, check_width, scaled

__all__ = ["GatedConvolution", "GatedSCNN", "image_gradient"]


class _Maps(NamedTuple):
    """What the trunk gives: what the shape stream starts from, what the decoder reads, three maps for gates."""

    fine: Tensor
    early: Tensor
    gates: tuple[Tensor, Tensor, Tensor]


class GatedSCNN(SegmentationNetwork):
    """Gated-SCNN (section 3): regular stream, shape stream at the size of the image, fusion.

    Published is the trunk `wideresnet38`; its code holds one convolution that nothing reads (`dsn1`, 65 parameters),
    which stands here too, so that the count and the weights are the published ones. ResNet-50 and ResNet-101 of stride
    8 are our choice, for a cheaper trunk: the shape stream starts from the stem, gates read the stages 1, 2 and 4, and
    the decoder reads stage 1.

    The published code runs Canny's edge detector on the normalised image, cast to bytes, outside the network. No graph
    holds such a detector; its place takes `image_gradient`, which is computed in the network: published weights lose
    accuracy on it. The loss on boundaries needs their labels; `boundaries` gives the logits for it.

    With `deploy` every BatchNorm of WideResNet-38 stands behind its convolution, into which it folds, the unread
    convolution is left out, and bilinear resizes place their samples with align_corners=False, the only placement that
    a DLA takes; the variant is trained as such, and published weights do not fit it.

    Args:
        classes: number of logits per pixel.
        deploy: build the variant.
        backbone: wideresnet38, resnet50 or resnet101.
        width: fraction of the published channels, above 0 and at most 1.

    Raises:
        UsageError: for a value that it does not take.
    """

    def __init__(
        self, classes: int, deploy: bool = False, *, backbone: str = "wideresnet38", width: float = 1.0
    ) -> None:
        check_choice("gatedscnn", "backbone", backbone, ("wideresnet38", *DEPTHS))
        check_width("gatedscnn", width)
        super().__init__(classes)
        self.inner_align_corners = not deploy
        self.backbone: WideResNet38 | DilatedResNet
        if backbone == "wideresnet38":
            self.backbone = WideResNet38(deploy=deploy, width=width)
            first, early, *gates = (self.backbone.channels[n] for n in (0, 1, 2, 3, 6))
        else:
            self.backbone = DilatedResNet(backbone, output_stride=8, width=width)
            stages = self.backbone.channels
            first, early, gates = scaled(64, width), stages[0], [stages[0], stages[1], stages[3]]
        self.feature_stride = 2 if backbone == "wideresnet38" else 4
        self.unread = nn.Conv2d(first, 1, 1) if backbone == "wideresnet38" and not deploy else None
        self.shape = ShapeStream(first, tuple(gates), width, self.inner_align_corners)
        self.edges = nn.Conv2d(2, 1, 1, bias=False)
        channels = scaled(256, width)
        self.pyramid = AtrousBranches(gates[-1], channels, 8, align_corners=self.inner_align_corners)
        self.edge_branch = ConvBatchNorm(1, channels, 1)
        self.reduce_pyramid = nn.Conv2d(6 * channels, channels, 1, bias=False)
        self.reduce_early = nn.Conv2d(early, scaled(48, width), 1, bias=False)
        self.feature_channels = channels
        self.decoder = nn.Sequential(
            ConvBatchNorm(scaled(48, width) + channels, channels, 3), ConvBatchNorm(channels, channels, 3)
        )
        self.prediction = nn.Conv2d(channels, classes, 1, bias=False)
        initialise(self)

    def encode(self, image: Tensor) -> tuple[Tensor, Sequence[Tensor]]:
        """See `SegmentationNetwork.encode`."""
        maps = self._trunk(image)
        size = int(image.shape[2]), int(image.shape[3])
        shape = torch.sigmoid(self.shape(maps.fine, maps.gates, size))
        edges = torch.sigmoid(self.edges(torch.cat([shape, image_gradient(image)], 1)))
        last = maps.gates[-1]
        small = resize(edges, int(last.shape[2]), int(last.shape[3]), self.inner_align_corners)
        context = self.reduce_pyramid(torch.cat([*self.pyramid.read(last), self.edge_branch(small)], 1))
        early = self.reduce_early(maps.early)
        context = resize(context, int(early.shape[2]), int(early.shape[3]), self.inner_align_corners)
        features: Tensor = self.decoder(torch.cat([early, context], 1))
        return features, ()

    def predict(self, features: Tensor) -> Tensor:
        """See `SegmentationNetwork.predict`."""
        logits: Tensor = self.prediction(features)
        return logits

    def boundaries(self, image: Tensor) -> Tensor:
        """Logits (N, 1, H, W) of whether a pixel lies on the boundary of a class, for a loss on the shape stream."""
        maps = self._trunk(image)
        logits: Tensor = self.shape(maps.fine, maps.gates, (int(image.shape[2]), int(image.shape[3])))
        return logits

    def _trunk(self, image: Tensor) -> _Maps:
        if isinstance(self.backbone, WideResNet38):
            found = self.backbone(image)
            return _Maps(found[0], found[1], (found[2], found[3], found[6]))
        fine = self.backbone.stem.get_submodule("conv")(image)
        first, second, _, last = self.backbone.run_stages(self.backbone.stem.get_submodule("pool")(fine))
        return _Maps(fine, first, (first, second, last))


class ShapeStream(nn.Module):
    """Three residual blocks at the size of the image, each narrowed and gated by a deeper map (section 3.2).

    Args:
        channels_in: of the map that it starts from; each step halves the channels.
        gates: channels of the three deeper maps.
        width: fraction of the channels.
        align_corners: of the resizes.
    """

    def __init__(self, channels_in: int, gates: tuple[int, ...], width: float, align_corners: bool) -> None:
        super().__init__()
        self.align_corners = align_corners
        self.sides = nn.ModuleList(nn.Conv2d(channels, 1, 1) for channels in gates)
        self.blocks, self.narrow, self.gated = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        before = channels_in
        for after in (scaled(count, width) for count in (32, 16, 8)):
            self.blocks.append(BasicBlock(before, before, 1))
            self.narrow.append(nn.Conv2d(before, after, 1))
            self.gated.append(GatedConvolution(after))
            before = after
        self.fuse = nn.Conv2d(before, 1, 1, bias=False)

    def forward(self, fine: Tensor, gates: tuple[Tensor, Tensor, Tensor], size: tuple[int, int]) -> Tensor:
        """The starting map and three deeper ones to logits of boundaries, (N, 1, *size)."""
        maps = resize(fine, *size, self.align_corners)
        for side, block, narrow, gated, gate in zip(
            self.sides, self.blocks, self.narrow, self.gated, gates, strict=True
        ):
            opened = resize(side(gate), *size, self.align_corners)
            maps = gated(narrow(block(maps)), opened)
        logits: Tensor = self.fuse(maps)
        return logits


class GatedConvolution(nn.Module):
    """Gated convolution (section 3.2): each pixel is weighed by what it and a deeper map say, then convolved by 1x1.

    Args:
        channels: of the input and of the output.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        joined = channels + 1
        self.gate = nn.Sequential(
            nn.BatchNorm2d(joined),
            nn.Conv2d(joined, joined, 1),
            nn.ReLU(inplace=True),
            nn.Conv2d(joined, 1, 1),
            nn.BatchNorm2d(1),
            nn.Sigmoid(),
        )
        self.conv = nn.Conv2d(channels, channels, 1, bias=False)

    def forward(self, maps: Tensor, deeper: Tensor) -> Tensor:
        """Maps (N, channels, H, W) and a map (N, 1, H, W) to (N, channels, H, W)."""
        alpha = self.gate(torch.cat([maps, deeper], 1))
        weighed: Tensor = self.conv(maps * (alpha + 1))
        return weighed


def image_gradient(image: Tensor) -> Tensor:
    """How much an image changes at each pixel: Sobel's two derivatives, their magnitudes summed and cut off at 1.

    Args:
        image: (N, 3, H, W), normalised; the derivatives are those of the mean of the channels.

    Returns:
        (N, 1, H, W) between 0 and 1.
    """
    across = torch.tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]]) / 8
    kernels = torch.stack([across, across.T])[:, None].expand(2, 3, 3, 3) / 3
    change = functional.conv2d(image, kernels.to(image), padding=1)
    magnitude = functional.relu(change) + functional.relu(-change)
    return (magnitude[:, :1] + magnitude[:, 1:]).clamp(max=1)
