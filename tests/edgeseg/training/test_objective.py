"""Class weights by hand, and the share of each process in the loss."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from support.training import ONE, network, recipe, register, samples, write_data
from torch import Tensor

from edgeseg.errors import LabelError
from edgeseg.training.objective import build_objective, class_weights
from edgeseg.training.processes import Processes
from edgeseg.training.recipe import Recipe
from edgeseg.training.samples import Samples


@pytest.fixture(autouse=True)
def _registry(monkeypatch: pytest.MonkeyPatch) -> None:
    register(monkeypatch)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_data(tmp_path / "data")


class TestClassWeights:
    def counted(self, data: Path, *rows: int) -> Samples:
        for path in (data / "labels/train").iterdir():
            labels = np.full((24, 32), 255, np.uint8)
            for index, count in enumerate(rows):
                labels[sum(rows[:index]) : sum(rows[:index]) + count] = index
            cv2.imwrite(str(path), labels)
        return samples(data)

    def test_by_hand(self, data: Path) -> None:
        # Shares 1/2, 1/4, 1/4 and 0 of the labelled pixels.
        half, quarter, none = (1 / math.log(1.02 + share) for share in (0.5, 0.25, 0.0))
        mean = half / 2 + quarter / 2
        assert class_weights(self.counted(data, 8, 4, 4)) == pytest.approx(
            [w / mean for w in (half, quarter, quarter, none)]
        )
        assert half == pytest.approx(2.3883, abs=1e-4)

    def test_without_labels(self, data: Path) -> None:
        with pytest.raises(LabelError, match="none of the 8 training frames has a labelled pixel; check the labels"):
            class_weights(self.counted(data))

    def test_reach_the_loss(self, data: Path) -> None:
        made = recipe(class_weights="log")
        torch.manual_seed(0)
        image, labels = torch.randn(2, 3, 16, 24), torch.randint(0, 2, (2, 16, 24))
        net = network(made)
        losses = [
            build_objective(net, r, self.counted(data, 20, 1, 1, 1))(image, None, labels)["segmentation"].item()
            for r in (made, replace(made, class_weights="none"))
        ]
        assert losses[0] != pytest.approx(losses[1], rel=1e-3)


@dataclass(frozen=True)
class Half(Processes):
    """One of two processes, which knows what both sum to."""

    sum: float = 0.0

    def total(self, value: Tensor) -> Tensor:
        return value.new_tensor(self.sum)


class TestWeighed:
    @pytest.mark.parametrize("loss", ["cross_entropy", "focal"])
    @pytest.mark.parametrize("weights", ["none", "log"])
    @pytest.mark.parametrize("dsrl", [False, True])
    def test_the_mean_over_processes_is_the_loss_over_all_pixels(
        self, data: Path, loss: str, weights: str, dsrl: bool
    ) -> None:
        made: Recipe = recipe(loss=loss, class_weights=weights, dsrl=dsrl)
        # Without BatchNorm's statistics, which are of each half here.
        objective = build_objective(network(made), made, samples(data)).eval()
        objective.network.train()
        for norm in objective.modules():
            if isinstance(norm, torch.nn.BatchNorm2d):
                norm.eval()
        torch.manual_seed(1)
        scale = made.scale
        low, high = torch.randn(4, 3, 16, 24), torch.randn(4, 3, 32, 48)
        labels = torch.randint(0, 4, (4, 16 * scale, 24 * scale))
        labels[2:, 2:] = 255  # the second half is hardly labelled
        labels[:2][labels[:2] == 3] = 0
        whole = objective(low, high, labels)
        halves = [slice(0, 2), slice(2, 4)]
        parts = [objective(low[h], high[h], labels[h]) for h in halves]
        criteria = objective.segmentation if objective.dual is None else objective.dual.segmentation
        assert criteria is not None
        total = float(sum(criteria.amount(labels[h]) for h in halves))
        weighed = [
            objective.weighed(part, labels[h], Half(rank, 2, torch.device("cpu"), total))
            for rank, (part, h) in enumerate(zip(parts, halves, strict=True))
        ]
        for name, value in whole.items():
            assert torch.stack([w[name] for w in weighed]).mean().item() == pytest.approx(value.item(), rel=1e-5)
        plain = torch.stack([part["loss"] for part in parts]).mean().item()
        assert plain != pytest.approx(whole["loss"].item(), rel=1e-4)

    def test_one_process_gets_its_own(self, data: Path) -> None:
        made = recipe()
        objective = build_objective(network(made), made, samples(data))
        parts = {"loss": torch.ones(()), "segmentation": torch.ones(())}
        assert objective.weighed(parts, torch.zeros(1, 2, 2, dtype=torch.int64), ONE) is parts

    def test_without_labels_anywhere(self, data: Path) -> None:
        made = recipe()
        objective = build_objective(network(made), made, samples(data))
        parts = {"loss": torch.zeros(()), "segmentation": torch.zeros(())}
        labels = torch.full((1, 2, 2), 255)
        weighed = objective.weighed(parts, labels, Half(0, 2, torch.device("cpu"), 0.0))
        assert weighed["loss"].item() == 0
