"""CRF-as-RNN: FCN with a dense CRF behind it, both trained as one network.

S. Zheng et al., "Conditional Random Fields as Recurrent Neural Networks", ICCV 2015, arXiv 1502.03240.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from edgeseg.models.fcn import FCN
from edgeseg.models.mean_field import MeanField

__all__ = ["CRFasRNN"]

_IMAGENET = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


class CRFasRNN(FCN):
    """FCN-8s (or 16s, 32s) whose scores a mean field refines at the size of the image; see `MeanField`.

    The CRF looks at colours, so the image is brought back from the network's units to 0..255 as x * std + mean,
    rounded, which gives the frame that was normalised to the bit. The order of the colours does not matter to it.

    No ONNX operator filters by a lattice: `edgeseg export` writes the network without the layer and the layer's
    parameters beside it, and `edgeseg run --refine densecrf --refine-preset FILE` joins them again.

    Args:
        classes: number of logits per pixel.
        deploy: see `FCN`.
        stride: of the scores that are interpolated to the image: 8, 16 or 32.
        width: share of the published channels.

    Raises:
        UsageError: for a value that it does not take.

    Attributes:
        crf: the layer; None for the network alone.
        mean, std: of the image, by channel, in 0..255; ImageNet's until `normalised_by`.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, classes: int, deploy: bool = False, *, stride: int = 8, width: float = 1.0) -> None:
        super().__init__(classes, deploy, stride=stride, width=width)
        self.crf: MeanField | None = MeanField(classes)
        # Not part of the weights: who normalises the images says how.
        for name, values in zip(("mean", "std"), _IMAGENET, strict=True):
            self.register_buffer(name, torch.tensor(values).reshape(3, 1, 1), persistent=False)

    def normalised_by(self, mean: Sequence[float], std: Sequence[float]) -> None:
        """State how images are normalised, (x - mean) / std in 0..255, by channel."""
        self.mean.copy_(torch.tensor(mean).reshape(3, 1, 1))
        self.std.copy_(torch.tensor(std).reshape(3, 1, 1))

    def encode(self, image: Tensor) -> tuple[Tensor, Sequence[Tensor]]:
        """See `SegmentationNetwork.encode`; the refined scores (N, classes, H, W)."""
        scores, taps = super().encode(image)
        if self.crf is None:
            return scores, taps
        return self.crf(scores, image * self.std + self.mean), taps

    def drop_undeployed(self) -> None:
        """See `SegmentationNetwork.drop_undeployed`: no graph holds the layer."""
        super().drop_undeployed()
        self.crf = None
