"""Decoding one image file."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from edgeseg.calibration.images import is_complete, read_image
from edgeseg.errors import FrameError

FORMATS = [
    (".jpg", []),
    (".jpg", [cv2.IMWRITE_JPEG_PROGRESSIVE, 1]),
    (".png", []),
    (".bmp", []),
    (".webp", []),
    (".tif", []),
    (".ppm", []),
]


def picture() -> NDArray[np.uint8]:
    """A smooth (64, 96, 3) RGB image whose channels differ."""
    noise = np.random.default_rng(0).integers(0, 255, (8, 8, 3), dtype=np.uint8)
    return cv2.resize(noise, (96, 64))


def encoded(suffix: str, parameters: list[int], image: NDArray[np.uint8] | None = None) -> bytes:
    rgb = picture() if image is None else image
    done, data = cv2.imencode(suffix, rgb if rgb.ndim == 2 else rgb[:, :, ::-1], parameters)
    assert done
    return data.tobytes()


@pytest.mark.parametrize(("suffix", "parameters"), FORMATS)
def test_every_format_gives_rgb(tmp_path: Path, suffix: str, parameters: list[int]) -> None:
    path = tmp_path / f"frame{suffix}"
    path.write_bytes(encoded(suffix, parameters))
    image = read_image(path)
    assert image.shape == (64, 96, 3)
    assert image.dtype == np.uint8
    assert np.abs(image.astype(int) - picture()).mean() < 6


@pytest.mark.parametrize(("suffix", "parameters"), FORMATS)
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9, 0.99])
def test_a_cut_file_is_refused_by_name(tmp_path: Path, suffix: str, parameters: list[int], share: float) -> None:
    data = encoded(suffix, parameters)
    path = tmp_path / f"frame{suffix}"
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(FrameError, match=f"frame{suffix}.*{int(len(data) * share)} bytes"):
        read_image(path)


def test_bytes_after_the_end_of_a_jpeg_do_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "phone.jpg"
    path.write_bytes(encoded(".jpg", []) + b"depth map of a phone")
    assert read_image(path).shape == (64, 96, 3)


def test_the_end_mark_of_an_embedded_thumbnail_does_not_count() -> None:
    data = encoded(".jpg", [])
    thumbnail = encoded(".jpg", [cv2.IMWRITE_JPEG_QUALITY, 5], picture()[:8, :8])
    segment = b"\xff\xe1" + (len(thumbnail) + 2).to_bytes(2, "big") + thumbnail
    whole = data[:2] + segment + data[2:]
    assert is_complete(whole)
    assert not is_complete(whole[:-2])


def test_a_changed_byte_in_a_png_is_noticed() -> None:
    data = bytearray(encoded(".png", []))
    data[len(data) // 2] ^= 1
    assert not is_complete(bytes(data))


def test_orientation_of_a_photograph_is_applied(tmp_path: Path) -> None:
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    data = encoded(".jpg", [])
    path = tmp_path / "portrait.jpg"
    path.write_bytes(data[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + data[2:])
    assert read_image(path).shape == (96, 64, 3)


def test_grey_and_alpha_become_rgb(tmp_path: Path) -> None:
    grey = tmp_path / "grey.png"
    grey.write_bytes(encoded(".png", [], np.full((4, 5), 77, np.uint8)))
    assert read_image(grey).tolist() == np.full((4, 5, 3), 77).tolist()
    alpha = tmp_path / "alpha.png"
    cv2.imwrite(str(alpha), np.full((4, 5, 4), (30, 20, 10, 0), np.uint8))
    assert read_image(alpha)[0, 0].tolist() == [10, 20, 30]


def test_sixteen_bits_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "thermal.png"
    cv2.imwrite(str(path), np.full((4, 5), 3000, np.uint16))
    with pytest.raises(FrameError, match=r"thermal\.png has uint16 pixels, but a frame is 8 bits a channel"):
        read_image(path)


def test_missing_empty_and_foreign_files(tmp_path: Path) -> None:
    with pytest.raises(FrameError, match=r"cannot read the image .*none\.png: No such file"):
        read_image(tmp_path / "none.png")
    (tmp_path / "empty.png").touch()
    with pytest.raises(FrameError, match=r"empty\.png is an empty file \(0 bytes\)"):
        read_image(tmp_path / "empty.png")
    (tmp_path / "text.jpg").write_text("not an image")
    with pytest.raises(FrameError, match=r"cannot decode the image .*text\.jpg \(12 bytes\)"):
        read_image(tmp_path / "text.jpg")


def test_nothing_is_written_to_stderr(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "cut.ppm"
    path.write_bytes(encoded(".ppm", [])[:-9])
    with pytest.raises(FrameError):
        read_image(path)
    assert capfd.readouterr().err == ""
