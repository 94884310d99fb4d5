"""Pictures for browsers: JPEG, class maps as PNG, and the message that brings both to the page."""

from __future__ import annotations

import json
import struct
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeseg.apps.camera.results import CameraResult
from edgeseg.errors import OutputError
from edgeseg.labels import LabelSet
from edgeseg.libraries import require

__all__ = ["class_map_png", "jpeg", "live_message", "narrowed"]

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_GREY, _INDEXED = 0, 3


def jpeg(image: NDArray[np.uint8], width: int, quality: int) -> bytes:
    """A picture as JPEG.

    Args:
        image: (H, W, 3) uint8 RGB.
        width: a wider picture is made this wide.
        quality: 1..100.

    Raises:
        OutputError: when OpenCV cannot encode it.
    """
    cv2 = require("cv2", "encode pictures")
    image = cv2.cvtColor(narrowed(image, width), cv2.COLOR_RGB2BGR)
    good, content = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not good:
        raise OutputError(f"OpenCV cannot encode a picture of {image.shape} as JPEG")
    encoded: bytes = content.tobytes()
    return encoded


def narrowed(image: NDArray[np.uint8], width: int) -> NDArray[np.uint8]:
    """A picture that is no wider than so many pixels, in its proportions."""
    if image.shape[1] <= width:
        return image
    cv2 = require("cv2", "encode pictures")
    height = max(1, round(image.shape[0] * width / image.shape[1]))
    narrow: NDArray[np.uint8] = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    return narrow


def class_map_png(class_map: NDArray[np.uint8], labels: LabelSet | None = None) -> bytes:
    """A class map as PNG, exact.

    Args:
        class_map: (H, W) uint8.
        labels: gives the colours of an indexed picture; None for one grey channel of class indices.
    """
    kind = _GREY if labels is None else _INDEXED
    parts = [_SIGNATURE, _chunk(b"IHDR", _header(class_map, kind))]
    if labels is not None:
        parts.append(_chunk(b"PLTE", labels.colors().tobytes()))
    return b"".join([*parts, _chunk(b"IDAT", _pixels(class_map)), _chunk(b"IEND", b"")])


def live_message(result: CameraResult, width: int, quality: int) -> bytes:
    """The frame and its class map for the page, which draws one over the other.

    The class map goes as the compressed pixels of its PNG: the page puts any palette before them, so that colours,
    hidden classes and the exact map come from the same bytes.

    Args:
        result: what to show.
        width: most pixels a row of the JPEG; the class map keeps its size.
        quality: of the JPEG, 1..100.

    Returns:
        Length of the header as 32 bits, big endian; the header as JSON; the JPEG; the pixels of the PNG.
    """
    picture, pixels = jpeg(result.frame.image, width, quality), _pixels(result.segmentation.class_map)
    height, columns = result.segmentation.class_map.shape
    facts: dict[str, Any] = {
        "number": result.frame.number,
        "width": columns,
        "height": height,
        "jpeg": len(picture),
        "latency_ms": round(result.latency_ms, 3),
    }
    header = json.dumps(facts).encode()
    return b"".join([struct.pack(">I", len(header)), header, picture, pixels])


def _chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def _header(class_map: NDArray[np.uint8], kind: int) -> bytes:
    height, width = class_map.shape
    return struct.pack(">IIBBBBB", width, height, 8, kind, 0, 0, 0)


def _pixels(class_map: NDArray[np.uint8]) -> bytes:
    """The rows of a PNG, compressed.

    Every row is stored as its difference from the one above (filter 2), which is zero nearly everywhere in a class map.
    That takes a third of the time of OpenCV's encoder.
    """
    rows = np.full((class_map.shape[0], class_map.shape[1] + 1), 2, np.uint8)
    rows[0, 1:] = class_map[0]
    np.subtract(class_map[1:], class_map[:-1], out=rows[1:, 1:])
    # Equal bytes in a row are all there is to find: a third smaller than with zlib's own search, and no slower.
    packer = zlib.compressobj(1, strategy=zlib.Z_RLE)
    return packer.compress(rows.data) + packer.flush()
