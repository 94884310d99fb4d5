from __future__ import annotations

import cv2
import numpy as np
import pytest

from edgeseg.apps.camera.blending import blend, blend_table
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
