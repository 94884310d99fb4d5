"""Rendered frames: the same numbers give the same pixels, labels fit what is painted, and streets look like streets."""

from __future__ import annotations

import hashlib
from itertools import pairwise

import numpy as np
import pytest

from edgeseg.errors import UsageError
from edgeseg.labels import load_labels
from edgeseg.scenes import Scene, Street, render
from edgeseg.scenes.buildings import lots
from edgeseg.scenes.street import plan

CLASSES = load_labels("camvid")
SIZE = (90, 120)


def digest(scene: Scene) -> str:
    return hashlib.sha256(scene.image.tobytes() + scene.labels.tobytes()).hexdigest()


@pytest.fixture(scope="module")
def many() -> list[Scene]:
    return [render(Street(seed), 37, *SIZE) for seed in range(24)]


class TestDeterminism:
    def test_same_numbers_same_pixels(self) -> None:
        first = digest(render(Street(3), 5, *SIZE))
        for other in (9, 400):  # whatever was drawn meanwhile
            render(Street(other), other, *SIZE)
        assert digest(render(Street(3), 5, *SIZE)) == first

    def test_other_numbers_other_pixels(self) -> None:
        found = {digest(render(Street(seed), number, *SIZE)) for seed in (3, 4) for number in (5, 6)}
        assert len(found) == 4

    def test_caches_do_not_change_pixels(self) -> None:
        first = digest(render(Street(6), 0, *SIZE))
        plan.cache_clear()
        assert digest(render(Street(6), 0, *SIZE)) == first


class TestFrame:
    @pytest.mark.parametrize(("height", "width"), [(16, 16), (33, 47), (64, 128), (120, 40)])
    def test_any_size(self, height: int, width: int) -> None:
        scene = render(Street(1), 2, height, width)
        assert (scene.image.shape, scene.image.dtype) == ((height, width, 3), np.uint8)
        assert (scene.labels.shape, scene.labels.dtype) == ((height, width), np.uint8)

    @pytest.mark.parametrize("arguments", [(-1, 90, 120), (0, 15, 120), (0, 90, 4097)])
    def test_refuses(self, arguments: tuple[int, int, int]) -> None:
        with pytest.raises(UsageError, match="a scene has a number from 0 and 16 to 4096 pixels a side, but number"):
            render(Street(0), *arguments)

    def test_a_smooth_drive(self) -> None:
        frames = [render(Street(2), number, *SIZE) for number in (40, 41, 90)]
        moved = [np.mean(frames[0].labels != other.labels) for other in frames[1:]]
        assert moved[0] < 0.1
        assert moved[1] > 2 * moved[0]


class TestLabels:
    def test_are_classes_or_void(self, many: list[Scene]) -> None:
        values = set(np.unique(np.stack([scene.labels for scene in many])).tolist())
        assert values == {*range(len(CLASSES)), CLASSES.ignore_index}

    def test_shares_are_those_of_a_street(self, many: list[Scene]) -> None:
        count = np.bincount(np.stack([scene.labels for scene in many]).ravel(), minlength=12)
        share = dict(zip((*CLASSES.names, "void"), (100 * count / count.sum()).tolist(), strict=True))
        limits = {
            "sky": (15, 30),
            "building": (14, 32),
            "road": (25, 36),
            "tree": (4, 16),
            "car": (2, 9),
            "pavement": (4, 10),
        }
        assert {name: share[name] for name, (low, high) in limits.items() if not low < share[name] < high} == {}
        for name in ("pole", "signsymbol", "fence", "pedestrian", "bicyclist", "void"):
            assert 0.1 < share[name] < 4, name

    def test_follow_the_picture(self, many: list[Scene]) -> None:
        """Edges of the labels lie on edges of the picture: there its colours change more than elsewhere."""
        at_edges, elsewhere = [], []
        for scene in many:
            change = np.abs(np.diff(scene.image.astype(int), axis=1)).sum(2)
            edge = np.diff(scene.labels.astype(int), axis=1) != 0
            at_edges.append(change[edge].mean())
            elsewhere.append(change[~edge].mean())
        assert np.mean(at_edges) > 3 * np.mean(elsewhere)

    def test_sky_is_above_and_road_below(self, many: list[Scene]) -> None:
        rows = np.arange(SIZE[0])[:, None]
        for scene in many:
            sky, road = (np.broadcast_to(rows, SIZE)[scene.labels == CLASSES.index(n)] for n in ("sky", "road"))
            assert sky.size == 0 or sky.mean() < SIZE[0] / 2 < road.mean()


class TestStreet:
    def test_streets_differ(self) -> None:
        plans = [plan(Street(seed)) for seed in range(12)]
        for name in ("rise", "exposure", "clear", "speed", "density"):
            assert len({getattr(p, name) for p in plans}) == 12, name

    def test_the_sun_is_up(self) -> None:
        for seed in range(12):
            sun = plan(Street(seed)).sun
            assert np.linalg.norm(sun) == pytest.approx(1)
            assert sun[1] > 0.3

    def test_lots_follow_each_other_without_end(self) -> None:
        found = list(lots(plan(Street(0)), 1, -100.0, 400.0))
        assert found[0].start <= -100
        assert found[-1].end >= 400
        for here, there in pairwise(found):
            assert here.end == pytest.approx(there.start)
        assert len({lot.seed for lot in found}) == len(found)

    def test_a_part_of_a_street_is_the_same_from_anywhere(self) -> None:
        there = plan(Street(0))
        assert list(lots(there, -1, 100.0, 150.0)) == [
            lot for lot in lots(there, -1, 0.0, 300.0) if lot.end > 100 and lot.start < 150
        ]
