"""Upsampling and argmax in one pass: a kernel compiled on first use, equal to the reference in `edgeseg.upsample`.

The work is done by cells of the low-resolution logits: all pixels between the same four logits of a channel. There each
channel stays between its corners' smallest and largest value, so a channel whose largest lies below another's smallest
is never the answer in that cell. Most cells are left with one channel and are filled; only the channels left in
the others are interpolated. Rounding is monotone (no fused or reordered arithmetic), so the result is exact.
"""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeseg.errors import EngineError
from edgeseg.kernels import run_compiled
from edgeseg.upsample import Upsampling, reference_class_map, upsampling

__all__ = ["class_map", "uncompiled_class_map", "warm_up"]

_PURPOSE = "turn logits into class maps"
_NOT_FINITE = "the engine gave logits that are not finite; check the network and its ranges"
# Rounding moves an interpolated value by less than 4 units of 2**-24 of the largest corner; this is 40 times as much.
_MARGIN = np.float32(1e-5)
_threads = threading.local()
_SIZES = 8


def class_map(
    logits: NDArray[np.float32], upsampling: Upsampling, out: NDArray[np.uint8] | None = None
) -> NDArray[np.uint8]:
    """The class of every pixel of a frame.

    Args:
        logits: (C, h, w) float32, C <= 256.
        upsampling: where the frame's pixels sample them.
        out: (H, W) uint8, contiguous, that gets the classes; None for a new array.

    Returns:
        (H, W) uint8, equal to `edgeseg.upsample.reference_class_map`.

    Raises:
        EngineError: for logits that are not finite.
    """
    rows, columns = upsampling.rows, upsampling.columns
    logits = np.ascontiguousarray(logits)
    result = np.empty((len(rows.lower), len(columns.lower)), np.uint8) if out is None else out
    if upsampling.interpolated:
        axes = (rows.lower, rows.weight, columns.lower, columns.weight)
        scratch = _scratch(logits.shape, result.shape[1])
        bad = run_compiled(_PURPOSE, _interpolate, logits, *axes, _MARGIN, result, *scratch)
    else:
        lines, _, candidates, *_ = _scratch(logits.shape, result.shape[1])
        bad = run_compiled(_PURPOSE, _argmax, logits, rows.lower, columns.lower, result, lines, candidates.reshape(-1))
    if bad:
        raise EngineError(_NOT_FINITE)
    return result


def uncompiled_class_map(
    logits: NDArray[np.float32], upsampling: Upsampling, out: NDArray[np.uint8] | None = None
) -> NDArray[np.uint8]:
    """`class_map` by NumPy alone, some ten times as slow: for a few frames, since compiling takes seconds."""
    if not np.isfinite(logits).all():
        raise EngineError(_NOT_FINITE)
    found = reference_class_map(logits, upsampling.rows, upsampling.columns)
    if out is None:
        return found
    np.copyto(out, found)
    return out


def warm_up() -> None:
    """Compile both kernels, or load them from the cache; seconds the first time on a machine."""
    logits = np.zeros((2, 2, 2), np.float32)
    class_map(logits, upsampling((2, 2), (2, 2), (2, 2), None))
    class_map(logits, upsampling((4, 4), (4, 4), (2, 2), "half_pixel"))


def _scratch(logits: tuple[int, ...], width_out: int) -> tuple[NDArray[Any], ...]:
    """Memory of a kernel, kept by thread and size, so that a frame like the last allocates nothing.

    Args:
        logits: shape (C, h, w).
        width_out: W of the class map.

    Returns:
        `lines` (C + 8, w + 1) float32, `best` (W,) float32, `candidates` (w, C) and `cells` (w, 4) int32, `template`
        (W,) uint8, `starts` (w + 1,) int32.
    """
    channels, _, width = logits
    kept: dict[tuple[int, int, int], tuple[NDArray[Any], ...]] = _threads.__dict__.setdefault("scratch", {})
    found = kept.get((channels, width, width_out))
    if found is None:
        if len(kept) >= _SIZES:
            kept.clear()
        found = kept[channels, width, width_out] = (
            np.empty((channels + 8, width + 1), np.float32),
            np.empty(width_out, np.float32),
            np.empty((width, channels), np.int32),
            np.empty((width, 4), np.int32),
            np.empty(width_out, np.uint8),
            np.empty(width + 1, np.int32),
        )
    return found


