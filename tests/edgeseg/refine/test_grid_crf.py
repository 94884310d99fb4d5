"""The grid CRF against all labellings of tiny frames."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from edgeseg.errors import ShapeError, UsageError
from edgeseg.refine import GridCRF

HEIGHT, WIDTH, CLASSES = 3, 3, 2


def picture(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)


def scores(seed: int = 0, scale: float = 1.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, scale, (CLASSES, HEIGHT, WIDTH)).astype(np.float32)


def edges(crf: GridCRF, frame: np.ndarray) -> list[tuple[tuple[int, int], tuple[int, int], float]]:
    """Both ends and the cost of every edge, written out from the definition."""
    pixels = [(y, x) for y in range(HEIGHT) for x in range(WIDTH)]
    found = []
    for first, second in itertools.combinations(pixels, 2):
        dy, dx = abs(first[0] - second[0]), abs(first[1] - second[1])
        if dy + dx == 1 or (crf.neighbours == 8 and dy == dx == 1):
            square = float(((frame[first].astype(float) - frame[second]) ** 2).sum())
            found.append((first, second, square, np.hypot(dy, dx)))
    mean = np.mean([square for _, _, square, _ in found])
    return [(a, b, crf.weight * np.exp(-square / (2 * mean)) / distance) for a, b, square, distance in found]


def plain_energy(crf: GridCRF, logits: np.ndarray, frame: np.ndarray, class_map: np.ndarray) -> float:
    log = logits - np.log(np.exp(logits.astype(np.float64)).sum(axis=0))
    unary = -sum(float(log[class_map[y, x], y, x]) for y in range(HEIGHT) for x in range(WIDTH))
    return unary + sum(cost for a, b, cost in edges(crf, frame) if class_map[a] != class_map[b])


def labellings() -> np.ndarray:
    """(2**9, 3, 3)."""
    return np.array(list(itertools.product(range(CLASSES), repeat=HEIGHT * WIDTH))).reshape(-1, HEIGHT, WIDTH)


def marginals(crf: GridCRF, logits: np.ndarray, frame: np.ndarray) -> np.ndarray:
    """Exact ones, by enumeration."""
    every = labellings()
    weights = np.exp([-plain_energy(crf, logits, frame, labelling) for labelling in every])
    weights /= weights.sum()
    return np.stack([(weights[:, None, None] * (every == c)).sum(axis=0) for c in range(CLASSES)])


def free_energy(crf: GridCRF, logits: np.ndarray, frame: np.ndarray, belief: np.ndarray) -> float:
    """What mean field minimises: expected energy less entropy."""
    q = belief.astype(np.float64)
    log = logits - np.log(np.exp(logits.astype(np.float64)).sum(axis=0))
    pairs = sum(cost * (1 - float(q[:, a[0], a[1]] @ q[:, b[0], b[1]])) for a, b, cost in edges(crf, frame))
    return float(-(q * log).sum() + pairs + (q * np.log(np.maximum(q, 1e-30))).sum())


@pytest.mark.parametrize("neighbours", [4, 8])
class TestBruteForce:
    def test_energy(self, neighbours: int) -> None:
        crf = GridCRF(1.3, neighbours)  # type: ignore[arg-type]
        for labelling in labellings()[::7]:
            expected = plain_energy(crf, scores(), picture(), labelling)
            assert crf.energy(scores(), picture(), labelling) == pytest.approx(expected, rel=1e-4)

    def test_weak_coupling_gives_exact_marginals(self, neighbours: int) -> None:
        crf = GridCRF(0.1, neighbours, 30)  # type: ignore[arg-type]
        exact = marginals(crf, scores(), picture())
        alone = np.exp(scores()) / np.exp(scores()).sum(axis=0)
        error = np.abs(crf(scores(), picture()) - exact).max()
        assert error < 0.005
        assert error < 0.1 * np.abs(alone - exact).max()

    @pytest.mark.parametrize("seed", range(4))
    def test_free_energy_never_rises(self, neighbours: int, seed: int) -> None:
        logits, frame = scores(seed), picture(seed)
        values = [
            free_energy(crf, logits, frame, crf(logits, frame))
            for crf in (GridCRF(2.0, neighbours, n) for n in range(6))  # type: ignore[arg-type]
        ]
        assert all(after <= before + 1e-5 for before, after in itertools.pairwise(values))
        assert values[-1] < values[0]

    @pytest.mark.parametrize("seed", range(4))
    def test_free_energy_bounds_the_partition(self, neighbours: int, seed: int) -> None:
        crf = GridCRF(1.0, neighbours, 30)  # type: ignore[arg-type]
        logits, frame = scores(seed), picture(seed)
        total = sum(np.exp(-plain_energy(crf, logits, frame, labelling)) for labelling in labellings())
        assert free_energy(crf, logits, frame, crf(logits, frame)) >= -np.log(total) - 1e-6

    @pytest.mark.parametrize("seed", range(4))
    def test_icm_ends_where_no_pixel_can_gain(self, neighbours: int, seed: int) -> None:
        crf = GridCRF(1.0, neighbours, 20, "icm")  # type: ignore[arg-type]
        logits, frame = scores(seed), picture(seed)
        found = crf(logits, frame).argmax(axis=0)
        energy = plain_energy(crf, logits, frame, found)
        assert energy <= plain_energy(crf, logits, frame, logits.argmax(axis=0)) + 1e-5
        for y, x in itertools.product(range(HEIGHT), range(WIDTH)):
            flipped = found.copy()
            flipped[y, x] = 1 - flipped[y, x]
            assert plain_energy(crf, logits, frame, flipped) >= energy - 1e-5

    def test_finds_the_best_labelling(self, neighbours: int) -> None:
        # One doubtful pixel in a frame that is otherwise certain: the minimum is unique and clear.
        logits = np.zeros((CLASSES, HEIGHT, WIDTH), np.float32)
        logits[0], logits[0, 1, 1], logits[1, 1, 1] = 3, 0, 1
        frame = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
        frame[0, 0] = 95
        best = min(labellings(), key=lambda one: plain_energy(GridCRF(1.0, neighbours), logits, frame, one))  # type: ignore[arg-type]
        assert (best == 0).all()
        for method in ("meanfield", "icm"):
            crf = GridCRF(1.0, neighbours, 20, method)  # type: ignore[arg-type]
            assert np.array_equal(crf(logits, frame).argmax(axis=0), best)


class TestCall:
    def test_no_weight_changes_nothing(self) -> None:
        alone = np.exp(scores()) / np.exp(scores()).sum(axis=0)
        assert GridCRF(0.0)(scores(), picture()) == pytest.approx(alone, rel=1e-5)

    def test_icm_gives_zeros_and_ones(self) -> None:
        found = GridCRF(method="icm")(scores(), picture())
        assert found.dtype == np.float32
        assert set(np.unique(found)) == {0.0, 1.0}
        assert (found.sum(axis=0) == 1).all()

    def test_a_flat_frame_has_edges_of_one_cost(self) -> None:
        weights = GridCRF(2.0, 4).edge_weights(np.full((3, 4, 3), 7, np.uint8))
        assert weights.shape == (2, 3, 4)
        assert (weights[0, :, :3] == 2).all()
        assert (weights[0, :, 3] == 0).all()
        assert (weights[1, 2] == 0).all()

    @pytest.mark.parametrize("size", [(1, 1), (1, 5), (5, 1)])
    def test_takes_thin_frames(self, size: tuple[int, int]) -> None:
        found = GridCRF()(np.zeros((2, *size), np.float32), np.zeros((*size, 3), np.uint8))
        assert found == pytest.approx(0.5)


class TestRefuses:
    @pytest.mark.parametrize(
        ("given", "message"),
        [
            ({"weight": -1.0}, "weight must be 0 to 10000, but is -1.0"),
            ({"neighbours": 6}, "neighbours must be 4 or 8, but is 6"),
            ({"iterations": -2}, "iterations must be at least 0, but is -2"),
            ({"method": "cuts"}, "method must be meanfield or icm, but is 'cuts'"),
        ],
    )
    def test_parameters(self, given: dict[str, object], message: str) -> None:
        with pytest.raises(UsageError, match=message):
            GridCRF(**given)  # type: ignore[arg-type]

    def test_a_labelling_of_other_classes(self) -> None:
        with pytest.raises(ShapeError, match=r"class_map must be \(3, 3\) of classes 0..1, but is \(3, 3\) of 2..2"):
            GridCRF().energy(scores(), picture(), np.full((3, 3), 2))

    def test_arrays(self) -> None:
        with pytest.raises(ShapeError, match="of the frame's size"):
            GridCRF()(scores(), picture()[:2])
