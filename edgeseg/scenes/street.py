"""What a street is like: its size, light, weather and traffic, all from one seed."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import cos, radians, sin

import numpy as np
from numpy.typing import NDArray

from edgeseg.scenes.canvas import Color

__all__ = ["Plan", "Street", "plan", "stream"]


@dataclass(frozen=True)
class Street:
    """A street without end.

    Attributes:
        seed: 0 or above; another seed is another street, with other weather, light, camera and traffic.
    """

    seed: int = 0


@dataclass(frozen=True, eq=False)
class Plan:
    """The street's character.

    Attributes:
        seed: of everything that stands along it.
        road: half the width of the road, metres.
        pavement: width of the pavements, left and right, metres.
        verge: from the pavement to the walls, left and right, metres; grass where it is wide.
        grass: whether the verge is grass.
        density: share of the sides with houses, left and right, 0..1.
        storeys: mean count of a house.
        brick: share of houses of brick, 0..1.
        trees, poles, signs, parked, oncoming, walkers, riders, fences: how many, 0..1.
        leaves: kind of tree: "leafy", "bare" or "mixed".
        lane, lens, rise, tilt, speed: see `camera.drive`.
        bonnet: height of the own car's bonnet in the picture, as share of it; 0 for none.
        sun: (3,) unit vector to the sun.
        ambient, direct: light from everywhere and from the sun, about 1 together.
        cover: share of the sky with clouds.
        zenith, horizon: colours of the clear sky.
        clear: distance in metres at which haze takes 63 % of the colour.
        exposure: factor on the light.
        warmth: colour of the light as factors on red, green and blue.
        grain: deviation of the sensor's noise in 1/255.
        vignette: share of the light that is lost in the corners.
        softness: deviation in pixels of the lens' blur for a picture of 360 rows.
    """

    seed: int
    road: float
    pavement: tuple[float, float]
    verge: tuple[float, float]
    grass: bool
    density: tuple[float, float]
    storeys: float
    brick: float
    trees: float
    poles: float
    signs: float
    parked: float
    oncoming: float
    walkers: float
    riders: float
    fences: float
    leaves: str
    lane: float
    lens: float
    rise: float
    tilt: float
    speed: float
    bonnet: float
    sun: NDArray[np.float64]
    ambient: float
    direct: float
    cover: float
    zenith: tuple[int, int, int]
    horizon: tuple[int, int, int]
    clear: float
    exposure: float
    warmth: Color
    grain: float
    vignette: float
    softness: float

    def shade(self, normal: NDArray[np.float64]) -> float:
        """Light on a surface with this unit normal."""
        return self.ambient * (0.85 + 0.15 * float(normal[1])) + self.direct * max(0.0, float(normal @ self.sun))

    def wall(self, side: int) -> float:
        """x of the walls on the left (-1) or the right (1)."""
        index = (side + 1) // 2
        return side * (self.road + self.pavement[index] + self.verge[index])


def stream(seed: int, *what: int) -> np.random.Generator:
    """Random numbers for one thing of one street, the same whatever was drawn before."""
    return np.random.default_rng([seed, *(value + (1 << 20) for value in what)])


@lru_cache(maxsize=16)
def plan(street: Street) -> Plan:
    """The character of a street."""
    rng = stream(street.seed, 0)

    def between(low: float, high: float) -> float:
        return float(rng.uniform(low, high))

    azimuth, height = radians(between(0, 360)), radians(between(22, 58))
    overcast = rng.random() < 0.35
    sun = np.array([cos(height) * sin(azimuth), sin(height), cos(height) * cos(azimuth)])
    direct = between(0.06, 0.14) if overcast else between(0.42, 0.6)
    white = rng.random() < 0.4
    pale = between(0.0, 1.0)
    town = rng.random() < 0.6
    road = round(between(3.7, 5.2) * 16) / 16  # on a column of the ground's texture
    warm = 0.0 if overcast else between(-0.01, 0.05)
    sides = rng.permutation(2)
    density = (between(0.8, 0.97), between(0.35, 0.9)) if town else (between(0.35, 0.75), between(0.15, 0.5))
    verge = (between(0.2, 0.6), between(0.3, 1.2)) if town else (between(1.0, 4.0), between(1.5, 6.0))
    return Plan(
        seed=street.seed,
        road=road,
        pavement=(round(between(2.2, 4.0) * 16) / 16, round(between(2.2, 4.0) * 16) / 16),
        verge=(verge[sides[0]], verge[sides[1]]),
        grass=not town,
        density=(density[sides[0]], density[sides[1]]),
        storeys=between(2.6, 4.0) if town else between(1.8, 2.5),
        brick=between(0.2, 0.8),
        trees=between(0.2, 0.6) if town else between(0.5, 0.9),
        poles=between(0.5, 1.0),
        signs=between(0.4, 1.0),
        parked=between(0.2, 0.75),
        oncoming=between(0.2, 0.7),
        walkers=between(0.3, 0.9) if town else between(0.15, 0.5),
        riders=between(0.15, 0.7),
        fences=between(0.3, 0.9),
        leaves=str(rng.choice(["leafy", "bare", "mixed"])),
        lane=-road * between(0.42, 0.52),
        lens=between(1.05, 1.3),
        rise=between(1.3, 1.75),
        tilt=between(-0.03, 0.04),
        speed=between(5.5, 10.5),
        bonnet=between(0.02, 0.06) if rng.random() < 0.3 else 0.0,
        sun=sun,
        ambient=between(0.75, 0.92) if overcast else between(0.52, 0.66),
        direct=direct,
        cover=1.0 if white else (between(0.6, 0.95) if overcast else between(0.05, 0.5)),
        zenith=(round(75 + 70 * pale), round(125 + 60 * pale), round(190 + 35 * pale)),
        horizon=(round(200 + 35 * pale), round(215 + 25 * pale), 240),
        clear=between(160, 600),
        exposure=between(0.55, 0.8) if overcast and rng.random() < 0.5 else between(0.85, 1.2),
        warmth=(1 + warm, 1.0, 1 - warm),
        grain=between(1.0, 4.0),
        vignette=between(0.05, 0.25),
        softness=between(0.3, 0.65),
    )
