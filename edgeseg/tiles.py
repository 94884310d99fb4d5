"""Images larger than a network's input: cut into overlapping tiles, of which each gives its inner part.

A tile is a frame like any other: it is resized to the network's input, so a tile of the input's size is seen pixel by
pixel. Every pixel gets its class from the tile in which it lies furthest from an edge. Averaging the logits of all
tiles that hold a pixel was measured, too (docs/benchmarks.md, Large images).
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeseg.errors import UsageError
from edgeseg.frame import as_frame
from edgeseg.segmentation import Segmentation, Timing
from edgeseg.segmenter import NamedFrame, Segmenter

__all__ = ["LARGEST_TILE", "SMALLEST_TILE", "Span", "Tile", "Tiling", "segment_tiled", "tiling_for"]

SMALLEST_TILE, LARGEST_TILE = 8, 8192
"""Limits of a tile's height and width, pixels; the larger keeps the copy of one tile below 200 MB."""

_ALIGNMENTS = (32, 16, 8, 4, 2, 1)
"""Tiles start at multiples of one: networks sample an image every 2 to 32 pixels, and all tiles should sample alike."""

StreamTiles = Callable[[Iterable[NamedFrame]], Iterator[Segmentation]]
"""Takes tiles and gives their results in order, as `Segmenter.stream` does."""


@dataclass(frozen=True)
class Span:
    """A tile on one axis of an image, in pixels.

    Attributes:
        start: where the tile begins.
        first, last: the kept part, first included, last not; the kept parts of all tiles are the axis.
    """

    start: int
    first: int
    last: int


@dataclass(frozen=True, eq=False)
class Tile:
    """A part of an image that goes through the network.

    Attributes:
        name: of the image, with the tile's upper left corner.
        image: (height, width, 3) uint8 RGB.
    """

    name: str
    image: NDArray[np.uint8]


@dataclass(frozen=True)
class Tiling:
    """How images are cut.

    Attributes:
        height, width: of a tile in pixels of the image, 8 to 8192 each.
        overlap: pixels that a tile reaches beyond the part of it that is kept, on each side, so that neighbours share
            twice as many; less than half the tile.
    """

    height: int
    width: int
    overlap: int

    def __post_init__(self) -> None:
        sides = self.height, self.width
        if min(sides) < SMALLEST_TILE or max(sides) > LARGEST_TILE:
            raise UsageError(
                f"a tile has {SMALLEST_TILE} to {LARGEST_TILE} pixels a side, but {self.height}x{self.width} (height x "
                "width) was asked for; the network's own input size is a good choice"
            )
        if not 0 <= 2 * self.overlap < min(sides):
            raise UsageError(
                f"the overlap of tiles of {self.height}x{self.width} must be 0 to {(min(sides) - 1) // 2}, less than "
                f"half a tile, but is {self.overlap}; an eighth of a tile is a good choice"
            )

    def axes(self, height: int, width: int) -> tuple[tuple[Span, ...], tuple[Span, ...]]:
        """The tiles of an image of that size in pixels, along its rows and along its columns."""
        return _spans(height, self.height, self.overlap), _spans(width, self.width, self.overlap)

    def count(self, height: int, width: int) -> int:
        """Number of tiles of an image of that size in pixels."""
        rows, columns = self.axes(height, width)
        return len(rows) * len(columns)


