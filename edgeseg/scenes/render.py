"""A whole frame: what is on the street at that moment, painted from far to near."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import pi

import numpy as np
from numpy.typing import NDArray

from edgeseg.errors import UsageError
from edgeseg.scenes.buildings import House, lots, paint_house
from edgeseg.scenes.camera import RATE, Camera, drive
from edgeseg.scenes.canvas import LABELS, SAMPLES, VOID, Canvas
from edgeseg.scenes.effects import develop
from edgeseg.scenes.furniture import Thing, paint_bin, paint_fence, paint_lamp, paint_sign, paint_signal, paint_tree
from edgeseg.scenes.ground import cast, paint_ground
from edgeseg.scenes.people import Person, paint_rider, paint_walker
from edgeseg.scenes.street import Plan, Street, plan, stream
from edgeseg.scenes.textures import clouds
from edgeseg.scenes.vehicles import Vehicle, footprint, paint_vehicle

__all__ = ["LARGEST_SIDE", "SMALLEST_SIDE", "Scene", "render"]

SMALLEST_SIDE, LARGEST_SIDE = 16, 4096
"""Limits of a frame's height and width, pixels."""

_SIGHT = 190.0  # metres
_PEOPLE = 90.0

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Scene:
    """A frame and what is to be seen in it.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        labels: (H, W) uint8, indices of CamVid's classes, 11 for void.
    """

    image: NDArray[np.uint8]
    labels: NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class _Item:
    """Something on the street: how far, how to paint it, and the points whose hull casts its shadow."""

    z: float
    paint: Callable[[Canvas], None]
    shadow: Array | None = None


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
    if number < 0 or not (SMALLEST_SIDE <= min(height, width) and max(height, width) <= LARGEST_SIDE):
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
    items = sorted(_items(this, camera, number / RATE), key=lambda item: -item.z)
    walls = sorted(_walls(this, camera), key=lambda item: -item.z)
    paint_ground(canvas, this)
    shadows = [cast(item.shadow, this.sun) for item in (*walls, *items) if item.shadow is not None]
    canvas.ground_shadow(shadows, 0.75 * this.direct / (this.direct + this.ambient))
    for item in (*walls, *items):
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
        shape = np.rint(edge + (0, shift)).astype(np.int32)
        canvas.cv2.fillPoly(canvas.colors, [shape], color)
        canvas.cv2.fillPoly(canvas.labels, [shape], VOID)


def _walls(plan: Plan, camera: Camera) -> Iterator[_Item]:
    """The houses on both sides, what stands in the gaps between them, and the trees where the street ends."""
    here = float(camera.position[2])
    for side in (-1, 1):
        for house in lots(plan, side, here - 25, here + _SIGHT):
            x = plan.wall(side)
            if house.storeys:
                corners = [(x, house.height, z) for z in (house.start, house.end)]
                back = [(x + side * 8, house.height, z) for z in (house.start, house.end)]
                yield _Item(house.start, lambda c, h=house: paint_house(c, plan, h), np.array(corners + back))
            else:
                yield from _gap(plan, house, x)
    rng = stream(plan.seed, 9)
    for _ in range(26):
        x, size = float(rng.uniform(-70, 70)), float(rng.uniform(0.9, 1.7))
        thing = Thing(x, here + _SIGHT + 60 + float(rng.uniform(0, 30)), 1, int(rng.integers(1000)), size)
        yield _Item(thing.z, lambda c, t=thing: paint_tree(c, plan, t, bush=True))


def _gap(plan: Plan, lot: House, x: float) -> Iterator[_Item]:
    """Trees and bushes behind a fence or a hedge."""
    rng = np.random.default_rng([lot.seed, 11])
    fenced, kind = rng.random() < plan.fences, int(rng.integers(100))
    if fenced:
        yield _Item(lot.start - 0.2, lambda c: paint_fence(c, plan, x, lot.start, lot.end, kind))
    for z in np.arange(lot.start + 1, lot.end, 2.2):
        size = float(rng.uniform(0.5, 0.8) if fenced else rng.uniform(0.5, 0.95))
        bush = Thing(x + lot.side * float(rng.uniform(1.3, 2.5)), float(z), lot.side, int(rng.integers(1000)), size)
        yield _Item(bush.z, lambda c, t=bush: paint_tree(c, plan, t, bush=True))
    for z in np.arange(lot.start + 2, lot.end - 1, 5.0):
        size = float(rng.uniform(0.8, 1.4))
        tree = Thing(x + lot.side * float(rng.uniform(3, 6)), float(z), lot.side, int(rng.integers(1000)), size)
        yield _Item(tree.z + 0.1, lambda c, t=tree: paint_tree(c, plan, t))


