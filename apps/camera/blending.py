"""Colours over frames in one pass, on RGB by a table of what a blend gives, or on luma and chroma as they are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeseg.apps.camera.element.pixels import FrameLayout, tables_of
from edgeseg.apps.camera.yuv import YuvFrame, chroma_of
from edgeseg.errors import ShapeError
from edgeseg.kernels import run_compiled
from edgeseg.libraries import require

__all__ = ["YuvTints", "blend", "blend_table", "blend_yuv", "warm_up", "yuv_tints"]

_PURPOSE = "draw results"


def blend_table(colors: NDArray[np.uint8], drawn: NDArray[np.bool_], alpha: float) -> NDArray[np.uint8]:
    """What becomes of every value of every channel under every class.

    Args:
        colors: (256, 3) uint8 RGB by class.
        drawn: (256,) bool, the classes whose colour is drawn; the others leave a frame as it is.
        alpha: share of the colour, 0..1.

    Returns:
        (256, 3, 256) uint8 by class, channel and value: OpenCV's addWeighted, which rounds halves to even.
    """
    cv2 = require("cv2", _PURPOSE)
    values = np.broadcast_to(np.arange(256, dtype=np.uint8), (256, 3, 256))
    tints = np.broadcast_to(colors[:, :, None], (256, 3, 256))
    table: NDArray[np.uint8] = cv2.addWeighted(
        np.ascontiguousarray(values), 1 - alpha, np.ascontiguousarray(tints), alpha, 0
    )
    table[~drawn] = np.arange(256, dtype=np.uint8)
    return table


def blend(image: NDArray[np.uint8], class_map: NDArray[np.uint8], table: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Draw a class map over a frame.

    Args:
        image: (H, W, 3) uint8.
        class_map: (H, W) uint8 class by pixel.
        table: of `blend_table`.

    Returns:
        (H, W, 3) uint8, a new array.

    Raises:
        ShapeError: for a class map of another size than the frame's.
    """
    _check_sizes(image.shape, class_map)
    picture = np.empty(image.shape, np.uint8)
    flat = np.ascontiguousarray(image).reshape(-1), np.ascontiguousarray(class_map).reshape(-1)
    run_compiled(_PURPOSE, _look_up, *flat, table.reshape(256, -1), picture.reshape(-1))
    return picture


@dataclass(frozen=True, eq=False)
class YuvTints:
    """What becomes of luma and chroma under every class: (value * keep + add) / 256, cut off.

    Attributes:
        keep: (256,) uint16 by class, in 256ths.
        add: (3, 256) uint16 by channel and class; its part of the colour, in 256ths, and a half.
    """

    keep: NDArray[np.uint16]
    add: NDArray[np.uint16]


def yuv_tints(layout: FrameLayout, colors: NDArray[np.uint8], drawn: NDArray[np.bool_], alpha: float) -> YuvTints:
    """As `blend_table`, for frames of that matrix and range; the share of colour is rounded to a 256th."""
    share = np.where(drawn, round(256 * alpha), 0)
    channels = np.concatenate([table[:, 0] for table in tables_of(layout, colors)], axis=1).T
    return YuvTints((256 - share).astype(np.uint16), (channels * share + 128).astype(np.uint16))


