"""What there is to see from a place of the street at a moment: houses and gaps, furniture, people, traffic."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from math import pi
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from edgeseg.scenes.buildings import House, lots, paint_house
from edgeseg.scenes.camera import Camera
from edgeseg.scenes.canvas import Canvas
from edgeseg.scenes.furniture import (
    Fence,
    Thing,
    paint_bin,
    paint_fence,
    paint_lamp,
    paint_sign,
    paint_signal,
    paint_tree,
)
from edgeseg.scenes.people import Person, paint_rider, paint_walker
from edgeseg.scenes.street import Plan, stream
from edgeseg.scenes.vehicles import Vehicle, footprint, paint_vehicle

__all__ = ["Item", "street_items", "walls"]

_SIGHT = 190.0  # metres
_PEOPLE = 90.0

Array = NDArray[np.float64]
T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Item:
    """Something on the street: how far, how to paint it, and the points whose hull casts its shadow."""

    z: float
    paint: Callable[[Canvas], None]
    shadow: Array | None = None


def _item(
    z: float, paint: Callable[[Canvas, Plan, T], None], plan: Plan, thing: T, shadow: Array | None = None
) -> Item:
    return Item(z, lambda canvas: paint(canvas, plan, thing), shadow)


def walls(plan: Plan, camera: Camera) -> Iterator[Item]:
    """The houses on both sides, what stands in the gaps between them, and the trees where the street ends."""
    here = float(camera.position[2])
    for side in (-1, 1):
        for house in lots(plan, side, here - 25, here + _SIGHT):
            x = plan.wall(side)
            if house.storeys:
                corners = [(x, house.height, z) for z in (house.start, house.end)]
                back = [(x + side * 8, house.height, z) for z in (house.start, house.end)]
                yield _item(house.start, paint_house, plan, house, np.array(corners + back))
            else:
                yield from _gap(plan, house, x, far=house.start - here > 80)
    rng = stream(plan.seed, 9)
    for _ in range(26):
        x, size = float(rng.uniform(-70, 70)), float(rng.uniform(0.9, 1.7))
        thing = Thing(x, here + _SIGHT + 60 + float(rng.uniform(0, 30)), 1, int(rng.integers(1000)), size)
        yield _item(thing.z, partial(paint_tree, bush=True), plan, thing)


def _gap(plan: Plan, lot: House, x: float, *, far: bool) -> Iterator[Item]:
    """Trees and bushes, often behind a fence; only every other bush far away."""
    rng = np.random.default_rng([lot.seed, 11])
    fenced, kind = rng.random() < plan.fences, int(rng.integers(100))
    if fenced:
        yield _item(lot.start - 0.2, paint_fence, plan, Fence(x, lot.start, lot.end, kind))
    for index, z in enumerate(np.arange(lot.start + 1, lot.end, 2.2)):
        size = float(rng.uniform(0.5, 0.8) if fenced else rng.uniform(0.5, 0.95))
        bush = Thing(x + lot.side * float(rng.uniform(1.3, 2.5)), float(z), lot.side, int(rng.integers(1000)), size)
        if not (far and index % 2):
            yield _item(bush.z, partial(paint_tree, bush=True), plan, bush)
    for z in np.arange(lot.start + 2, lot.end - 1, 5.0):
        size = float(rng.uniform(0.9, 1.6))
        tree = Thing(x + lot.side * float(rng.uniform(3, 6)), float(z), lot.side, int(rng.integers(1000)), size)
        yield _item(tree.z + 0.1, paint_tree, plan, tree)


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


def street_items(plan: Plan, camera: Camera, time: float) -> Iterator[Item]:
    """What stands and moves between the houses."""
    here = float(camera.position[2])
    for side in (-1, 1):
        yield from _furniture(plan, here, side)
        yield from _walkers(plan, here, side, time)
    for car in _vehicles(plan, here, time):
        yield _item(car.z, paint_vehicle, plan, car, footprint(car))
    for forward, x, speed in ((1, -plan.road + 0.75, 4.6), (-1, plan.road - 0.75, 4.2)):
        if _parked(plan, -forward):
            continue
        for z, rng in _row(plan, 20 + forward, 26, plan.riders, here, here + _PEOPLE, forward * speed * time):
            phase = 2 * pi * (1.1 * time + float(rng.random()))
            rider = Person(x + float(rng.uniform(-0.3, 0.5)) * forward, z, int(rng.integers(1000)), phase, forward)
            yield _item(z, paint_rider, plan, rider, _post(rider.x, z, 1.7, 0.5))


def _post(x: float, z: float, top: float, width: float) -> Array:
    return np.array([(x - width / 2, top, z), (x + width / 2, top, z), (x, top, z + width / 2)])


def _furniture(plan: Plan, here: float, side: int) -> Iterator[Item]:
    kerb = side * (plan.road + 0.45)
    end = here + _SIGHT * 0.7
    rows: tuple[tuple[int, float, float, Callable[[Canvas, Plan, Thing], None], float, float], ...] = (
        (0, 27.0, plan.poles, paint_lamp, 0.0, 7.0),
        (2, 19.0, plan.signs * 0.75, paint_sign, 0.1, 2.8),
        (4, 55.0, plan.signs * 0.7, paint_signal, 0.0, 3.2),
        (6, 40.0, 0.4, paint_bin, 0.4, 1.0),
    )
    for key, pace, share, paint, inset, top in rows:
        for z, rng in _row(plan, 30 + key + side, pace, share, here, end):
            thing = Thing(kerb + side * inset, z, side, int(rng.integers(1000)), float(rng.uniform(0.8, 1.2)))
            yield _item(z, paint, plan, thing, _post(thing.x, z, top, 0.2))
    spot = side * (plan.road + plan.pavement[(side + 1) // 2] * 0.75)
    for z, rng in _row(plan, 50 + side, 12.0, plan.trees * 0.8, here, end):
        tree = Thing(spot, z, side, int(rng.integers(1000)), float(rng.uniform(0.55, 0.95)))
        crown = np.array(
            [(spot + a, y * tree.size, z + b) for y in (3, 6.5) for a, b in ((-2, 0), (2, 0), (0, 2), (0, -2))]
        )
        yield _item(z, paint_tree, plan, tree, crown)


def _walkers(plan: Plan, here: float, side: int, time: float) -> Iterator[Item]:
    width = plan.pavement[(side + 1) // 2]
    for forward in (-1, 1):
        share = plan.walkers * 0.6
        for z, rng in _row(plan, 60 + 3 * side + forward, 8.0, share, here, here + _PEOPLE, forward * 1.35 * time):
            x = side * (plan.road + float(rng.uniform(0.3, 0.95)) * width)
            phase = 2 * pi * (0.9 * time + float(rng.random()))
            person = Person(x, z, int(rng.integers(1000)), phase, forward)
            yield _item(z, paint_walker, plan, person, _post(x, z, 1.65, 0.4))


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
    x = min(plan.road * 0.4, plan.road - 2.9)  # clear of the parked ones
    for z, rng in _row(plan, 80, 28.0, plan.oncoming, here - 4, here + _SIGHT * 0.8, -speed * time):
        yield Vehicle(x, z, -1, int(rng.integers(1000)))
    rng = stream(plan.seed, 5)
    if rng.random() < 0.75:
        gap, phase = float(rng.uniform(12, 34)), float(rng.uniform(0, 2 * pi))
        wave = np.sin(2 * pi * time / 11 + phase)
        brakes = bool(np.cos(2 * pi * time / 11 + phase) < -0.5)
        yield Vehicle(plan.lane + 0.15, here + gap + 3.5 * wave, 1, int(rng.integers(1000)), brakes)
