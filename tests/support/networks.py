"""A small torch network with what the published ones hold: BatchNorm, PReLU, a global pooling, an auxiliary head."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from edgeseg.models.network import SegmentationNetwork, initialise
from edgeseg.models.resnet import Bottleneck
from edgeseg.models.xception import XceptionBlock

__all__ = ["SMALL", "TinyNetwork", "calm_residuals", "tiny_network"]

SMALL: dict[str, dict[str, Any]] = {
    "espnetv2": {"width": 0.5},
    "crfasrnn": {"width": 0.125},
    "danet": {"backbone": "resnet50", "width": 0.125},
    "deeplabv1": {"variant": "msc", "width": 0.125},
    "deeplabv3": {"backbone": "resnet50", "width": 0.125},
    "deeplabv3plus": {"backbone": "resnet50", "width": 0.125},
    "fastfcn": {"width": 0.125},
    "fcdensenet": {"depth": 56, "width": 0.5},
    "fcn": {"width": 0.125},
    "gatedscnn": {"width": 0.125},
    "masklab": {"backbone": "resnet50", "smallest_anchor": 8, "width": 0.125},
    "parsenet": {"width": 0.125},
    "segnet": {"width": 0.125},
    "unet": {"width": 0.125},
    "pspnet": {"width": 0.125},
    "refinenet": {"backbone": "resnet50", "width": 0.125},
}
"""Options for `create` that make the networks of the registry small enough to be built in a test."""


class TinyNetwork(SegmentationNetwork):
    """Two strided convolutions, a gate and a prediction layer.

    Args:
        classes: number of logits per pixel.
        scale: size of the logits over the size of the image.
    """

    feature_channels = 16
    feature_stride = 4

    def __init__(self, classes: int, scale: int = 1) -> None:
        super().__init__(classes)
        self.output_scale = scale
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.PReLU(8))
        self.down = nn.Sequential(nn.Conv2d(8, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
        self.head = nn.Conv2d(16, classes, 1)
        self.auxiliary.append(nn.Conv2d(8, classes, 1))
        initialise(self)

    def encode(self, image: Tensor) -> tuple[Tensor, Sequence[Tensor]]:
        stem = self.stem(image)
        features = self.down(stem)
        gate = torch.sigmoid(features.mean((2, 3), keepdim=True))
        return features * gate, (stem,) if self.training else ()

    def predict(self, features: Tensor) -> Tensor:
        logits: Tensor = self.head(features)
        return logits


def tiny_network(classes: int = 4, scale: int = 1, seed: int = 0) -> TinyNetwork:
    """A `TinyNetwork` in `eval()` with seeded weights, no bias or statistic of which is its initial zero or one."""
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        network = TinyNetwork(classes, scale)
        for norm in (network.stem[1], network.down[1]):
            norm.bias.normal_(0, 0.2)
            norm.running_mean.normal_(0, 0.2)
            norm.running_var.uniform_(0.5, 1.5)
        network.head.bias.normal_(0, 0.1)
    return network.eval()


def calm_residuals(network: nn.Module) -> None:
    """Let the residual blocks of a deep classifier start near the identity, as they are after training.

    A hundred random layers with BatchNorm amplify rounding ten thousand times: torch in float32 and in float64 then
    choose different classes, and no comparison of engines means anything.
    """
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, (Bottleneck, XceptionBlock)):
                last = "expand.norm" if isinstance(module, Bottleneck) else "third.pointwise.norm"
                module.get_parameter(f"{last}.weight").fill_(0.2)
