from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from edgeseg.calibration.datasets import LabelledFrame
from edgeseg.calibration.frames import Frame
from edgeseg.calibration.scoring import check_classes, resize_nearest, score_labels
from edgeseg.errors import FrameError, LabelError, ShapeError
from edgeseg.labels import UNMAPPED, ClassMapping, LabelSet

THREE = LabelSet(("road", "car", "tree"), ((1, 1, 1), (2, 2, 2), (3, 3, 3)))
WITH_VOID = LabelSet((*THREE.names, "void"), (*THREE.palette, (0, 0, 0)), background=3)


def labelled(name: str, labels: list[list[int]]) -> LabelledFrame:
    array = np.array(labels, np.uint8)
    image = np.zeros((*array.shape, 3), np.uint8)
    image[0, 0] = len(name)
    return LabelledFrame(Frame(name, image), array)


def always(*maps: list[list[int]]) -> Callable[[NDArray[np.uint8]], NDArray[np.uint8]]:
    """A predictor that gives these class maps in turn."""
    waiting = iter(maps)
    return lambda image: np.array(next(waiting), np.uint8)


class TestScoreLabels:
    def test_one_confusion_matrix_over_all_frames(self) -> None:
        data = [labelled("a", [[0, 0], [1, 1]]), labelled("bb", [[0, 1], [255, 255]])]
        score = score_labels(always([[0, 1], [1, 1]], [[0, 0], [2, 2]]), data, THREE)
        assert score.confusion.tolist() == [[2, 1, 0, 0], [1, 2, 0, 0], [0, 0, 0, 0]]
        assert score.iou == {"road": pytest.approx(50.0), "car": pytest.approx(50.0), "tree": None}
        assert score.miou == pytest.approx(50.0)
        assert score.pixel_accuracy == pytest.approx(100 * 4 / 6)
        assert score.frame_accuracy == (75.0, 50.0)
        assert (score.frames, score.names) == (2, ("a", "bb"))
        assert score.digests == tuple(item.frame.digest for item in data)

    def test_boundary_iou_beside_the_confusion_matrix(self) -> None:
        """Of 6x6 pixels the ring of 20 counts at a width of one; one of them is wrong, and one inside it does not."""
        labels, found = np.zeros((6, 6), np.uint8), np.zeros((6, 6), np.uint8)
        found[0, 0] = found[2, 2] = 1
        data = [labelled("a", labels.tolist())]
        score = score_labels(always(found.tolist()), data, THREE, boundary=0.02)
        assert score.boundary is not None
        # The hole at (2, 2) has an outline too: around it four pixels of the ring inside the ring are near it.
        ring = np.ones((6, 6), bool)
        ring[1:5, 1:5] = False
        inner = ring.copy()
        inner[1:4, 1:4] = True
        inner[2, 2] = inner[0, 0] = False
        iou = 100 * (ring & inner).sum() / (ring | inner).sum()
        assert score.boundary.iou == {"road": pytest.approx(iou), "car": 0.0, "tree": None}
        assert score.boundary.mean == pytest.approx(iou / 2)
        assert (score.boundary.share, score.boundary.pixels) == (0.02, (1, 1))
        assert score_labels(always(found.tolist()), data, THREE).boundary is None

    def test_the_boundary_of_a_mapped_prediction(self) -> None:
        mapping = ClassMapping((0, 0, 1), LabelSet(("a", "b"), ((0, 0, 0), (1, 1, 1))))
        data = [labelled("a", [[0, 0, 1, 255]])]
        score = score_labels(always([[0, 1, 2, 2]]), data, THREE, mapping, boundary=0.5)
        assert score.boundary is not None
        assert score.boundary.iou == {"a": pytest.approx(100), "b": pytest.approx(100)}
        assert score.boundary.pixels == (2, 2)

    def test_the_interval_of_the_mean(self) -> None:
        data = [labelled(name, [[0, 0, 1, 1]]) for name in ("a", "bb", "ccc")]
        maps = [[[0, 0, 1, 1]], [[0, 0, 1, 0]], [[0, 0, 0, 0]]]
        score = score_labels(always(*maps), data, THREE)
        low, high = score.miou_interval or (math.nan, math.nan)
        assert (low, high) == pytest.approx((25, 100))  # the worst and the best frame three times over
        assert low < score.miou < high
        assert score_labels(always(*maps[:1]), data[:1], THREE).miou_interval is None

    def test_a_predicted_void_is_wrong(self) -> None:
        score = score_labels(always([[0, 3]]), [labelled("a", [[0, 0]])], WITH_VOID)
        assert score.confusion.tolist()[0] == [1, 0, 0, 1]
        assert score.iou["road"] == pytest.approx(50.0)
        assert "void" not in score.iou

    def test_an_ignored_label_that_is_also_a_void_prediction_does_not_count(self) -> None:
        labels = LabelSet(THREE.names, THREE.palette, ignore_index=3)
        score = score_labels(always([[0, 3]]), [labelled("a", [[0, 3]])], WITH_VOID, data_classes=labels)
        assert score.pixel_accuracy == 100.0
        assert score.frame_accuracy == (100.0,)

    def test_the_void_of_a_mapping_s_target_is_no_class(self) -> None:
        mapping = ClassMapping((0, 1, 3), WITH_VOID)
        score = score_labels(always([[0, 1, 2]]), [labelled("a", [[0, 1, 2]])], THREE, mapping, data_classes=WITH_VOID)
        assert score.confusion.tolist() == [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1]]
        assert list(score.iou) == list(THREE.names)

    def test_classes_are_mapped(self) -> None:
        mapping = ClassMapping((1, 0, UNMAPPED), THREE)
        score = score_labels(always([[0, 1, 2]]), [labelled("a", [[1, 0, 0]])], THREE, mapping)
        assert score.confusion.tolist()[:2] == [[1, 0, 0, 1], [0, 1, 0, 0]]

    def test_a_prediction_of_another_size_is_brought_to_the_labels(self) -> None:
        labels = [[0, 0, 1, 1], [0, 0, 1, 1]]
        assert score_labels(always([[0, 1]]), [labelled("a", labels)], THREE).miou == 100.0

    def test_tells_its_progress(self) -> None:
        told: list[int] = []
        data = [labelled("a", [[0]]), labelled("bb", [[0]])]
        score_labels(always([[0]], [[0]]), data, THREE, progress=told.append)
        assert told == [1, 1]

    def test_a_frame_without_a_labelled_pixel_has_no_accuracy_of_its_own(self) -> None:
        data = [labelled("a", [[255]]), labelled("bb", [[0]])]
        assert math.isnan(score_labels(always([[0]], [[0]]), data, THREE).frame_accuracy[0])

    def test_refuses_no_frames(self) -> None:
        with pytest.raises(FrameError, match="no labelled frame to score"):
            score_labels(always(), [], THREE)

    def test_refuses_labels_that_are_all_ignored(self) -> None:
        with pytest.raises(LabelError, match="none of the 1 label images has a pixel of one of the 3 classes"):
            score_labels(always([[0]]), [labelled("a", [[255]])], THREE)

    def test_refuses_an_unknown_label(self) -> None:
        with pytest.raises(LabelError, match="7"):
            score_labels(always([[0]]), [labelled("a", [[7]])], THREE)

    def test_refuses_what_is_no_class_map(self) -> None:
        with pytest.raises(ShapeError, match=r"must be \(H, W\) uint8, but got \(1, 1, 3\) float64"):
            score_labels(lambda image: np.zeros((1, 1, 3)), [labelled("a", [[0]])], THREE)  # type: ignore[arg-type, return-value]

    def test_refuses_labels_of_other_classes(self) -> None:
        other = LabelSet(("road", "car"), THREE.palette[:2])
        with pytest.raises(LabelError, match=r"network has 3 classes .* but the labels have 2 \(road, car\).*--map"):
            score_labels(always([[0]]), [labelled("a", [[0]])], THREE, data_classes=other)


