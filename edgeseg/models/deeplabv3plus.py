"""DeepLabv3+: DeepLabv3's features, refined at stride 4 by a small decoder.

L.-C. Chen, Y. Zhu, G. Papandreou, F. Schroff, H. Adam, "Encoder-Decoder with Atrous Separable Convolution for Semantic
Image Segmentation", ECCV 2018, arXiv 1802.02611. The dense head is that of jfzhang95/pytorch-deeplab-xception, the
separable one that of segmentation_models_pytorch.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from edgeseg.models.blocks import ConvBatchNorm
from edgeseg.models.network import SegmentationNetwork, initialise, resize
from edgeseg.models.pyramid import ASPP, separable_atrous
from edgeseg.models.resnet import DilatedResNet
from edgeseg.models.width import check_choice, check_width, scaled
from edgeseg.models.xception import AlignedXception65

__all__ = ["DeepLabv3Plus"]

_LOW_LEVEL = 48
"""Channels that the low-level features are reduced to (table 1)."""


class DeepLabv3Plus(SegmentationNetwork):
    """DeepLabv3+ (section 3.1): encoder, and the decoder of `Decoder`.

    With `deploy` all bilinear resizes place their samples with align_corners=False, the only placement that a DLA
    takes. No weight changes, but the variant is trained as such.

    Args:
        classes: number of logits per pixel.
        deploy: build the variant.
        backbone: resnet50, resnet101 or xception65.
        head: "dense" or "separable" 3x3 convolutions, in the pyramid and in the decoder.
        output_stride: of the encoder: 16, or 8 for denser features with the same weights.
        width: fraction of the published channels, above 0 and at most 1.

    Raises:
        UsageError: for a value that it does not take.
    """

    feature_stride = 4

    def __init__(
        self,
        classes: int,
        deploy: bool = False,
        *,
        backbone: str = "resnet101",
        head: str = "dense",
        output_stride: int = 16,
        width: float = 1.0,
    ) -> None:
        check_choice("deeplabv3plus", "backbone", backbone, ("resnet50", "resnet101", "xception65"))
        check_choice("deeplabv3plus", "head", head, ("dense", "separable"))
        check_choice("deeplabv3plus", "output_stride", output_stride, (8, 16))
        check_width("deeplabv3plus", width)
        super().__init__(classes)
        self.align_corners = not deploy
        self.feature_channels = scaled(256, width)
        separable = head == "separable"
        self.backbone: nn.Module
        channels: tuple[int, ...]
        if backbone == "xception65":
            xception = AlignedXception65(output_stride=output_stride, width=width)
            # The codes differ: the dense one reads entry block 1, the separable one block 2 before its stride.
            self.low_level = 1 if separable else 0
            channels = xception.channels
            self.backbone = xception
        else:
            resnet = DilatedResNet(backbone, output_stride=output_stride, multi_grid=(1, 2, 4), width=width)
            self.low_level = 0
            channels = resnet.channels
            self.backbone = resnet
        self.context = ASPP(
            channels[-1],
            self.feature_channels,
            output_stride,
            align_corners=self.align_corners,
            separable=separable,
        )
        self.decoder = Decoder(
            self.feature_channels,
            channels[self.low_level],
            scaled(_LOW_LEVEL, width),
            align_corners=self.align_corners,
            separable=separable,
        )
        self.prediction = nn.Conv2d(self.feature_channels, classes, 1)
        initialise(self)

    def encode(self, image: Tensor) -> tuple[Tensor, Sequence[Tensor]]:
        """See `SegmentationNetwork.encode`."""
        found = self.backbone(image)
        features: Tensor = self.decoder(self.context(found[-1]), found[self.low_level])
        return features, ()

    def predict(self, features: Tensor) -> Tensor:
        """See `SegmentationNetwork.predict`."""
        logits: Tensor = self.prediction(features)
        return logits


class Decoder(nn.Module):
    """The decoder (section 3.1): the encoder's features resized to low-level ones, joined, and convolved twice.

    The dense form has two 3x3 convolutions behind the join, which the paper found best (table 2); the separable form
    has one before the resize and one behind the join, as in the code whose count it has.

    Args:
        channels: of the encoder's features and of the output.
        low_level: channels of the low-level features.
        reduced: channels that these are reduced to.
        align_corners: of the resize.
        separable: build the separable form.
    """

    def __init__(self, channels: int, low_level: int, reduced: int, *, align_corners: bool, separable: bool) -> None:
        super().__init__()
        self.align_corners = align_corners
        self.reduce = ConvBatchNorm(low_level, reduced, 1)
        self.before: nn.Module
        self.behind: nn.Module
        if separable:
            self.before = nn.Sequential(nn.Dropout(0.5), separable_atrous(channels, channels))
            self.behind = separable_atrous(channels + reduced, channels)
        else:
            self.before = nn.Identity()
            self.behind = nn.Sequential(
                ConvBatchNorm(channels + reduced, channels, 3),
                nn.Dropout(0.5),
                ConvBatchNorm(channels, channels, 3),
                nn.Dropout(0.1),
            )

    def forward(self, context: Tensor, low_level: Tensor) -> Tensor:
        """Context (N, channels, h, w) and low-level features (N, low_level, H, W) to (N, channels, H, W)."""
        size = int(low_level.shape[2]), int(low_level.shape[3])
        resized = resize(self.before(context), *size, self.align_corners)
        refined: Tensor = self.behind(torch.cat([resized, self.reduce(low_level)], 1))
        return refined
