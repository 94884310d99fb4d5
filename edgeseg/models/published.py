"""What networks score: as published, each figure with its source, and as measured here; without torch.

Figures of different data sets, sizes and training recipes do not compare. Those of PaddleSeg come from one framework,
whose variants of the networks are not stated.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

__all__ = ["MEASURED", "PUBLISHED", "MeasuredScore", "PublishedScore", "scores_of"]


@dataclass(frozen=True)
class PublishedScore:
    """A mean IoU that somebody published.

    Attributes:
        network: what `create` takes.
        options: of the variant, as its card has them, without the classes.
        miou: 0..100.
        data: the data set and its split.
        source: the paper, or the public code that states it.
        note: the conditions under which it holds.
    """

    network: str
    options: Mapping[str, Any]
    miou: float
    data: str
    source: str
    note: str = ""


@dataclass(frozen=True)
class MeasuredScore:
    """A mean IoU before and after INT8, measured here; docs/benchmarks.md and the network's card say how.

    Attributes:
        network, options: as of `PublishedScore`.
        float_miou, int8_miou: 0..100.
        data: the data set, its split and the frames scored.
        weights: which ones were scored, and at which size.
    """

    network: str
    options: Mapping[str, Any]
    float_miou: float
    int8_miou: float
    data: str
    weights: str


@dataclass(frozen=True)
class _Source:
    """Where figures stand, and what they are of."""

    data: str
    source: str
    note: str = ""
    found: list[PublishedScore] = field(default_factory=list)

    def says(self, network: str, miou: float, note: str = "", **options: Any) -> _Source:
        """Take a figure down."""
        self.found.append(PublishedScore(network, options, miou, self.data, self.source, note or self.note))
        return self


Score = TypeVar("Score", PublishedScore, MeasuredScore)


def scores_of(scores: Iterable[Score], network: str, options: Mapping[str, Any]) -> tuple[Score, ...]:
    """The scores of one variant, in their order.

    Args:
        scores: PUBLISHED or MEASURED.
        network: its name.
        options: of the variant, as its card has them.
    """
    wanted = {key: value for key, value in options.items() if key != "classes"}
    return tuple(score for score in scores if score.network == network and dict(score.options) == wanted)


_TIRAMISU = "table 3 of the FC-DenseNet paper"
_NOT_STATED = "the variant is not stated"
_CRF = "with dense CRF"

_SOURCES = (
    _Source("Cityscapes val", "the paper")
    .says("bisenetv1", 76.21, "one scale", backbone="resnet18")
    .says("bisenetv1", 70.1, "one scale", backbone="xception39")
    .says("deeplabv3plus", 78.79, "whether its head is separable is not stated", backbone="xception65", head="dense"),
    _Source("Cityscapes val", "sacmehta/EdgeNets", "512x1024")
    .says("espnetv2", 53.9, width=0.5)
    .says("espnetv2", 60.1, width=1.0)
    .says("espnetv2", 63.8, width=1.5)
    .says("espnetv2", 66.4, width=2.0),
    _Source("Cityscapes val", "hszhao/semseg", "one scale")
    .says("pspnet", 77.30, backbone="resnet50")
    .says("pspnet", 78.63, backbone="resnet101"),
    _Source("Cityscapes val", "CoinCheung/BiSeNet", "one scale").says("bisenetv2", 74.95),
    _Source("Cityscapes val", "junfu1115/DANet", "one scale; the backbone is not stated").says(
        "danet", 79.93, backbone="resnet101"
    ),
    _Source("Cityscapes test", "the paper")
    .says("bisenetv1", 74.7, backbone="resnet18")
    .says("bisenetv1", 68.4, backbone="xception39")
    .says("bisenetv2", 72.6)
    .says("refinenet", 73.6, backbone="resnet101"),
    _Source("Cityscapes test", "junfu1115/DANet", "the backbone is not stated").says(
        "danet", 81.5, backbone="resnet101"
    ),
    _Source("Cityscapes test", "sacmehta/ESPNet").says("espnet", 60.336, q=8),
    _Source("Cityscapes test", "sacmehta/EdgeNets", "512x1024").says("espnetv2", 66.2, width=2.0),
    _Source("Cityscapes test", "Reagan1311/DABNet")
    .says("dabnet", 70.07, "trained on train and val")
    .says("dabnet", 69.57, "trained on train"),
    _Source("CamVid", _TIRAMISU)
    .says("fcn", 57.0, stride=8)
    .says("segnet", 46.4)
    .says("fcdensenet", 58.9, depth=56)
    .says("fcdensenet", 65.8, depth=67)
    .says("fcdensenet", 66.9, depth=103),
    _Source("CamVid", "sacmehta/ESPNet").says("espnet", 55.64, q=8).says("segnet", 55.6),
    _Source("CamVid", "Reagan1311/DABNet").says("dabnet", 66.72),
    _Source("CamVid", "the paper").says("bisenetv1", 68.7, "the backbone is not stated", backbone="resnet18"),
    _Source("VOC 2011 val", "shelhamer/fcn.berkeleyvision.org", "seg11valid")
    .says("fcn", 63.6, stride=32)
    .says("fcn", 65.0, stride=16)
    .says("fcn", 65.5, stride=8),
    _Source("VOC 2012 test", "shelhamer/fcn.berkeleyvision.org", "seg12test").says("fcn", 67.2, stride=8),
    _Source("VOC 2012 val", "the paper")
    .says("deeplabv1", 62.25, "without CRF", variant="largefov")
    .says("deeplabv1", 67.64, _CRF, variant="largefov")
    .says("deeplabv1", 64.21, "without CRF", variant="msc")
    .says("deeplabv1", 68.70, _CRF, variant="msc")
    .says("deeplabv3", 77.21, "one scale", backbone="resnet101", head="aspp", output_stride=16)
    .says("deeplabv3", 78.51, "one scale", backbone="resnet101", head="aspp", output_stride=8)
    .says("deeplabv3plus", 78.85, backbone="resnet101", head="dense")
    .says("deeplabv3plus", 79.35, backbone="resnet101", head="dense", output_stride=8)
    .says("deeplabv3plus", 79.93, backbone="xception65", head="dense")
    .says("deeplabv3plus", 79.79, backbone="xception65", head="separable"),
    _Source("VOC 2012 val", "sacmehta/EdgeNets", "384x384")
    .says("espnetv2", 47.18, width=0.5)
    .says("espnetv2", 60.22, width=1.0)
    .says("espnetv2", 63.67, width=1.5)
    .says("espnetv2", 67.01, width=2.0),
    _Source("VOC 2012 val", "DrSleep/refinenet-pytorch", "one scale").says("refinenet", 80.5, backbone="resnet101"),
    _Source("VOC 2012", "hszhao/semseg", "one scale; the split is not stated")
    .says("pspnet", 77.05, backbone="resnet50")
    .says("pspnet", 79.07, backbone="resnet101"),
    _Source("VOC 2012 test", "the paper")
    .says("deeplabv1", 70.3, _CRF, variant="largefov")
    .says("deeplabv1", 71.6, _CRF, variant="msc")
    .says("refinenet", 83.4, backbone="resnet101"),
    _Source("PASCAL Context", "wuhuikai/FastFCN", "59 classes")
    .says("fastfcn", 50.89, backbone="resnet50", head="psp")
    .says("fastfcn", 50.07, backbone="resnet50", head="deeplabv3"),
    _Source("Cityscapes val", "PaddleSeg", _NOT_STATED)
    .says("unet", 65.00, upsampling="transposed")
    .says("segnet", 60.09)
    .says("espnet", 61.82, q=8)
    .says("espnetv2", 70.88, width=2.0)
    .says("bisenetv1", 75.19, backbone="resnet18")
    .says("bisenetv2", 73.19)
    .says("fastscnn", 69.31)
    .says("pspnet", 78.83, backbone="resnet50")
    .says("pspnet", 80.48, backbone="resnet101")
    .says("deeplabv3", 79.90, backbone="resnet50", head="aspp", output_stride=16)
    .says("deeplabv3", 80.85, backbone="resnet101", head="aspp", output_stride=16)
    .says("deeplabv3plus", 81.10, backbone="resnet101", head="dense")
    .says("danet", 80.27, backbone="resnet50")
    .says("gatedscnn", 80.67, backbone="resnet50"),
)

PUBLISHED: tuple[PublishedScore, ...] = tuple(score for source in _SOURCES for score in source.found)
"""Every figure, by data set; the first of a variant is the one that tables show."""

_ESPNET = "the published CamVid weights, 360x480"
_CITYSCAPES = "the published Cityscapes weights, classes mapped to CamVid's"

MEASURED: tuple[MeasuredScore, ...] = (
    MeasuredScore("espnet", {"q": 8}, 70.05, 69.94, "CamVid val, 101 frames", _ESPNET),
    MeasuredScore("espnetv2", {"width": 0.5}, 44.27, 43.52, "CamVid val, 51 frames", f"{_CITYSCAPES}, 352x480"),
    MeasuredScore("espnetv2", {"width": 2.0}, 63.75, 63.10, "CamVid val, 51 frames", f"{_CITYSCAPES}, 512x1024"),
    MeasuredScore(
        "dabnet", {}, 65.99, 65.92, "CamVid val, 101 frames", "dabnet-dsrl-camvid of this package, 192x256 with DSRL"
    ),
)
"""What was trained or is public and was scored here, float and INT8."""
