"""Offsets of the classes' logits for the best mean IoU: a trained network predicts rare classes too seldom for it.

Cross-entropy teaches a network how probable each class is, and the largest probability gives the most right pixels.
Mean IoU asks for something else: a class that is rare and hard is worth predicting well below a probability of one half
(the threshold with the best F-measure is half of that measure: Lipton, Elkan, Naryanaswamy, "Optimal Thresholding of
Classifiers to Maximize F1 Measure", ECML 2014). One offset a class, found on training frames, moves these thresholds.
It goes into the last layer's bias, so that the deployed graph does not change.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgeseg.errors import UsageError
from edgeseg.metrics import ConfusionMatrix
from edgeseg.models.network import SegmentationNetwork
from edgeseg.training.checkpoint import load_network, save_checkpoint
from edgeseg.training.losses import IGNORE_INDEX
from edgeseg.training.recipe import Recipe
from edgeseg.training.samples import Samples, seen_whole, spaced
from edgeseg.training.scoring import score
from edgeseg.upsample import upsampling

__all__ = ["BALANCED", "FRAMES", "Balance", "balance", "best_offsets"]

BALANCED = "balanced.pt"

FRAMES = 128
"""Training frames that are looked at, at most."""
_PIXELS = 1 << 21
"""Pixels whose logits are held, over all frames: 100 MB with 12 classes."""
_STEPS = (1.0, 0.5, 0.25)
"""Changes of an offset that are tried, in logits, the largest first."""


@dataclass(frozen=True)
class Balance:
    """What balancing gave.

    Attributes:
        path: the checkpoint with the balanced network.
        offsets: what was added to each class's logit.
        training: mean IoU, 0..100, on the sampled pixels of training frames, before and after.
        validation: the same on the validation frames, by the trainer's own scorer; None without any.
    """

    path: Path
    offsets: tuple[float, ...]
    training: tuple[float, float]
    validation: tuple[float, float] | None


def balance(
    folder: Path,
    checkpoint: str,
    samples: Samples,
    validation: Samples | None,
    device: torch.device,
    advance: Callable[[int], None] = lambda frames: None,
) -> Balance:
    """Balance the network of a run, and write it beside its checkpoints.

    Args:
        folder: of the run.
        checkpoint: name of the file in it that is balanced.
        samples: the frames that it was trained on.
        validation: frames that are scored before and after; they decide nothing.
        device: where the network runs.
        advance: is told the number of training frames done.

    Raises:
        ModelError: for a file that is no checkpoint.
        UsageError: for a network whose logits have no bias of their own.
        OutputError: when the checkpoint cannot be written.
    """
    network, recipe = load_network(folder / checkpoint)
    network = network.to(device)

    def scored() -> float | None:
        return None if validation is None else 100 * score(network, validation, recipe, device).mean_iou()

    bias = _class_bias(network, seen_whole(samples.read(0)[0], recipe).to(device))
    before = scored()
    logits, labels = _sampled(network, samples, recipe, device, advance)
    offsets = best_offsets(logits, labels)
    with torch.no_grad():
        bias.add_(torch.from_numpy(offsets).to(bias))
    after = scored()
    path = folder / BALANCED
    save_checkpoint(path, {"recipe": recipe.to_dict(), "network": network.cpu().state_dict()})
    return Balance(
        path,
        tuple(float(offset) for offset in offsets),
        (_mean_iou(logits, labels, 0 * offsets), _mean_iou(logits, labels, offsets)),
        None if before is None or after is None else (before, after),
    )


def best_offsets(logits: NDArray[np.float32], labels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The offsets of the classes' logits with the best mean IoU, class after class, by smaller and smaller steps.

    Args:
        logits: (pixels, classes) float32.
        labels: (pixels,) uint8 class of each.

    Returns:
        (classes,) float32, each a multiple of the smallest step; 0 for a class that has no pixel.
    """
    classes = logits.shape[1]
    offsets = np.zeros(classes, np.float32)
    best = _mean_iou(logits, labels, offsets)
    present = np.flatnonzero(np.bincount(labels, minlength=classes))
    for step in _STEPS:
        for class_index in present:
            for change in (step, -step):
                while True:
                    tried = offsets.copy()
                    tried[class_index] += change
                    found = _mean_iou(logits, labels, tried)
                    if not found > best:
                        break
                    best, offsets = found, tried
    return offsets


def _mean_iou(logits: NDArray[np.float32], labels: NDArray[np.uint8], offsets: NDArray[np.float32]) -> float:
    matrix = ConfusionMatrix(logits.shape[1])
    predicted = (logits + offsets).argmax(1).astype(np.uint8)
    matrix.add(labels[None], predicted[None], None)
    return 100 * matrix.mean_iou()


@torch.no_grad()
def _sampled(
    network: SegmentationNetwork,
    samples: Samples,
    recipe: Recipe,
    device: torch.device,
    advance: Callable[[int], None],
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Logits (pixels, classes) and labels (pixels,) of labelled pixels on a grid over evenly spaced frames."""
    chosen = spaced(samples, FRAMES)
    kept_logits, kept_labels = [], []
    for index in chosen:
        image, labels = samples.read(index)
        spacing = max(1, math.ceil(math.sqrt(labels.size * len(chosen) / _PIXELS)))
        rows, columns = (np.arange(spacing // 2, n, spacing) for n in labels.shape)
        logits = network(seen_whole(image, recipe).to(device))[0].float().cpu().numpy()
        axes = upsampling(labels.shape, logits.shape[1:], logits.shape[1:], None)
        there = logits[:, axes.rows.nearest[rows][:, None], axes.columns.nearest[columns]]
        truth = labels[rows[:, None], columns]
        known = truth != IGNORE_INDEX
        kept_logits.append(there[:, known].T)
        kept_labels.append(truth[known])
        advance(1)
    return np.concatenate(kept_logits), np.concatenate(kept_labels)


@torch.no_grad()
def _class_bias(network: SegmentationNetwork, image: Tensor) -> nn.Parameter:
    """The bias that adds to the logits of each class, and to nothing else; found by trying.

    Raises:
        UsageError: where there is none.
    """
    expected = network(image) + torch.arange(network.classes, device=image.device)[:, None, None]
    for module in reversed([*network.modules()]):
        bias = getattr(module, "bias", None)
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)) and isinstance(bias, nn.Parameter):
            if bias.shape != (network.classes,):
                continue
            before = bias.clone()
            bias.add_(torch.arange(network.classes, device=image.device))
            found = network(image)
            bias.copy_(before)
            if torch.allclose(found, expected, atol=1e-4 * float(expected.abs().max())):
                return bias
    raise UsageError(
        f"--balance moves the bias of the layer that gives the logits, but that of {type(network).__name__} has none; "
        "train another network, or with --dsrl, whose head has one"
    )
