"""The little of the PNG format that OpenCV does not give: whether a file is whole, and palette indices."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ["PNG_SIGNATURE", "PngHeader", "is_complete_png", "palette_as_grey", "read_header"]

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_GREY, _PALETTE = 0, 3


@dataclass(frozen=True)
class PngHeader:
    """What the IHDR chunk says.

    Attributes:
        width, height: pixels.
        depth: bits per channel (or per palette index).
        color_type: 0 grey, 2 RGB, 3 palette, 4 grey and alpha, 6 RGBA.
    """

    width: int
    height: int
    depth: int
    color_type: int

    @property
    def is_palette(self) -> bool:
        """Whether pixels are indices of a table of colours."""
        return self.color_type == _PALETTE

    @property
    def is_grey(self) -> bool:
        """Whether pixels are one grey value without alpha."""
        return self.color_type == _GREY


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Type and payload of every chunk with a right checksum; ends early where the file is cut or damaged."""
    position = len(PNG_SIGNATURE)
    while position + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, position)
        kind, payload = data[position + 4 : position + 8], data[position + 8 : position + 8 + length]
        checksum = data[position + 8 + length : position + 12 + length]
        if len(checksum) < 4 or zlib.crc32(payload, zlib.crc32(kind)) != struct.unpack(">I", checksum)[0]:
            return
        yield kind, payload
        position += 12 + length


def is_complete_png(data: bytes) -> bool:
    """Whether every chunk up to IEND is there with a right checksum."""
    return data.startswith(PNG_SIGNATURE) and any(kind == b"IEND" for kind, _ in _chunks(data))


def read_header(data: bytes) -> PngHeader | None:
    """The header of a PNG file, or None for another or a damaged file."""
    if not data.startswith(PNG_SIGNATURE):
        return None
    kind, payload = next(_chunks(data), (b"", b""))
    if kind != b"IHDR" or len(payload) != 13:
        return None
    width, height, depth, color_type = struct.unpack(">IIBB", payload[:10])
    return PngHeader(width, height, depth, color_type)


def palette_as_grey(data: bytes) -> bytes:
    """The same pixels with the palette indices declared as grey values.

    Palette and grey images of one depth store their pixels alike, so only the header changes, and a decoder that would
    replace indices by colours gives the indices. Depths below 8 bits come out of most decoders scaled to 0..255.
    """
    chunks = []
    for kind, payload in _chunks(data):
        if kind in (b"PLTE", b"tRNS"):
            continue
        content = payload[:9] + bytes([_GREY]) + payload[10:] if kind == b"IHDR" else payload
        checksum = struct.pack(">I", zlib.crc32(content, zlib.crc32(kind)))
        chunks.append(struct.pack(">I", len(content)) + kind + content + checksum)
    return PNG_SIGNATURE + b"".join(chunks)
