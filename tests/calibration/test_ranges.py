"""Range choosers against references that are written from their definitions, without a thought for speed."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from edgeseg.calibration.observers import BINS, Histogram, HistogramObserver
from edgeseg.calibration.ranges import METHODS, SMALLEST_AMAX, ZERO_AMAX, entropy, minmax, mse, percentile


def histogram_of(values: NDArray[np.float32], bins: int = BINS) -> Histogram:
    observer = HistogramObserver(bins, sample=None)
    observer.add(values)
    return observer.histogram()


def distributions() -> dict[str, NDArray[np.float32]]:
    random = np.random.default_rng(3)
    normal = random.standard_normal(20000)
    return {
        "normal": normal.astype(np.float32),
        "relu": np.maximum(normal, 0).astype(np.float32),
        "laplace": random.laplace(size=20000).astype(np.float32) * 7,
        "outlier": np.append(normal, [300.0]).astype(np.float32),
        "heavy": random.standard_t(2, size=20000).astype(np.float32),
        "uniform": random.uniform(-3, 5, 20000).astype(np.float32),
    }


def squared_error(values: NDArray[np.float32], amax: float) -> float:
    """Mean squared error of quantizing the values themselves, one definition for all."""
    scale = amax / 127
    exact = values.astype(np.float64)
    return float(np.mean((np.clip(np.rint(exact / scale), -127, 127) * scale - exact) ** 2))


@pytest.mark.parametrize("name", distributions())
class TestAgainstReference:
    def test_minmax(self, name: str) -> None:
        values = distributions()[name]
        assert minmax(histogram_of(values)) == float(np.abs(values).max())

    @pytest.mark.parametrize("share", [0.9, 0.99, 0.9999])
    def test_percentile(self, name: str, share: float) -> None:
        values = distributions()[name]
        histogram = histogram_of(values)
        ordered = np.sort(np.abs(values))
        expected = ordered[math.ceil(share * values.size) - 1]
        assert abs(percentile(histogram, share) - expected) <= histogram.width

    def test_mse(self, name: str) -> None:
        values = distributions()[name]
        largest = float(np.abs(values).max())
        best = min(squared_error(values, largest * i / 2000) for i in range(4, 2001))
        assert squared_error(values, mse(histogram_of(values))) <= best * 1.01


class TestMse:
    def test_histogram_by_hand(self) -> None:
        """Two values: all candidates can be tried one by one."""
        counts = np.zeros(64, np.int64)
        counts[[10, 63]] = 1000000, 1
        histogram = Histogram(counts, 1.0, 0.0, 63.5, 1000001)
        amax = mse(histogram)

        def error(candidate: float) -> float:
            scale = candidate / 127
            both = [(n, min(round(x / scale), 127) * scale - x) for n, x in ((1000000, 10.5), (1, 63.5))]
            return sum(n * e * e for n, e in both)

        assert error(amax) <= 1.01 * min(error(63.5 * i / 4000) for i in range(8, 4001))

    def test_clips_an_outlier_that_minmax_keeps(self) -> None:
        values = distributions()["outlier"]
        histogram = histogram_of(values)
        assert minmax(histogram) == 300
        assert mse(histogram) < 300
        assert squared_error(values, mse(histogram)) < squared_error(values, 300)


def reference_divergence(counts: list[float], bins: int) -> float:
    """Divergence of one threshold as the published algorithm words it, bin by bin."""
    reference = list(counts[:bins])
    reference[-1] += sum(counts[bins:])
    quantized = [0.0] * bins
    for level in range(128):
        members = [i for i in range(bins) if i * 128 // bins == level]
        filled = [i for i in members if counts[i] > 0]
        for i in filled:
            quantized[i] = sum(counts[j] for j in members) / len(filled)
    divergence = 0.0
    for p, q in zip(reference, quantized, strict=True):
        if p > 0:
            if q == 0:
                return math.inf
            p, q = p / sum(reference), q / sum(quantized)
            divergence += p * math.log(p / q)
    return divergence


class TestEntropy:
    @pytest.mark.parametrize("name", ["laplace", "heavy", "normal"])
    def test_against_the_published_algorithm(self, name: str) -> None:
        histogram = histogram_of(distributions()[name], bins=256)
        used = int(np.flatnonzero(histogram.counts)[-1]) + 1
        counts = [float(n) for n in histogram.counts[:used]]
        counts[0] = counts[1]
        candidates = [*range(128, used, 4), used] if used > 128 else [used]
        divergences = [reference_divergence(counts, bins) for bins in candidates]
        best = max(bins for bins, d in zip(candidates, divergences, strict=True) if d <= min(divergences) + 1e-12)
        assert entropy(histogram) == pytest.approx(min(best * histogram.width, histogram.largest))

    def test_many_source_bins_stand_behind_each_level(self) -> None:
        """With as many source bins as levels nothing would ever be clipped."""
        values = distributions()["laplace"]
        histogram = histogram_of(values)
        assert entropy(histogram) < 0.8 * minmax(histogram)

    def test_exact_zeros_do_not_change_the_range(self) -> None:
        values = distributions()["laplace"]
        more_zeros = np.append(values, np.zeros(100000, np.float32))
        assert entropy(histogram_of(more_zeros)) == entropy(histogram_of(values))


@pytest.mark.parametrize("method", METHODS)
class TestEveryMethod:
    def test_zeros(self, method: str) -> None:
        assert METHODS[method](histogram_of(np.zeros(100, np.float32))) == ZERO_AMAX

    @pytest.mark.parametrize("value", [1e-45, 1e-38, 1e-20, 1.0, -6.5, 3.4e38])
    def test_scale_is_a_normal_float32(self, method: str, value: float) -> None:
        amax = METHODS[method](histogram_of(np.array([0.0, value, value], np.float32)))
        scale = np.float32(amax / 127)
        assert np.finfo(np.float32).tiny <= scale < np.inf
        assert np.isfinite(np.float32(1) / scale)
        assert amax <= max(abs(float(np.float32(value))), SMALLEST_AMAX)

    def test_one_value_far_from_zero(self, method: str) -> None:
        amax = METHODS[method](histogram_of(np.full(1000, 200, np.float32)))
        assert amax == pytest.approx(200, rel=0.01)

    def test_never_beyond_the_largest_magnitude(self, method: str) -> None:
        for values in distributions().values():
            assert 0 < METHODS[method](histogram_of(values)) <= float(np.abs(values).max())

    def test_scales_with_the_tensor(self, method: str) -> None:
        values = distributions()["heavy"]
        choose = METHODS[method]
        assert choose(histogram_of(values * 1024)) == pytest.approx(1024 * choose(histogram_of(values)))

    def test_sample_without_the_extreme_value(self, method: str) -> None:
        counts = np.zeros(64, np.int64)
        counts[:4] = 100
        amax = METHODS[method](Histogram(counts, 0.5, -30.0, 2.0, 100000))
        assert 1.5 < amax <= 30
