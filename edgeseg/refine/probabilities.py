"""Class scores on their way into and out of a refinement: checks, layouts and softmax."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgeseg.errors import ShapeError
from edgeseg.kernels import run_compiled

__all__ = ["PURPOSE", "as_planes", "as_rows", "check_sizes", "log_softmax", "softmax"]

PURPOSE = "refine class maps"
"""What numba is needed for, in the message where it is missing."""


def check_sizes(logits: NDArray[np.float32], frame: NDArray[np.uint8]) -> None:
    """Refuse what is not the scores of a frame.

    Raises:
        ShapeError: for other shapes or types, or scores that are not finite.
    """
    if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8 or not frame.size:
        raise ShapeError(f"a frame must be (H, W, 3) uint8 RGB, but is {frame.shape} {frame.dtype}")
    if logits.ndim != 3 or logits.dtype != np.float32 or logits.shape[1:] != frame.shape[:2] or not logits.size:
        raise ShapeError(
            f"logits must be (classes, {frame.shape[0]}, {frame.shape[1]}) float32, of the frame's size, but are "
            f"{logits.shape} {logits.dtype}"
        )
    if not 1 <= len(logits) <= 256:
        raise ShapeError(f"logits must be of 1 to 256 classes, but are of {len(logits)}")
    if not np.isfinite(logits).all():
        raise ShapeError("logits must be finite, but some are not; of probabilities clip the zeros before taking log")


def as_rows(planes: NDArray[np.float32]) -> NDArray[np.float32]:
    """(C, H, W) to (H * W, C) float32, contiguous: the channels of a pixel side by side."""
    rows: NDArray[np.float32] = np.ascontiguousarray(planes.reshape(len(planes), -1).T)
    return rows


def as_planes(rows: NDArray[np.float32], size: tuple[int, ...]) -> NDArray[np.float32]:
    """(H * W, C) back to (C, H, W) float32, contiguous."""
    planes: NDArray[np.float32] = np.ascontiguousarray(rows.T).reshape(-1, *size)
    return planes


def softmax(scores: NDArray[np.float32]) -> NDArray[np.float32]:
    """(N, C) contiguous scores to probabilities by row, in place."""
    run_compiled(PURPOSE, _lower, scores)
    np.exp(scores, out=scores)
    run_compiled(PURPOSE, _normalise, scores)
    return scores


def log_softmax(scores: NDArray[np.float32]) -> NDArray[np.float32]:
    """(N, C) scores to logarithms of probabilities by row."""
    shifted: NDArray[np.float32] = scores - scores.max(axis=1, keepdims=True)
    shifted -= np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return shifted


# Compiled, since NumPy takes passes over arrays that no cache holds; but its exp is of many numbers at once.


def _lower(scores):  # type: ignore[no-untyped-def]
    """Take each row's largest score from it."""
    for n in range(scores.shape[0]):
        top = scores[n, 0]
        for c in range(1, scores.shape[1]):
            top = max(top, scores[n, c])
        for c in range(scores.shape[1]):
            scores[n, c] -= top


def _normalise(values):  # type: ignore[no-untyped-def]
    """Divide each row by its sum."""
    for n in range(values.shape[0]):
        total = np.float32(0)
        for c in range(values.shape[1]):
            total += values[n, c]
        for c in range(values.shape[1]):
            values[n, c] /= total
