"""Label images in every way that data sets store them."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from edgeseg.calibration.label_images import check_labels, read_labels
from edgeseg.calibration.png import PNG_SIGNATURE, is_complete_png, read_header
from edgeseg.errors import LabelError
from edgeseg.labels import LabelSet, load_labels

Color = tuple[int, int, int]
VOC_BORDER = (224, 224, 192)


def write_png(path: Path, pixels: NDArray[np.uint8], *, depth: int = 8, palette: list[Color] | None = None) -> Path:
    """Write grey values, or indices of a palette, with 1, 2, 4 or 8 bits."""
    height, width = pixels.shape
    bits = np.unpackbits(pixels[:, :, None], axis=2)[:, :, 8 - depth :].reshape(height, -1)
    rows = np.packbits(bits, axis=1)
    # Every second row is stored as its difference from the row above, as real writers do.
    content = bytearray()
    for i, row in enumerate(rows):
        content += b"\x02" + (row - rows[i - 1]).tobytes() if i % 2 else b"\x00" + row.tobytes()

    def chunk(kind: bytes, payload: bytes) -> bytes:
        return struct.pack(">I", len(payload)) + kind + payload + struct.pack(">I", zlib.crc32(kind + payload))

    header = struct.pack(">IIBBBBB", width, height, depth, 0 if palette is None else 3, 0, 0, 0)
    table = b"" if palette is None else chunk(b"PLTE", bytes(v for color in palette for v in color))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(
        PNG_SIGNATURE + chunk(b"IHDR", header) + table + chunk(b"IDAT", zlib.compress(content)) + chunk(b"IEND", b"")
    )
    return path


def voc_palette() -> list[Color]:
    return [*LabelSet.numbered(255).palette, VOC_BORDER]


INDICES = np.random.default_rng(2).integers(0, 256, (13, 17), dtype=np.uint8)


def test_grey_values_are_the_indices(tmp_path: Path) -> None:
    assert np.array_equal(read_labels(write_png(tmp_path / "a.png", INDICES)), INDICES)


def test_palette_gives_indices_not_colors(tmp_path: Path) -> None:
    path = write_png(tmp_path / "a.png", INDICES, palette=voc_palette())
    assert cv2.imread(str(path), cv2.IMREAD_UNCHANGED).shape == (13, 17, 3), "what OpenCV alone would give"
    assert np.array_equal(read_labels(path), INDICES)


def test_colors_that_come_twice_in_a_palette_stay_apart(tmp_path: Path) -> None:
    """Libraries fill palettes up with black, the colour of index 0."""
    indices = INDICES % 5
    path = write_png(tmp_path / "a.png", indices, palette=[(0, 0, 0), (128, 0, 0), (0, 0, 0), (0, 0, 0), (9, 9, 9)])
    assert np.array_equal(read_labels(path), indices)


@pytest.mark.parametrize("depth", [1, 2, 4])
@pytest.mark.parametrize("with_palette", [False, True])
def test_few_bits(tmp_path: Path, depth: int, with_palette: bool) -> None:
    indices = INDICES % 2**depth
    palette = voc_palette()[: 2**depth] if with_palette else None
    path = write_png(tmp_path / "a.png", indices, depth=depth, palette=palette)
    assert np.array_equal(read_labels(path), indices)


def test_other_lossless_formats(tmp_path: Path) -> None:
    for suffix in (".bmp", ".tif", ".pgm"):
        path = tmp_path / f"a{suffix}"
        cv2.imwrite(str(path), INDICES)
        assert np.array_equal(read_labels(path), INDICES)


def test_sixteen_bits_with_small_values(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    cv2.imwrite(str(path), INDICES.astype(np.uint16))
    assert np.array_equal(read_labels(path), INDICES)
    cv2.imwrite(str(path), INDICES.astype(np.uint16) + 26000)
    with pytest.raises(LabelError, match=r"a\.png has uint16 values up to 26\d+; instance ids must"):
        read_labels(path)


class TestColors:
    def write(self, path: Path, colors: list[Color]) -> Path:
        cv2.imwrite(str(path), np.array([colors], np.uint8)[:, :, ::-1])
        return path

    def test_through_the_label_set(self, tmp_path: Path) -> None:
        voc = load_labels("voc")
        path = self.write(tmp_path / "a.png", [voc.palette[15], voc.palette[0], VOC_BORDER, voc.palette[20]])
        assert read_labels(path, voc).tolist() == [[15, 0, 255, 20]]

    def test_black_is_ignored_where_no_class_is_black(self, tmp_path: Path) -> None:
        camvid = load_labels("camvid")
        path = self.write(tmp_path / "a.png", [(0, 0, 0), camvid.palette[3]])
        assert read_labels(path, camvid).tolist() == [[11, 3]]

    def test_unknown_color(self, tmp_path: Path) -> None:
        path = self.write(tmp_path / "a.png", [(1, 2, 3), (1, 2, 3), (128, 0, 0), (9, 9, 9)])
        with pytest.raises(LabelError, match=r"2 colours of no class, the first is \(1, 2, 3\) in 2 pixels"):
            read_labels(path, load_labels("voc"))

    def test_without_a_label_set(self, tmp_path: Path) -> None:
        path = self.write(tmp_path / "a.png", [(1, 2, 3)])
        with pytest.raises(LabelError, match=r"a\.png are colours, which need a label set.*--classes"):
            read_labels(path)


class TestBadFiles:
    def test_jpeg(self, tmp_path: Path) -> None:
        cv2.imwrite(str(tmp_path / "a.jpg"), INDICES)
        with pytest.raises(LabelError, match=r"a\.jpg are a JPEG, which changes class indices; save them as PNG"):
            read_labels(tmp_path / "a.jpg")

    def test_cut(self, tmp_path: Path) -> None:
        path = write_png(tmp_path / "a.png", INDICES)
        path.write_bytes(path.read_bytes()[:-15])
        with pytest.raises(LabelError, match=rf"a\.png are cut short or damaged \({path.stat().st_size} bytes\)"):
            read_labels(path)

    def test_missing_and_foreign(self, tmp_path: Path) -> None:
        with pytest.raises(LabelError, match=r"cannot read the labels .*a\.png: No such file"):
            read_labels(tmp_path / "a.png")
        (tmp_path / "a.png").write_text("text")
        with pytest.raises(LabelError, match=r"cannot decode the labels .*a\.png \(4 bytes\)"):
            read_labels(tmp_path / "a.png")


class TestCheckLabels:
    def test_value_count_and_file_are_named(self) -> None:
        labels = np.array([[0, 11, 12], [12, 10, 40]], np.uint8)
        expected = r"a\.png has the unknown label 12 in 2 pixels; the labels are 0\.\.10 \(11 is ignored\)"
        with pytest.raises(LabelError, match=expected):
            check_labels(labels, load_labels("camvid"), Path("a.png"))

    def test_nothing_ignored(self) -> None:
        labels = LabelSet(("a", "b"), ((0, 0, 0), (1, 1, 1)), ignore_index=None)
        check_labels(np.array([[0, 1]], np.uint8), labels, Path("a.png"))
        with pytest.raises(LabelError, match=r"unknown label 255 in 1 pixels.*0\.\.1 \(nothing is ignored\)"):
            check_labels(np.array([[0, 255]], np.uint8), labels, Path("a.png"))


class TestPng:
    def test_header(self, tmp_path: Path) -> None:
        data = write_png(tmp_path / "a.png", INDICES % 4, depth=2, palette=voc_palette()[:4]).read_bytes()
        header = read_header(data)
        assert header is not None
        assert (header.width, header.height, header.depth) == (17, 13, 2)
        assert header.is_palette
        assert not header.is_grey

    def test_other_bytes(self) -> None:
        assert read_header(b"no png") is None
        assert read_header(PNG_SIGNATURE + b"\0\0\0\x05IHDRab") is None
        assert not is_complete_png(PNG_SIGNATURE)
