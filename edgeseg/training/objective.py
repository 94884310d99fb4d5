"""What a step minimises: one module for the plain network and the super-resolved one."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from edgeseg.errors import LabelError
from edgeseg.models.network import SegmentationNetwork
from edgeseg.models.superresolution import SuperResolvedNetwork
from edgeseg.training.dsrl import DualSuperResolution
from edgeseg.training.losses import IGNORE_INDEX, LOSSES, SegmentationLoss
from edgeseg.training.processes import Processes
from edgeseg.training.recipe import Recipe
from edgeseg.training.samples import Samples

__all__ = ["Objective", "build_criterion", "build_objective", "class_weights"]


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

    def weighed(self, parts: dict[str, Tensor], labels: Tensor, processes: Processes) -> dict[str, Tensor]:
        """The loss and its parts such that their mean over the processes is the loss over all their pixels.

        Processes have different numbers of labelled pixels, so that the plain mean of their means would count the
        pixels of a sparsely labelled frame more. Exact for cross-entropy and focal; the pixels of hard_cross_entropy
        and the classes of dice are those of each process.

        Args:
            parts: what `forward` gave in this process.
            labels: (N, H, W) int64 of this process.
            processes: those that train together.
        """
        if processes.count == 1:
            return parts
        criteria = self.segmentation if self.dual is None else self.dual.segmentation
        assert criteria is not None
        amount = criteria.amount(labels)
        total = processes.total(amount)
        share = torch.where(total > 0, processes.count * amount / total.clamp_min(1e-12), 1.0)
        weighed = dict(parts)
        for name, factor in (("segmentation", 1.0), ("auxiliary", criteria.auxiliary_weight)):
            if name in parts:
                weighed[name] = share * parts[name]
                weighed["loss"] = weighed["loss"] + factor * (weighed[name] - parts[name])
        return weighed


def build_objective(network: SegmentationNetwork, recipe: Recipe, samples: Samples) -> Objective:
    """The objective of a recipe; the class weights it may ask for are counted on the samples."""
    return Objective(network, build_criterion(recipe, samples), recipe)


def build_criterion(recipe: Recipe, samples: Samples) -> nn.Module:
    """The recipe's loss of logits against labels, with the class weights that it asks for."""
    options = {} if recipe.class_weights == "none" else {"weights": class_weights(samples)}
    return LOSSES[recipe.loss](ignore_index=IGNORE_INDEX, **options)


def class_weights(samples: Samples) -> list[float]:
    """1 / ln(1.02 + share) by class (ENet, arXiv 1606.02147, section 5.2), scaled to a mean of 1 over the pixels.

    Raises:
        LabelError: where no pixel is labelled.
    """
    counts = samples.class_counts().astype(np.float64)
    if not counts.any():
        raise LabelError(f"none of the {len(samples)} training frames has a labelled pixel; check the labels")
    shares = counts / counts.sum()
    weights = 1 / np.log(1.02 + shares)
    return [float(w) for w in weights / float((weights * shares).sum())]
