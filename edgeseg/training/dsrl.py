"""Dual super-resolution learning: what trains a super-resolved network and is dropped afterwards.

L. Wang, D. Li, Y. Zhu, L. Tian, Y. Shan, "Dual Super-Resolution Learning for Semantic Segmentation", CVPR 2020. Beside
the segmentation head (SSSR, in `edgeseg.models.superresolution`) a second head on the same features restores the image
at twice its size (SISR), and the feature affinity (FA) of both guides the first.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import functional

from edgeseg.errors import ShapeError
from edgeseg.models.network import initialise, resize
from edgeseg.models.superresolution import SuperResolvedNetwork
from edgeseg.training.affinity import feature_affinity
from edgeseg.training.losses import SegmentationLoss

__all__ = ["DualSuperResolution"]

SUBSAMPLING = 8
"""Size of the class map over that of the maps whose affinity is compared, a side, as published (section 3.3)."""


class SuperResolvedImage(nn.Module):
    """The SISR head: features to an image of twice the size by sub-pixel convolution.

    W. Shi et al., "Real-Time Single Image and Video Super-Resolution Using an Efficient Sub-Pixel Convolutional Neural
    Network" (ESPCN), CVPR 2016, with ReLU for tanh. It grows in as many steps as the SSSR head, so that the features
    before both last layers have one size.

    Args:
        channels: of the features that it reads.
        stride: of these features.
        steps: number of sub-pixel convolutions before the last.
        width: channels between the layers.
    """

    def __init__(self, channels: int, stride: int, steps: int, width: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(inplace=True)]
        for _ in range(steps):
            layers += [nn.Conv2d(width, 4 * width, 3, padding=1), nn.PixelShuffle(2), nn.ReLU(inplace=True)]
        self.expand = nn.Sequential(*layers)
        # The image is twice as large as the network's own, which is `stride` times as large as the features.
        factor = 2 * stride // 2**steps
        self.image = nn.Sequential(nn.Conv2d(width, 3 * factor**2, 3, padding=1), nn.PixelShuffle(factor))
        initialise(self)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """The features before the last layer, and the image."""
        expanded = self.expand(features)
        return expanded, self.image(expanded)


class DualSuperResolution(nn.Module):
    """The training of a super-resolved network: its loss against labels and image of twice the size.

    loss = segmentation + w1 * image + w2 * affinity. Give all parameters of this module to the optimiser, and deploy
    `network` alone.

    Args:
        network: what is trained and deployed.
        loss: of logits (N, C, H, W) against labels (N, H, W): one of `edgeseg.training.losses`.
        w1: weight of the mean squared error of the image; 0.1 as published.
        w2: weight of the feature affinity; 1.0 as published.
        auxiliary_weight: of each auxiliary head of the network.
        detach_sr: whether the affinity leaves the SISR features alone and moves the SSSR features towards them; no
            source says which the authors do.
        width: channels of the SISR head.
        subsampling: size of the class map over that of the maps whose affinity is compared, a side; its cost falls
            with the fourth power.
    """

    def __init__(
        self,
        network: SuperResolvedNetwork,
        loss: Callable[[Tensor, Tensor], Tensor],
        w1: float = 0.1,
        w2: float = 1.0,
        *,
        auxiliary_weight: float = 0.4,
        detach_sr: bool = False,
        width: int = 32,
        subsampling: int = SUBSAMPLING,
    ) -> None:
        super().__init__()
        self.network = network
        self.subsampling = subsampling
        self.segmentation = SegmentationLoss(loss, auxiliary_weight)
        self.w1, self.w2 = w1, w2
        self.detach_sr = detach_sr
        base = network.base
        self.restoration = SuperResolvedImage(base.feature_channels, base.feature_stride, network.steps, width)
        # On the SSSR side only (paper, section 3.3): it takes up the different distributions of both features.
        self.transform = nn.Sequential(
            nn.Conv2d(network.feature_channels, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)
        )
        initialise(self.transform)

    def forward(self, image_low: Tensor, image_high: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """The loss and its parts.

        Args:
            image_low: (N, 3, H, W) float32, normalised.
            image_high: (N, 3, 2 H, 2 W) float32, the same image, normalised alike.
            labels: (N, 2 H, 2 W) int64.

        Returns:
            Scalars: `loss`, the total; `segmentation`, `image` and `affinity`, before their weights; `auxiliary` where
            the network has auxiliary heads.

        Raises:
            ShapeError: where the sizes are not 1 to 2.
        """
        height, width = (int(n) for n in image_low.shape[2:])
        large = (2 * height, 2 * width)
        for what, shape in (("image_high", image_high.shape[2:]), ("labels", labels.shape[1:])):
            if tuple(shape) != large:
                raise ShapeError(
                    f"{what} must be twice the size of image_low, {large[0]}x{large[1]}, but is "
                    f"{'x'.join(str(n) for n in shape)}"
                )
        shared, taps = self.network.base.encode(image_low)
        expanded = self.network.expand(shared)
        parts: dict[str, Tensor] = self.segmentation(self.network.finish(expanded, taps, (height, width)), labels)
        restored, image = self.restoration(shared)
        parts["image"] = functional.mse_loss(resize(image, *large, align_corners=False).float(), image_high.float())
        target = restored.detach() if self.detach_sr else restored
        size = (-(-large[0] // self.subsampling), -(-large[1] // self.subsampling))
        parts["affinity"] = feature_affinity(subsample(self.transform(expanded), size), subsample(target, size))
        parts["loss"] = parts["loss"] + self.w1 * parts["image"] + self.w2 * parts["affinity"]
        return parts


def subsample(features: Tensor, size: tuple[int, int]) -> Tensor:
    """Average features down to a size, (height, width); smaller ones stay."""
    height, width = (min(int(n), most) for n, most in zip(features.shape[2:], size, strict=True))
    return functional.adaptive_avg_pool2d(features, (height, width))
