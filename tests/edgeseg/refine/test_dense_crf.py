"""The dense CRF against mean field written out pixel by pixel."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from edgeseg.errors import ShapeError, UsageError
from edgeseg.refine import PRESETS, DenseCRF

HEIGHT, WIDTH, CLASSES = 8, 10, 3


def picture(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)


def scores(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 2, (CLASSES, HEIGHT, WIDTH)).astype(np.float32)


def brute_force(crf: DenseCRF, logits: np.ndarray, frame: np.ndarray) -> np.ndarray:
    """Mean field over all pairs in float64, from the paper's formulas and the authors' normalization."""
    points = [(y, x) for y in range(HEIGHT) for x in range(WIDTH)]
    n = len(points)
    appearance, smoothness = np.zeros((n, n)), np.zeros((n, n))
    for i, (y, x) in enumerate(points):
        for j, (v, u) in enumerate(points):
            near = float((y - v) ** 2 + (x - u) ** 2)
            alike = float(((frame[y, x].astype(float) - frame[v, u]) ** 2).sum())
            appearance[i, j] = np.exp(-near / (2 * crf.position_deviation**2) - alike / (2 * crf.colour_deviation**2))
            smoothness[i, j] = np.exp(-near / (2 * crf.smoothness_deviation**2))
    kernel = np.zeros((n, n))
    for weight, matrix in ((crf.appearance_weight, appearance), (crf.smoothness_weight, smoothness)):
        sums = matrix.sum(axis=1)
        if crf.normalization == "symmetric":
            matrix = matrix / np.sqrt(np.outer(sums, sums))
        elif crf.normalization == "pixel":
            matrix = matrix / sums[:, None]
        kernel += weight * matrix
    raw = logits.astype(np.float64).reshape(CLASSES, -1).T
    unary = -np.log(np.exp(raw) / np.exp(raw).sum(axis=1, keepdims=True))
    belief = np.exp(-unary)
    for _ in range(crf.iterations):
        pairwise = np.zeros_like(belief)
        for label in range(CLASSES):
            # Potts: every other class costs what its probability among the neighbours weighs.
            for other in range(CLASSES):
                if other != label:
                    pairwise[:, label] += kernel @ belief[:, other]
        belief = np.exp(-unary - pairwise)
        belief /= belief.sum(axis=1, keepdims=True)
    return belief.T.reshape(CLASSES, HEIGHT, WIDTH)


class TestExact:
    @pytest.mark.parametrize("normalization", ["symmetric", "pixel", "none"])
    @pytest.mark.parametrize("iterations", [0, 1, 5])
    def test_equals_brute_force(self, normalization: str, iterations: int) -> None:
        crf = DenseCRF(1.5, 4, 60, 0.7, 1.2, iterations, normalization, "exact")  # type: ignore[arg-type]
        found = crf(scores(), picture())
        assert found.dtype == np.float32
        assert np.abs(found - brute_force(crf, scores(), picture())).max() < 1e-4

    @pytest.mark.parametrize("name", PRESETS)
    def test_presets_equal_brute_force(self, name: str) -> None:
        crf = dataclasses.replace(PRESETS[name], filtering="exact")
        assert np.abs(crf(scores(1), picture(1)) - brute_force(crf, scores(1), picture(1))).max() < 1e-4

    def test_one_kernel_alone(self) -> None:
        for crf in (DenseCRF(0, filtering="exact"), DenseCRF(smoothness_weight=0, filtering="exact")):
            assert np.abs(crf(scores(), picture()) - brute_force(crf, scores(), picture())).max() < 1e-4


class TestLattice:
    def noisy(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Two flat halves, their labels, and logits with a fifth of the pixels wrong."""
        random = np.random.default_rng(0)
        labels = np.zeros((40, 60), np.int64)
        labels[:, 31:] = 1
        frame = np.where(labels[..., None] == 1, (200, 160, 90), (40, 90, 140)) + random.normal(0, 3, (40, 60, 3))
        wrong = random.random(labels.shape) < 0.2
        logits = 1.5 * np.stack([(labels == c) ^ wrong for c in range(2)]).astype(np.float32)
        return logits, np.clip(frame, 0, 255).astype(np.uint8), labels

    @pytest.mark.parametrize("name", ["deeplab", "densecrf"])
    def test_is_near_exact_filtering(self, name: str) -> None:
        logits, frame, _ = self.noisy()
        exact = dataclasses.replace(PRESETS[name], filtering="exact")(logits, frame)
        found = PRESETS[name](logits, frame)
        assert np.abs(found - exact).mean() < 0.02
        assert (found.argmax(0) == exact.argmax(0)).mean() > 0.99

    def test_repairs_a_noisy_prediction(self) -> None:
        logits, frame, labels = self.noisy()
        assert (logits.argmax(0) == labels).mean() < 0.85
        assert (PRESETS["densecrf"](logits, frame).argmax(0) == labels).mean() > 0.99

    def test_gives_probabilities_and_leaves_its_input(self) -> None:
        logits, frame = scores(), picture()
        kept = logits.copy()
        found = DenseCRF()(logits, frame)
        assert found.sum(axis=0) == pytest.approx(1, abs=1e-5)
        assert np.array_equal(logits, kept)
        assert np.array_equal(found, DenseCRF()(logits, frame))

    def test_takes_one_pixel_and_one_class(self) -> None:
        assert DenseCRF()(np.zeros((1, 1, 1), np.float32), np.zeros((1, 1, 3), np.uint8)).tolist() == [[[1.0]]]


class TestRefuses:
    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"position_deviation": 0.0}, "position_deviation must be 0.1 to 10000, but is 0.0"),
            ({"colour_deviation": float("nan")}, "colour_deviation must be 0.1 to 10000, but is nan"),
            ({"appearance_weight": -1.0}, "appearance_weight must be 0 to 10000, but is -1.0"),
            ({"iterations": -1}, "iterations must be at least 0, but is -1"),
            ({"normalization": "rows"}, "normalization must be one of symmetric, pixel, none, but is 'rows'"),
            ({"filtering": "grid"}, "filtering must be one of lattice, exact, but is 'grid'"),
        ],
    )
    def test_parameters(self, changes: dict[str, object], message: str) -> None:
        with pytest.raises(UsageError, match=message):
            dataclasses.replace(DenseCRF(), **changes)

    @pytest.mark.parametrize(
        ("logits", "frame", "message"),
        [
            (scores(), picture()[:4], r"logits must be \(classes, 4, 10\) float32, of the frame's size"),
            (scores().astype(np.float64), picture(), r"but are \(3, 8, 10\) float64"),
            (scores(), picture()[..., 0], r"a frame must be \(H, W, 3\) uint8 RGB, but is \(8, 10\) uint8"),
            (np.full((3, 8, 10), np.inf, np.float32), picture(), "logits must be finite"),
            (np.zeros((257, 8, 10), np.float32), picture(), "1 to 256 classes, but are of 257"),
        ],
    )
    def test_arrays(self, logits: np.ndarray, frame: np.ndarray, message: str) -> None:
        with pytest.raises(ShapeError, match=message):
            DenseCRF()(logits, frame)
