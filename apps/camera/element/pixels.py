"""The pixel formats of GStreamer that the element reads and draws on, as planes of arrays without a copy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeseg.errors import FrameError
from edgeseg.libraries import require

__all__ = ["FORMATS", "MATRICES", "FrameLayout", "planes_of", "rgb_of", "tables_of", "to_yuv"]

Planes = tuple[NDArray[np.uint8], ...]

PACKED = ("RGB", "BGR", "RGBx", "BGRx", "RGBA", "BGRA")
"""Formats of one plane; the letters are the channels in memory."""

CHROMA = {"NV12": (2,), "I420": (1, 1)}
"""Channels of the planes behind luma of formats with a quarter of the chroma, U before V."""

FORMATS = (*PACKED, *CHROMA)
"""What the element takes; other formats go through `videoconvert` or `nvvidconv` before it."""

MATRICES = {"bt601": (0.299, 0.114), "bt709": (0.2126, 0.0722), "bt2020": (0.2627, 0.0593), "smpte240m": (0.212, 0.087)}
"""Shares of red and blue in the luma, Kr and Kb (ITU-R BT.601-7, BT.709-6, BT.2020-2; SMPTE 240M)."""


@dataclass(frozen=True)
class FrameLayout:
    """Where the pixels of a frame are in its buffer.

    Attributes:
        format: one of FORMATS.
        height, width: in pixels, odd ones too.
        offsets: first byte of each plane.
        strides: bytes from one row to the next of each plane, padding included.
        matrix: one of MATRICES; of YUV only.
        full_range: luma is 0..255 instead of 16..235; of YUV only.
    """

    format: str
    height: int
    width: int
    offsets: tuple[int, ...]
    strides: tuple[int, ...]
    matrix: str = "bt601"
    full_range: bool = False

    @property
    def is_yuv(self) -> bool:
        """Whether the planes are luma and chroma."""
        return self.format in CHROMA

    @property
    def size(self) -> int:
        """Bytes from the buffer's first to the last plane's last row."""
        rows = -(-self.height // 2) if self.is_yuv else self.height
        return self.offsets[-1] + self.strides[-1] * rows

    @property
    def has_alpha(self) -> bool:
        """Whether the fourth channel means something, and so must stay as it is."""
        return self.format.endswith("A")


def planes_of(data: NDArray[np.uint8], layout: FrameLayout) -> Planes:
    """Views of a frame's planes.

    Args:
        data: (N,) uint8, the whole buffer.
        layout: where the planes are.

    Returns:
        One (H, W, C) uint8 view, or for YUV luma (H, W, 1) and chroma (ceil(H / 2), ceil(W / 2), C): U and V in one
        plane or two.

    Raises:
        FrameError: for a buffer that is too small for its layout.
    """
    half = (-(-layout.height // 2), -(-layout.width // 2))
    channels = 1 if layout.is_yuv else len(layout.format)
    shapes = [(layout.height, layout.width, channels), *((*half, count) for count in CHROMA.get(layout.format, ()))]
    found = []
    for shape, offset, stride in zip(shapes, layout.offsets, layout.strides, strict=True):
        try:
            found.append(np.ndarray(shape, np.uint8, data, offset, (stride, shape[2], 1)))
        except (TypeError, ValueError) as error:
            raise FrameError(
                f"a {layout.format} frame of {layout.width}x{layout.height} came in {data.size} bytes, which is too "
                "small for it; the element before edgeseg is at fault"
            ) from error
    return tuple(found)


def rgb_of(planes: Planes, layout: FrameLayout, size: tuple[int, int]) -> NDArray[np.uint8]:
    """What the network sees of a frame.

    Args:
        planes: of `planes_of`.
        layout: their layout.
        size: (height, width) of the network's input. YUV is brought to it before the colours are converted, which
            costs a tenth of the other order at 1080p; the other formats keep the frame's size.

    Returns:
        (h, w, 3) uint8 RGB; a view of the frame for RGB.
    """
    if layout.format == "RGB":
        return planes[0]
    cv2 = require("cv2", "convert frames")
    if layout.is_yuv:
        height, width = size
        scaled = [cv2.resize(plane, (width, height), interpolation=cv2.INTER_LINEAR) for plane in planes]
        rgb: NDArray[np.uint8] = cv2.transform(cv2.merge(scaled), _from_yuv(layout))
        return rgb
    code = f"COLOR_{layout.format[:3]}{'A' if len(layout.format) == 4 else ''}2RGB"
    converted: NDArray[np.uint8] = cv2.cvtColor(planes[0], getattr(cv2, code))
    return converted


def tables_of(layout: FrameLayout, colors: NDArray[np.uint8]) -> Planes:
    """The colours of the classes in the channels of each plane.

    Args:
        layout: of the frames.
        colors: (256, 3) uint8 RGB by class.

    Returns:
        One (256, 1, C) uint8 table by plane, as OpenCV's LUT takes them.
    """
    if layout.is_yuv:
        matrix, offset = to_yuv(layout)
        yuv = np.clip(np.rint(colors @ matrix.T + offset), 0, 255).astype(np.uint8)
        first = np.cumsum((1, *CHROMA[layout.format][:-1]))
        return tuple(np.ascontiguousarray(part[:, None]) for part in np.split(yuv, first, axis=1))
    column = {"R": 0, "G": 1, "B": 2, "x": 3, "A": 3}
    table = np.concatenate([colors, np.full((256, 1), 255, np.uint8)], axis=1)
    return (np.ascontiguousarray(table[:, None, [column[letter] for letter in layout.format]]),)


def to_yuv(layout: FrameLayout) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Matrix and offset from RGB in 0..255 to 8-bit YUV (ITU-R BT.709-6, 3.2 to 3.5, with the format's Kr and Kb)."""
    red, blue = MATRICES[layout.matrix]
    luma = np.array([red, 1 - red - blue, blue])
    rows = np.stack([luma, ([0, 0, 1] - luma) / (2 - 2 * blue), ([1, 0, 0] - luma) / (2 - 2 * red)])
    scale, offset = ((255, 255, 255), (0, 128, 128)) if layout.full_range else ((219, 224, 224), (16, 128, 128))
    return rows * np.divide(scale, 255)[:, None], np.array(offset, np.float64)


def _from_yuv(layout: FrameLayout) -> NDArray[np.float64]:
    """(3, 4) matrix from YUV to RGB, the offset in its last column, as OpenCV's transform takes it."""
    matrix, offset = to_yuv(layout)
    inverse = np.linalg.inv(matrix)
    return np.concatenate([inverse, -(inverse @ offset)[:, None]], axis=1)
