"""The geometry of boxes, each function against what it is by hand or by loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from edgeseg.models.masklab_boxes import anchor_boxes, box_overlap, clip, crop, move, offsets, paste, suppress


def some_boxes(count: int, seed: int, side: float = 60) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    low = torch.rand(count, 2, generator=random) * side
    return torch.cat([low, low + 1 + torch.rand(count, 2, generator=random) * side / 2], 1)


def overlap_by_hand(a: list[float], b: list[float]) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0) * max(height, 0)
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


def test_anchors_by_hand() -> None:
    """Two cells of 10x10 pixels beside each other, one size, three shapes of equal area."""
    found = anchor_boxes((1, 2), (10, 20), (8,), (0.25, 1.0, 4.0))
    around = [(-8, -2, 8, 2), (-4, -4, 4, 4), (-2, -8, 2, 8)]
    expected = [[x + a, 5 + b, x + c, 5 + d] for x in (5, 15) for a, b, c, d in around]
    assert found.tolist() == expected


def test_anchors_go_row_by_row_and_sizes_before_ratios() -> None:
    found = anchor_boxes((2, 3), (20, 30), (4, 8), (1.0, 4.0))
    assert len(found) == 2 * 3 * 4
    middles = ((found[:, :2] + found[:, 2:]) / 2)[::4].tolist()
    assert middles == [[5, 5], [15, 5], [25, 5], [5, 15], [15, 15], [25, 15]]
    assert (found[:4, 2:] - found[:4, :2]).tolist() == [[4, 4], [2, 8], [8, 8], [4, 16]]


def test_overlap_by_loops() -> None:
    first, second = some_boxes(9, 0), some_boxes(7, 1)
    expected = [[overlap_by_hand(a, b) for b in second.tolist()] for a in first.tolist()]
    np.testing.assert_allclose(box_overlap(first, second).numpy(), expected, rtol=0, atol=1e-6)
    assert np.count_nonzero(expected) > 5


def test_overlap_of_nothing_is_nothing() -> None:
    point = torch.tensor([[3.0, 3.0, 3.0, 3.0]])
    assert box_overlap(point, point).tolist() == [[0.0]]
    assert box_overlap(point, torch.empty(0, 4)).shape == (1, 0)


def test_offsets_by_hand() -> None:
    box, goal = torch.tensor([[0.0, 0.0, 10.0, 20.0]]), torch.tensor([[2.0, 5.0, 22.0, 15.0]])
    assert offsets(box, goal, (1.0, 1.0)).tolist() == [pytest.approx([0.7, 0.0, math.log(2), math.log(0.5)])]
    assert offsets(box, goal, (0.1, 0.2)).tolist() == [pytest.approx([7, 0.0, 5 * math.log(2), 5 * math.log(0.5)])]


def test_moving_is_the_inverse() -> None:
    boxes, goals = some_boxes(20, 2), some_boxes(20, 3)
    torch.testing.assert_close(move(boxes, offsets(boxes, goals, (0.1, 0.2)), (0.1, 0.2)), goals, rtol=0, atol=1e-3)


def test_boxes_do_not_grow_without_end() -> None:
    grown = move(torch.tensor([[0.0, 0.0, 16.0, 16.0]]), torch.full((1, 4), 100.0), (1.0, 1.0))
    assert (grown[:, 2:] - grown[:, :2]).tolist() == [pytest.approx([1000, 1000])]


def test_clip() -> None:
    boxes = torch.tensor([[-3.0, -4.0, 50.0, 5.0], [30.0, 21.0, 60.0, 22.0]])
    assert clip(boxes, (20, 40)).tolist() == [[0, 0, 40, 5], [30, 20, 40, 20]]


@pytest.mark.parametrize("overlap", [0.0, 0.3, 0.7])
@pytest.mark.parametrize("limit", [5, 200])
def test_suppression_by_loops(overlap: float, limit: int) -> None:
    boxes = some_boxes(80, 4, side=30)
    scores = torch.rand(80, generator=torch.Generator().manual_seed(5))
    scores[10:14] = 0.5
    kept: list[int] = []
    listed = boxes.tolist()
    for index in sorted(range(80), key=lambda i: (-float(scores[i]), i)):
        if len(kept) < limit and all(overlap_by_hand(listed[index], listed[k]) <= overlap for k in kept):
            kept.append(index)
    assert suppress(boxes, scores, overlap, limit).tolist() == kept
    assert 5 <= len(kept) < 80


def test_suppression_of_nothing() -> None:
    assert suppress(torch.empty(0, 4), torch.empty(0), 0.5, 10).tolist() == []


def sample_by_hand(maps: np.ndarray, x: float, y: float) -> np.ndarray:
    """Bilinear value of (C, h, w) at a place in its own pixels, whose middles are at .5; the edge goes on."""
    _, rows, columns = maps.shape
    x, y = min(max(x - 0.5, 0), columns - 1), min(max(y - 0.5, 0), rows - 1)
    left, top = int(x), int(y)
    right, bottom = min(left + 1, columns - 1), min(top + 1, rows - 1)
    u, v = x - left, y - top
    upper = (1 - u) * maps[:, top, left] + u * maps[:, top, right]
    lower = (1 - u) * maps[:, bottom, left] + u * maps[:, bottom, right]
    return (1 - v) * upper + v * lower


def test_crops_by_loops() -> None:
    """Maps of stride 4 that do not quite divide the image, boxes that reach beyond it."""
    maps = torch.randn(3, 6, 8, generator=torch.Generator().manual_seed(6))
    boxes, image, size = torch.cat([some_boxes(4, 7, side=20), torch.tensor([[-6.0, -9.0, 40.0, 30.0]])]), (23, 31), 5
    found = crop(maps, boxes, image, size)
    assert found.shape == (5, 3, 5, 5)
    for box, cut in zip(boxes.tolist(), found.numpy(), strict=True):
        for row in range(size):
            for column in range(size):
                x = box[0] + (column + 0.5) / size * (box[2] - box[0])
                y = box[1] + (row + 0.5) / size * (box[3] - box[1])
                expected = sample_by_hand(maps.numpy(), x * 8 / image[1], y * 6 / image[0])
                np.testing.assert_allclose(cut[:, row, column], expected, rtol=0, atol=1e-5)


def test_a_crop_of_the_whole_is_the_whole() -> None:
    maps = torch.randn(2, 7, 7)
    torch.testing.assert_close(crop(maps, torch.tensor([[0.0, 0.0, 35.0, 28.0]]), (28, 35), 7)[0], maps)


def test_no_boxes_no_crops() -> None:
    assert crop(torch.randn(2, 7, 7), torch.empty(0, 4), (28, 35), 9).shape == (0, 2, 9, 9)


def test_pasting_puts_values_where_they_were_cut() -> None:
    """A slope is bilinear, so that it comes back to the middles between the first and the last cell."""
    height, width, size = 30, 40, 16
    slope = (torch.arange(width) + 0.5).expand(height, -1)
    boxes = torch.tensor([[3.2, 4.6, 29.8, 21.3], [0.0, 0.0, 40.0, 30.0]])
    cut = crop(slope[None], boxes, (height, width), size)[:, 0]
    for box, found in zip(boxes.tolist(), paste(cut, boxes, (height, width)), strict=True):
        cell = (box[2] - box[0]) / size / 2
        for x in range(width):
            middle = x + 0.5
            column = found[:, x]
            inside = [box[1] <= y + 0.5 <= box[3] for y in range(height)]
            if not box[0] <= middle <= box[2]:
                assert torch.isinf(column).all()
                continue
            assert torch.isfinite(column).tolist() == inside
            if box[0] + cell <= middle <= box[2] - cell:
                torch.testing.assert_close(column[inside], torch.full((sum(inside),), middle), rtol=0, atol=1e-3)


def test_a_box_without_a_middle_of_a_pixel_is_empty() -> None:
    assert torch.isinf(paste(torch.ones(1, 4, 4), torch.tensor([[2.6, 3.0, 3.4, 9.0]]), (12, 12))).all()
