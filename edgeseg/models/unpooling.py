"""Max-unpooling that any engine takes: which cell of a window was the largest, said by comparisons."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["Largest", "largest_of_windows", "max_unpool"]


@dataclass(frozen=True)
class Largest:
    """Where the largest value of each 2x2 window stands; of equal ones the first, row by row.

    Attributes:
        upper: (N, C, h, w) bool, whether it is in the upper row.
        left_above, left_below: (N, C, h, w) bool, whether the left cell of that row holds the row's largest.
        size: (height, width) of the maps that were pooled.
    """

    upper: Tensor
    left_above: Tensor
    left_below: Tensor
    size: tuple[int, int]


def largest_of_windows(maps: Tensor) -> Largest:
    """Find the largest value of each 2x2 window of maps (N, C, H, W), as `max_pool2d` with indices and `ceil_mode`.

    TensorRT has neither MaxPool with indices nor MaxUnpool. The four cells of a window are compared with one another,
    never with the pooled map: whatever rounds the maps on the way, one cell of a window is chosen, exactly.
    """
    height, width = int(maps.shape[2]), int(maps.shape[3])
    # A repeated edge never wins: of equal values the first is taken.
    if height % 2:
        maps = torch.cat([maps, maps[:, :, -1:]], 2)
    if width % 2:
        maps = torch.cat([maps, maps[:, :, :, -1:]], 3)
    left, right = maps[:, :, :, ::2], maps[:, :, :, 1::2]
    left_in_row, row = left >= right, torch.maximum(left, right)
    return Largest(
        upper=row[:, :, ::2] >= row[:, :, 1::2],
        left_above=left_in_row[:, :, ::2],
        left_below=left_in_row[:, :, 1::2],
        size=(height, width),
    )


def max_unpool(pooled: Tensor, largest: Largest) -> Tensor:
    """Maps (N, C, H, W) of zeros with each value of `pooled` (N, C, h, w) where `largest` says: as MaxUnpool2d."""
    zero = torch.zeros((), dtype=pooled.dtype, device=pooled.device)
    above = torch.where(largest.upper, pooled, zero)
    below = torch.where(largest.upper, zero, pooled)
    cells = [
        torch.where(largest.left_above, above, zero),
        torch.where(largest.left_above, zero, above),
        torch.where(largest.left_below, below, zero),
        torch.where(largest.left_below, zero, below),
    ]
    whole = functional.pixel_shuffle(torch.stack(cells, 2).flatten(1, 2), 2)
    height, width = largest.size
    return whole if tuple(whole.shape[2:]) == largest.size else whole[:, :, :height, :width]
