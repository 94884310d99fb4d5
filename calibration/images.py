"""Reading one image file as an RGB frame, and noticing when the file is cut."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeseg.calibration.png import PNG_SIGNATURE, is_complete_png
from edgeseg.errors import FrameError
from edgeseg.libraries import require

__all__ = ["IMAGE_SUFFIXES", "decode", "import_cv2", "is_complete", "quiet_cv2", "read_image"]

IMAGE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})

# A JPEG marker other than a stuffed zero, a restart marker or a fill byte: what can follow entropy-coded data.
_JPEG_MARKER = re.compile(rb"\xff([^\x00\xd0-\xd7\xff])", re.DOTALL)
_END_OF_IMAGE = b"\xd9"


def import_cv2() -> Any:
    """OpenCV, imported on first use.

    Raises:
        MissingDependencyError: when it is not installed.
    """
    return require("cv2", "read images and videos")


def read_image(path: Path) -> NDArray[np.uint8]:
    """Read an image file.

    Grey images become RGB with three equal channels, alpha is dropped, palettes are resolved. The orientation in a
    photograph's EXIF data is applied, so that the frame stands as every viewer shows it. Images with more than 8 bits a
    channel are refused, since no one scaling to 8 bits is right for all of them.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        FrameError: for a file that is missing, unreadable, cut, no image, or has more than 8 bits a channel.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise FrameError(f"cannot read the image {path}: {error.strerror}") from error
    if not data:
        raise FrameError(f"the image {path} is an empty file (0 bytes)")
    if not is_complete(data):
        raise FrameError(f"the image {path} is cut short or damaged ({len(data)} bytes); copy or save it again")
    cv2 = import_cv2()
    image = decode(data, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
    if image is None:
        raise FrameError(f"cannot decode the image {path} ({len(data)} bytes): it is damaged or no image")
    if image.dtype != np.uint8:
        raise FrameError(
            f"the image {path} has {image.dtype} pixels, but a frame is 8 bits a channel; "
            "convert it with the scaling that the network was trained with"
        )
    rgb: NDArray[np.uint8] = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    return rgb


def decode(data: bytes, flags: int) -> NDArray[Any] | None:
    """Decode an image file's bytes as cv2.imdecode does (channels BGR); None where that fails."""
    cv2 = import_cv2()
    with quiet_cv2():
        try:
            image: NDArray[Any] | None = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
        except cv2.error:
            return None
    return image


@contextmanager
def quiet_cv2() -> Iterator[None]:
    """Keep OpenCV from writing to stderr what the caller is about to raise as an error of its own."""
    logging = import_cv2().utils.logging
    level = logging.setLogLevel(logging.LOG_LEVEL_SILENT)
    try:
        yield
    finally:
        logging.setLogLevel(level)


def is_complete(data: bytes) -> bool:
    """Whether an image file holds everything that its own structure announces.

    Versions of OpenCV differ: some fill the rest of a cut JPEG or PNG with grey or black and say nothing. Formats
    without a length or an end mark count as complete; their decoders notice.
    """
    if data.startswith(b"\xff\xd8"):
        return _is_complete_jpeg(data)
    if data.startswith(PNG_SIGNATURE):
        return is_complete_png(data)
    if data.startswith(b"BM"):
        return len(data) >= int.from_bytes(data[2:6], "little")
    if data.startswith(b"RIFF"):
        return len(data) >= int.from_bytes(data[4:8], "little") + 8
    return True


def _is_complete_jpeg(data: bytes) -> bool:
    """Walk the segments to the end-of-image marker; one inside an embedded thumbnail does not count."""
    position = 2
    while found := _JPEG_MARKER.search(data, position):
        if found.group(1) == _END_OF_IMAGE:
            return True
        length = int.from_bytes(data[found.end() : found.end() + 2], "big")
        position = found.end() + max(length, 2)
    return False
