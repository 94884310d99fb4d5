"""Volumes from the areas of slices."""

from __future__ import annotations

import math

import pytest

from edgeseg.errors import UsageError
from edgeseg.volume import cavalieri_volumes


def test_sum_of_areas_times_distance() -> None:
    slices = [{"liver": 10.0, "spleen": 1.0}, {"liver": 12.5}, {"liver": 0.0, "spleen": 2.5}]
    assert cavalieri_volumes(slices, 2.0) == {"liver": 45.0, "spleen": 7.0}


def test_nothing() -> None:
    assert cavalieri_volumes([], 1.0) == {}


@pytest.mark.parametrize("first", [0.0, 0.3, 0.5, 0.9])
def test_ten_slices_through_a_sphere_are_within_one_percent(first: float) -> None:
    radius, distance = 5.0, 1.0
    heights = [first + i * distance - radius for i in range(10)]
    areas = [{"sphere": math.pi * max(0.0, radius**2 - z**2)} for z in heights]
    wanted = 4 / 3 * math.pi * radius**3
    assert cavalieri_volumes(areas, distance)["sphere"] == pytest.approx(wanted, rel=0.0101)


@pytest.mark.parametrize("distance", [0.0, -1.0, math.nan, math.inf])
def test_refuses_a_distance_that_is_none(distance: float) -> None:
    with pytest.raises(UsageError, match="the distance between slices must be above 0, but is"):
        cavalieri_volumes([{"a": 1.0}], distance)
