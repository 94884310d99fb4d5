from __future__ import annotations

import cv2
import numpy as np
import pytest

from edgeseg.apps.camera.blending import blend, blend_table, blend_yuv, yuv_tints
from edgeseg.apps.camera.element.pixels import FrameLayout, planes_of, tables_of
from edgeseg.apps.camera.yuv import YuvFrame
from edgeseg.errors import ShapeError


@pytest.mark.parametrize("alpha", [0.0, 0.1, 0.3, 0.5, 0.77, 1.0])
def test_is_opencvs_blend_of_a_coloured_class_map(alpha: float) -> None:
    random = np.random.default_rng(0)
    image = random.integers(0, 256, (97, 131, 3), np.uint8)
    class_map = random.integers(0, 256, (97, 131), np.uint8)
    colors = random.integers(0, 256, (256, 3), np.uint8)
    colored = cv2.applyColorMap(class_map, colors[:, None, :])
    expected = cv2.addWeighted(image, 1 - alpha, colored, alpha, 0)
    assert (blend(image, class_map, blend_table(colors, np.ones(256, bool), alpha)) == expected).all()


def test_classes_that_are_not_drawn_leave_the_frame_as_it_is() -> None:
    random = np.random.default_rng(1)
    image = random.integers(0, 256, (30, 41, 3), np.uint8)
    class_map = random.integers(0, 3, (30, 41), np.uint8)
    drawn = np.arange(256) != 1
    picture = blend(image, class_map, blend_table(np.full((256, 3), 200, np.uint8), drawn, 1.0))
    assert (picture[class_map == 1] == image[class_map == 1]).all()
    assert (picture[class_map != 1] == 200).all()


def test_takes_views() -> None:
    """A frame turned upside down, and a class map cut out of a larger one."""
    random = np.random.default_rng(2)
    image, class_map = random.integers(0, 256, (20, 30, 3), np.uint8), random.integers(0, 9, (20, 40), np.uint8)
    table = blend_table(random.integers(0, 256, (256, 3), np.uint8), np.ones(256, bool), 0.4)
    flipped, cut = image[::-1], class_map[:, 5:35]
    assert (blend(flipped, cut, table) == blend(flipped.copy(), cut.copy(), table)).all()


@pytest.mark.parametrize("size", [(21, 30), (19, 30), (30, 20)])
def test_a_class_map_of_another_size(size: tuple[int, int]) -> None:
    table = np.zeros((256, 3, 256), np.uint8)
    with pytest.raises(ShapeError, match=r"a frame of its size, but got \(\d+, \d+\) for a frame \(20, 30, 3\)"):
        blend(np.zeros((20, 30, 3), np.uint8), np.zeros(size, np.uint8), table)


def frame_of(pixels: str, height: int, width: int) -> YuvFrame:
    """Noise in padded rows."""
    half, stride = -(-height // 2), width + width % 2 + 6
    strides = (stride, stride) if pixels == "NV12" else (stride, stride // 2, stride // 2)
    offsets = [0, stride * height, stride * height + strides[-1] * half][: len(strides)]
    layout = FrameLayout(pixels, height, width, tuple(offsets), strides)
    return YuvFrame(np.random.default_rng(height).integers(0, 256, layout.size, np.uint8), layout)


class TestYuv:
    @pytest.mark.parametrize("pixels", ["I420", "NV12"])
    @pytest.mark.parametrize("side", [1, 7])
    def test_is_the_rounded_blend_of_each_plane(self, pixels: str, side: int) -> None:
        """Classes by pixel and in patches, some of them not drawn; widths about the eight pixels done at once."""
        random = np.random.default_rng(4)
        colors, drawn = random.integers(0, 256, (256, 3), np.uint8), np.arange(256) % 3 != 1
        for height, width in ((1, 1), (2, 7), (6, 8), (5, 9), (97, 131)):
            frame = frame_of(pixels, height, width)
            patches = random.integers(0, 9, (-(-height // side), -(-width // side)), np.uint8)
            class_map = patches.repeat(side, 0).repeat(side, 1)[:height, :width]
            found = blend_yuv(frame, class_map, yuv_tints(frame.layout, colors, drawn, 0.25))
            tables = tables_of(frame.layout, colors)
            for index, (before, after, table) in enumerate(
                zip(planes_of(frame.data, frame.layout), planes_of(found.data, frame.layout), tables, strict=True)
            ):
                classes = class_map[::2, ::2] if index else class_map
                blended = np.floor(0.75 * before + 0.25 * table[classes, 0] + 0.5)
                expected = np.where(drawn[classes][:, :, None], blended, before)
                np.testing.assert_array_equal(after, expected)

    def test_looks_as_the_blend_of_rgb(self) -> None:
        """Where colours are mild and classes do not change within four pixels, but for rounding."""
        layout = FrameLayout("I420", 40, 60, (0, 2400, 3000), (60, 30, 30))
        luma = np.linspace(90, 160, 2400).astype(np.uint8)
        frame = YuvFrame(np.concatenate([luma, np.full(1200, 128, np.uint8)]), layout)
        class_map = np.random.default_rng(5).integers(0, 3, (20, 30), np.uint8).repeat(2, 0).repeat(2, 1)
        colors = np.zeros((256, 3), np.uint8)
        colors[:3] = (128, 64, 128), (60, 40, 222), (0, 128, 0)
        drawn = np.arange(256) != 2
        found = blend_yuv(frame, class_map, yuv_tints(layout, colors, drawn, 0.5)).rgb()
        expected = blend(frame.rgb(), class_map, blend_table(colors, drawn, 0.5))
        assert np.abs(found.astype(int) - expected).max() <= 3

    def test_a_class_map_of_another_size(self) -> None:
        frame = frame_of("I420", 20, 30)
        tints = yuv_tints(frame.layout, np.zeros((256, 3), np.uint8), np.ones(256, bool), 0.5)
        with pytest.raises(ShapeError, match=r"a frame of its size, but got \(20, 29\) for a frame \(20, 30, 3\)"):
            blend_yuv(frame, np.zeros((20, 29), np.uint8), tints)
