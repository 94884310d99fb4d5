"""VGG-16 as a backbone: thirteen 3x3 convolutions in five stages, and its ImageNet weights from torchvision's file.

K. Simonyan, A. Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition", ICLR 2015,
arXiv 1409.1556, configuration D.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgeseg.errors import InputError
from edgeseg.models.width import scaled

__all__ = ["STAGES", "VGG16", "copy_vgg16", "halve"]

STAGES = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))
"""(channels, convolutions) of each stage; a max-pooling follows each."""


class VGG16(nn.Module):
    """The five stages of VGG-16, without its classifier.

    Args:
        width: share of the published channels.
        padding: zeros at each side of the image; 1 keeps the size.

    Attributes:
        convolutions: the thirteen, in order.
        channels: of each stage.
    """

    def __init__(self, width: float = 1.0, padding: int = 1) -> None:
        super().__init__()
        self.channels = tuple(scaled(channels, width) for channels, _ in STAGES)
        self.stages = nn.ModuleList()
        before = 3
        for channels, (_, count) in zip(self.channels, STAGES, strict=True):
            layers: list[nn.Module] = []
            for _ in range(count):
                around = padding if before == 3 and not self.stages and not layers else 1
                layers += [nn.Conv2d(before, channels, 3, padding=around), nn.ReLU(inplace=True)]
                before = channels
            self.stages.append(nn.Sequential(*layers))

    @property
    def convolutions(self) -> list[nn.Conv2d]:
        """See `VGG16`."""
        return [module for module in self.modules() if isinstance(module, nn.Conv2d)]

    def forward(self, image: Tensor) -> list[Tensor]:
        """(N, 3, H, W) float32 to the five pooled maps, at strides 2, 4, 8, 16 and 32, sizes rounded up."""
        pooled: list[Tensor] = []
        maps = image
        for stage in self.stages:
            maps = halve(stage(maps))
            pooled.append(maps)
        return pooled


def halve(maps: Tensor) -> Tensor:
    """Max-pooling 2x2 of (N, C, H, W), sizes rounded up as in Caffe."""
    odd = maps.shape[2] % 2 == 1 or maps.shape[3] % 2 == 1
    # Said only where it matters: some engines take no pooling that rounds up.
    return functional.max_pool2d(maps, 2, ceil_mode=odd)


def copy_vgg16(convolutions: list[nn.Conv2d], fully_connected: list[nn.Conv2d], state: Mapping[str, Tensor]) -> None:
    """Copy ImageNet's weights of VGG-16 into convolutions; a fully connected layer becomes the convolution it is.

    Args:
        convolutions: the thirteen, in order; changed in place.
        fully_connected: the convolutions that stand for the first linear layers, in order; empty for none.
        state: the state dict of torchvision's `vgg16`: `features.*` and `classifier.*`.

    Raises:
        InputError: for a state dict of another network; nothing is copied then.
    """
    features = _layers(state, "features.", 4)
    linear = _layers(state, "classifier.", 2)[: len(fully_connected)]
    targets, sources = [*convolutions, *fully_connected], [*features, *linear]
    if len(targets) != len(sources):
        raise InputError(
            f"expected the state dict of torchvision's vgg16 with {len(convolutions)} convolutions and "
            f"{len(fully_connected)} linear layers to copy, but it holds {len(features)} and {len(linear)}; "
            "vgg16_bn and other depths do not fit"
        )
    for target, name in zip(targets, sources, strict=True):
        if state[f"{name}.weight"].numel() != target.weight.numel():
            raise InputError(
                f"{name}.weight has shape {tuple(state[f'{name}.weight'].shape)}, but {tuple(target.weight.shape)} is "
                "expected; ImageNet's weights fit the network of width 1"
            )
    with torch.no_grad():
        for target, name in zip(targets, sources, strict=True):
            target.weight.copy_(state[f"{name}.weight"].reshape(target.weight.shape))
            if target.bias is not None:
                target.bias.copy_(state[f"{name}.bias"])


def _layers(state: Mapping[str, Tensor], prefix: str, dimensions: int) -> list[str]:
    """Names of the layers with a weight of so many dimensions, in the order of their numbers."""
    names = [n[: -len(".weight")] for n in state if n.startswith(prefix) and n.endswith(".weight")]
    found = [n for n in names if state[f"{n}.weight"].ndim == dimensions and n[len(prefix) :].isdigit()]
    return sorted(found, key=lambda n: int(n[len(prefix) :]))
