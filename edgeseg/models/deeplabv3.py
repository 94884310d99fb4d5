"""DeepLabv3: a dilated ResNet with either atrous spatial pyramid pooling or a cascade of further dilated blocks.

L.-C. Chen, G. Papandreou, F. Schroff, H. Adam, "Rethinking Atrous Convolution for Semantic Image Segmentation", 2017,
arXiv 1706.05587. Parameters of the pyramid's form are those of kazuto1011/deeplab-pytorch; no public code builds the
cascade, so its count is that of the paper's figure 3.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from edgeseg.models.network import SegmentationNetwork, initialise
from edgeseg.models.pyramid import ASPP
from edgeseg.models.resnet import DEPTHS, DilatedResNet, residual_stage
from edgeseg.models.width import check_choice, check_width, scaled

__all__ = ["DeepLabv3"]

_GRIDS: dict[str, tuple[int, int, int]] = {"aspp": (1, 2, 4), "cascade": (1, 2, 1)}
"""Multi-grid of each form, which the paper found best (tables 3 and 5)."""


class DeepLabv3(SegmentationNetwork):
    """DeepLabv3 (section 3): logits from the features of stride 8 or 16 alone.

    Args:
        classes: number of logits per pixel.
        deploy: changes nothing; every layer suits INT8 engines as it is.
        backbone: resnet50 or resnet101.
        head: "aspp" for parallel rates; "cascade" for three copies of the last block, each at twice the rate of the
            one before it.
        output_stride: 16, or 8 for denser features with the same weights.
        width: fraction of the published channels, above 0 and at most 1.

    Raises:
        UsageError: for a value that it does not take.
    """

    def __init__(
        self,
        classes: int,
        deploy: bool = False,
        *,
        backbone: str = "resnet101",
        head: str = "aspp",
        output_stride: int = 16,
        width: float = 1.0,
    ) -> None:
        check_choice("deeplabv3", "backbone", backbone, tuple(DEPTHS))
        check_choice("deeplabv3", "head", head, tuple(_GRIDS))
        check_choice("deeplabv3", "output_stride", output_stride, (8, 16))
        check_width("deeplabv3", width)
        super().__init__(classes)
        self.feature_stride = output_stride
        grid = _GRIDS[head]
        self.backbone = DilatedResNet(backbone, output_stride=output_stride, multi_grid=grid, width=width)
        last = self.backbone.channels[3]
        self.context: nn.Module
        if head == "aspp":
            self.feature_channels = scaled(256, width)
            self.context = ASPP(last, self.feature_channels, output_stride, align_corners=self.align_corners)
        else:
            self.feature_channels = last
            self.context = _cascade(last, 32 // output_stride, grid)
        self.prediction = nn.Conv2d(self.feature_channels, classes, 1)
        initialise(self)

    def encode(self, image: Tensor) -> tuple[Tensor, Sequence[Tensor]]:
        """See `SegmentationNetwork.encode`."""
        features: Tensor = self.context(self.backbone(image)[3])
        return features, ()

    def predict(self, features: Tensor) -> Tensor:
        """See `SegmentationNetwork.predict`."""
        logits: Tensor = self.prediction(features)
        return logits


def _cascade(channels: int, rate: int, grid: tuple[int, int, int]) -> nn.Sequential:
    """Blocks 5, 6 and 7 (section 3.2): copies of block 4, whose rate is given, at 2, 4 and 8 times that rate."""
    return nn.Sequential(
        *(
            residual_stage(
                channels, channels // 4, 1, (rate * times * grid[0], rate * times * grid[1], rate * times * grid[2])
            )
            for times in (2, 4, 8)
        )
    )
