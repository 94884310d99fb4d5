"""Mean IoU of a network in torch, by the rule that the runtime follows."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import nn

from edgeseg.errors import LabelError
from edgeseg.metrics import ConfusionMatrix
from edgeseg.training.losses import IGNORE_INDEX
from edgeseg.training.recipe import Recipe
from edgeseg.training.samples import Samples, seen_whole
from edgeseg.upsample import nearest_class_map, upsampling

__all__ = ["score"]


@torch.no_grad()
def score(
    network: nn.Module,
    samples: Samples,
    recipe: Recipe,
    device: torch.device,
    advance: Callable[[int], None] = lambda frames: None,
) -> ConfusionMatrix:
    """Score a network on whole frames.

    The frame is resized to the network's input, the class map brought back to the frame by nearest sampling.

    Args:
        network: gives logits of the class map's size; left in the mode in which it came.
        samples: frames with labels.
        recipe: size and normalisation of the input.
        device: where the network is.
        advance: is told the number of frames done.

    Returns:
        The confusion matrix over all frames.

    Raises:
        LabelError: where no pixel is labelled.
    """
    matrix = ConfusionMatrix(len(recipe.labels))
    training = network.training
    network.eval()
    for index in range(len(samples)):
        image, labels = samples.read(index)
        logits = network(seen_whole(image, recipe).to(device))
        class_map = logits[0].argmax(0).to(torch.uint8).cpu().numpy()
        axes = upsampling(labels.shape, class_map.shape, class_map.shape, None)
        matrix.add(labels, nearest_class_map(class_map, axes.rows, axes.columns), IGNORE_INDEX)
        advance(1)
    network.train(training)
    if math.isnan(matrix.pixel_accuracy()):
        raise LabelError(f"none of the {len(samples)} frames to score on has a labelled pixel; check the labels")
    return matrix
