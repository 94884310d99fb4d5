"""DANet: a dilated ResNet whose features attend to one another, by position and by channel.

J. Fu, J. Liu, H. Tian, Y. Li, Y. Bao, Z. Fang, H. Lu, "Dual Attention Network for Scene Segmentation", CVPR 2019,
arXiv 1809.02983. The structure is that of the code published with it.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from edgeseg.models.attention import ChannelAttention, PositionAttention
from edgeseg.models.blocks import ConvBatchNorm
from edgeseg.models.network import SegmentationNetwork, initialise
from edgeseg.models.resnet import DEPTHS, DilatedResNet
from edgeseg.models.width import check_choice, check_width, scaled

__all__ = ["DANet"]


class DANet(SegmentationNetwork):
    """DANet (section 3.1): two branches of attention on the features of stride 8, summed.

    With `deploy` the bilinear resize of the logits places its samples with align_corners=False, the only placement
    that a DLA takes. No weight changes, but the variant is trained as such. The products and the softmax of attention
    have no INT8 form and stay in float in both variants.

    The auxiliary heads read each branch by itself.

    Args:
        classes: number of logits per pixel.
        deploy: build the variant.
        backbone: resnet50 or resnet101.
        width: fraction of the published channels, above 0 and at most 1.

    Raises:
        UsageError: for a value that it does not take.
    """

    feature_stride = 8

    def __init__(self, classes: int, deploy: bool = False, *, backbone: str = "resnet101", width: float = 1.0) -> None:
        check_choice("danet", "backbone", backbone, tuple(DEPTHS))
        check_width("danet", width)
        super().__init__(classes)
        self.align_corners = not deploy
        self.backbone = DilatedResNet(backbone, output_stride=8, multi_grid=(1, 2, 4), width=width)
        last = self.backbone.channels[3]
        channels = self.feature_channels = scaled(512, width)
        self.by_position = _branch(last, channels, PositionAttention(channels, scaled(64, width)))
        self.by_channel = _branch(last, channels, ChannelAttention())
        self.prediction = _prediction(channels, classes)
        self.auxiliary.extend(_prediction(channels, classes) for _ in range(2))
        initialise(self)

    def encode(self, image: Tensor) -> tuple[Tensor, Sequence[Tensor]]:
        """See `SegmentationNetwork.encode`."""
        last = self.backbone(image)[3]
        branches = self.by_position(last), self.by_channel(last)
        return branches[0] + branches[1], branches if self.training else ()

    def predict(self, features: Tensor) -> Tensor:
        """See `SegmentationNetwork.predict`."""
        logits: Tensor = self.prediction(features)
        return logits


def _branch(channels_in: int, channels: int, attention: nn.Module) -> nn.Sequential:
    return nn.Sequential(ConvBatchNorm(channels_in, channels, 3), attention, ConvBatchNorm(channels, channels, 3))


def _prediction(channels: int, classes: int) -> nn.Sequential:
    return nn.Sequential(nn.Dropout2d(0.1), nn.Conv2d(channels, classes, 1))