def _row(
    plan: Plan, key: int, pace: float, share: float, start: float, end: float, offset: float = 0.0
) -> Iterator[tuple[float, np.random.Generator]]:
    """Places along the street, one in each `pace` metres with the probability `share`, in z from start to end.

    Args:
        plan: the street.
        key: names the row.
        pace: metres.
        share: 0..1.
        start, end: z, metres.
        offset: how far the whole row has moved.
    """
    for slot in range(int((start - offset) // pace), int((end - offset) // pace) + 1):
        rng = stream(plan.seed, 4, key, slot)
        if rng.random() < share:
            yield slot * pace + float(rng.uniform(0.15, 0.85)) * pace + offset, rng


def _items(plan: Plan, camera: Camera, time: float) -> Iterator[_Item]:
    """What stands and moves between the houses."""
    here = float(camera.position[2])
    for side in (-1, 1):
        yield from _furniture(plan, here, side)
        yield from _walkers(plan, here, side, time)
    for car in _vehicles(plan, here, time):
        yield _Item(car.z, lambda c, v=car: paint_vehicle(c, plan, v), footprint(car))
    for forward, x, speed in ((1, -plan.road + 0.75, 4.6), (-1, plan.road - 0.75, 4.2)):
        if _parked(plan, -forward):
            continue
        for z, rng in _row(plan, 20 + forward, 26, plan.riders, here, here + _PEOPLE, forward * speed * time):
            phase = 2 * pi * (1.1 * time + float(rng.random()))
            rider = Person(x + float(rng.uniform(-0.3, 0.5)) * forward, z, int(rng.integers(1000)), phase, forward)
            yield _Item(z, lambda c, p=rider: paint_rider(c, plan, p), _post(rider.x, z, 1.7, 0.5))


def _post(x: float, z: float, top: float, width: float) -> Array:
    return np.array([(x - width / 2, top, z), (x + width / 2, top, z), (x, top, z + width / 2)])


def _furniture(plan: Plan, here: float, side: int) -> Iterator[_Item]:
    kerb = side * (plan.road + 0.45)
    end = here + _SIGHT * 0.7
    rows = (
        (0, 27.0, plan.poles, paint_lamp, 0.0, 7.0),
        (2, 19.0, plan.signs * 0.75, paint_sign, 0.1, 2.8),
        (4, 55.0, plan.signs * 0.7, paint_signal, 0.0, 3.2),
        (6, 40.0, 0.4, paint_bin, 0.4, 1.0),
    )
    for key, pace, share, paint, inset, top in rows:
        for z, rng in _row(plan, 30 + key + side, pace, share, here, end):
            thing = Thing(kerb + side * inset, z, side, int(rng.integers(1000)), float(rng.uniform(0.8, 1.2)))
            yield _Item(z, lambda c, t=thing, p=paint: p(c, plan, t), _post(thing.x, z, top, 0.2))
    spot = side * (plan.road + plan.pavement[(side + 1) // 2] * 0.75)
    for z, rng in _row(plan, 50 + side, 13.0, plan.trees * 0.55, here, end):
        tree = Thing(spot, z, side, int(rng.integers(1000)), float(rng.uniform(0.55, 0.95)))
        crown = np.array([(spot + a, y * tree.size, z + b) for y in (3, 6.5) for a, b in ((-2, 0), (2, 0), (0, 2), (0, -2))])
        yield _Item(z, lambda c, t=tree: paint_tree(c, plan, t), crown)


def _walkers(plan: Plan, here: float, side: int, time: float) -> Iterator[_Item]:
    width = plan.pavement[(side + 1) // 2]
    for forward in (-1, 1):
        share = plan.walkers * 0.6
        for z, rng in _row(plan, 60 + 3 * side + forward, 8.0, share, here, here + _PEOPLE, forward * 1.35 * time):
            x = side * (plan.road + float(rng.uniform(0.3, 0.95)) * width)
            phase = 2 * pi * (0.9 * time + float(rng.random()))
            person = Person(x, z, int(rng.integers(1000)), phase, forward)
            yield _Item(z, lambda c, p=person: paint_walker(c, plan, p), _post(x, z, 1.65, 0.4))


def _parked(plan: Plan, side: int) -> float:
    """How many cars are parked on a side, 0..1; none where riders are, who would go through them."""
    if side < 0:
        return plan.parked * 0.5 if plan.riders < 0.3 else 0.0
    return plan.parked if plan.parked > 0.3 else 0.0


def _vehicles(plan: Plan, here: float, time: float) -> Iterator[Vehicle]:
    """Parked cars, cars that come towards the camera, and often one ahead of it."""
    for side in (-1, 1):
        for z, rng in _row(plan, 70 + side, 7.5, _parked(plan, side), here - 4, here + _SIGHT * 0.7):
            if z % 60 < 42:  # bays, with free kerb between them
                x = side * (plan.road - 0.95)
                yield Vehicle(x, round(z / 7.5) * 7.5, -side, int(rng.integers(1000)))
    speed = plan.speed * 0.9
    for z, rng in _row(plan, 80, 28.0, plan.oncoming, here - 4, here + _SIGHT * 0.8, -speed * time):
        yield Vehicle(plan.road * 0.38, z, -1, int(rng.integers(1000)))
    rng = stream(plan.seed, 5)
    if rng.random() < 0.75:
        gap, phase = float(rng.uniform(12, 34)), float(rng.uniform(0, 2 * pi))
        wave = np.sin(2 * pi * time / 11 + phase)
        brakes = bool(np.cos(2 * pi * time / 11 + phase) < -0.5)
        yield Vehicle(plan.lane + 0.15, here + gap + 3.5 * wave, 1, int(rng.integers(1000)), brakes)
