"""The assembling operation against a figure by hand and against loops; masks follow box and class."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from edgeseg.models.masklab_masks import MaskHead, assemble, direction_channels, direction_of

# Part 0 looks to the right, from an instance's left side; the middle itself falls to part 4.
AROUND = [[1, 2, 3], [0, 4, 4], [7, 6, 5]]


def test_eight_directions_around_the_middle() -> None:
    assert direction_channels(3, 8, 1).tolist() == AROUND


def test_distances_are_nested_boxes() -> None:
    channels = direction_channels(8, 8, 4)
    away = [3, 2, 1, 0, 0, 1, 2, 3]
    assert (channels % 4).tolist() == [[max(away[row], away[column]) for column in range(8)] for row in range(8)]
    assert (channels // 4)[0, 0] == 1
    assert (channels // 4)[7, 7] == 5


def test_beyond_the_edge_is_the_last_distance() -> None:
    assert direction_of(torch.tensor([-1.0, 1.0, 3.0]), torch.zeros(3), 8, 4).tolist() == [3, 19, 19]


@pytest.mark.parametrize(("directions", "distances"), [(2, 1), (3, 2), (8, 4), (16, 1)])
def test_channels_by_loops(directions: int, distances: int) -> None:
    size = 14
    expected = []
    for row in range(size):
        for column in range(size):
            across, down = ((2 * cell + 1) / size - 1 for cell in (column, row))
            angle = math.degrees(math.atan2(-down, -across)) % 360
            part = math.floor(angle / (360 / directions) + 0.5) % directions
            expected.append(part * distances + min(int(max(abs(across), abs(down)) * distances), distances - 1))
    assert direction_channels(size, directions, distances).flatten().tolist() == expected
    assert set(expected) == set(range(directions * distances))


def test_assembling_by_hand() -> None:
    """Channel c holds 100 c + its own nine cells' numbers: each cell is taken from the channel of its direction."""
    crops = torch.arange(8)[None, :, None, None] * 100 + torch.arange(9).reshape(1, 1, 3, 3)
    found = assemble(crops, direction_channels(3, 8, 1))
    assert found.tolist() == [[[[100, 201, 302], [3, 404, 405], [706, 607, 508]]]]


def test_assembling_by_loops() -> None:
    crops, channels = torch.randn(3, 32, 11, 11), direction_channels(11, 8, 4)
    found = assemble(crops, channels)
    assert found.shape == (3, 1, 11, 11)
    for box in range(3):
        for row in range(11):
            for column in range(11):
                assert found[box, 0, row, column] == crops[box, channels[row, column], row, column]


def test_two_instances_of_one_class_come_apart() -> None:
    """Perfect direction logits of two squares side by side: in a box on one of them the other has none of its cells."""
    side, size = 32, 16
    logits = torch.zeros(32, side, 2 * side)
    for start in (0, side):
        channels = direction_channels(side, 8, 4)
        logits[:, :, start : start + side].scatter_(0, channels[None], 1.0)
    head = MaskHead(1, 8, size, 8, 4)
    with torch.no_grad():
        head.coarse.weight.copy_(torch.tensor([0.0, 1.0])[None, :, None, None])
        nn.init.zeros_(head.coarse.bias)
    # The last box holds half of each square: their middles lie on the other side than its own does.
    boxes = torch.tensor([[0.0, 0.0, 32.0, 32.0], [32.0, 0.0, 64.0, 32.0], [16.0, 0.0, 48.0, 32.0]])
    image = (side, 2 * side)
    coarse, _ = head(torch.zeros(3, 4, 8), logits, (torch.zeros(1, 4, 8),), boxes, torch.tensor([0, 1, 2]), image)
    assert coarse.shape == (3, size, size)
    share = coarse.mean((1, 2))
    assert share[0] > 0.9
    assert share[1] > 0.9
    assert share[2] < 0.1


def test_the_class_chooses_the_semantic_channel() -> None:
    head = MaskHead(1, 8, 4, 8, 1)
    with torch.no_grad():
        head.coarse.weight.copy_(torch.tensor([1.0, 0.0])[None, :, None, None])
        nn.init.zeros_(head.coarse.bias)
    semantic = torch.tensor([10.0, 20.0, 30.0])[:, None, None].expand(-1, 5, 5)
    boxes = torch.tensor([[0.0, 0.0, 8.0, 8.0]]).expand(2, -1)
    coarse, _ = head(semantic, torch.zeros(8, 5, 5), (torch.zeros(1, 5, 5),), boxes, torch.tensor([2, 0]), (20, 20))
    torch.testing.assert_close(coarse, torch.tensor([30.0, 10.0])[:, None, None].expand(-1, 4, 4))


def test_the_table_is_no_weight() -> None:
    assert "channels" not in MaskHead(1, 8, 4, 8, 1).state_dict()
