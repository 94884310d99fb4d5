"""Training frames as batches of tensors, in an order that a seed decides."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgeseg.calibration.datasets import LabelledFrames, labelled_from
from edgeseg.errors import LabelError, UsageError
from edgeseg.frame import fit_frame
from edgeseg.labels import LabelSet
from edgeseg.libraries import require
from edgeseg.training.augment import random_crop
from edgeseg.training.losses import IGNORE_INDEX
from edgeseg.training.recipe import Recipe

__all__ = ["MEMORY", "Batch", "Samples", "batches", "normalise", "open_data", "seen_whole", "spaced", "steps_per_epoch"]

MEMORY = 2 << 30
"""Bytes of decoded frames that are kept by default."""


@dataclass(frozen=True)
class Batch:
    """Frames of one step.

    Attributes:
        low: (N, 3, H, W) float32, what the network sees.
        high: (N, 3, 2 H, 2 W) float32 for a network that super-resolves, else None.
        labels: (N, H, W) int64 at the size of the class map, 255 where ignored.
    """

    low: Tensor
    high: Tensor | None
    labels: Tensor


def open_data(spec: str, default_split: str, label_set: LabelSet | None = None) -> LabelledFrames:
    """A data set by KIND:DIR@SPLIT; see `labelled_from` for the kinds.

    Args:
        spec: what the user names; without @SPLIT the default is taken, and all of a plain folder whose images are not
            divided into splits.
        default_split: "train" or "val".
        label_set: classes of a plain folder.

    Raises:
        UsageError: for an @ without a split, or an unknown kind.
        FrameError, LabelError: see `labelled_from`.
    """
    place, at, split = spec.rpartition("@")
    if not at or "/" in split or os.path.isdir(spec.partition(":")[2] or spec):
        return labelled_from(spec, None if _is_undivided(spec) else default_split, label_set=label_set)
    if not split:
        raise UsageError(f"{spec} ends with @; name the split behind it, such as {place}@{default_split}")
    return labelled_from(place, split, label_set=label_set)


def _is_undivided(spec: str) -> bool:
    """Whether a spec names a plain folder with images and without splits."""
    kind, _, folder = spec.partition(":")
    if kind != "folder" and not os.path.isdir(spec):
        return False
    images = Path(spec if os.path.isdir(spec) else folder, "images")
    try:
        return not any(entry.is_dir() for entry in images.iterdir())
    except (OSError, ValueError):  # which reading the data names
        return False


class Samples:
    """Labelled frames of one or several data sets by index, decoded once where memory allows.

    Args:
        sources: data sets of the same classes.
        labels: the classes that are trained.
        memory: bytes of decoded frames that are kept; frames beyond them are read again in every epoch.

    Raises:
        LabelError: for a data set of other classes.
    """

    def __init__(self, sources: Sequence[LabelledFrames], labels: LabelSet, memory: int = MEMORY) -> None:
        for source in sources:
            found = source.label_set
            if found is not None and found.classes().names != labels.names:
                raise LabelError(
                    f"the network is trained on the classes {', '.join(labels.names)}, but a data set has "
                    f"{', '.join(found.classes().names)}; give data sets of the same classes"
                )
        self._items = [(source, name) for source in sources for name in source.names]
        self._labels = labels
        self._kept: dict[int, tuple[NDArray[np.uint8], NDArray[np.uint8]]] = {}
        self._left = memory
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._items)

    def read(self, index: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """One frame, (H, W, 3) uint8 RGB, and its labels, (H, W) uint8, 255 where ignored.

        Raises:
            FrameError, LabelError: for a frame or labels that cannot be read, or a label that is no class.
        """
        if index in self._kept:
            return self._kept[index]
        source, name = self._items[index]
        item = next(iter(source.exclude({other for other in source.names if other != name})))
        sample = item.frame.image, self._trained(item.labels, source, name)
        size = sample[0].nbytes + sample[1].nbytes
        with self._lock:
            if size <= self._left and index not in self._kept:
                self._left -= size
                self._kept[index] = sample
        return sample

    def _trained(self, labels: NDArray[np.uint8], source: LabelledFrames, name: str) -> NDArray[np.uint8]:
        known = source.label_set or self._labels
        trained = labels if known.ignore_index is None else np.where(labels == known.ignore_index, IGNORE_INDEX, labels)
        wrong = trained[(trained >= len(self._labels)) & (trained != IGNORE_INDEX)]
        if wrong.size:
            raise LabelError(
                f"labels must be 0 to {len(self._labels) - 1} or the ignore index, but {name} has {int(wrong[0])}; "
                "map the labels to the network's classes"
            )
        return np.ascontiguousarray(trained, np.uint8)

    def class_counts(self) -> NDArray[np.int64]:
        """Labelled pixels by class, over all frames."""
        counts = np.zeros(256, np.int64)
        for index in range(len(self)):
            counts += np.bincount(self.read(index)[1].reshape(-1), minlength=256)
        return counts[: len(self._labels)]


def steps_per_epoch(samples: Samples, recipe: Recipe, processes: int = 1) -> int:
    """Batches of one epoch; the frames that do not fill the last one are left out.

    Raises:
        UsageError: for fewer frames than a batch, or a batch that does not divide among the processes.
    """
    if len(samples) < recipe.batch:
        raise UsageError(f"a batch of {recipe.batch} needs as many frames, but there are {len(samples)}; use --batch")
    if recipe.batch % processes:
        raise UsageError(
            f"a batch of {recipe.batch} cannot be divided among {processes} processes; use another --batch"
        )
    return len(samples) // recipe.batch


def batches(
    samples: Samples, recipe: Recipe, epoch: int, *, rank: int = 0, processes: int = 1, workers: int = 1
) -> Iterator[Batch]:
    """The batches of one epoch, read ahead in threads.

    What they hold depends on the recipe's seed, the epoch and the place in it alone, so that a run that was interrupted
    goes on as it would have. The frames that do not fill the last batch are left out; they differ from epoch to epoch.

    Args:
        samples: the frames.
        recipe: sizes, augmentation, batch and seed.
        epoch: from 0.
        rank, processes: each process takes its share of every batch.
        workers: threads that read.

    Raises:
        UsageError: see `steps_per_epoch`.
    """
    steps = steps_per_epoch(samples, recipe, processes)
    order = np.random.default_rng([recipe.seed, epoch]).permutation(len(samples))
    chosen = [order[step * recipe.batch : (step + 1) * recipe.batch][rank::processes] for step in range(steps)]

    def make(indices: NDArray[np.int64]) -> Batch:
        return _collate([_view(samples, recipe, epoch, int(index)) for index in indices], recipe)

    with ThreadPoolExecutor(workers) as pool:
        ahead = [pool.submit(make, indices) for indices in chosen[: workers + 1]]
        for step in range(steps):
            batch = ahead.pop(0).result()
            if step + workers + 1 < steps:
                ahead.append(pool.submit(make, chosen[step + workers + 1]))
            yield batch


def _view(samples: Samples, recipe: Recipe, epoch: int, index: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    image, labels = samples.read(index)
    whole, size = ((height * recipe.scale, width * recipe.scale) for height, width in (recipe.size, recipe.view))
    random = np.random.default_rng([recipe.seed, epoch, index])
    return random_crop(image, labels, size, recipe.augmentation, random, IGNORE_INDEX, whole)


def _collate(views: list[tuple[NDArray[np.uint8], NDArray[np.uint8]]], recipe: Recipe) -> Batch:
    cv2: Any = require("cv2", "resize training frames")
    images = [image for image, _ in views]
    labels = torch.from_numpy(np.stack([truth for _, truth in views]).astype(np.int64))
    if not recipe.dsrl:
        return Batch(normalise(np.stack(images), recipe), None, labels)
    height, width = recipe.view
    low = np.stack([cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR) for image in images])
    return Batch(normalise(low, recipe), normalise(np.stack(images), recipe), labels)


def spaced(samples: Samples, count: int) -> list[int]:
    """Indices of so many samples at most, evenly spaced."""
    indices: list[int] = np.unique(np.linspace(0, len(samples) - 1, count, dtype=np.int64)).tolist()
    return indices


def seen_whole(image: NDArray[np.uint8], recipe: Recipe) -> Tensor:
    """(1, 3, H, W) float32 of a frame, (h, w, 3) uint8 RGB: what the network sees of it at inference."""
    return normalise(fit_frame(image, *recipe.size), recipe)


def normalise(images: NDArray[np.uint8], recipe: Recipe) -> Tensor:
    """(N, 3, H, W) float32 in the recipe's colour order and scale, of (N, H, W, 3) uint8 RGB."""
    ordered = images if recipe.color_order == "RGB" else images[..., ::-1]
    mean, std = np.array(recipe.mean, np.float32), np.array(recipe.std, np.float32)
    values = (ordered.astype(np.float32) - mean) / std
    return torch.from_numpy(np.ascontiguousarray(values.transpose(0, 3, 1, 2)))
