"""Effects of mixtures, against a network of which every effect is known."""

from __future__ import annotations

import math
from collections.abc import Collection

import numpy as np
import pytest
from numpy.typing import NDArray

from edgeseg.calibration.measure import Feed
from edgeseg.calibration.sensitivity import (
    Drop,
    Effect,
    MixtureScore,
    SearchFrame,
    Truth,
    measure_sensitivity,
    sensitivity_runs,
)
from edgeseg.errors import CalibrationError

LAYERS = ("quiet", "loud")
TRUTH = Truth(2, 255)


def run(feed: Feed, quantized: Collection[str]) -> NDArray[np.float32]:
    """Two classes on 4x4 pixels; "quiet" moves the logits by 0.1, "loud" turns the first row over."""
    logits = np.zeros((1, 2, 4, 4), np.float32)
    logits[0, 0] = feed["image"]
    if "quiet" in quantized:
        logits[0, 0] += 0.1
    if "loud" in quantized:
        logits[0, 0, 0] *= -1
    return logits


def frame(seed: int, *, labelled: bool = False) -> SearchFrame:
    values = np.random.default_rng(seed).choice([-2.0, 2.0], (4, 4)).astype(np.float32)
    values[0] = 2.0  # class 0
    return SearchFrame({"image": values}, (values < 0).astype(np.uint8) if labelled else None)


def test_each_layer_alone_and_spared() -> None:
    done: list[int] = []
    found = measure_sensitivity(run, LAYERS, [frame(0), frame(1)], progress=done.append)
    assert found.frames == 2
    assert len(done) == sensitivity_runs(2, 2) == 12
    quiet, loud = found.layers
    assert [quiet.name, loud.name] == list(LAYERS)
    assert found.float_network == Effect(0.0, 100.0, None)
    assert found.float_network.snr == math.inf
    # 0.1 on every pixel against a signal of 2: (0.1 / 2)^2.
    assert quiet.alone.noise == pytest.approx(0.0025)
    assert quiet.alone.snr == pytest.approx(26.02, abs=0.01)
    assert quiet.alone.agreement == 100.0
    # A quarter of the pixels moves by 4 and changes its class.
    assert loud.alone.noise == pytest.approx(0.25 * 4)
    assert loud.alone.agreement == 75.0
    assert quiet.spared == loud.alone
    assert loud.spared == quiet.alone
    assert found.int8_network.agreement == 75.0


def test_scores_against_labels() -> None:
    frames = [frame(seed, labelled=True) for seed in range(3)]
    found = measure_sensitivity(run, LAYERS, frames, TRUTH)
    assert found.float_network.miou == 100.0
    assert found.layers[0].alone.miou == 100.0
    labels = np.stack([each.labels for each in frames if each.labels is not None])
    predicted = labels.copy()
    predicted[:, 0] = 1
    iou = [((labels == c) & (predicted == c)).sum() / ((labels == c) | (predicted == c)).sum() for c in (0, 1)]
    assert found.layers[1].alone.miou == pytest.approx(100 * np.mean(iou))
    assert found.int8_network.miou == found.layers[1].alone.miou


def test_without_sparing() -> None:
    found = measure_sensitivity(run, LAYERS, [frame(0)], spare=False)
    assert [layer.spared for layer in found.layers] == [None, None]
    assert sensitivity_runs(2, 1, spare=False) == 4


def test_blocks() -> None:
    layers = (*LAYERS, "mute")
    done: list[int] = []
    found = measure_sensitivity(run, layers, [frame(0)], progress=done.append, blocks=[("quiet", "mute"), ("loud",)])
    each = measure_sensitivity(run, layers, [frame(0)])
    assert len(done) == sensitivity_runs(2, 1) == 6
    first, second = found.layers
    assert (first.name, first.others, first.layers) == ("quiet", ("mute",), ("quiet", "mute"))
    assert second == each.layers[1]
    assert (first.alone, first.spared) == (each.layers[0].alone, each.layers[0].spared)
    assert found.int8_network == each.int8_network
    together = measure_sensitivity(run, layers, [frame(0)], blocks=[layers])
    assert together.layers[0].alone == each.int8_network
    assert together.layers[0].spared == each.float_network


def test_mixtures_score_as_the_analysis_does() -> None:
    frames = [frame(seed, labelled=True) for seed in range(3)]
    found = measure_sensitivity(run, LAYERS, frames, TRUTH)
    score = MixtureScore(run, LAYERS, frames, TRUTH)
    assert score.drop(LAYERS) == Drop(0.0, 0.0)
    assert found.int8_network.miou is not None
    assert score.drop(()).points == pytest.approx(100.0 - found.int8_network.miou)
    assert score.drop({"loud"}) == Drop(0.0, 0.0)
    assert MixtureScore(run, LAYERS, frames, None).drop({"quiet"}) == Drop(25.0, 0.0)


def test_the_error_of_a_drop_is_that_of_its_frames() -> None:
    frames = [frame(seed, labelled=True) for seed in range(6)]
    drop = MixtureScore(run, LAYERS, frames, TRUTH).drop(())
    halves = [MixtureScore(run, LAYERS, frames[i::2], TRUTH).drop(()).points for i in (0, 1)]
    assert 0 < drop.error < abs(drop.points)
    assert drop.bound == drop.points + drop.error
    assert abs(halves[0] - halves[1]) < 6 * drop.error
    assert MixtureScore(run, LAYERS, frames[:1], TRUTH).drop(()).error == 0.0, "one frame says nothing of others"


def test_no_frames() -> None:
    with pytest.raises(CalibrationError, match="no frames were given to measure layers on"):
        measure_sensitivity(run, LAYERS, [])
    with pytest.raises(CalibrationError, match="no frames were given to measure layers on"):
        MixtureScore(run, LAYERS, [], None)
