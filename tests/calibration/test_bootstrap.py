"""Intervals of scores: against the theory where there is one, and against scoring each resample by itself."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from edgeseg.calibration import bootstrap
from edgeseg.calibration.bootstrap import RESAMPLES, class_counts, drop_error, score_interval, score_intervals
from edgeseg.metrics import ConfusionMatrix

Counts = NDArray[np.int64]


def matrices(frames: int, classes: int, seed: int = 0, right: int = 400) -> list[Counts]:
    """Confusion matrices of frames with mostly right pixels; some frames lack some classes."""
    random = np.random.default_rng(seed)
    found = random.integers(0, 40, (frames, classes, classes + 1))
    found[:, range(classes), range(classes)] += random.integers(0, right, (frames, classes))
    found[random.random((frames, classes)) < 0.3] = 0
    return list(found)


def shares(values: list[float], pixels: int = 1000) -> list[Counts]:
    """Frames of which that share of the pixels is right."""
    return [np.array([[round(value * pixels)], [pixels]], np.int64) for value in values]


class TestCounts:
    def test_their_sums_give_the_iou_of_all_frames(self) -> None:
        random = np.random.default_rng(1)
        total, parts = ConfusionMatrix(4), []
        for _ in range(5):
            labels, prediction = random.integers(0, 4, (2, 8, 8)).astype(np.uint8)
            labels[0] = 255
            prediction[1] = 9  # none of the classes
            one = ConfusionMatrix(4)
            for matrix in (total, one):
                matrix.add(labels, prediction, 255)
            parts.append(class_counts(one.matrix, 255))
        hits, union = np.sum(parts, axis=0)
        assert hits / union == pytest.approx(total.iou())

    def test_an_ignored_class_has_none(self) -> None:
        labels, prediction = np.zeros((1, 4), np.uint8), np.array([[0, 0, 1, 1]], np.uint8)
        matrix = ConfusionMatrix(2)
        matrix.add(labels, prediction, 1)
        assert np.isnan(matrix.iou()[1])
        assert class_counts(matrix.matrix, 1).tolist() == [[2, 0], [4, 0]]
        assert class_counts(matrix.matrix, None).tolist() == [[2, 0], [4, 2]]


class TestInterval:
    def test_is_that_of_the_normal_law_for_many_frames(self) -> None:
        values = np.random.default_rng(2).uniform(0.5, 0.9, 400).tolist()
        low, high = score_interval(shares(values)) or (0.0, 0.0)
        mean, error = 100 * np.mean(values), 100 * np.std(values) / np.sqrt(len(values))
        assert (low, high) == pytest.approx((mean - 1.96 * error, mean + 1.96 * error), abs=0.15 * error)

    def test_holds_the_truth_about_as_often_as_it_says(self) -> None:
        random = np.random.default_rng(3)
        found = [score_interval(shares(random.normal(0.7, 0.05, 40).tolist())) or (0.0, 0.0) for _ in range(200)]
        assert 0.88 < np.mean([low <= 70 <= high for low, high in found]) < 0.99

    def test_is_the_same_every_time(self) -> None:
        frames = [class_counts(m) for m in matrices(20, 5)]
        assert score_interval(frames) == score_interval(frames)

    def test_equals_scoring_every_resample(self) -> None:
        """One confusion matrix for each of the drawn samples, scored as any other."""
        given = matrices(12, 4)
        random, scores = np.random.default_rng(0), []
        for drawn in random.integers(0, 12, (RESAMPLES, 12)):
            total = ConfusionMatrix(4)
            total._matrix += sum(given[i] for i in drawn)
            scores.append(100 * total.mean_iou())
        expected = np.percentile(scores, [2.5, 97.5])
        assert score_interval([class_counts(m) for m in given]) == pytest.approx(tuple(expected))

    def test_small_blocks_give_as_wide_an_interval(self, monkeypatch: pytest.MonkeyPatch) -> None:
        frames = [class_counts(m) for m in matrices(50, 6)]
        low, high = score_interval(frames) or (0.0, 0.0)
        monkeypatch.setattr(bootstrap, "_BLOCK", 350)
        assert score_interval(frames) == pytest.approx((low, high), abs=0.1 * (high - low))

    @pytest.mark.parametrize("frames", [[], shares([0.5]), [np.zeros((2, 3), np.int64)] * 4])
    def test_nothing_to_draw_from(self, frames: list[Counts]) -> None:
        assert score_interval(frames) is None
        assert score_intervals(frames, frames) is None

    def test_frames_without_a_labelled_pixel_do_not_count(self) -> None:
        blank = np.zeros((2, 1), np.int64)
        assert score_interval([blank, *shares([0.8, 0.8])]) == pytest.approx((80, 80))


class TestIntervals:
    def test_are_paired(self) -> None:
        """Hard and easy frames: each score is unsure by tens of points, their difference by nothing."""
        values = np.linspace(0.2, 0.9, 30)
        found = score_intervals(shares(values.tolist()), shares((values - 0.05).tolist()))
        assert found is not None
        assert found.float_score[1] - found.float_score[0] > 10
        assert found.drop == pytest.approx((5, 5))

    def test_each_is_that_of_its_network_alone(self) -> None:
        first, second = ([class_counts(m) for m in matrices(15, 4, seed)] for seed in (4, 5))
        found = score_intervals(first, second)
        assert found is not None
        assert (found.float_score, found.int8_score) == (score_interval(first), score_interval(second))

    def test_a_gain_is_a_negative_drop(self) -> None:
        found = score_intervals(shares([0.5, 0.6]), shares([0.6, 0.7]))
        assert found is not None
        assert found.drop == pytest.approx((-10, -10))

    def test_refuses_other_frames(self) -> None:
        with pytest.raises(ValueError, match="both networks need the same frames, but have 2 and 3"):
            score_intervals(shares([0.5, 0.6]), shares([0.5, 0.6, 0.7]))


class TestError:
    def test_is_that_of_a_mean_of_differences(self) -> None:
        random = np.random.default_rng(3)
        before, lost = random.uniform(0.5, 0.9, 40), random.uniform(0, 0.1, 40)
        found = drop_error(shares(before.tolist(), 10**6), shares((before - lost).tolist(), 10**6))
        assert found == pytest.approx(100 * lost.std() / np.sqrt(40), rel=0.1)

    def test_none_of_a_single_frame_or_of_equal_losses(self) -> None:
        assert drop_error(shares([0.9]), shares([0.8])) == 0.0
        assert drop_error(shares([0.9, 0.5]), shares([0.8, 0.4])) == pytest.approx(0, abs=1e-9)
