from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from edgeseg.apps.camera.drawing import Drawing, Painter, draw
from edgeseg.apps.camera.element.pixels import FrameLayout
from edgeseg.apps.camera.results import CameraFrame, CameraResult
from edgeseg.apps.camera.yuv import YuvFrame
from edgeseg.errors import LabelError, UsageError
from edgeseg.labels import LabelSet
from edgeseg.segmentation import Segmentation, Timing

LABELS = LabelSet(("road", "car", "void"), ((200, 0, 0), (0, 100, 0), (9, 9, 9)), background=2)


def result(height: int = 40, width: int = 60) -> CameraResult:
    """Road at the left, a car in the middle, void at the right, over a grey frame."""
    class_map = np.repeat(np.array([0, 1, 2], np.uint8), width // 3)[None].repeat(height, 0)
    image = np.full((height, width, 3), 100, np.uint8)
    timing = Timing(0.0, 0.0, 0.0, 0.0, 0.0)
    return CameraResult(CameraFrame(image, 0, 1.0), Segmentation(class_map, LABELS, timing), 1.042)


def decoded(height: int = 40, width: int = 60, *, full_range: bool = False) -> CameraResult:
    """The same in a decoder's format."""
    luma, half = height * width, (-(-height // 2), -(-width // 2))
    sizes = (0, luma, luma + half[0] * half[1])
    layout = FrameLayout("I420", height, width, sizes, (width, half[1], half[1]), "bt601", full_range)
    data = np.full(layout.size, 128, np.uint8)
    data[:luma] = 100 if full_range else 102  # (102 - 16) * 255 / 219 = 100
    found = result(height, width)
    return dataclasses.replace(found, frame=CameraFrame(YuvFrame(data, layout), 0, 1.0))


class TestDraw:
    def test_overlay(self) -> None:
        picture = draw(result(), Drawing(alpha=0.25))
        assert np.abs(picture[5, 5].astype(int) - (125, 75, 75)).max() <= 1
        assert np.abs(picture[5, 25].astype(int) - (75, 100, 75)).max() <= 1
        assert tuple(picture[5, 55]) == (100, 100, 100), "void is not drawn"

    def test_chosen_classes_leave_the_rest_as_it_is(self) -> None:
        picture = draw(result(), Drawing(classes=("car",)))
        assert tuple(picture[5, 5]) == (100, 100, 100)
        assert tuple(picture[5, 25]) == (50, 100, 50)

    def test_mask(self) -> None:
        picture = draw(result(), Drawing("mask", classes=("road",)))
        assert tuple(picture[5, 5]) == (200, 0, 0)
        assert not picture[:, 20:].any()

    def test_side_by_side(self) -> None:
        picture = draw(result(), Drawing("side-by-side"))
        assert picture.shape == (40, 120, 3)
        assert (picture[:, :60] == 100).all()
        assert tuple(picture[5, 65]) == (150, 50, 50)

    def test_legend_and_rate_change_only_their_corners(self) -> None:
        found = result(240, 360)
        plain, written = draw(found, Drawing()), draw(found, Drawing(legend=True, rate=True), 25.0)
        changed = (plain != written).any(axis=2)
        assert changed[:40, :100].any()
        assert changed[-20:, :150].any()
        assert not changed[60:200].any()
        assert not changed[:, 200:].any()

    def test_the_frame_stays_as_it_is(self) -> None:
        found = result()
        draw(found, Drawing(legend=True, rate=True))
        assert (found.frame.image == 100).all()

    @pytest.mark.parametrize(
        ("values", "message"),
        [({"style": "outline"}, "drawn as overlay, mask, side-by-side"), ({"alpha": 1.5}, "must be 0..1, but is 1.5")],
    )
    def test_refused(self, values: dict[str, object], message: str) -> None:
        with pytest.raises(UsageError, match=message):
            Drawing(**values)  # type: ignore[arg-type]

    def test_unknown_class(self) -> None:
        with pytest.raises(LabelError, match="did you mean car"):
            draw(result(), Drawing(classes=("cars",)))


class TestPainter:
    def test_draws_a_result_once(self) -> None:
        painter, found = Painter(), result()
        first = painter.paint(found)
        assert painter.paint(found) is first
        assert painter.paint(result()) is not first
        with pytest.raises(ValueError, match="read-only"):
            first[0, 0] = 0

    def test_for_video_stays_in_the_decoders_format(self) -> None:
        painter, found = Painter(), decoded()
        picture = painter.paint_for_video(found)
        assert isinstance(picture, YuvFrame)
        assert painter.paint_for_video(found) is picture
        assert np.abs(picture.rgb().astype(int) - painter.paint(found)).max() <= 3
        assert (found.frame.image == 100).all(), "the frame stays as it is"

    @pytest.mark.parametrize(
        ("drawing", "found"),
        [
            (Drawing("mask"), decoded()),
            (Drawing("side-by-side"), decoded()),
            (Drawing(legend=True), decoded()),
            (Drawing(rate=True), decoded()),
            (Drawing(), decoded(full_range=True)),
            (Drawing(), decoded(41)),
            (Drawing(), result()),
        ],
    )
    def test_for_video_is_rgb_elsewhere(self, drawing: Drawing, found: CameraResult) -> None:
        painter = Painter(drawing)
        assert painter.paint_for_video(found) is painter.paint(found)