def _interpolate(  # type: ignore[no-untyped-def]
    logits,
    row_of,
    row_weight,
    column_of,
    column_weight,
    margin,
    result,
    lines,
    best,
    candidates,
    cells,
    template,
    starts,
):
    """Class map from low-resolution logits; returns 1 for logits that are not finite. The last six are scratch."""
    channels, _, width = logits.shape
    height_out, width_out = result.shape
    one = np.float32(1)
    low_of, high_of, odd, floor, size = lines[0], lines[1], lines[2], lines[3], lines[4]
    limit, count, winner, largest = lines[5], lines[6], lines[7], lines[8:]
    at = 0
    for left in range(width + 1):
        while at < width_out and column_of[at] < left:
            at += 1
        starts[left] = at
    y = 0
    while y < height_out:
        top = row_of[y]
        bottom = min(top + 1, logits.shape[1] - 1)
        end = y + 1
        while end < height_out and row_of[end] == top:
            end += 1
        for x in range(width):
            floor[x] = -np.inf
            size[x] = 0
        for c in range(channels):
            line, below, high = logits[c, top], logits[c, bottom], largest[c]
            for x in range(width):
                p, q = line[x], below[x]
                low_of[x] = p if p < q else q
                high_of[x] = p if p > q else q
                # Not a number, as soon as one logit is infinite or not a number; it then stays in `floor`.
                odd[x] = (p - p) + (q - q)
            low_of[width], high_of[width], odd[width] = low_of[width - 1], high_of[width - 1], odd[width - 1]
            for x in range(width):
                low = low_of[x] if low_of[x] < low_of[x + 1] else low_of[x + 1]
                most = high_of[x] if high_of[x] > high_of[x + 1] else high_of[x + 1]
                extent = most if most > -low else -low
                high[x] = most
                floor[x] = (low if low > floor[x] else floor[x]) + (odd[x] + odd[x + 1])
                size[x] = size[x] if size[x] > extent else extent
        for x in range(width):
            limit[x] = floor[x] - margin * size[x]
            count[x] = 0
        for c in range(channels):
            high = largest[c]
            for x in range(width):
                left_over = high[x] >= limit[x]
                count[x] += np.float32(left_over)
                winner[x] = np.float32(c) if left_over else winner[x]
        for i in range(width_out):
            template[i] = np.uint8(winner[column_of[i]])
        mixed = 0
        for left in range(width):
            start, stop = starts[left], starts[left + 1]
            if start == stop or count[left] == 1:
                continue
            if count[left] == 0:
                return 1
            n = 0
            for c in range(channels):
                candidates[mixed, n] = c
                n += largest[c, left] >= limit[left]
            for i in range(start, stop):
                template[i] = candidates[mixed, 0]
            cells[mixed, 0], cells[mixed, 1], cells[mixed, 2], cells[mixed, 3] = left, start, stop, n
            mixed += 1
        for line_out in range(y, end):
            wy = row_weight[line_out]
            if line_out > y and wy == row_weight[line_out - 1]:
                for i in range(width_out):  # a frame larger than the class map has rows twice
                    result[line_out, i] = result[line_out - 1, i]
                continue
            uy = one - wy
            for i in range(width_out):
                result[line_out, i] = template[i]
            for cell in range(mixed):
                left, start, stop, n = cells[cell, 0], cells[cell, 1], cells[cell, 2], cells[cell, 3]
                right = left + 1 if left + 1 < width else left
                c = candidates[cell, 0]
                p = logits[c, top, left] * uy + logits[c, bottom, left] * wy
                q = logits[c, top, right] * uy + logits[c, bottom, right] * wy
                for i in range(start, stop):
                    best[i] = p * (one - column_weight[i]) + q * column_weight[i]
                for k in range(1, n):
                    c = candidates[cell, k]
                    p = logits[c, top, left] * uy + logits[c, bottom, left] * wy
                    q = logits[c, top, right] * uy + logits[c, bottom, right] * wy
                    for i in range(start, stop):
                        value = p * (one - column_weight[i]) + q * column_weight[i]
                        if value > best[i]:
                            best[i] = value
                            result[line_out, i] = c
        y = end
    return 0


def _argmax(logits, row_of, column_of, result, lines, winner):  # type: ignore[no-untyped-def]
    """Class map from logits of its own size; returns 1 for logits that are not finite. The last two are scratch."""
    channels, _, width = logits.shape
    best, bad = lines[0], lines[1]
    for y in range(result.shape[0]):
        row = row_of[y]
        if y > 0 and row_of[y - 1] == row:
            result[y] = result[y - 1]
            continue
        line = logits[0, row]
        for x in range(width):
            best[x] = line[x]
            bad[x] = line[x] - line[x]
            winner[x] = 0
        for c in range(1, channels):
            line = logits[c, row]
            for x in range(width):
                value = line[x]
                bad[x] += value - value
                more = value > best[x]
                winner[x] = c if more else winner[x]
                best[x] = value if more else best[x]
        for x in range(width):
            if bad[x] != 0:
                return 1
        for x in range(result.shape[1]):
            result[y, x] = winner[column_of[x]]
    return 0
