"""Random views of labelled frames: geometry, border, colour, and what decides them."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from support.training import LABELS, blocks, colour_of

from edgeseg.errors import UsageError
from edgeseg.training.augment import Augmentation, random_crop

IGNORED = 255
STILL = Augmentation((1.0, 1.0), mirror=False, color=0.0)


def crop(
    labels: NDArray[np.uint8], size: tuple[int, int], augmentation: Augmentation, seed: int = 0
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    random = np.random.default_rng(seed)
    return random_crop(colour_of(labels), labels, size, augmentation, random, IGNORED)


def nearest_class(view: NDArray[np.uint8]) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """The class whose colour is nearest, and whether no other is about as near: half-way mixes tell nothing."""
    distances = np.square(view[:, :, None].astype(int) - np.array(LABELS.palette)).sum(-1)
    ranked = np.sort(distances, -1)
    return distances.argmin(-1), ranked[..., 0] * 1.15 < ranked[..., 1]


class TestGeometry:
    @pytest.mark.parametrize("size", [(60, 80), (96, 128), (33, 71), (120, 90)])
    @pytest.mark.parametrize("scale", [(1.0, 1.0), (0.5, 0.8), (1.3, 2.5)])
    @pytest.mark.parametrize("mirror", [False, True])
    def test_image_and_labels_stay_aligned(
        self, size: tuple[int, int], scale: tuple[float, float], mirror: bool
    ) -> None:
        for seed in range(4):
            view, truth = crop(blocks(seed, 64, 96, 8), size, Augmentation(scale, mirror, 0.0), seed)
            assert view.shape == (*size, 3)
            classes, clear = nearest_class(view)
            # At the border the frame is mixed with it.
            clear &= cv2.erode((truth != IGNORED).astype(np.uint8), np.ones((3, 3)), borderValue=1) > 0
            assert clear.mean() > 0.1
            assert (classes == truth)[clear].mean() > 0.99

    @pytest.mark.parametrize("size", [(48, 64), (120, 200), (100, 64)])
    def test_zoom_1_is_the_frame_as_inference_resizes_it(self, size: tuple[int, int]) -> None:
        labels = blocks(0, 50, 70, 5)
        view, truth = crop(labels, size, STILL)
        resized = cv2.resize(colour_of(labels), size[::-1], interpolation=cv2.INTER_LINEAR)
        # OpenCV warps with weights of 1/32.
        assert np.abs(view.astype(int) - resized).max() <= 200 / 32 + 1
        assert (truth != IGNORED).all()

    def test_nothing_changes_at_the_frames_own_size(self) -> None:
        labels = blocks(0)
        view, truth = crop(labels, labels.shape, STILL)
        assert np.array_equal(view, colour_of(labels))
        assert np.array_equal(truth, labels)

    def test_mirrors_half_of_the_views(self) -> None:
        labels = blocks(0)
        mirrored = []
        for seed in range(40):
            view, truth = crop(labels, labels.shape, Augmentation((1.0, 1.0), True, 0.0), seed)
            mirrored.append(np.array_equal(truth, labels[:, ::-1]))
            expected = labels[:, ::-1] if mirrored[-1] else labels
            assert np.array_equal(truth, expected)
            assert np.array_equal(view, colour_of(expected))
        assert 10 < sum(mirrored) < 30

    def test_what_lies_outside_the_frame_is_ignored(self) -> None:
        labels = np.zeros((20, 30), np.uint8)
        image = np.full((20, 30, 3), (10, 20, 30), np.uint8)
        image[:10] = 50, 60, 70
        view, truth = random_crop(
            image, labels, (40, 60), Augmentation((0.5, 0.5), False, 0.0), np.random.default_rng(0), IGNORED
        )
        assert (truth == 0).sum() == 20 * 30
        assert set(np.unique(truth)) == {0, IGNORED}
        rows, columns = np.flatnonzero((truth == 0).any(1)), np.flatnonzero((truth == 0).any(0))
        assert (len(rows), len(columns)) == (20, 30)
        assert (view[truth == IGNORED].reshape(-1, 3) == (30, 40, 50)).mean() > 0.9

    def test_an_enlarged_frame_has_no_border(self) -> None:
        for seed in range(10):
            _, truth = crop(blocks(1), (24, 32), Augmentation((1.0, 3.0), True, 0.0), seed)
            assert (truth != IGNORED).all()

    def test_the_edge_is_not_mixed_with_a_border(self) -> None:
        image, labels = np.full((10, 10, 3), 200, np.uint8), np.zeros((10, 10), np.uint8)
        view, _ = random_crop(image, labels, (40, 40), STILL, np.random.default_rng(0), IGNORED)
        assert (view == 200).all()


class TestColor:
    def test_changes_the_image_alone(self) -> None:
        labels = blocks(2)
        view, truth = crop(labels, labels.shape, Augmentation((1.0, 1.0), False, 0.5))
        assert not np.array_equal(view, colour_of(labels))
        assert np.array_equal(truth, labels)

    def test_stays_within_its_bounds(self) -> None:
        grey = np.full((4, 4, 3), 100, np.uint8)
        means = [
            random_crop(
                grey,
                np.zeros((4, 4), np.uint8),
                (4, 4),
                Augmentation((1.0, 1.0), False, 0.2),
                np.random.default_rng(seed),
                IGNORED,
            )[0].mean()
            for seed in range(50)
        ]
        # Of a grey image contrast moves nothing but what brightness did: 0.8 * 0.8 to 1.2 * 1.2 about the mean.
        assert 100 - 24.5 <= min(means) < 90
        assert 110 < max(means) <= 100 + 24.5


class TestDecision:
    def test_the_generator_alone_decides(self) -> None:
        labels = blocks(3)
        views = [crop(labels, (24, 32), Augmentation(), seed)[0] for seed in (5, 5, 6)]
        assert np.array_equal(views[0], views[1])
        assert not np.array_equal(views[0], views[2])

    @pytest.mark.parametrize("scale", [(0.0, 1.0), (2.0, 1.0), (1.0, float("inf")), (float("nan"), 1.0), (-1.0, 1.0)])
    def test_refuses_a_scale(self, scale: tuple[float, float]) -> None:
        with pytest.raises(UsageError, match="the scale of crops must be two numbers, 0 < smallest <= largest"):
            Augmentation(scale)

    @pytest.mark.parametrize("color", [-0.1, 1.0, float("nan")])
    def test_refuses_a_change_of_colour(self, color: float) -> None:
        with pytest.raises(UsageError, match="the change of colour must be 0 or up to 1, but is"):
            Augmentation(color=color)
