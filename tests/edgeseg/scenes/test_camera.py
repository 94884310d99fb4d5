"""The camera: points fall where a pinhole puts them, and what is behind it is cut away."""

from __future__ import annotations

import numpy as np
import pytest

from edgeseg.scenes.camera import NEAR, Camera, drive


@pytest.fixture
def camera() -> Camera:
    """2 m above the ground at z = 10, level."""
    return Camera(np.array([0.0, 2.0, 10.0]), np.diag([1.0, -1.0, 1.0]), 100.0, 101, 201)


def test_projects(camera: Camera) -> None:
    # 3 m to the right and 2 m below at 20 m: 100 * 3 / 20 and 100 * 2 / 20 pixels from the middle (100, 50).
    view = camera.view(np.array([[3.0, 0.0, 30.0], [0.0, 2.0, 11.0]]))
    assert camera.pixels(view).tolist() == [[115.0, 60.0], [100.0, 50.0]]
    assert camera.horizon == 50.0


def test_a_plane_is_projected_as_its_points_are(camera: Camera) -> None:
    origin, across, up = np.array([4.0, 0, 15]), np.array([0.0, 0, 10]), np.array([0.0, 5, 0])
    x, y, w = camera.plane(origin, across, up) @ (0.3, 0.6, 1)
    assert [x / w, y / w] == pytest.approx(camera.pixels(camera.view((origin + 0.3 * across + 0.6 * up)[None]))[0])


def test_polygons_are_cut_before_the_camera(camera: Camera) -> None:
    ground = np.array([[-1.0, 0, 5], [1, 0, 5], [1, 0, 20], [-1, 0, 20]])
    found = camera.polygon(ground)
    assert found is not None
    assert len(found) == 4
    assert found[:, 1].max() == pytest.approx(50 + 100 * 2 / NEAR)
    assert camera.polygon(ground - np.array([0, 0, 30])) is None
    assert camera.polygon(ground + np.array([500, 0, 0])) is None


def test_drives_forward_and_sways() -> None:
    shots = [drive(n, 60, 80, lane=-2, lens=1.2, rise=1.5, tilt=0.02, speed=10) for n in range(0, 50, 5)]
    assert [s.position[2] for s in shots] == pytest.approx([10 * n / 25 for n in range(0, 50, 5)])
    assert len({s.position[0] for s in shots}) == 10
    assert max(abs(s.position[0] + 2) for s in shots) < 0.3
    for shot in shots:
        assert shot.rotation @ shot.rotation.T == pytest.approx(np.eye(3))
        assert shot.horizon < 30  # it looks down
