"""PSPNet: a dilated ResNet, pyramid pooling of its last features, and a classifier at stride 8.

H. Zhao, J. Shi, X. Qi, X. Wang, J. Jia, "Pyramid Scene Parsing Network", CVPR 2017, arXiv 1612.01105. The structure is
that of its author's code in torch (semseg), with three 3x3 convolutions as stem.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from edgeseg.models.blocks import ConvBatchNorm, auxiliary_head
from edgeseg.models.network import SegmentationNetwork, initialise
from edgeseg.models.pyramid import PyramidPooling
from edgeseg.models.resnet import DEPTHS, DilatedResNet
from edgeseg.models.width import check_choice, check_width, scaled

__all__ = ["PSPNet"]


class PSPNet(SegmentationNetwork):
    """PSPNet (section 3.3).

    In an exported graph the pyramid's pooling to sizes that do not divide is a product with constant averaging
    matrices; see `edgeseg.models.pooling`. With `deploy` all bilinear resizes place their samples with
    align_corners=False, the only placement that a DLA takes. No weight changes, but the variant is trained as such.

    The auxiliary head reads the features of the third stage.

    Args:
        classes: number of logits per pixel.
        deploy: build the variant.
        backbone: resnet50 or resnet101.
        width: fraction of the published channels, above 0 and at most 1.

    Raises:
        UsageError: for a value that it does not take.
    """

    feature_stride = 8

    def __init__(self, classes: int, deploy: bool = False, *, backbone: str = "resnet50", width: float = 1.0) -> None:
        check_choice("pspnet", "backbone", backbone, tuple(DEPTHS))
        check_width("pspnet", width)
        super().__init__(classes)
        self.align_corners = not deploy
        self.feature_channels = scaled(512, width)
        self.backbone = DilatedResNet(backbone, output_stride=8, deep_stem=True, width=width)
        third, last = self.backbone.channels[2:]
        self.pyramid = PyramidPooling(last, self.align_corners)
        self.classifier = nn.Sequential(ConvBatchNorm(2 * last, self.feature_channels, 3), nn.Dropout2d(0.1))
        self.prediction = nn.Conv2d(self.feature_channels, classes, 1)
        self.auxiliary.append(auxiliary_head(third, scaled(256, width), classes))
        initialise(self)

    def encode(self, image: Tensor) -> tuple[Tensor, Sequence[Tensor]]:
        """See `SegmentationNetwork.encode`."""
        _, _, third, last = self.backbone(image)
        features: Tensor = self.classifier(self.pyramid(last))
        return features, (third,) if self.training else ()

    def predict(self, features: Tensor) -> Tensor:
        """See `SegmentationNetwork.predict`."""
        logits: Tensor = self.prediction(features)
        return logits