class TestCheckClasses:
    def test_the_mapping_leads_to_the_scored_classes(self) -> None:
        target = LabelSet(("way", "thing"), THREE.palette[:2])
        assert check_classes(THREE, ClassMapping((0, 1, 1), target), None) is target

    def test_names_the_mapping_when_it_leads_elsewhere(self) -> None:
        target = LabelSet(("way", "thing"), THREE.palette[:2])
        with pytest.raises(LabelError, match=r"the mapping leads to 2 classes \(way, thing\)"):
            check_classes(THREE, ClassMapping((0, 1, 1), target), THREE)

    def test_the_ignore_index_is_that_of_the_labels(self) -> None:
        labels = LabelSet(THREE.names, THREE.palette, ignore_index=11)
        assert check_classes(WITH_VOID, None, labels).ignore_index == 11


@pytest.mark.parametrize(("height", "width"), [(2, 3), (7, 5), (360, 480), (512, 1024), (1, 1)])
def test_nearest_is_that_of_opencv(height: int, width: int) -> None:
    import cv2

    source = np.random.default_rng(0).integers(0, 19, (90, 120), np.uint8)
    expected = cv2.resize(source, (width, height), interpolation=cv2.INTER_NEAREST)
    assert np.array_equal(resize_nearest(source, height, width), expected)
