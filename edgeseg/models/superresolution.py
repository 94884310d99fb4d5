"""A network whose class map is twice as large as its image: the deployed half of dual super-resolution learning.

L. Wang, D. Li, Y. Zhu, L. Tian, Y. Shan, "Dual Super-Resolution Learning for Semantic Segmentation", CVPR 2020:
semantic segmentation super-resolution (SSSR) is an upsampling of a few transposed convolutions on the features of a
network. It stays at inference, and so does its cost; what only training needs is in `edgeseg.training.dsrl`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from edgeseg.errors import UsageError
from edgeseg.models.network import SegmentationNetwork, initialise

__all__ = ["SuperResolvedNetwork"]


class SuperResolvedNetwork(SegmentationNetwork):
    """A network with an SSSR head in the place of its prediction layer: logits at twice the size of the image.

    The head is a 1x1 convolution to few channels, transposed convolutions of stride 2 until the features are at half
    the size of the image (at least one), each with BatchNorm and ReLU, and a 1x1 prediction. A bilinear resize brings
    the logits to their size.

    Args:
        base: the network that gives the features, fresh or with its weights loaded. It is taken over: its prediction
            layer is removed and its auxiliary heads move to this network.
        channels: of the head.
        kernel: side of the transposed convolutions: 2, whose kernels do not overlap, or 4, at four times the cost.

    Raises:
        UsageError: for values that it does not take.

    Attributes:
        base: the features.
        steps: number of transposed convolutions.
        expand: the head without its prediction.
        prediction: the 1x1 convolution to logits.
    """

    output_scale = 2

    def __init__(self, base: SegmentationNetwork, *, channels: int = 32, kernel: int = 2) -> None:
        if base.output_scale != 1:
            raise UsageError("the base of a super-resolved network must give logits at the size of its image")
        if kernel not in (2, 4):
            raise UsageError(f"kernel must be 2 or 4, but is {kernel}")
        if channels < 1:
            raise UsageError(f"channels must be at least 1, but is {channels}")
        stride = base.feature_stride
        if stride < 2 or stride & (stride - 1):
            raise UsageError(f"the features of the base must have a stride of 2, 4, 8, ..., but it is {stride}")
        super().__init__(base.classes)
        self.align_corners = base.align_corners
        self.auxiliary = base.auxiliary
        # As many as before: `encode` may look for whom it taps.
        base.auxiliary = nn.ModuleList(nn.Identity() for _ in self.auxiliary)
        drop_prediction(base)
        self.base = base
        self.steps = max(1, stride.bit_length() - 2)
        self.feature_channels = channels
        self.feature_stride = stride // 2**self.steps
        layers: list[nn.Module] = []
        width = base.feature_channels
        if width > channels:
            layers += [nn.Conv2d(width, channels, 1, bias=False), nn.BatchNorm2d(channels), nn.ReLU(inplace=True)]
            width = channels
        for _ in range(self.steps):
            grow = nn.ConvTranspose2d(width, channels, kernel, stride=2, padding=kernel // 2 - 1, bias=False)
            layers += [grow, nn.BatchNorm2d(channels), nn.ReLU(inplace=True)]
            width = channels
        self.expand = nn.Sequential(*layers)
        self.prediction = nn.Conv2d(channels, base.classes, 1)
        initialise(self.expand)
        initialise(self.prediction)

    def encode(self, image: Tensor) -> tuple[Tensor, Sequence[Tensor]]:
        """See `SegmentationNetwork.encode`; the features are those before the head's prediction."""
        features, taps = self.base.encode(image)
        return self.expand(features), taps

    def predict(self, features: Tensor) -> Tensor:
        """See `SegmentationNetwork.predict`."""
        logits: Tensor = self.prediction(features)
        return logits

    def drop_undeployed(self) -> None:
        """See `SegmentationNetwork.drop_undeployed`."""
        super().drop_undeployed()
        self.base.drop_undeployed()


def drop_prediction(network: SegmentationNetwork) -> None:
    """Take the layers that `predict` runs out of a network, so that they are neither counted, saved nor trained.

    The layers are found by running `predict` once: every family names its own differently.

    Raises:
        UsageError: for a network of which `predict` runs no layer.
    """
    ran: set[nn.Module] = set()
    hooks = [
        module.register_forward_pre_hook(lambda module, _: ran.add(module))
        for module in network.modules()
        if module is not network
    ]
    training = network.training
    some = next(network.parameters())
    with torch.no_grad():
        network.eval().predict(some.new_zeros(1, network.feature_channels, 8, 8))
    network.train(training)
    for hook in hooks:
        hook.remove()
    # A layer without weights may be shared with `encode`.
    dropped = [name for name, module in network.named_modules() if module in ran and [*module.parameters()]]
    if not dropped:
        raise UsageError(f"{type(network).__name__}.predict runs no layer that could be taken out")
    for name in dropped:
        if not any(name.startswith(f"{outer}.") for outer in dropped):
            network.set_submodule(name, nn.Identity())
