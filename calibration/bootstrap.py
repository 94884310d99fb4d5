"""How sure a score is: an interval for it, by scoring the same frames again and again with chance deciding which count.

The frames are a sample of what the camera will see. Drawing as many frames from them, with repetition, gives another
sample that could as well have been taken; the spread of the score over many such samples is its uncertainty. Two
networks are scored on the same drawn frames, so that a frame that is hard for both does not blur their difference.

Source: B. Efron, R. J. Tibshirani, "An Introduction to the Bootstrap", Chapman & Hall, 1993: chapter 6 (the bootstrap
estimate) and section 13.3 (the percentile interval).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "CONFIDENCE",
    "RESAMPLES",
    "Interval",
    "ScoreIntervals",
    "class_counts",
    "drop_error",
    "score_interval",
    "score_intervals",
]

CONFIDENCE = 0.95
"""Share of the resampled scores that an interval holds."""

RESAMPLES = 1000
"""Samples drawn; the ends of an interval need that many, the spread of a score alone far fewer."""

Interval = tuple[float, float]
"""Low and high end, in points."""

_SEED = 0  # the same frames give the same interval
_BLOCK = 2**20  # drawn frames held at a time: 1000 samples of a large data set do not fit into memory together


@dataclass(frozen=True)
class ScoreIntervals:
    """Intervals of two networks' scores and of their difference, in points of 0..100.

    Attributes:
        float_score: low and high end for the float network, or the first of the two.
        int8_score: for the INT8 network, or the second.
        drop: for what the second loses; negative where it gains. Narrower than the other two suggest, since both
            networks are right and wrong on much the same frames.
    """

    float_score: Interval
    int8_score: Interval
    drop: Interval


def class_counts(matrix: NDArray[np.int64], ignore_index: int | None = None) -> NDArray[np.int64]:
    """What IoU needs of one frame's confusion matrix: sums of it over frames are those of all frames together.

    Args:
        matrix: (classes, classes + 1) int64, pixels by label (row) and prediction (column), the last column for
            predictions that are none of the classes.
        ignore_index: class that has no IoU; None, or a value that is no class, where all have.

    Returns:
        (2, classes) int64, pixels of the intersection and of the union of each class: a small part of the matrix, so
        that it can be kept for every frame of a large data set.
    """
    hits = np.diagonal(matrix)
    union = matrix.sum(axis=1) + matrix[:, :-1].sum(axis=0) - hits
    counts: NDArray[np.int64] = np.stack([hits, union])
    if ignore_index is not None and ignore_index < len(matrix):
        counts[:, ignore_index] = 0
    return counts


def score_interval(frames: Sequence[NDArray[np.int64]]) -> Interval | None:
    """The 95 % interval of one network's score.

    Args:
        frames: `class_counts` of each frame, (2, classes) int64. The score is the mean of the classes' IoU over all
            frames together; with a single class of right pixels and all pixels, it is the share of right pixels.

    Returns:
        Low and high end in points; None for fewer than two frames, or where none has a counted pixel: a single frame
        says nothing of others.
    """
    (scores,) = _resampled(frames)
    return _interval(scores)


def score_intervals(
    float_frames: Sequence[NDArray[np.int64]], int8_frames: Sequence[NDArray[np.int64]]
) -> ScoreIntervals | None:
    """The 95 % intervals of two networks' scores and of what the second loses, all over the same drawn frames.

    Args:
        float_frames, int8_frames: as for `score_interval`, of the same frames in the same order.

    Returns:
        None where `score_interval` gives None for either.

    Raises:
        ValueError: for two different numbers of frames.
    """
    if len(float_frames) != len(int8_frames):
        raise ValueError(f"both networks need the same frames, but have {len(float_frames)} and {len(int8_frames)}")
    before, after = _resampled(float_frames, int8_frames)
    float_score, int8_score, drop = _interval(before), _interval(after), _interval(before - after)
    if float_score is None or int8_score is None or drop is None:
        return None
    return ScoreIntervals(float_score, int8_score, drop)


def drop_error(float_frames: Sequence[NDArray[np.int64]], int8_frames: Sequence[NDArray[np.int64]]) -> float:
    """The standard error, in points, of what the second network loses: the spread of the drop over the samples.

    Args:
        float_frames, int8_frames: as for `score_intervals`.

    Returns:
        0 for fewer than two frames, which say nothing of others.
    """
    before, after = _resampled(float_frames, int8_frames)
    drops = before - after
    known = drops[~np.isnan(drops)]
    return float(known.std()) if known.size else 0.0


def _resampled(*networks: Sequence[NDArray[np.int64]]) -> list[NDArray[np.float64]]:
    """Scores in points, (RESAMPLES,) float64 for each network; empty where there are no two frames to draw from."""
    if len(networks[0]) < 2:
        return [np.empty(0) for _ in networks]
    # float64 holds every count below 2**53 exactly, and its matrix products are the fast ones.
    stacked = [np.stack(frames).astype(np.float64) for frames in networks]
    scores = [[_scores(times, counts) for counts in stacked] for times in _drawn(len(networks[0]))]
    return [np.concatenate(blocks) for blocks in zip(*scores, strict=True)]


def _drawn(frames: int) -> Iterator[NDArray[np.float64]]:
    """How often each frame is in a sample, (samples, frames), for blocks of the samples."""
    random = np.random.default_rng(_SEED)
    block = max(1, _BLOCK // frames)
    for start in range(0, RESAMPLES, block):
        samples = min(block, RESAMPLES - start)
        drawn = random.integers(0, frames, (samples, frames)) + frames * np.arange(samples)[:, None]
        yield np.bincount(drawn.reshape(-1), minlength=samples * frames).reshape(samples, frames).astype(np.float64)


def _scores(times: NDArray[np.float64], counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Score of each sample in points, (samples,); NaN for a sample without a counted pixel.

    Args:
        times: (samples, frames), how often each frame counts.
        counts: (frames, 2, classes), intersection and union.
    """
    frames, _, classes = counts.shape
    hits, union = np.moveaxis((times @ counts.reshape(frames, -1)).reshape(-1, 2, classes), 1, 0)
    iou = np.divide(hits, union, out=np.zeros_like(hits), where=union > 0)
    present = np.count_nonzero(union > 0, axis=1)
    scores: NDArray[np.float64] = np.full(len(times), np.nan)
    np.divide(100.0 * iou.sum(axis=1), present, out=scores, where=present > 0)
    return scores


def _interval(scores: NDArray[np.float64]) -> Interval | None:
    known = scores[~np.isnan(scores)]
    if not known.size:
        return None
    tail = 50.0 * (1.0 - CONFIDENCE)
    low, high = np.percentile(known, [tail, 100.0 - tail])
    return float(low), float(high)
