"""The pinhole camera of a scene: where it is on its drive, and where a point of the street falls in its picture.

World: x to the right, y up, z along the street, metres; the road's surface is y = 0 and its middle x = 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import cos, pi, sin

import numpy as np
from numpy.typing import NDArray

__all__ = ["NEAR", "RATE", "Camera", "drive"]

NEAR = 0.4
"""Metres before the camera; what is nearer is cut off."""

RATE = 25.0
"""Frames a second."""

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Camera:
    """A pinhole camera.

    Attributes:
        position: (3,) world, metres.
        rotation: (3, 3), from the world's axes to the camera's (x right, y down, z forward).
        focal: focal length in pixels.
        height, width: picture in pixels.
    """

    position: Array
    rotation: Array
    focal: float
    height: int
    width: int

    def view(self, points: Array) -> Array:
        """(N, 3) world points in the camera's axes."""
        turned: Array = (points - self.position) @ self.rotation.T
        return turned

    def pixels(self, view: Array) -> Array:
        """(N, 2) pixels, x then y, of points in the camera's axes that lie before it."""
        centre = np.array([(self.width - 1) / 2, (self.height - 1) / 2])
        return np.asarray(view[:, :2] * (self.focal / view[:, 2:]) + centre)

    def polygon(self, points: Array) -> Array | None:
        """(M, 2) pixels of a flat polygon's corners, cut at `NEAR`; None where nothing of it can be seen."""
        view = self.view(points)
        if view[:, 2].max() < NEAR:
            return None
        if view[:, 2].min() < NEAR:
            view = _cut(view)
        found = self.pixels(view)
        low, high = found.min(0), found.max(0)
        outside = high[0] < 0 or high[1] < 0 or low[0] > self.width or low[1] > self.height
        return None if outside else found

    def plane(self, origin: Array, across: Array, up: Array) -> Array:
        """(3, 3) homography from (s, t), the world point origin + s across + t up, to pixels."""
        to_view = np.stack(
            [self.rotation @ across, self.rotation @ up, self.rotation @ (origin - self.position)], axis=1
        )
        lens = np.array([[self.focal, 0, (self.width - 1) / 2], [0, self.focal, (self.height - 1) / 2], [0, 0, 1]])
        return np.asarray(lens @ to_view)

    @property
    def horizon(self) -> float:
        """Row of the horizon in the middle of the picture."""
        forward = self.rotation @ np.array([0.0, 0.0, 1.0])
        return float((self.height - 1) / 2 + self.focal * forward[1] / forward[2])


def _cut(view: Array) -> Array:
    """The part of a polygon beyond `NEAR` (Sutherland and Hodgman, 1974, for one plane)."""
    kept = []
    for here, there in zip(view, np.roll(view, -1, 0), strict=True):
        if here[2] >= NEAR:
            kept.append(here)
        if (here[2] >= NEAR) != (there[2] >= NEAR):
            kept.append(here + (there - here) * ((NEAR - here[2]) / (there[2] - here[2])))
    return np.array(kept)


def drive(
    number: int, height: int, width: int, *, lane: float, lens: float, rise: float, tilt: float, speed: float
) -> Camera:
    """The camera of one frame: it goes along the street, and sways in its lane and on its springs.

    Args:
        number: of the frame, `RATE` of them a second.
        height, width: picture in pixels.
        lane: x of the lane's middle, metres.
        lens: focal length in heights of the picture.
        rise: height above the road, metres.
        tilt: downwards, radians.
        speed: metres a second.
    """
    time = number / RATE
    wave = [sin(2 * pi * time / period + phase) for period, phase in ((7.1, 0.0), (3.3, 1.0), (0.83, 2.0), (1.9, 4.0))]
    x = lane + 0.25 * wave[0]
    yaw = 0.018 * cos(2 * pi * time / 7.1) + 0.004 * wave[1]
    pitch = tilt + 0.0035 * wave[2] + 0.003 * wave[3]
    roll = 0.006 * wave[1] + 0.002 * wave[2]
    position = np.array([x, rise + 0.012 * wave[2], speed * time])
    return Camera(position, _rotation(yaw, pitch, roll), lens * height, height, width)


def _rotation(yaw: float, pitch: float, roll: float) -> Array:
    """From world to camera axes; yaw turns to the right, pitch downwards, roll clockwise."""
    turn = np.array([[cos(yaw), 0, -sin(yaw)], [0, 1, 0], [sin(yaw), 0, cos(yaw)]])
    flip = np.diag([1.0, -1.0, 1.0])
    tip = np.array([[1, 0, 0], [0, cos(pitch), -sin(pitch)], [0, sin(pitch), cos(pitch)]])
    lean = np.array([[cos(roll), -sin(roll), 0], [sin(roll), cos(roll), 0], [0, 0, 1]])
    return np.asarray(lean @ tip @ flip @ turn)
