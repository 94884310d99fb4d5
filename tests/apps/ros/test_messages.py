"""Images of every encoding become frames, and results become messages that read back the same."""

from __future__ import annotations

import array
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

pytest.importorskip("rosbags", reason="rosbags is not installed; run: pip install 'edgeseg[ros]'")

from support import bags

from edgeseg.apps.ros.cdr import CDRMessages
from edgeseg.apps.ros.messages import (
    COMPRESSED_IMAGE,
    IMAGE,
    LABEL_INFO,
    class_map_message,
    frame_of,
    label_info_message,
    overlay_message,
)
from edgeseg.errors import FrameError
from edgeseg.labels import LabelSet

FRAME = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
ALPHA = np.full((6, 8, 1), 9, np.uint8)
LABELS = LabelSet(("road", "Ärger"), ((1, 2, 3), (4, 5, 6)))


def through_cdr(message: object, kind: str) -> object:
    messages = CDRMessages()
    return messages.read(bytes(messages.write(message, kind)), kind)


def mosaic(color: tuple[int, int, int], pattern: str) -> np.ndarray:
    """What a sensor with that Bayer pattern sees of one colour."""
    cells = np.array([color["rgb".index(letter)] for letter in pattern], np.uint8).reshape(2, 2)
    return np.tile(cells, (4, 5))


