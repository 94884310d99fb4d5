"""Tiny training runs: a network that the registry finds, a folder of labelled frames, and a recipe for both."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from support.networks import TinyNetwork

from edgeseg import models
from edgeseg.calibration.datasets import labelled_from
from edgeseg.labels import LabelSet
from edgeseg.models.network import SegmentationNetwork
from edgeseg.training.augment import Augmentation
from edgeseg.training.checkpoint import build_network
from edgeseg.training.processes import Processes
from edgeseg.training.recipe import Recipe
from edgeseg.training.samples import Samples
from edgeseg.training.trainer import TrainResult, train

ONE = Processes(0, 1, torch.device("cpu"))

# Corners of a tetrahedron: a mix of some of them is nearest to the one with the largest share.
LABELS = LabelSet(("road", "sky", "tree", "car"), ((0, 0, 0), (200, 200, 0), (200, 0, 200), (0, 200, 200)))

SIZE = (16, 24)


class RegisteredNetwork(TinyNetwork):
    """The tiny network as the registry builds it; with a weight that nothing reads, as published ones have."""

    def __init__(self, classes: int, deploy: bool = False, width: float = 1.0) -> None:
        super().__init__(classes)
        self.unread = torch.nn.Parameter(torch.zeros(1))
        self.dropout = torch.nn.Dropout(0.1 if deploy else 0.0)

    def predict(self, features: torch.Tensor) -> torch.Tensor:
        return super().predict(self.dropout(features))


def register(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `create` find the tiny network as tinynet."""
    monkeypatch.setitem(models.NETWORKS, "tinynet", "support.training:RegisteredNetwork")


@contextmanager
def one_thread() -> Iterator[None]:
    """Sums in one order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def colour_of(labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """An image whose colours are those of the classes; ignored pixels are grey."""
    table = np.full((256, 3), 128, np.uint8)
    table[: len(LABELS)] = LABELS.palette
    return table[labels]


def blocks(seed: int, height: int = 24, width: int = 32, side: int = 4) -> NDArray[np.uint8]:
    """Random classes in square blocks."""
    coarse = np.random.default_rng(seed).integers(0, len(LABELS), (-(-height // side), -(-width // side)), np.uint8)
    return np.ascontiguousarray(coarse.repeat(side, 0).repeat(side, 1)[:height, :width])


def write_data(root: Path, count: int = 8, split: str = "train", ignored: bool = False) -> Path:
    """Frames whose colours tell their classes; with `ignored` each has another number of ignored pixels."""
    for folder in ("images", "labels"):
        (root / folder / split).mkdir(parents=True, exist_ok=True)
    for index in range(count):
        labels = blocks(index + (100 if split == "val" else 0))
        if ignored:
            labels[: 3 * index] = 255
        cv2.imwrite(str(root / "images" / split / f"{index:02}.png"), colour_of(labels)[:, :, ::-1])
        cv2.imwrite(str(root / "labels" / split / f"{index:02}.png"), labels)
    classes = [{"id": i, "name": n, "color": LABELS.palette[i]} for i, n in enumerate(LABELS.names)]
    (root / "labels.json").write_text(json.dumps({"classes": classes, "ignore_index": 255}))
    return root


def recipe(**options: Any) -> Recipe:
    """Of the tiny network: two epochs of frames that vary."""
    plain: dict[str, Any] = {"network": "tinynet", "size": SIZE, "labels": LABELS, "epochs": 2, "batch": 4}
    return Recipe(**{**plain, "augmentation": Augmentation((0.8, 1.5)), **options})


def samples(root: Path, split: str = "train", **options: Any) -> Samples:
    return Samples([labelled_from(f"folder:{root}", split)], LABELS, **options)


def network(made: Recipe) -> SegmentationNetwork:
    torch.manual_seed(made.seed)
    return build_network(made)


def run(made: Recipe, data: Path, folder: Path, **options: Any) -> TrainResult:
    """Train in one process, scored where the data has a split val."""
    validation = samples(data, "val") if (data / "images" / "val").is_dir() else None
    return train(made, network(made), samples(data), validation, folder, ONE, **options)


def log(folder: Path) -> list[dict[str, str]]:
    with (folder / "log.csv").open() as file:
        return list(csv.DictReader(file))


def equal(one: Any, other: Any) -> bool:
    """Whether two checkpoints hold the same values, bit by bit."""
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and torch.equal(one, other)
    if isinstance(one, dict):
        return (
            isinstance(other, dict) and one.keys() == other.keys() and all(equal(v, other[k]) for k, v in one.items())
        )
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(equal, one, other))
    return bool(one == other)
