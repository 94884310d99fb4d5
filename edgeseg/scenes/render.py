"""A whole frame: what is on the street at that moment, painted from far to near."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeseg.errors import UsageError
from edgeseg.scenes.camera import RATE, drive
from edgeseg.scenes.canvas import LABELS, SAMPLES, VOID, Canvas
from edgeseg.scenes.effects import develop
from edgeseg.scenes.ground import cast, paint_ground
from edgeseg.scenes.layout import street_items, walls
from edgeseg.scenes.street import Plan, Street, plan
from edgeseg.scenes.textures import clouds

__all__ = ["LARGEST_SIDE", "SMALLEST_SIDE", "Scene", "render"]

SMALLEST_SIDE, LARGEST_SIDE = 16, 4096
"""Limits of a frame's height and width, pixels."""


@dataclass(frozen=True, eq=False)
class Scene:
    """A frame and what is to be seen in it.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        labels: (H, W) uint8, indices of CamVid's classes, 11 for void.
    """

    image: NDArray[np.uint8]
    labels: NDArray[np.uint8]


def render(street: Street, number: int, height: int, width: int) -> Scene:
    """One frame of a drive along a street; numbers that follow each other are 1/25 s apart.

    It is drawn, not photographed: a test card whose labels are known, never a measure of accuracy on real roads.

    Args:
        street: which one.
        number: of the frame, from 0.
        height, width: in pixels, 16 to 4096 each.

    Raises:
        UsageError: for a number or size beyond that.
        MissingDependencyError: without OpenCV.
    """
    if number < 0 or min(height, width) < SMALLEST_SIDE or max(height, width) > LARGEST_SIDE:
        raise UsageError(
            f"a scene has a number from 0 and {SMALLEST_SIDE} to {LARGEST_SIDE} pixels a side, but number {number} of "
            f"{height}x{width} (height x width) was asked for"
        )
    this = plan(street)
    camera = drive(
        number,
        height * SAMPLES,
        width * SAMPLES,
        lane=this.lane,
        lens=this.lens,
        rise=this.rise,
        tilt=this.tilt,
        speed=this.speed,
    )
    canvas = Canvas(camera, this.clear)
    _paint_sky(canvas, this)
    behind = sorted(walls(this, camera), key=lambda item: -item.z)
    before = sorted(street_items(this, camera, number / RATE), key=lambda item: -item.z)
    paint_ground(canvas, this)
    shadows = [cast(item.shadow, this.sun) for item in (*behind, *before) if item.shadow is not None]
    canvas.ground_shadow(shadows, 0.75 * this.direct / (this.direct + this.ambient))
    for item in (*behind, *before):
        item.paint(canvas)
    _paint_bonnet(canvas, this)
    labels = np.ascontiguousarray(canvas.labels[::SAMPLES, ::SAMPLES])
    return Scene(develop(canvas, this, number), labels)


def _paint_sky(canvas: Canvas, plan: Plan) -> None:
    sky = clouds(plan.seed, plan.cover, plan.zenith, plan.horizon)
    turned = canvas.camera.rotation[0, 2] * canvas.camera.focal  # the sky goes with the camera's yaw
    scale = 1.3 * canvas.camera.width / sky.shape[1], canvas.camera.focal * 0.6 / sky.shape[0]
    top = canvas.camera.horizon - sky.shape[0] * scale[1]
    matrix = np.array([[scale[0], 0, turned - 0.15 * canvas.camera.width], [0, scale[1], top]])
    rows = min(max(int(canvas.camera.horizon + 0.02 * canvas.camera.width) + 2, 1), canvas.camera.height)
    canvas.cv2.warpAffine(
        sky,
        matrix,
        (canvas.camera.width, rows),
        dst=canvas.colors[:rows],
        flags=canvas.cv2.INTER_LINEAR,
        borderMode=canvas.cv2.BORDER_REPLICATE,
    )
    canvas.labels[:] = LABELS.index("sky")


def _paint_bonnet(canvas: Canvas, plan: Plan) -> None:
    """The own car's bonnet at the picture's lower edge, which is void."""
    if not plan.bonnet:
        return
    height, width = canvas.camera.height, canvas.camera.width
    x = np.linspace(0, 1, 24)
    top = height * (1 - plan.bonnet * (1 - (2 * x - 1) ** 4 * 0.8))
    edge = np.concatenate([np.stack([x * width, top], 1), [[width, height], [0, height]]])
    for shift, color in ((0, (26, 27, 30, 0)), (SAMPLES * height // 240, (38, 40, 44, 0))):
        shape = np.rint(edge + np.array([0, shift])).astype(np.int32)
        canvas.cv2.fillPoly(canvas.colors, [shape], color)
        canvas.cv2.fillPoly(canvas.labels, [shape], VOID)
