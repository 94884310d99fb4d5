"""FCN-32s, FCN-16s and FCN-8s: VGG-16 made fully convolutional, its scores added over the strides and interpolated.

E. Shelhamer, J. Long, T. Darrell, "Fully Convolutional Networks for Semantic Segmentation", PAMI 2017, arXiv
1605.06211. The structure is that of the code published with it (voc-fcn8s and its kin).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from edgeseg.models.network import SegmentationNetwork, initialise
from edgeseg.models.vgg import VGG16, copy_vgg16
from edgeseg.models.width import check_choice, check_width, scaled

__all__ = ["FCN", "bilinear_kernel"]

_PADDING = 100
"""Zeros around the image in the published network, so that its 7x7 layer without padding takes any image."""

_CROPS = {32: (19,), 16: (5, 27), 8: (5, 9, 31)}
"""Where the padded maps of each stride line up: at pool4, at pool3, and, last, at the image.

Cell j of the map that is interpolated last lies at pixel s j + (s - 1) / 2 + s c - 99 (c: the crop before it), and at
s j + s - 1/2 of the interpolated one; the last crop is the difference: 31 for stride 8. A crop of 28, as in code that
circulates, shifts the class map by three pixels.
"""

_FULLY_CONNECTED = 4096


class FCN(SegmentationNetwork):
    """FCN-32s, 16s or 8s with VGG-16 (section 4), whose interpolation is learned from a bilinear start.

    The scores of each stride are added and interpolated by transposed convolutions, so that there is no feature map
    before one prediction layer: what `encode` gives is the sum at the size of the image, and `predict` gives it back.

    The published network pads the image by 100 zeros at each side and crops its maps, half of the work at 512x512.
    With `deploy` every layer keeps the size instead (a padding of 1, and of 3 at the 7x7 layer), and all maps line up
    without crops. The weights have the same shapes, but near the edges of the image the variant sees less padding:
    published weights lose some accuracy there, and it is trained as such.

    Args:
        classes: number of logits per pixel.
        deploy: build the variant.
        stride: of the scores that are interpolated to the image: 8, 16 or 32.
        width: share of the published channels.

    Raises:
        UsageError: for a value that it does not take.
    """

    feature_stride = 1

    def __init__(self, classes: int, deploy: bool = False, *, stride: int = 8, width: float = 1.0) -> None:
        check_choice("fcn", "stride", stride, tuple(sorted(_CROPS)))
        check_width("fcn", width)
        super().__init__(classes)
        self.feature_channels = classes
        self.stride = stride
        self.crops = (0,) * len(_CROPS[stride]) if deploy else _CROPS[stride]
        self.backbone = VGG16(width, padding=1 if deploy else _PADDING)
        channels, wide = self.backbone.channels, scaled(_FULLY_CONNECTED, width)
        self.fully_connected = nn.Sequential(
            OrderedDict(
                fc6=nn.Conv2d(channels[4], wide, 7, padding=3 if deploy else 0),
                act6=nn.ReLU(inplace=True),
                drop6=nn.Dropout2d(),
                fc7=nn.Conv2d(wide, wide, 1),
                act7=nn.ReLU(inplace=True),
                drop7=nn.Dropout2d(),
            )
        )
        skips = {32: (), 16: (3,), 8: (3, 2)}[stride]
        self.skips = skips
        self.score = nn.Conv2d(wide, classes, 1)
        self.skip_scores = nn.ModuleList(nn.Conv2d(channels[stage], classes, 1) for stage in skips)
        self.doublings = nn.ModuleList(_interpolation(classes, 2, deploy) for _ in skips)
        self.interpolation = _interpolation(classes, stride, deploy)
        initialise(self)
        for layer in (*self.doublings, self.interpolation):
            _start_bilinear(layer)

    def encode(self, image: Tensor) -> tuple[Tensor, Sequence[Tensor]]:
        """See `SegmentationNetwork.encode`; the scores (N, classes, H, W)."""
        pooled = self.backbone(image)
        scores = self.score(self.fully_connected(pooled[4]))
        for stage, score, double, crop in zip(self.skips, self.skip_scores, self.doublings, self.crops, strict=False):
            doubled, skip = double(scores), score(pooled[stage])
            height = min(int(doubled.shape[2]), int(skip.shape[2]) - crop)
            width = min(int(doubled.shape[3]), int(skip.shape[3]) - crop)
            scores = _window(doubled, 0, height, width) + _window(skip, crop, height, width)
        whole = self.interpolation(scores)
        return _window(whole, self.crops[-1], int(image.shape[2]), int(image.shape[3])), ()

    def predict(self, features: Tensor) -> Tensor:
        """See `SegmentationNetwork.predict`; the features are the scores."""
        return features

    def copy_vgg16(self, state: Mapping[str, Tensor]) -> None:
        """Start from ImageNet: copy VGG-16's thirteen convolutions and its first two linear layers.

        Args:
            state: the state dict of torchvision's `vgg16`.

        Raises:
            InputError: for the state dict of another network.
        """
        layers = [m for m in self.fully_connected if isinstance(m, nn.Conv2d)]
        copy_vgg16(self.backbone.convolutions, layers, state)


def bilinear_kernel(classes: int, factor: int) -> Tensor:
    """Weights (classes, classes, 2 factor, 2 factor) float32 of a transposed convolution that resizes bilinearly.

    Each class is interpolated from itself alone: the kernel stands on the diagonal, and the rest is zero. Filling all
    pairs would give every class the sum of all.
    """
    position = torch.arange(2 * factor, dtype=torch.float32)
    line = 1 - (position - (factor - 0.5)).abs() / factor
    weights = torch.zeros(classes, classes, 2 * factor, 2 * factor)
    weights[range(classes), range(classes)] = line[:, None] * line[None, :]
    return weights


def _interpolation(classes: int, factor: int, deploy: bool) -> nn.ConvTranspose2d:
    padding = factor // 2 if deploy else 0
    return nn.ConvTranspose2d(classes, classes, 2 * factor, stride=factor, padding=padding, bias=False)


def _start_bilinear(layer: nn.Module) -> None:
    assert isinstance(layer, nn.ConvTranspose2d)
    if layer.weight.device.type != "meta":
        with torch.no_grad():
            layer.weight.copy_(bilinear_kernel(layer.in_channels, layer.stride[0]))


def _window(maps: Tensor, first: int, height: int, width: int) -> Tensor:
    """Rows and columns of maps (N, C, H, W) from `first` on; maps of that size are given back as they are."""
    if first == 0 and tuple(maps.shape[2:]) == (height, width):
        return maps
    return maps[:, :, first : first + height, first : first + width]