def packed(rgb: np.ndarray, order: str) -> np.ndarray:
    """(H, W, 2) uint8 of a frame of one colour: `order` is "uyvy" or "yuyv"."""
    # BT.601, studio range, as OpenCV reads the packed forms.
    y = np.dot(rgb[0, 0], (65.738, 129.057, 25.064)) / 256 + 16
    cb = np.dot(rgb[0, 0], (-37.945, -74.494, 112.439)) / 256 + 128
    cr = np.dot(rgb[0, 0], (112.439, -94.154, -18.285)) / 256 + 128
    values = {"u": cb, "v": cr, "y": y}
    row = np.array([round(values[letter]) for letter in order] * (rgb.shape[1] // 2), np.uint8)
    return np.tile(row, (rgb.shape[0], 1)).reshape(*rgb.shape[:2], 2)


class TestImages:
    @pytest.mark.parametrize("pad", [0, 5])
    @pytest.mark.parametrize(
        ("encoding", "pixels"),
        [
            ("rgb8", FRAME),
            ("bgr8", FRAME[:, :, ::-1]),
            ("rgba8", np.dstack([FRAME, ALPHA])),
            ("bgra8", np.dstack([FRAME[:, :, ::-1], ALPHA])),
        ],
    )
    def test_of_colours(self, encoding: str, pixels: np.ndarray, pad: int) -> None:
        message = through_cdr(bags.image(pixels, encoding=encoding, pad=pad), IMAGE)
        frame = frame_of(message, IMAGE)
        assert (frame.shape, frame.dtype) == ((6, 8, 3), np.uint8)
        assert np.array_equal(frame, FRAME)

    def test_of_grey(self) -> None:
        frame = frame_of(bags.image(FRAME[:, :, 0], encoding="mono8", pad=3), IMAGE)
        assert np.array_equal(frame, np.repeat(FRAME[:, :, :1], 3, axis=2))

    @pytest.mark.parametrize(("encoding", "order"), [("yuv422", "uyvy"), ("uyvy", "uyvy"), ("yuv422_yuy2", "yuyv")])
    @pytest.mark.parametrize("color", [(200, 30, 40), (20, 180, 60), (10, 40, 220)])
    def test_of_shared_colours(self, encoding: str, order: str, color: tuple[int, int, int]) -> None:
        flat = np.full((4, 6, 3), color, np.uint8)
        frame = frame_of(bags.image(packed(flat, order), encoding=encoding, pad=4), IMAGE)
        assert np.abs(frame.astype(int) - color).max() <= 3

    @pytest.mark.parametrize("pattern", ["rggb", "bggr", "gbrg", "grbg"])
    def test_of_a_sensor(self, pattern: str) -> None:
        frame = frame_of(bags.image(mosaic((200, 90, 20), pattern), encoding=f"bayer_{pattern}8"), IMAGE)
        assert (frame[2:-2, 2:-2] == (200, 90, 20)).all()

    def test_of_rclpy_s_arrays(self) -> None:
        message = SimpleNamespace(
            encoding="rgb8", height=6, width=8, step=24, data=array.array("B", FRAME.tobytes()), is_bigendian=0
        )
        assert np.array_equal(frame_of(message, IMAGE), FRAME)

    @pytest.mark.parametrize(
        ("encoding", "shape", "message"),
        [
            ("16UC1", (6, 8, 2), "the image has the encoding '16UC1', but edgeseg reads rgb8, bgr8, rgba8"),
            ("rgb8", (6, 8, 2), r"6x8 pixels, rgb8, in rows of 16 bytes needs 144 bytes, but has 96"),
            ("uyvy", (6, 7, 2), "the image is 7 pixels wide, but two pixels share their colour in uyvy"),
            ("rgb8", (0, 8, 3), "the image of 0x8 pixels"),
        ],
    )
    def test_that_are_refused(self, encoding: str, shape: tuple[int, ...], message: str) -> None:
        given = bags.image(np.zeros((6, *shape[1:]), np.uint8), encoding=encoding)
        given.height = shape[0]
        with pytest.raises(FrameError, match=message):
            frame_of(given, IMAGE)

    def test_that_are_cut_short(self) -> None:
        given = bags.image(FRAME)
        given.data = given.data[:-1]
        with pytest.raises(FrameError, match="in rows of 24 bytes needs 144 bytes, but has 143"):
            frame_of(given, IMAGE)


class TestCompressedImages:
    @pytest.mark.parametrize(
        ("suffix", "described", "error"),
        [(".png", "rgb8; png compressed bgr8", 0), (".png", "png", 0), (".jpg", "bgr8; jpeg compressed bgr8", 12)],
    )
    def test_become_frames(self, suffix: str, described: str, error: int) -> None:
        smooth = cv2.resize(FRAME[:2, :2], (48, 32), interpolation=cv2.INTER_LINEAR)
        message = through_cdr(bags.compressed(smooth, suffix=suffix, described=described), COMPRESSED_IMAGE)
        assert np.abs(frame_of(message, COMPRESSED_IMAGE).astype(int) - smooth).max() <= error

    @pytest.mark.parametrize("suffix", [".png", ".jpg"])
    def test_that_are_cut_short(self, suffix: str) -> None:
        message = bags.compressed(FRAME, suffix=suffix)
        message.data = message.data[: len(message.data) // 2]
        with pytest.raises(FrameError, match=rf"the compressed image \('{suffix[1:]}'\) is cut short or damaged"):
            frame_of(message, COMPRESSED_IMAGE)

    def test_without_a_byte(self) -> None:
        message = bags.compressed(FRAME)
        message.data = message.data[:0]
        with pytest.raises(FrameError, match=r"is cut short or damaged \(0 bytes\)"):
            frame_of(message, COMPRESSED_IMAGE)

    def test_of_depth(self) -> None:
        message = bags.compressed(FRAME, described="16UC1; compressedDepth png")
        with pytest.raises(
            FrameError, match=r"holds depth \('16UC1; compressedDepth png'\), not colours; choose another"
        ):
            frame_of(message, COMPRESSED_IMAGE)

    def test_that_are_no_images(self) -> None:
        message = bags.compressed(FRAME)
        message.data = np.arange(200, dtype=np.uint8)
        with pytest.raises(FrameError, match=r"cannot decode the compressed image \('png', 200 bytes\)"):
            frame_of(message, COMPRESSED_IMAGE)


class TestResults:
    def test_a_class_map(self) -> None:
        messages, classes = CDRMessages(), FRAME[:, ::2, 0]
        given = class_map_message(messages, messages.header(1_700_000_000_123_456_789, "front"), classes)
        read = through_cdr(given, IMAGE)
        assert (read.encoding, read.height, read.width, read.step, read.is_bigendian) == ("mono8", 6, 4, 4, 0)
        assert (read.header.stamp.sec, read.header.stamp.nanosec) == (1_700_000_000, 123_456_789)
        assert read.header.frame_id == "front"
        assert np.array_equal(read.data.reshape(6, 4), classes)

    def test_an_overlay(self) -> None:
        messages = CDRMessages()
        read = through_cdr(overlay_message(messages, messages.header(0, ""), FRAME[:, ::2]), IMAGE)
        assert (read.encoding, read.step) == ("rgb8", 12)
        assert np.array_equal(read.data.reshape(6, 4, 3), FRAME[:, ::2])

    def test_classes(self) -> None:
        messages = CDRMessages()
        read = through_cdr(label_info_message(messages, messages.header(5, "front"), LABELS), LABEL_INFO)
        assert [(c.class_id, c.class_name) for c in read.class_map] == [(0, "road"), (1, "Ärger")]
        assert (read.threshold, read.header.frame_id, read.header.stamp.nanosec) == (0.0, "front", 5)

    def test_the_bytes_are_those_of_the_format(self) -> None:
        """CDR by hand (OMG DDSI-RTPS 10.5): little endian, strings with length and a final zero, 4-byte alignment."""
        messages = CDRMessages()
        image = class_map_message(messages, messages.header(2_000_000_003, "ab"), np.array([[7, 8, 9]], np.uint8))
        expected = (
            b"\x00\x01\x00\x00"  # little endian
            b"\x02\x00\x00\x00\x03\x00\x00\x00"  # stamp
            b"\x03\x00\x00\x00ab\x00\x00"  # frame_id, aligned
            b"\x01\x00\x00\x00\x03\x00\x00\x00"  # height, width
            b"\x06\x00\x00\x00mono8\x00"  # encoding
            b"\x00\x00"  # is_bigendian, aligned
            b"\x03\x00\x00\x00"  # step
            b"\x03\x00\x00\x00\x07\x08\x09"  # data
        )
        assert bytes(messages.write(image, IMAGE))[: len(expected)] == expected
