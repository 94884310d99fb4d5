"""The result of one frame."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from edgeseg.errors import LabelError, ShapeError, UsageError
from edgeseg.labels import LabelSet
from edgeseg.segmentation import Segmentation, Timing

LABELS = LabelSet(("road", "car", "sky"), ((128, 64, 128), (0, 0, 142), (70, 130, 180)))


@pytest.fixture
def result() -> Segmentation:
    class_map = np.array([[0, 0, 1, 1], [0, 0, 0, 1]], np.uint8)
    return Segmentation(class_map, LABELS, Timing(0, 1, 2, 3, 6), 4, "a.png")


class TestSegmentation:
    def test_colors_are_the_palettes(self, result: Segmentation) -> None:
        colored = result.colorize()
        assert (colored.shape, colored.dtype) == ((2, 4, 3), np.uint8)
        assert np.array_equal(colored, np.array(LABELS.palette)[result.class_map])

    def test_areas_name_every_class(self, result: Segmentation) -> None:
        assert result.areas() == {"road": 5 / 8, "car": 3 / 8, "sky": 0.0}

    def test_areas_in_units_of_length(self, result: Segmentation) -> None:
        # 5 and 3 pixels of 0.5 x 0.25 mm.
        assert result.areas(spacing=(0.5, 0.25)) == {"road": 0.625, "car": 0.375, "sky": 0.0}

    @pytest.mark.parametrize("spacing", [(0.0, 1.0), (1.0, -1.0), (1.0, float("nan")), (float("inf"), 1.0), (1.0,)])
    def test_areas_refuse_a_spacing_that_is_none(self, result: Segmentation, spacing: tuple[float, float]) -> None:
        with pytest.raises(UsageError, match="spacing must be two distances above 0, down and across, but is"):
            result.areas(spacing)

    def test_large_class_maps_are_counted_and_drawn_like_small_ones(self) -> None:
        class_map = np.random.default_rng(0).integers(0, 4, (1100, 2100), np.uint8)
        large = Segmentation(class_map, LABELS, Timing(0, 0, 0, 0, 0))
        assert large.areas((1, 1)) == {n: int((class_map == i).sum()) for i, n in enumerate(LABELS.names)}
        palette = np.array([*LABELS.palette, (0, 0, 0)], np.uint8)
        assert np.array_equal(large.colorize(), palette[class_map])
        assert np.array_equal(large.overlay(np.zeros((*class_map.shape, 3), np.uint8), 1.0), palette[class_map])

    def test_mask_is_where_a_class_is(self, result: Segmentation) -> None:
        assert result.mask("car").dtype == bool
        assert np.array_equal(result.mask("car"), result.class_map == 1)

    def test_mask_of_an_unknown_class_names_the_nearest(self, result: Segmentation) -> None:
        with pytest.raises(LabelError, match="unknown class 'raod'; did you mean road"):
            result.mask("raod")

    @pytest.mark.parametrize("use", [lambda r: r.mask("car"), Segmentation.areas, Segmentation.colorize])
    def test_a_class_map_on_a_gpu_is_not_read(self, use: Callable[[Segmentation], object]) -> None:
        class OnGPU:
            shape = (2, 4)
            __cuda_array_interface__ = None

        result = Segmentation(OnGPU(), LABELS, Timing(0, 0, 0, 0, 0))  # type: ignore[arg-type]
        with pytest.raises(ShapeError, match=r"class map lies in a GPU's memory.*class_map\.cpu\(\)"):
            use(result)

    def test_overlay_blends(self, result: Segmentation) -> None:
        frame = np.full((2, 4, 3), 100, np.uint8)
        drawn = result.overlay(frame, 0.25)
        assert np.abs(drawn - (0.75 * frame + 0.25 * result.colorize())).max() <= 0.5
        assert (frame == 100).all()
        assert np.array_equal(result.overlay(frame, 0), frame)
        assert np.array_equal(result.overlay(frame, 1), result.colorize())

    def test_overlay_takes_a_mirrored_view(self, result: Segmentation) -> None:
        frame = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
        assert np.array_equal(result.overlay(frame[:, ::-1], 0), frame[:, ::-1])

    def test_overlay_refuses_another_frame(self, result: Segmentation) -> None:
        with pytest.raises(ShapeError, match=r"\(2, 4, 3\) uint8, but got \(2, 5, 3\) uint8; give the frame that"):
            result.overlay(np.zeros((2, 5, 3), np.uint8))
        with pytest.raises(ShapeError, match=r"but got \(2, 4, 3\) float64"):
            result.overlay(np.zeros((2, 4, 3)))

    @pytest.mark.parametrize("alpha", [-0.1, 1.5, float("nan")])
    def test_overlay_refuses_a_share_outside_0_to_1(self, result: Segmentation, alpha: float) -> None:
        with pytest.raises(UsageError, match=r"must be 0\.\.1, but is"):
            result.overlay(np.zeros((2, 4, 3), np.uint8), alpha)
