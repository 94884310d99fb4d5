"""The permutohedral lattice against sums over all pairs."""

from __future__ import annotations

import numpy as np
import pytest

from edgeseg.errors import ShapeError
from edgeseg.refine.gaussian import (
    EXACT_PIXELS,
    AllPairs,
    Normalization,
    Normalized,
    Separable,
    appearance_features,
)
from edgeseg.refine.lattice import PermutohedralLattice


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Two flat halves with a little noise."""
    random = np.random.default_rng(seed)
    frame = np.zeros((height, width, 3))
    frame[:, : width // 2], frame[:, width // 2 :] = (60, 80, 120), (180, 150, 90)
    return np.clip(frame + random.normal(0, 4, frame.shape), 0, 255).astype(np.uint8)


def plain_sums(features: np.ndarray, values: np.ndarray) -> np.ndarray:
    """sum_j exp(-|f_i - f_j|**2 / 2) v_j, pixel by pixel in float64."""
    result = np.zeros(values.shape)
    for i in range(len(features)):
        for j in range(len(features)):
            distance = float(((features[i].astype(np.float64) - features[j]) ** 2).sum())
            result[i] += np.exp(-0.5 * distance) * values[j]
    return result


def normalized(kernel: object, values: np.ndarray) -> np.ndarray:
    """The symmetric normalization, in which a filter's own scale cancels."""
    roots = np.sqrt(kernel(np.ones((len(values), 1), np.float32)))  # type: ignore[operator]
    return kernel(values / roots) / roots  # type: ignore[operator]


class TestExact:
    def test_all_pairs(self) -> None:
        features = appearance_features(picture(7, 9), 5, 13)
        values = np.random.default_rng(1).random((63, 4), np.float32)
        assert AllPairs(features)(values) == pytest.approx(plain_sums(features, values), rel=1e-5)

    @pytest.mark.parametrize("deviation", [0.5, 1.0, 3.0, 40.0])
    def test_separable(self, deviation: float) -> None:
        positions = np.stack(np.mgrid[:7, :9], axis=-1).reshape(-1, 2) / deviation
        values = np.random.default_rng(1).random((63, 4), np.float32)
        assert Separable(7, 9, deviation)(values) == pytest.approx(plain_sums(positions, values), rel=1e-5)

    def test_features(self) -> None:
        frame = picture(3, 4)
        features = appearance_features(frame, 2, 10).reshape(3, 4, 5)
        assert features[2, 3, :2].tolist() == [1.5, 1.0]
        assert features[1, 2, 2:] == pytest.approx(frame[1, 2] / 10)

    def test_refuses_large_frames(self) -> None:
        with pytest.raises(ShapeError, match=f"at most {EXACT_PIXELS} pixels, but this one has 16385; use the lattice"):
            AllPairs(np.zeros((EXACT_PIXELS + 1, 5), np.float32))


