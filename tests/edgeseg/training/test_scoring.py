"""Mean IoU of a network in torch."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from support.training import LABELS, recipe, samples, write_data
from torch import Tensor

from edgeseg.errors import LabelError
from edgeseg.models.network import SegmentationNetwork
from edgeseg.training.scoring import score

CPU = torch.device("cpu")


class NearestColour(SegmentationNetwork):
    """Knows the class of a pixel by its colour; `wrong` is never chosen."""

    def __init__(self, scale: int = 1, wrong: int | None = None) -> None:
        super().__init__(len(LABELS))
        self.output_scale, self.wrong = scale, wrong

    def forward(self, image: Tensor) -> Tensor:
        palette = torch.tensor(LABELS.palette).float()[None, :, :, None, None]
        logits = -(image[:, None] - palette).square().sum(2)
        if self.wrong is not None:
            logits[:, self.wrong] = -torch.inf
        return logits.repeat_interleave(self.output_scale, 2).repeat_interleave(self.output_scale, 3)


PLAIN = {"size": (24, 32), "mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_data(tmp_path / "data", 3, ignored=True)


@pytest.mark.parametrize("scale", [1, 2])
def test_a_perfect_network(data: Path, scale: int) -> None:
    advanced: list[int] = []
    matrix = score(NearestColour(scale), samples(data), recipe(**PLAIN, dsrl=scale == 2), CPU, advanced.append)
    assert matrix.mean_iou() == 1
    assert advanced == [1, 1, 1]


def test_counts_over_all_frames(data: Path) -> None:
    matrix = score(NearestColour(wrong=3), samples(data), recipe(**PLAIN), CPU)
    iou = matrix.iou()
    assert iou[3] == 0
    assert matrix.mean_iou() == pytest.approx(float(iou.mean()))
    labelled = samples(data).class_counts()
    assert matrix.pixel_accuracy() == pytest.approx(1 - labelled[3] / labelled.sum())


@pytest.mark.parametrize("training", [True, False])
def test_leaves_the_mode(data: Path, training: bool) -> None:
    network = NearestColour().train(training)
    score(network, samples(data), recipe(**PLAIN), CPU)
    assert network.training is training


def test_no_labelled_pixel(data: Path) -> None:
    for path in (data / "labels/train").iterdir():
        cv2.imwrite(str(path), np.full((24, 32), 255, np.uint8))
    with pytest.raises(LabelError, match="none of the 3 frames to score on has a labelled pixel"):
        score(NearestColour(), samples(data), recipe(**PLAIN), CPU)
