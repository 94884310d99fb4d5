"""Range choosers: from the histogram of a tensor to amax, the magnitude that the INT8 level 127 stands for.

Symmetric INT8 as TensorRT defines it: scale = amax / 127, level = round(x / scale) clipped to -127..127.
Every chooser is a pure function. An amax is always positive and finite, at least SMALLEST_AMAX, and otherwise
never beyond the largest magnitude seen. A tensor that was zero in every frame gets amax 1.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray

from edgeseg.calibration.observers import Histogram

__all__ = [
    "AUTO",
    "CANDIDATES",
    "LEVELS",
    "METHODS",
    "SMALLEST_AMAX",
    "ZERO_AMAX",
    "entropy",
    "minmax",
    "mse",
    "percentile",
]

LEVELS = 127
"""Positive levels of symmetric INT8."""

ZERO_AMAX = 1.0
"""amax of a tensor that was zero in every frame: any positive value keeps those zeros exact."""

SMALLEST_AMAX = LEVELS * 1e-8
"""Floor of every amax. A tensor below it is dead: trained networks hold branches whose values never pass 1e-11, and a
scale of that size is lost in FP16 and refused by the linter, while one of 1e-8 keeps the branch as silent as it was.
"""

_SEARCH_RATIO = 1.04
_SEARCH_DEPTH = 512.0
_SEARCH_FINE = 33
_ENTROPY_BINS = 2048
_ENTROPY_LEVELS = 128
_ENTROPY_STEP = 4


def _settle(amax: float, histogram: Histogram) -> float:
    if histogram.largest == 0:
        return ZERO_AMAX
    return max(min(float(amax), histogram.largest), SMALLEST_AMAX)


def minmax(histogram: Histogram) -> float:
    """The largest magnitude seen: nothing is clipped."""
    return _settle(histogram.largest, histogram)


def percentile(histogram: Histogram, share: float = 0.9999) -> float:
    """The magnitude below which a share of the counted values lies, interpolated within its bin.

    Args:
        histogram: of the tensor.
        share: 0..1.
    """
    cumulative = np.cumsum(histogram.counts)
    wanted = share * cumulative[-1]
    bin_index = int(np.searchsorted(cumulative, wanted))
    below = cumulative[bin_index] - histogram.counts[bin_index]
    inside = (wanted - below) / max(int(histogram.counts[bin_index]), 1)
    return _settle((bin_index + inside) * histogram.width, histogram)


def mse(histogram: Histogram) -> float:
    """The amax with the least expected squared error of quantizing and dequantizing the counted magnitudes.

    The error has several minima, so candidates run from the largest magnitude down to 1/512 of it in steps of 4 %, and
    then finely between the neighbours of the best.
    """
    if histogram.largest == 0:
        return ZERO_AMAX
    filled = np.flatnonzero(histogram.counts)
    magnitudes, weights = histogram.centers[filled], histogram.counts[filled].astype(np.float64)
    # Bin centres can lie half a bin beyond the largest value; there the true value is known.
    magnitudes = np.minimum(magnitudes, histogram.largest)
    steps = int(np.ceil(np.log(_SEARCH_DEPTH) / np.log(_SEARCH_RATIO)))
    coarse = histogram.largest * _SEARCH_RATIO ** -np.arange(steps + 1, dtype=np.float64)
    best = _least_error(magnitudes, weights, coarse)
    fine = np.linspace(best / _SEARCH_RATIO, min(best * _SEARCH_RATIO, histogram.largest), _SEARCH_FINE)
    return _settle(_least_error(magnitudes, weights, np.append(fine, best)), histogram)


def _least_error(
    magnitudes: NDArray[np.float64], weights: NDArray[np.float64], candidates: NDArray[np.float64]
) -> float:
    return float(candidates[int(np.argmin([_squared_error(magnitudes, weights, c) for c in candidates]))])


def _squared_error(magnitudes: NDArray[np.float64], weights: NDArray[np.float64], amax: float) -> float:
    """Sum of weighted squared differences between magnitudes and their INT8 values."""
    scaled = magnitudes * (LEVELS / amax)
    levels = np.rint(scaled)
    np.minimum(levels, LEVELS, out=levels)
    levels -= scaled
    levels *= levels
    # Not a dot product: BLAS would start threads of its own for it, which then wait for each other.
    levels *= weights
    return float(levels.sum()) * (amax / LEVELS) ** 2


def entropy(histogram: Histogram) -> float:
    """The amax with the least Kullback-Leibler divergence between the counted magnitudes and their INT8 version.

    As published for TensorRT (S. Migacz, "8-bit Inference with TensorRT", GTC 2017): a histogram of about 2048 bins,
    every fourth threshold from bin 128 on, magnitudes beyond it added to the last bin, and what remains merged into 128
    levels and spread again over the bins that were not empty. As in NVIDIA's later calibrators the bin of zeros takes
    the count of its neighbour, because exact zeros cost nothing at any scale.
    """
    counts, width = _coarsened(histogram)
    if counts.size <= _ENTROPY_LEVELS:
        return _settle(histogram.largest, histogram)
    counts[0] = counts[1]
    if not counts.any():
        return _settle(histogram.largest, histogram)
    candidates = [*range(_ENTROPY_LEVELS, counts.size, _ENTROPY_STEP), counts.size]
    divergences = np.array([_divergence(counts, bins) for bins in candidates])
    # Of equal candidates the widest clips least.
    best = candidates[len(candidates) - 1 - int(np.argmin(divergences[::-1]))]
    return _settle(best * width, histogram)


def _coarsened(histogram: Histogram) -> tuple[NDArray[np.float64], float]:
    """Counts up to the last filled bin, merged into at most 2048 bins, and their width."""
    filled = np.flatnonzero(histogram.counts)
    used = int(filled[-1]) + 1 if filled.size else 0
    merged = max(-(-used // _ENTROPY_BINS), 1)
    counts = np.zeros(-(-used // merged) * merged)
    counts[:used] = histogram.counts[:used]
    return counts.reshape(-1, merged).sum(axis=1), histogram.width * merged


def _divergence(counts: NDArray[np.float64], bins: int) -> float:
    """KL divergence in nats of the first bins from their 128-level version; inf where that has no mass."""
    kept = counts[:bins]
    filled = kept > 0
    starts = -(-np.arange(_ENTROPY_LEVELS) * bins // _ENTROPY_LEVELS)
    mass = np.add.reduceat(kept, starts)
    members = np.add.reduceat(filled, starts, dtype=np.int64)
    sizes = np.diff(np.append(starts, bins))
    quantized = np.repeat(mass / np.maximum(members, 1), sizes)[filled]
    reference = kept.copy()
    reference[-1] += counts[bins:].sum()
    if reference[-1] > 0 and not filled[-1]:
        return float("inf")
    reference = reference[filled]
    reference /= reference.sum()
    return float(reference @ np.log(reference * (quantized.sum() / quantized)))


METHODS: dict[str, Callable[[Histogram], float]] = {
    "entropy": entropy,
    "minmax": minmax,
    "mse": mse,
    "percentile": percentile,
}
"""The choosers by the name that `--method` takes."""

AUTO = "auto"
"""The method that takes for each tensor whichever of CANDIDATES leaves the least error at the outputs of its layers."""

CANDIDATES: dict[str, Callable[[Histogram], float]] = {
    "mse": mse,
    "percentile": percentile,
    "entropy": entropy,
    "percentile 99.9": partial(percentile, share=0.999),
    "percentile 99.97": partial(percentile, share=0.9997),
    "percentile 99.999": partial(percentile, share=0.99999),
}
"""What AUTO tries."""
