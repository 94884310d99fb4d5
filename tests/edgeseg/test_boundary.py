"""Boundary IoU against distances written out."""

from __future__ import annotations

import numpy as np
import pytest

from edgeseg.boundary import BoundaryScore, boundary
from edgeseg.errors import LabelError, ShapeError, UsageError


def near_outline(mask: np.ndarray, width: int) -> np.ndarray:
    """Pixels of the mask with one outside of it, or outside of the frame, within `width` steps."""
    found = np.zeros_like(mask)
    for y, x in np.argwhere(mask):
        rows, columns = range(y - width, y + width + 1), range(x - width, x + width + 1)
        found[y, x] = any(
            not (0 <= v < mask.shape[0] and 0 <= u < mask.shape[1]) or not mask[v, u] for v in rows for u in columns
        )
    return found


class TestBoundary:
    @pytest.mark.parametrize("width", [1, 2, 3])
    def test_equals_its_definition(self, width: int) -> None:
        mask = np.zeros((14, 18), bool)
        mask[3:13, 2:18] = True
        mask[6, 9] = False
        assert np.array_equal(boundary(mask, width), near_outline(mask, width))


class TestScore:
    def test_states_its_width(self) -> None:
        score = BoundaryScore(2, 0.1)
        assert score.widths is None
        for height, width in ((30, 40), (6, 8), (60, 80)):
            frame = np.zeros((height, width), np.uint8)
            score.add(frame, frame, None)
        assert score.widths == (1, 10)

    def test_counts_by_class_over_frames(self) -> None:
        random = np.random.default_rng(0)
        score = BoundaryScore(3, 0.1)
        shared, either = np.zeros(3), np.zeros(3)
        for _ in range(2):
            labels, found = random.integers(0, 3, (2, 4, 5)).astype(np.uint8).repeat(3, 1).repeat(3, 2)
            score.add(labels, found, None)
            for c in range(3):
                truth, guess = near_outline(labels == c, 2), near_outline(found == c, 2)
                shared[c] += (truth & guess).sum()
                either[c] += (truth | guess).sum()
        assert score.iou() == pytest.approx(shared / either)
        assert score.mean_iou() == pytest.approx((shared / either).mean())

    def test_the_inside_does_not_count(self) -> None:
        labels = np.zeros((40, 40), np.uint8)
        found = labels.copy()
        found[18:22, 18:22] = 1
        score = BoundaryScore(2)
        score.add(labels, found, None)
        assert score.iou()[0] < 0.9
        assert score.iou()[1] == 0

    def test_ignored_pixels(self) -> None:
        labels = np.zeros((12, 12), np.uint8)
        labels[:, 6:] = 11
        score = BoundaryScore(2)
        score.add(labels, np.zeros((12, 12), np.uint8), 11)
        assert score.iou()[0] == 1
        assert np.isnan(score.iou()[1])
        assert score.mean_iou() == 1

    def test_nothing_counted(self) -> None:
        assert np.isnan(BoundaryScore(2).mean_iou())

    def test_refuses(self) -> None:
        with pytest.raises(LabelError, match="1 to 255 classes, but 0 were asked for"):
            BoundaryScore(0)
        with pytest.raises(UsageError, match="share of the diagonal, above 0 and at most 1, but is 0"):
            BoundaryScore(2, 0)
        with pytest.raises(ShapeError, match=r"must be \(H, W\) uint8, but are \(2, 2\) int64"):
            BoundaryScore(2).add(np.zeros((2, 2), np.int64), np.zeros((2, 2), np.uint8), None)
