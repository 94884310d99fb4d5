"""Histograms of tensors that stream by: constant memory, a range that grows, and the same result in any frame order."""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeseg.errors import CalibrationError

__all__ = ["BINS", "SAMPLE", "Histogram", "HistogramObserver", "frame_sample", "sample_stride"]

BINS = 16384
"""Bins up to the power of two above the largest magnitude: at least 8192 below that, 64 to a step of unclipped INT8."""

SAMPLE = 65536
"""Values of one tensor of one frame that go into its histogram; minimum and maximum always see every value.

Measured on ESPNet (64 frames) and ESPNetv2 s2.0 (32 frames): ranges chosen by least squared error from such a sample
have at most 2.2 % (median 0.05 %) more squared error over all values than ranges chosen from all of them.
"""

_ALL_SAMPLES = 64 * SAMPLE
_SMALLEST_SAMPLE = 4096

# Powers of two beyond which a bin's width or its reciprocal would leave the normal float32 numbers.
_LOWEST_EXPONENT = -100


@dataclass(frozen=True, eq=False)
class Histogram:
    """How often magnitudes |x| of a tensor came, over all frames.

    Attributes:
        counts: (bins,) int64; bin i counts magnitudes in [i * width, (i + 1) * width).
        width: of a bin, in the tensor's units.
        minimum, maximum: the smallest and largest value seen, with sign; exact, where the counts may be of a sample.
        elements: values seen, those outside the sample too.
    """

    counts: NDArray[np.int64]
    width: float
    minimum: float
    maximum: float
    elements: int

    def __post_init__(self) -> None:
        if not (math.isfinite(self.width) and self.width > 0 and self.counts.ndim == 1 and self.counts.size):
            raise CalibrationError(
                f"a histogram needs bins of positive width, but has {self.counts.size} of width {self.width}"
            )
        if not (math.isfinite(self.minimum) and math.isfinite(self.maximum) and self.minimum <= self.maximum):
            raise CalibrationError(f"a histogram needs a finite range, but has [{self.minimum}, {self.maximum}]")

    @property
    def largest(self) -> float:
        """The largest magnitude seen."""
        return max(abs(self.minimum), abs(self.maximum))

    @property
    def centers(self) -> NDArray[np.float64]:
        """(bins,) float64: the magnitude in the middle of each bin."""
        return (np.arange(self.counts.size, dtype=np.float64) + 0.5) * self.width

    def clipped_share(self, amax: float) -> float:
        """Share of the counted values whose magnitude lies beyond amax, 0..1 (to the width of a bin)."""
        total = int(self.counts.sum())
        return float(self.counts[math.ceil(amax / self.width) :].sum() / total) if total else 0.0


class HistogramObserver:
    """Counts the magnitudes of the tensors that it is shown.

    The range is the smallest power of two above every magnitude so far. It grows by merging neighbouring bins, which
    is exact, so that neither the order of the frames nor where they were split into tensors changes the result. Several
    threads may add at once.

    Args:
        bins: number of bins, a power of two.
        sample: largest number of values of one tensor that are counted; None for all. Larger tensors are read with a
            fixed stride, see `sample_stride`.
    """

    def __init__(self, bins: int = BINS, sample: int | None = SAMPLE) -> None:
        if bins < 2 or bins & (bins - 1):
            raise CalibrationError(f"the number of bins must be a power of two from 2 on, but is {bins}")
        self._sample = sample
        self._counts = np.zeros(bins, np.int64)
        self._exponent = _LOWEST_EXPONENT
        self._minimum, self._maximum = math.inf, -math.inf
        self._elements = 0
        self._lock = threading.Lock()

    def add(self, array: NDArray[Any]) -> None:
        """Count one tensor of any shape and of a type that float32 holds.

        Raises:
            CalibrationError: for an empty tensor, NaN or infinity; nothing is counted then.
        """
        if not array.size:
            raise CalibrationError(f"a tensor of shape {array.shape} has no values to observe")
        values = np.ascontiguousarray(array, np.float32).reshape(-1)
        extremes = float(values.min()), float(values.max())
        self.add_sample(values[:: sample_stride(array.shape, self._sample)], *extremes, values.size)

    def add_sample(self, values: NDArray[np.float32], minimum: float, maximum: float, elements: int) -> None:
        """Count some values of one tensor.

        Args:
            values: float32 of any shape, within minimum and maximum.
            minimum, maximum: of the whole tensor.
            elements: number of values of the whole tensor.

        Raises:
            CalibrationError: for NaN or infinity; nothing is counted then.
        """
        if not (math.isfinite(minimum) and math.isfinite(maximum)):
            raise CalibrationError(f"values are NaN or infinite (minimum {minimum}, maximum {maximum})")
        with self._lock:
            self._grow(max(abs(minimum), abs(maximum)))
            self._minimum, self._maximum = min(self._minimum, minimum), max(self._maximum, maximum)
            self._elements += elements
            magnitudes = np.abs(values).reshape(-1)
            magnitudes *= np.float32(math.ldexp(self._counts.size, -self._exponent))
            self._counts += np.bincount(magnitudes.astype(np.intp), minlength=self._counts.size)

    def _grow(self, magnitude: float) -> None:
        """Widen the range until it lies above a magnitude."""
        exponent = math.frexp(magnitude)[1]
        steps = exponent - self._exponent
        if magnitude == 0 or steps <= 0:
            return
        self._exponent = exponent
        merged = min(1 << min(steps, 62), self._counts.size)
        grown = np.zeros_like(self._counts)
        grown[: self._counts.size // merged] = self._counts.reshape(-1, merged).sum(axis=1)
        self._counts = grown

    def histogram(self) -> Histogram:
        """What was counted so far.

        Raises:
            CalibrationError: when nothing was.
        """
        if not self._elements:
            raise CalibrationError("no tensor was observed, so there is no range to choose from")
        width = math.ldexp(1.0, self._exponent) / self._counts.size
        return Histogram(self._counts.copy(), width, self._minimum, self._maximum, self._elements)


def frame_sample(frames: int) -> int:
    """Values of a tensor of one frame that are worth counting where there are so many frames.

    SAMPLE of each of up to 64; of more frames as many values in all, since more of them move no range.
    """
    return max(_SMALLEST_SAMPLE, min(SAMPLE, _ALL_SAMPLES // max(1, frames)))


@lru_cache(maxsize=4096)
def sample_stride(shape: tuple[int, ...], sample: int | None) -> int:
    """Stride through a flattened tensor that reads at most `sample` values.

    It has no divisor in common with any dimension, so that it visits every row, column and channel alike: a grid of
    rows and columns would always miss some, such as the first row, where the zeros of padding make outliers. It depends
    on nothing but the shape, so that a second pass reads the same values.

    Args:
        shape: of the tensor.
        sample: values wanted at most; None for all.
    """
    elements = math.prod(shape)
    if sample is None or elements <= sample:
        return 1
    stride = -(-elements // sample)
    while any(math.gcd(stride, size) > 1 for size in shape):
        stride += 1
    return stride
