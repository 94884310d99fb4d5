"""CRF-as-RNN through the trainer: end to end, with the recipe's normalisation, and back from its checkpoint."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from support.training import log, network, one_thread, recipe, run, samples, write_data

from edgeseg.models.crfasrnn import CRFasRNN
from edgeseg.training.augment import Augmentation
from edgeseg.training.checkpoint import load_network
from edgeseg.training.objective import build_objective
from edgeseg.training.recipe import Recipe
from edgeseg.training.samples import Batch, batches

MATRICES = ("crf.appearance", "crf.smoothness", "crf.compatibility")


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    with one_thread():
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(write_data(tmp_path_factory.mktemp("data")), 2, "val")


def made() -> Recipe:
    """A small FCN-8s with the CRF on frames as they are, so that the loss of an epoch tells what was learned."""
    return recipe(
        network="crfasrnn",
        options={"width": 0.125},
        deploy=True,
        size=(24, 32),
        optimizer="adamw",
        lr=2e-3,
        epochs=6,
        mean=(100.0, 90.0, 80.0),
        std=(50.0, 60.0, 70.0),
        augmentation=Augmentation((1.0, 1.0), mirror=False, color=0.0),
    )


def first(data: Path) -> Batch:
    return next(iter(batches(samples(data), made(), 0)))


def test_gradients_reach_the_matrices_and_every_convolution(data: Path) -> None:
    objective = build_objective(network(made()), made(), samples(data))
    batch = first(data)
    objective(batch.low, None, batch.labels)["loss"].backward()
    without = [n for n, p in objective.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert without == []
    moved = [n for n, p in objective.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0]
    for name in (*MATRICES, "backbone.stages.0.0.weight", "fully_connected.fc6.weight", "interpolation.weight"):
        assert f"network.{name}" in moved


def test_learns_end_to_end(data: Path, tmp_path: Path) -> None:
    start = {name: value.clone() for name, value in network(made()).state_dict().items()}
    result = run(made(), data, tmp_path / "run")
    losses = [float(row["loss"]) for row in log(tmp_path / "run")]
    assert losses[-1] < 0.8 * losses[0], losses
    assert result.miou is not None
    trained, kept = load_network(tmp_path / "run" / "last.pt")
    assert isinstance(trained, CRFasRNN)
    state = trained.state_dict()
    for name in MATRICES:
        assert (state[name] - start[name]).abs().max() > 1e-3, name
        # Other classes count too, which no preset can say.
        assert state[name].fill_diagonal_(0).abs().max() > 1e-4, name
    assert kept == made()


def test_sees_the_frame_that_was_normalised(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The recipe's mean and std reach the layer, also of a network that a checkpoint gives."""
    source = samples(data)
    frames = [source.read(index)[0] for index in range(len(source))]
    seen: list[np.ndarray] = []

    def same(pixels: np.ndarray, *_: float) -> list[object]:
        seen.append(pixels)
        return [lambda values, transposed=False: values] * 2

    monkeypatch.setattr("edgeseg.models.mean_field.message_filters", same)
    with torch.no_grad():
        network(made())(first(data).low)
    assert len(seen) == 4
    assert all(any(np.array_equal(pixels, frame) for frame in frames) for pixels in seen)