class TestLattice:
    @pytest.mark.parametrize(("position", "colour"), [(20, 20), (80, 13), (67, 3)])
    def test_approximates_all_pairs(self, position: float, colour: float) -> None:
        # The documented tolerance: 0.03 on average of values in 0..1, and nearly all of the filter's effect.
        features = appearance_features(picture(40, 60), position, colour)
        values = np.random.default_rng(2).random((2400, 3), np.float32)
        exact = normalized(AllPairs(features), values)
        found = normalized(PermutohedralLattice(features).filter, values)
        assert np.abs(found - exact).mean() < 0.03
        assert np.corrcoef((found - values).ravel(), (exact - values).ravel())[0, 1] > 0.98

    def test_equals_plain_numpy(self) -> None:
        lattice = PermutohedralLattice(appearance_features(picture(12, 16), 10, 10))
        values = np.random.default_rng(3).random((192, 3), np.float32)
        assert lattice.weights.sum(axis=1) == pytest.approx(1, abs=1e-5)
        assert lattice.weights.min() > -1e-5
        grid = np.zeros((lattice.vertices + 1, 3))
        np.add.at(grid, lattice.corners, lattice.weights[..., None] * values[:, None])
        for neighbours in lattice.neighbours:
            grid[1:] += 0.5 * grid[neighbours].sum(axis=1)
        expected = (lattice.weights[..., None] * grid[lattice.corners]).sum(axis=1) / (1 + 2.0**-5)
        assert lattice.filter(values) == pytest.approx(expected, rel=1e-4)

    def test_neighbours_are_mutual(self) -> None:
        lattice = PermutohedralLattice(appearance_features(picture(12, 16), 10, 10))
        numbers = np.arange(1, lattice.vertices + 1)
        for before, after in lattice.neighbours.transpose(0, 2, 1):
            assert np.array_equal(after[before[before > 0] - 1], numbers[before > 0])
        assert (lattice.neighbours > 0).mean() > 0.2

    def test_is_linear(self) -> None:
        lattice = PermutohedralLattice(appearance_features(picture(12, 16), 10, 10))
        first, second = np.random.default_rng(3).random((2, 192, 3), np.float32)
        both = lattice.filter(2 * first + second)
        assert both == pytest.approx(2 * lattice.filter(first) + lattice.filter(second), rel=1e-4)

    def test_transposed(self) -> None:
        features = appearance_features(picture(12, 16), 10, 10)
        lattice, every = PermutohedralLattice(features), np.eye(192, dtype=np.float32)
        matrix = lattice.filter(every)
        assert np.abs(matrix - matrix.T).max() > 1e-3, "corners that are missing make the order of the axes matter"
        assert lattice.filter(every, transposed=True) == pytest.approx(matrix.T, rel=1e-5, abs=1e-7)

    @pytest.mark.parametrize("normalization", ["symmetric", "pixel", "none"])
    def test_normalized_transposed(self, normalization: Normalization) -> None:
        lattice = PermutohedralLattice(appearance_features(picture(12, 16), 10, 10))
        kernel, every = Normalized(lattice.filter, 192, normalization), np.eye(192, dtype=np.float32)
        assert kernel(every, transposed=True) == pytest.approx(kernel(every).T, rel=1e-5, abs=1e-7)

    def test_one_point_keeps_its_value(self) -> None:
        lattice = PermutohedralLattice(np.array([[0.3, -1.2, 4.0]], np.float32))
        value = lattice.filter(np.array([[1.0, 2.0]], np.float32))
        assert lattice.vertices == 4
        assert 0 < value[0, 0] <= 1
        assert value[0, 1] == pytest.approx(2 * value[0, 0])

    def test_far_points_do_not_mix(self) -> None:
        lattice = PermutohedralLattice(np.array([[0.0, 0.0], [50.0, 50.0]], np.float32))
        assert lattice.filter(np.array([[1.0], [0.0]], np.float32))[1, 0] == 0

    @pytest.mark.parametrize(
        ("features", "message"),
        [
            (np.zeros((4, 2)), r"must be \(points, dimensions\) float32, but are \(4, 2\) float64"),
            (np.zeros(4, np.float32), r"but are \(4,\) float32"),
            (np.full((4, 2), np.nan, np.float32), "must be finite and below a million"),
            (np.full((4, 2), 2e6, np.float32), "must be finite and below a million"),
            (np.broadcast_to(np.float32(0), (2**26, 2)), "are too many for one lattice; filter a smaller frame"),
        ],
    )
    def test_refuses_features(self, features: np.ndarray, message: str) -> None:
        with pytest.raises(ShapeError, match=message):
            PermutohedralLattice(features)

    def test_refuses_values(self) -> None:
        lattice = PermutohedralLattice(np.zeros((4, 2), np.float32))
        with pytest.raises(ShapeError, match=r"values must be \(4, channels\) float32, but are \(3, 2\) float32"):
            lattice.filter(np.zeros((3, 2), np.float32))
