"""SegNet: VGG-16 as encoder, its mirror as decoder, which puts values back to where pooling took them from.

V. Badrinarayanan, A. Kendall, R. Cipolla, "SegNet: A Deep Convolutional Encoder-Decoder Architecture for Image
Segmentation", PAMI 2017, arXiv 1511.00561. The structure is that of the SegNet-Tutorial published with it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from itertools import pairwise

from torch import Tensor, nn

from edgeseg.models.network import SegmentationNetwork, initialise
from edgeseg.models.unpooling import Largest, largest_of_windows, max_unpool
from edgeseg.models.vgg import STAGES, copy_vgg16, halve
from edgeseg.models.width import check_width, scaled

__all__ = ["SegNet"]


class SegNet(SegmentationNetwork):
    """SegNet (section 3). Pooling indices become comparisons, which TensorRT takes; see `edgeseg.models.unpooling`.

    Args:
        classes: number of logits per pixel.
        deploy: changes nothing.
        width: share of the published channels.

    Raises:
        UsageError: for a width that it does not take.
    """

    feature_stride = 1
    # With random weights up to 0.8 % of the pixels of one image: one maximum that changes place moves all behind it.
    unsteady = 0.02

    def __init__(self, classes: int, deploy: bool = False, *, width: float = 1.0) -> None:
        del deploy
        check_width("segnet", width)
        super().__init__(classes)
        wide = [(scaled(channels, width), count) for channels, count in STAGES]
        self.feature_channels = wide[0][0]
        self.encoder, self.decoder = nn.ModuleList(), nn.ModuleList()
        before = 3
        for channels, count in wide:
            self.encoder.append(nn.Sequential(*_stage([before, *[channels] * count])))
            before = channels
        for level in range(len(wide) - 1, -1, -1):
            channels, count = wide[level]
            # The last convolution of a level gives the channels of the next; that of the last is the prediction.
            after = [wide[level - 1][0]] if level else []
            self.decoder.append(nn.Sequential(*_stage([channels] * count + after)))
        self.prediction = nn.Conv2d(self.feature_channels, classes, 3, padding=1)
        initialise(self)

    def encode(self, image: Tensor) -> tuple[Tensor, Sequence[Tensor]]:
        """See `SegmentationNetwork.encode`."""
        chosen: list[Largest] = []
        maps = image
        for stage in self.encoder:
            maps = stage(maps)
            chosen.append(largest_of_windows(maps))
            maps = halve(maps)
        for stage in self.decoder:
            maps = stage(max_unpool(maps, chosen.pop()))
        return maps, ()

    def predict(self, features: Tensor) -> Tensor:
        """See `SegmentationNetwork.predict`."""
        logits: Tensor = self.prediction(features)
        return logits

    def copy_vgg16(self, state: Mapping[str, Tensor]) -> None:
        """Start the encoder from ImageNet: copy VGG-16's thirteen convolutions.

        Args:
            state: the state dict of torchvision's `vgg16`.

        Raises:
            InputError: for the state dict of another network.
        """
        copy_vgg16([m for m in self.encoder.modules() if isinstance(m, nn.Conv2d)], [], state)


def _stage(channels: Sequence[int]) -> list[nn.Module]:
    """3x3 convolutions from each number of channels to the next. The bias before BatchNorm is the published one."""
    return [
        nn.Sequential(
            OrderedDict(
                conv=nn.Conv2d(before, after, 3, padding=1), norm=nn.BatchNorm2d(after), act=nn.ReLU(inplace=True)
            )
        )
        for before, after in pairwise(channels)
    ]
