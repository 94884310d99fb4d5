"""Otsu's threshold against its definition, and the quadtree on frames whose regions are known."""

from __future__ import annotations

import numpy as np
import pytest

from edgeseg.errors import ShapeError, UsageError
from edgeseg.refine import Quadtree, otsu
from edgeseg.refine.classical import REST


def grey(levels: np.ndarray) -> np.ndarray:
    return np.repeat(levels.astype(np.uint8)[..., None], 3, axis=2)


class TestOtsu:
    def test_maximises_the_variance_between(self) -> None:
        random = np.random.default_rng(0)
        levels = np.concatenate([random.normal(70, 12, 400), random.normal(170, 20, 200)]).clip(0, 255).astype(np.uint8)
        bright, found = otsu(grey(levels.reshape(20, 30)))

        def between(level: int) -> float:
            high = levels > level
            share = high.mean()
            return 0.0 if share in (0, 1) else share * (1 - share) * (levels[high].mean() - levels[~high].mean()) ** 2

        assert between(found) == pytest.approx(max(between(level) for level in range(256)))
        assert np.array_equal(bright, levels.reshape(20, 30) > found)

    def test_refuses_a_grey_frame(self) -> None:
        with pytest.raises(ShapeError, match=r"a frame must be \(H, W, 3\) uint8 RGB, but is \(4, 4\) uint8"):
            otsu(np.zeros((4, 4), np.uint8))


class TestQuadtree:
    def test_one_level_is_one_region(self) -> None:
        regions, count = Quadtree()(grey(np.full((13, 21), 80)))
        assert count == 1
        assert (regions == 0).all()

    def test_finds_blocks_by_area(self) -> None:
        levels = np.full((32, 48), 50)
        levels[8:24, 8:16], levels[0:4, 40:44] = 120, 220
        regions, count = Quadtree(smallest=1)(grey(levels))
        assert count == 3
        assert np.array_equal(regions, np.select([levels == 120, levels == 220], [1, 2], 0))

    def test_regions_of_one_level_that_do_not_touch_stay_apart(self) -> None:
        levels = np.full((16, 16), 50)
        levels[2:4, 2:4], levels[10:14, 10:14] = 200, 200
        regions, count = Quadtree(smallest=1)(grey(levels))
        assert (count, regions[11, 11], regions[2, 2]) == (3, 1, 2)

    def test_a_ramp_does_not_flow_into_one(self) -> None:
        # Neighbours differ by 4 levels each, but what has been merged is compared, not the chain's links.
        levels = np.repeat(np.arange(0, 256, 4), 2)[None].repeat(16, axis=0)
        regions, count = Quadtree(deviation=0, difference=10, smallest=1)(grey(levels))
        assert count > 5
        assert max(np.ptp(levels[regions == region]) for region in range(count)) < 60

    def test_what_cannot_be_numbered_is_the_rest(self) -> None:
        levels = np.indices((24, 24)).sum(axis=0) % 2 * 200
        regions, count = Quadtree(smallest=1)(grey(levels))
        assert count == 24 * 24
        assert np.count_nonzero(regions == REST) == 24 * 24 - REST

    def test_the_smallest_block_is_kept(self) -> None:
        levels = np.indices((16, 16)).sum(axis=0) % 2 * 200
        assert Quadtree(smallest=4)(grey(levels))[1] == 1

    @pytest.mark.parametrize(
        ("given", "message"),
        [
            ({"deviation": -1.0}, "deviation is in grey levels and must be 0..255, but is -1.0"),
            ({"difference": 256.0}, "difference is in grey levels and must be 0..255, but is 256.0"),
            ({"smallest": 0}, "smallest is a side in pixels and must be at least 1, but is 0"),
        ],
    )
    def test_refuses(self, given: dict[str, float], message: str) -> None:
        with pytest.raises(UsageError, match=message):
            Quadtree(**given)  # type: ignore[arg-type]