def _spans(size: int, tile: int, overlap: int) -> tuple[Span, ...]:
    """As few tiles as an axis needs, evenly spread, so that spare pixels go to the overlaps."""
    if size <= tile:
        return (Span(0, 0, size),)
    step = tile - 2 * overlap
    alignment = next(a for a in _ALIGNMENTS if step % a <= step // 8)  # what costs few tiles
    step -= step % alignment
    gaps = -(-(size - tile) // step)
    # Rounding starts up to the alignment keeps every gap within a step, since a step is a multiple of it.
    starts = [-(-(i * (size - tile)) // (gaps * alignment)) * alignment for i in range(gaps)] + [size - tile]
    middles = [(left + tile + right) // 2 for left, right in itertools.pairwise(starts)]
    return tuple(
        Span(start, first, last) for start, first, last in zip(starts, [0, *middles], [*middles, size], strict=True)
    )


def tiling_for(segmenter: Segmenter, tile: int | tuple[int, int] | None = None, overlap: int | None = None) -> Tiling:
    """The tiling of a network's images.

    Args:
        segmenter: the network.
        tile: side, or (height, width), in pixels of the image; None for the network's input size, which shows the
            network every pixel as it is.
        overlap: see `Tiling`; None for an eighth of the tile's smaller side.

    Raises:
        UsageError: for numbers that do not go together.
    """
    if tile is None:
        frame = segmenter.bundle.manifest.input
        tile = frame.height, frame.width
    height, width = (tile, tile) if isinstance(tile, int) else tile
    return Tiling(height, width, min(height, width) // 8 if overlap is None else overlap)


def segment_tiled(
    segmenter: Segmenter,
    image: NDArray[Any],
    *,
    tile: int | tuple[int, int] | None = None,
    overlap: int | None = None,
    stream: StreamTiles | None = None,
    step: Callable[[int], None] | None = None,
    number: int = 0,
    name: str = "",
    decode: float = 0.0,
) -> Segmentation:
    """Segment a large image tile by tile; beyond the image and its class map, memory does not grow with its size.

    Where half of the network's receptive field (the distance within which a pixel can change another's class) is at
    most the overlap, the class map is the one that the network would give for the whole image at the tile's scale,
    except where its layers sample at other places, as in an image that is no multiple of their stride.

    Args:
        segmenter: the network.
        image: (H, W, 3) uint8 RGB of any size. A side that is shorter than a tile is mirrored to its length, so that
            the network sees all images at one scale.
        tile, overlap: see `tiling_for`.
        stream: gives the tiles' results in order; None for `segmenter.stream`. With refinement: `stream_refined`.
        step: called with 1 after every tile.
        number, name, decode: of the image, for the result.

    Returns:
        The result at the image's size. In its timing `preprocess`, `infer` and `postprocess` are sums over the tiles,
        of which several are in flight, and `total` is the wall time.

    Raises:
        UsageError: for a tile or overlap that does not fit.
        ShapeError, EngineError: as a call of the segmenter.
    """
    started = time.perf_counter()
    image = as_frame(image)
    height, width, _ = image.shape
    tiling = tiling_for(segmenter, tile, overlap)
    rows, columns = tiling.axes(height, width)
    class_map = np.empty((height, width), np.uint8)
    preprocess = infer = postprocess = 0.0
    results = (stream or segmenter.stream)(_cut(image, tiling, name))
    for (row, column), result in zip(_places(rows, columns), results, strict=True):
        inner = result.class_map[row.first - row.start :, column.first - column.start :]
        kept = row.last - row.first, column.last - column.first
        class_map[row.first : row.last, column.first : column.last] = inner[: kept[0], : kept[1]]
        preprocess += result.timing.preprocess
        infer += result.timing.infer
        postprocess += result.timing.postprocess
        if step is not None:
            step(1)
    timing = Timing(decode, preprocess, infer, postprocess, 1e3 * (time.perf_counter() - started))
    return Segmentation(class_map, segmenter.labels, timing, number, name)


def _places(rows: tuple[Span, ...], columns: tuple[Span, ...]) -> Iterator[tuple[Span, Span]]:
    """The tiles in the order of their work."""
    return ((row, column) for row in rows for column in columns)


def _cut(image: NDArray[np.uint8], tiling: Tiling, name: str) -> Iterator[Tile]:
    """The tiles of an image; views of it, but where they are mirrored."""
    height, width, _ = image.shape
    missing = max(tiling.height - height, 0), max(tiling.width - width, 0)
    for row, column in _places(*tiling.axes(height, width)):
        part = image[row.start : row.start + tiling.height, column.start : column.start + tiling.width]
        if any(missing):
            part = np.pad(part, ((0, missing[0]), (0, missing[1]), (0, 0)), "symmetric")
        yield Tile(f"{name}[{row.start},{column.start}]", part)
