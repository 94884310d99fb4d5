"""What every network here is: features, a prediction layer on them, and heads that only training needs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import Tensor, nn
from torch.nn import functional

__all__ = ["SegmentationNetwork", "initialise", "resize"]


class SegmentationNetwork(nn.Module):
    """A segmentation network whose parts can be taken one by one.

    A network of this package says `feature_channels` and `feature_stride`, builds `self.auxiliary` where it has
    auxiliary heads, and writes `encode` and `predict`; the rest is the same for all.

    In `eval()` the parameters are those of the deployed network: `parameters()` leaves the auxiliary heads out.

    Attributes:
        classes: number of logits per pixel.
        feature_channels, feature_stride: of the last feature map before the prediction layer.
        output_scale: size of the logits over the size of the image; 2 for a network that super-resolves.
        align_corners: how the last bilinear resize places its samples.
        unsteady: share of the pixels, 0..1, whose class may turn with the last bit of a sum: above 0 where the network
            itself chooses between values, such as the largest of a window, and goes on with the choice.
        auxiliary: heads on earlier features, for the loss alone.
    """

    feature_channels: int
    feature_stride: int
    output_scale: int = 1
    align_corners: bool = False
    unsteady: float = 0.0

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.classes = classes
        self.auxiliary = nn.ModuleList()

    def encode(self, image: Tensor) -> tuple[Tensor, Sequence[Tensor]]:
        """Features of an image.

        Args:
            image: (N, 3, H, W) float32, normalised.

        Returns:
            The last feature map before the prediction layer, (N, feature_channels, H / stride, W / stride), and what
            each auxiliary head reads, in the order of `auxiliary`; nothing where there are none or in `eval()`.
        """
        raise NotImplementedError

    def predict(self, features: Tensor) -> Tensor:
        """Logits (N, classes, h, w) at the network's own resolution, from the features of `encode`."""
        raise NotImplementedError

    def forward(self, image: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Logits at the size of the image (times `output_scale`).

        Args:
            image: (N, 3, H, W) float32, normalised.

        Returns:
            In `eval()` the logits (N, classes, H, W); in training a tuple of them and each auxiliary head's, so that
            a loss can weigh them.
        """
        features, taps = self.encode(image)
        return self.finish(features, taps, (int(image.shape[2]), int(image.shape[3])))

    def finish(self, features: Tensor, taps: Sequence[Tensor], size: tuple[int, int]) -> Tensor | tuple[Tensor, ...]:
        """What `forward` returns, from the two results of `encode` and the (height, width) of the image."""
        height, width = (n * self.output_scale for n in size)
        logits = resize(self.predict(features), height, width, self.align_corners)
        if not self.training:
            return logits
        heads = zip(self.auxiliary, taps, strict=True)
        return (logits, *(resize(head(tap), height, width, self.align_corners) for head, tap in heads))

    def drop_undeployed(self) -> None:
        """Take out every part that the logits in `eval()` do not need; the network cannot be trained any more."""
        self.auxiliary = nn.ModuleList()

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, nn.Parameter]]:
        """As torch's, but in `eval()` without the auxiliary heads, which deployment drops."""
        dropped = f"{prefix}.auxiliary." if prefix else "auxiliary."
        for name, parameter in super().named_parameters(prefix, recurse, remove_duplicate):
            if self.training or not name.startswith(dropped):
                yield name, parameter


def resize(maps: Tensor, height: int, width: int, align_corners: bool) -> Tensor:
    """Bring maps (N, C, h, w) to another size bilinearly, in float32; maps of that size are given back as they are."""
    if tuple(maps.shape[2:]) == (height, width):
        return maps
    # Under mixed precision: resizing in BF16 takes longer, and a loss would widen the large maps instead of the small.
    maps = maps.float()
    resized: Tensor = functional.interpolate(maps, (height, width), mode="bilinear", align_corners=align_corners)
    return resized


def initialise(network: nn.Module) -> None:
    """Kaiming weights (He et al. 2015) for convolutions, one and zero for BatchNorm."""
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            nn.init.kaiming_normal_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
