"""What a step minimises: one module for the plain network and the super-resolved one."""

from __future__ import annotations

import numpy as np
from torch import Tensor, nn

from edgeseg.models.network import SegmentationNetwork
from edgeseg.models.superresolution import SuperResolvedNetwork
from edgeseg.training.dsrl import DualSuperResolution
from edgeseg.training.losses import IGNORE_INDEX, LOSSES, SegmentationLoss
from edgeseg.training.recipe import Recipe
from edgeseg.training.samples import Samples

__all__ = ["Objective", "build_objective", "class_weights"]


class Objective(nn.Module):
    """A network with its loss, so that processes that train together share one forward pass.

    Attributes:
        network: what is trained and deployed.
        dual: the heads that only training needs, for a network that super-resolves; they hold the network too.
    """

    def __init__(self, network: SegmentationNetwork, loss: nn.Module, recipe: Recipe) -> None:
        super().__init__()
        self.network = network
        self.dual: DualSuperResolution | None = None
        self.segmentation: SegmentationLoss | None = None
        if isinstance(network, SuperResolvedNetwork):
            self.dual = DualSuperResolution(
                network,
                loss,
                recipe.image_weight,
                recipe.affinity_weight,
                auxiliary_weight=recipe.auxiliary_weight,
                subsampling=recipe.affinity_subsampling,
            )
        else:
            self.segmentation = SegmentationLoss(loss, recipe.auxiliary_weight)

    def forward(self, low: Tensor, high: Tensor | None, labels: Tensor) -> dict[str, Tensor]:
        """The loss and its parts; see `edgeseg.training.samples.Batch`."""
        if self.dual is not None:
            assert high is not None  # of every batch of a network that super-resolves
            return self.dual.forward(low, high, labels)
        assert self.segmentation is not None
        return self.segmentation.forward(self.network(low), labels)


def build_objective(network: SegmentationNetwork, recipe: Recipe, samples: Samples) -> Objective:
    """The objective of a recipe; the class weights it may ask for are counted on the samples."""
    options = {} if recipe.class_weights == "none" else {"weights": class_weights(samples)}
    return Objective(network, LOSSES[recipe.loss](ignore_index=IGNORE_INDEX, **options), recipe)


def class_weights(samples: Samples) -> list[float]:
    """1 / ln(1.02 + share) by class (ENet, arXiv 1606.02147, section 5.2), scaled to a mean of 1 over the pixels."""
    counts = samples.class_counts().astype(np.float64)
    shares = counts / max(1.0, counts.sum())
    weights = 1 / np.log(1.02 + shares)
    return [float(w) for w in weights / max(1e-12, float((weights * shares).sum()))]