def blend_yuv(frame: YuvFrame, class_map: NDArray[np.uint8], tints: YuvTints) -> YuvFrame:
    """Draw a class map over a frame in its own format.

    Four pixels share their chroma, which is drawn by the class of the upper left one, as the element does.

    Args:
        frame: in I420 or NV12.
        class_map: (H, W) uint8 class by pixel.
        tints: of `yuv_tints` for its layout.

    Returns:
        A new frame of the same layout.

    Raises:
        ShapeError: as `blend`.
    """
    _check_sizes(frame.shape, class_map)
    layout, picture = frame.layout, np.empty_like(frame.data)
    places = (layout.offsets[0], layout.strides[0], *chroma_of(layout))
    classes = np.ascontiguousarray(class_map)
    eights = np.zeros(-(-layout.width // 8), np.uint64)
    scratch = eights.view(np.uint8), eights
    run_compiled(_PURPOSE, _tint, frame.data, *places, classes, tints.keep, tints.add, *scratch, picture)
    picture.flags.writeable = False
    return YuvFrame(picture, layout)


def warm_up() -> None:
    """Compile the kernels, or load them from the cache, before the first frame waits for them."""
    classes = np.zeros((1, 1), np.uint8)
    blend(np.zeros((1, 1, 3), np.uint8), classes, np.zeros((256, 3, 256), np.uint8))
    layout = FrameLayout("I420", 1, 1, (0, 1, 2), (1, 1, 1))
    tints = yuv_tints(layout, np.zeros((256, 3), np.uint8), np.zeros(256, bool), 0.5)
    blend_yuv(YuvFrame(np.zeros(3, np.uint8), layout), classes, tints)


def _check_sizes(shape: tuple[int, ...], class_map: NDArray[np.uint8]) -> None:
    """Compiled loops look at no bounds."""
    if shape != (*class_map.shape, 3):
        raise ShapeError(
            f"a class map is drawn over a frame of its size, but got {class_map.shape} for a frame {shape}; "
            "bring it to the frame's size"
        )


def _look_up(image, class_map, table, picture):  # type: ignore[no-untyped-def]
    """The picture from a table of 768 values by class; everything flat."""
    green, blue = np.uint64(256), np.uint64(512)  # a signed index would be tested for being negative
    for pixel in range(class_map.shape[0]):
        values = table[class_map[pixel]]
        at = 3 * pixel
        picture[at] = values[image[at]]
        picture[at + 1] = values[green + np.uint64(image[at + 1])]
        picture[at + 2] = values[blue + np.uint64(image[at + 2])]


def _tint(  # type: ignore[no-untyped-def]
    data, luma_at, luma_stride, blue_at, red_at, chroma_stride, step, class_map, keep, add, changes, eights, picture
):
    """A picture's luma and chroma. Most pixels are of their neighbours' class, and are done many at once.

    `changes` is scratch, of a row's width rounded up to eights, and `eights` its memory as words of eight pixels.
    """
    height, width = class_map.shape
    for y in range(height):
        classes = class_map[y]
        for x in range(width - 1):
            changes[x] = classes[x] ^ classes[x + 1]
        start = luma_at + y * luma_stride
        old, new = data[start : start + width], picture[start : start + width]
        chroma = y // 2 * chroma_stride
        at = 0
        while at < eights.shape[0]:
            end = at + 1
            same = eights[at] == 0
            while same and end < eights.shape[0] and eights[end] == 0:
                end += 1
            first, stop = 8 * at, min(8 * end, width)
            found = classes[first:stop]
            # Indices from a slice's own beginning are known not to be negative, without which nothing is done at once.
            old_part, new_part = old[first:stop], new[first:stop]
            if same:
                kept, added = keep[found[0]], add[0, found[0]]
                for x in range(stop - first):
                    new_part[x] = np.uint8(np.uint16(np.uint16(old_part[x]) * kept + added) >> 8)
            else:
                for x in range(stop - first):
                    kept, added = keep[found[x]], add[0, found[x]]
                    new_part[x] = np.uint8(np.uint16(np.uint16(old_part[x]) * kept + added) >> 8)
            if y % 2 == 0:
                half = (stop - first + 1) // 2
                for channel in range(1, 3):
                    start = (blue_at if channel == 1 else red_at) + chroma + first // 2 * step
                    old_part, new_part = data[start:], picture[start:]
                    if same and step == 1:
                        kept, added = keep[found[0]], add[channel, found[0]]
                        for x in range(half):
                            new_part[x] = np.uint8(np.uint16(np.uint16(old_part[x]) * kept + added) >> 8)
                    else:
                        for x in range(half):
                            kept, added = keep[found[2 * x]], add[channel, found[2 * x]]
                            value = np.uint16(np.uint16(old_part[x * step]) * kept + added)
                            new_part[x * step] = np.uint8(value >> 8)
            at = end
