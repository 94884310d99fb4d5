"""Streaming histograms."""

from __future__ import annotations

import itertools
import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from numpy.typing import NDArray

from edgeseg.calibration.observers import BINS, Histogram, HistogramObserver, frame_sample, sample_stride
from edgeseg.errors import CalibrationError


def observed(*arrays: NDArray[np.float32], bins: int = 64, sample: int | None = None) -> Histogram:
    observer = HistogramObserver(bins, sample)
    for array in arrays:
        observer.add(array)
    return observer.histogram()


def frames(count: int = 5) -> list[NDArray[np.float32]]:
    """Tensors whose spread differs by powers of ten."""
    random = np.random.default_rng(7)
    return [random.standard_normal((2, 30, 41)).astype(np.float32) * np.float32(10.0**i) for i in range(-2, count - 2)]


def test_counts_are_those_of_numpy() -> None:
    arrays = frames()
    histogram = observed(*arrays)
    everything = np.abs(np.concatenate([a.reshape(-1) for a in arrays]))
    edges = np.arange(65) * histogram.width
    assert histogram.counts.tolist() == np.histogram(everything, edges)[0].tolist()
    assert histogram.elements == histogram.counts.sum() == everything.size
    assert histogram.largest == everything.max()
    assert histogram.minimum == min(a.min() for a in arrays)
    assert histogram.maximum == max(a.max() for a in arrays)


def test_range_is_the_power_of_two_above_the_largest_magnitude() -> None:
    for largest, limit in [(3.9, 4.0), (4.0, 8.0), (0.3, 0.5), (-5.0, 8.0), (3e38, 2.0**128)]:
        histogram = observed(np.array([0.0, largest], np.float32))
        assert histogram.width * 64 == limit


def test_order_and_division_of_the_frames_do_not_matter() -> None:
    arrays = frames(4)
    expected = observed(*arrays)
    for order in itertools.permutations(arrays):
        assert np.array_equal(observed(*order).counts, expected.counts)
    together = observed(np.concatenate([a.reshape(-1) for a in arrays]))
    assert np.array_equal(together.counts, expected.counts)
    assert together.width == expected.width


def test_growing_over_the_whole_range_of_float32() -> None:
    tiny = np.full(3, 1e-45, np.float32)
    histogram = observed(tiny, np.zeros(2, np.float32), np.array([3e38], np.float32))
    assert histogram.counts[0] == 5
    assert histogram.counts.sum() == 6
    assert histogram.counts[math.floor(3e38 / histogram.width)] == 1


def test_zeros_alone() -> None:
    histogram = observed(np.zeros((3, 4), np.float32))
    assert histogram.counts[0] == 12
    assert histogram.largest == 0
    assert histogram.width > 0


def test_other_types_and_layouts() -> None:
    values = np.arange(24).reshape(2, 3, 4)
    expected = observed(values.astype(np.float32)).counts.tolist()
    assert observed(values.astype(np.uint8)).counts.tolist() == expected
    assert observed(values.astype(np.float64).transpose(2, 0, 1)).counts.tolist() == expected


@pytest.mark.parametrize("strange", [np.nan, np.inf, -np.inf])
def test_non_finite_values_are_refused_and_not_counted(strange: float) -> None:
    observer = HistogramObserver(64)
    observer.add(np.ones(10, np.float32))
    values = np.full(100, 5, np.float32)
    values[[3, 50]] = strange
    with pytest.raises(CalibrationError, match=r"values are NaN or infinite \(minimum .*, maximum .*\)"):
        observer.add(values)
    assert observer.histogram().elements == 10
    assert observer.histogram().maximum == 1


def test_memory_does_not_grow_with_frames() -> None:
    observer = HistogramObserver(sample=None)
    for array in frames():
        observer.add(array)
        assert observer.histogram().counts.size == BINS
    assert sum(getattr(v, "nbytes", 0) for v in vars(observer).values()) == BINS * 8


class TestSampling:
    @pytest.mark.parametrize("shape", [(1, 64, 90, 120), (1, 16, 180, 240), (1, 3, 512, 1024), (1, 25, 256, 512)])
    def test_every_row_column_and_channel_is_visited(self, shape: tuple[int, ...]) -> None:
        stride = sample_stride(shape, 65536)
        elements = math.prod(shape)
        positions = np.arange(0, elements, stride)
        assert 65536 // 4 < positions.size <= 65536
        for axis, visited in enumerate(np.unravel_index(positions, shape)):
            assert np.unique(visited).size == shape[axis]

    def test_small_tensors_are_counted_whole(self) -> None:
        assert sample_stride((1, 4, 128, 128), 65536) == 1
        assert sample_stride((1, 4, 512, 512), None) == 1

    def test_minimum_and_maximum_see_every_value(self) -> None:
        values = np.zeros((1, 8, 100, 100), np.float32)
        values[0, 3, 17, 1], values[0, 5, 2, 2] = -70, 90
        histogram = observed(values, sample=1000)
        assert (histogram.minimum, histogram.maximum, histogram.elements) == (-70, 90, 80000)
        assert histogram.counts.sum() <= 1000

    def test_a_sample_has_the_distribution_of_the_whole(self) -> None:
        values = np.random.default_rng(1).standard_normal((1, 16, 200, 300)).astype(np.float32)
        whole, part = observed(values, bins=256), observed(values, bins=256, sample=65536)
        difference = np.cumsum(whole.counts) / whole.counts.sum() - np.cumsum(part.counts) / part.counts.sum()
        assert np.abs(difference).max() < 0.01


class TestHistogram:
    def test_clipped_share(self) -> None:
        histogram = observed(np.array([0.5, 1.5, 2.5, 3.5], np.float32))
        assert histogram.clipped_share(4) == 0
        assert histogram.clipped_share(2) == 0.5
        assert histogram.clipped_share(0.01) == 1

    def test_impossible_values(self) -> None:
        with pytest.raises(CalibrationError, match=r"bins of positive width, but has 4 of width 0\.0"):
            Histogram(np.zeros(4, np.int64), 0.0, 0.0, 1.0, 4)
        with pytest.raises(CalibrationError, match=r"finite range, but has \[1\.0, nan\]"):
            Histogram(np.zeros(4, np.int64), 1.0, 1.0, math.nan, 4)


def test_nothing_observed() -> None:
    with pytest.raises(CalibrationError, match="no tensor was observed"):
        HistogramObserver().histogram()
    with pytest.raises(CalibrationError, match=r"shape \(0, 3\) has no values"):
        HistogramObserver().add(np.zeros((0, 3), np.float32))


@pytest.mark.parametrize("bins", [0, 1, 100])
def test_bins_must_be_a_power_of_two(bins: int) -> None:
    with pytest.raises(CalibrationError, match=f"power of two from 2 on, but is {bins}"):
        HistogramObserver(bins)


@pytest.mark.parametrize(
    ("count", "sample"), [(0, 65536), (1, 65536), (64, 65536), (65, 64527), (256, 16384), (1024, 4096), (10**6, 4096)]
)
def test_more_than_64_frames_are_seen_in_smaller_samples(count: int, sample: int) -> None:
    assert frame_sample(count) == sample


def test_several_threads_may_add_at_once() -> None:
    arrays = frames() * 20
    observer = HistogramObserver(64)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(observer.add, arrays))
    together, alone = observer.histogram(), observed(*arrays)
    assert np.array_equal(together.counts, alone.counts)
    assert (together.width, together.elements) == (alone.width, alone.elements)
