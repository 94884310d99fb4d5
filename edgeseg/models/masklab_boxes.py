"""Boxes of a detector: anchors, overlaps, offsets, suppression, and what is cut out of maps and put back into images.

A box is (left, top, right, bottom) in pixels of the image, where pixel (row, column) covers [column, column + 1) x
[row, row + 1). Maps of any stride cover the whole image, as a bilinear resize with align_corners=False takes them.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["anchor_boxes", "box_overlap", "clip", "crop", "move", "offsets", "paste", "suppress"]

_LARGEST_GROWTH = math.log(1000 / 16)
"""Offsets make a box at most this much larger, as logarithm, so that exp stays finite in early training."""


def anchor_boxes(
    grid: tuple[int, int], image: tuple[int, int], sizes: tuple[int, ...], ratios: tuple[float, ...]
) -> Tensor:
    """The boxes that a region proposal network starts from.

    S. Ren, K. He, R. Girshick, J. Sun, "Faster R-CNN", NIPS 2015, section 3.1.1.

    Args:
        grid: (rows, columns) of the maps.
        image: (height, width) in pixels.
        sizes: square roots of the areas, pixels.
        ratios: height over width.

    Returns:
        (rows * columns * len(sizes) * len(ratios), 4) float32, on the CPU; of one cell all sizes, of each all ratios.
    """
    areas, shapes = torch.tensor(sizes, dtype=torch.float32), torch.tensor(ratios).sqrt()
    half_height = (areas[:, None] * shapes / 2).flatten()
    half_width = (areas[:, None] / shapes / 2).flatten()
    y, x = ((torch.arange(cells) + 0.5) * side / cells for cells, side in zip(grid, image, strict=True))
    around = torch.stack([-half_width, -half_height, half_width, half_height], 1)
    middle = torch.stack([x.expand(len(y), -1), y[:, None].expand(-1, len(x))], 2)
    return (middle.repeat(1, 1, 2)[:, :, None] + around).reshape(-1, 4)


def box_overlap(first: Tensor, second: Tensor) -> Tensor:
    """Intersection over union of each of (K, 4) with each of (L, 4) boxes, (K, L), 0 where neither has an area."""
    low = torch.maximum(first[:, None, :2], second[:, :2])
    high = torch.minimum(first[:, None, 2:], second[:, 2:])
    shared = (high - low).clamp_min(0).prod(2)
    areas = [(boxes[:, 2:] - boxes[:, :2]).clamp_min(0).prod(1) for boxes in (first, second)]
    return shared / (areas[0][:, None] + areas[1] - shared).clamp_min(1e-6)


def offsets(boxes: Tensor, goals: Tensor, scale: tuple[float, float]) -> Tensor:
    """What moves boxes onto their goals; the inverse of `move`.

    Args:
        boxes, goals: (K, 4) each, with an area.
        scale: one unit of the offsets of the middle, in sides of the box, and of the logarithms of the sides.

    Returns:
        (K, 4): of the middle in x and y, and of width and height.
    """
    middle, sides = _middle_and_sides(boxes)
    goal_middle, goal_sides = _middle_and_sides(goals)
    return torch.cat([(goal_middle - middle) / sides / scale[0], (goal_sides / sides).log() / scale[1]], 1)


def move(boxes: Tensor, by: Tensor, scale: tuple[float, float]) -> Tensor:
    """Boxes (K, 4) moved by offsets (K, 4), whose units `offsets` explains ("Faster R-CNN", equation 2)."""
    middle, sides = _middle_and_sides(boxes)
    middle = middle + by[:, :2] * scale[0] * sides
    half = sides * (by[:, 2:] * scale[1]).clamp_max(_LARGEST_GROWTH).exp() / 2
    return torch.cat([middle - half, middle + half], 1)


def clip(boxes: Tensor, image: tuple[int, int]) -> Tensor:
    """Boxes (K, 4) cut at the edges of an image of (height, width)."""
    height, width = image
    return torch.minimum(boxes.clamp_min(0), boxes.new_tensor([width, height, width, height]))


def suppress(boxes: Tensor, scores: Tensor, overlap: float, limit: int) -> Tensor:
    """Non-maximum suppression: of boxes that overlap the best one stays.

    Args:
        boxes: (K, 4).
        scores: (K,); the first of equal ones counts as the better.
        overlap: intersection over union above which the lower one goes.
        limit: how many stay at the most.

    Returns:
        Indices of those that stay, int64, best first.
    """
    order = scores.argsort(descending=True, stable=True)
    # One copy from the accelerator for the whole loop.
    hides = (box_overlap(boxes[order], boxes[order]) > overlap).cpu()
    hidden = torch.zeros(len(order), dtype=torch.bool)
    kept: list[int] = []
    for place in range(len(order)):
        if len(kept) == limit:
            break
        if not hidden[place]:
            kept.append(place)
            hidden |= hides[place]
    return order[torch.tensor(kept, dtype=torch.int64, device=order.device)]


def crop(maps: Tensor, boxes: Tensor, image: tuple[int, int], size: int) -> Tensor:
    """Maps at the middles of size x size equal cells of each box, bilinearly; beyond the image its edge goes on.

    Args:
        maps: (C, h, w), of one image.
        boxes: (K, 4).
        image: its (height, width) in pixels.
        size: cells a side.

    Returns:
        (K, C, size, size) float32.
    """
    height, width = image
    steps = (torch.arange(size, device=boxes.device, dtype=boxes.dtype) + 0.5) / size
    x = (boxes[:, :1] + steps * (boxes[:, 2:3] - boxes[:, :1])) * (2 / width) - 1
    y = (boxes[:, 1:2] + steps * (boxes[:, 3:] - boxes[:, 1:2])) * (2 / height) - 1
    count = len(boxes)
    places = torch.stack([x[:, None].expand(-1, size, -1), y[:, :, None].expand(-1, -1, size)], 3)
    # All boxes one below the other: the maps are not copied for each box.
    cut = functional.grid_sample(
        maps[None].float(), places.reshape(1, count * size, size, 2), padding_mode="border", align_corners=False
    )
    return cut[0].reshape(len(maps), count, size, size).transpose(0, 1)


def paste(scores: Tensor, boxes: Tensor, image: tuple[int, int]) -> Tensor:
    """The inverse of `crop` for one map: values of each box at the pixels whose middle is in it, minus infinity around.

    Args:
        scores: (K, size, size) float32.
        boxes: (K, 4), within the image.
        image: its (height, width) in pixels.

    Returns:
        (K, height, width) float32.
    """
    pasted = scores.new_full((len(boxes), *image), -math.inf)
    for values, into, box in zip(scores, pasted, boxes.tolist(), strict=True):
        left, top, right, bottom = (math.ceil(edge - 0.5) for edge in box)
        if right <= left or bottom <= top:
            continue
        x = (torch.arange(left, right) + 0.5 - box[0]) * (2 / (box[2] - box[0])) - 1
        y = (torch.arange(top, bottom) + 0.5 - box[1]) * (2 / (box[3] - box[1])) - 1
        places = torch.stack([x.expand(len(y), -1), y[:, None].expand(-1, len(x))], 2)
        into[top:bottom, left:right] = functional.grid_sample(
            values[None, None], places[None].to(values), padding_mode="border", align_corners=False
        )[0, 0]
    return pasted


def _middle_and_sides(boxes: Tensor) -> tuple[Tensor, Tensor]:
    """(K, 2) each: x and y of the middle, width and height."""
    return (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
