"""Offsets of the classes' logits: the best are found, put where they act on logits alone, or refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from support.training import recipe, register, run, samples, write_data

from edgeseg.errors import ModelError, UsageError
from edgeseg.models import create
from edgeseg.training.balance import BALANCED, balance, best_offsets
from edgeseg.training.checkpoint import load_network, save_checkpoint

CPU = torch.device("cpu")


def rare(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits of two classes as true log-probabilities; the second class is rare and never the more probable one."""
    random = np.random.default_rng(seed)
    labels = (random.uniform(size=20_000) < 0.05).astype(np.uint8)
    evidence = random.normal(1.5 * labels, 1.0)
    odds = 1.5 * evidence - 1.5**2 / 2 + np.log(0.05 / 0.95)
    return np.stack([0 * odds, odds], 1).astype(np.float32), labels


def mean_iou(logits: np.ndarray, labels: np.ndarray) -> float:
    predicted = logits.argmax(1)
    return float(
        np.mean(
            [
                ((predicted == c) & (labels == c)).sum() / ((predicted == c) | (labels == c)).sum()
                for c in range(logits.shape[1])
            ]
        )
    )


class TestBestOffsets:
    def test_a_rare_class_is_predicted_below_one_half(self) -> None:
        logits, labels = rare()
        offsets = best_offsets(logits, labels)
        assert offsets[1] - offsets[0] > 0.5
        others = rare(1)
        assert mean_iou(others[0] + offsets, others[1]) > mean_iou(*others) + 0.05

    def test_no_pair_of_offsets_is_better(self) -> None:
        logits, labels = rare()
        found = mean_iou(logits + best_offsets(logits, labels), labels)
        every = [mean_iou(logits + np.array([0, 0.25 * n], np.float32), labels) for n in range(-16, 17)]
        assert found >= max(every) - 1e-9

    def test_nothing_is_gained_where_all_is_right(self) -> None:
        labels = np.arange(12, dtype=np.uint8) % 3
        assert not best_offsets(np.eye(4, dtype=np.float32)[labels] * 9, labels).any()


class TestBalance:
    @pytest.fixture
    def data(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        register(monkeypatch)
        return write_data(write_data(tmp_path / "data"), 2, "val")

    @pytest.mark.parametrize("dsrl", [False, True])
    def test_moves_the_logits_alone(self, data: Path, dsrl: bool, tmp_path: Path) -> None:
        made = recipe(dsrl=dsrl, ema=0.5)
        run(made, data, tmp_path / "run")
        seen: list[int] = []
        found = balance(tmp_path / "run", "last.pt", samples(data), samples(data, "val"), CPU, seen.append)
        assert sum(seen) == 8
        assert found.path == tmp_path / "run" / BALANCED
        assert found.training[1] >= found.training[0]
        before, after = (load_network(tmp_path / "run" / name)[0] for name in ("last.pt", BALANCED))
        with torch.no_grad():
            image = torch.randn(1, 3, *made.size)
            moved = after(image) - before(image)
        offsets = torch.tensor(found.offsets)[:, None, None].expand_as(moved[0])
        assert torch.allclose(moved[0], offsets, atol=1e-4)

    def test_without_validation(self, data: Path, tmp_path: Path) -> None:
        run(recipe(), data, tmp_path / "run")
        assert balance(tmp_path / "run", "last.pt", samples(data), None, CPU).validation is None

    def test_logits_without_a_bias(self, data: Path, tmp_path: Path) -> None:
        made = recipe(network="dabnet", size=(32, 32))
        network = create("dabnet", classes=len(made.labels))
        save_checkpoint(tmp_path / "last.pt", {"recipe": made.to_dict(), "network": network.state_dict()})
        with pytest.raises(UsageError, match="the layer that gives the logits, but that of DABNet has none; train"):
            balance(tmp_path, "last.pt", samples(data), None, CPU)
        assert not (tmp_path / BALANCED).exists()

    def test_no_checkpoint(self, data: Path, tmp_path: Path) -> None:
        with pytest.raises(ModelError, match="cannot read the checkpoint"):
            balance(tmp_path, "last.pt", samples(data), None, CPU)
