"""The confusion matrix and its scores."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from edgeseg.errors import LabelError, ShapeError
from edgeseg.metrics import ConfusionMatrix


def image(*rows: list[int]) -> NDArray[np.uint8]:
    return np.array(rows, np.uint8)


def test_by_hand() -> None:
    matrix = ConfusionMatrix(3)
    matrix.add(image([0, 0, 1], [1, 2, 255]), image([0, 1, 1], [1, 0, 2]), 255)
    assert matrix.matrix.tolist() == [[1, 1, 0, 0], [0, 2, 0, 0], [1, 0, 0, 0]]
    assert matrix.iou().tolist() == [1 / 3, 2 / 3, 0]
    assert matrix.mean_iou() == pytest.approx(1 / 3)
    assert matrix.pixel_accuracy() == 3 / 5


def test_frames_are_summed_before_a_score_is_read() -> None:
    random = np.random.default_rng(0)
    labels = random.integers(0, 4, (6, 20, 30), dtype=np.uint8)
    prediction = random.integers(0, 4, (6, 20, 30), dtype=np.uint8)
    single, whole = ConfusionMatrix(4), ConfusionMatrix(4)
    for one, other in zip(labels, prediction, strict=True):
        single.add(one, other, None)
    whole.add(labels.reshape(-1, 30), prediction.reshape(-1, 30), None)
    assert np.array_equal(single.matrix, whole.matrix)
    expected = [np.sum((labels == c) & (prediction == c)) / np.sum((labels == c) | (prediction == c)) for c in range(4)]
    assert single.iou() == pytest.approx(expected)
    assert single.pixel_accuracy() == pytest.approx(np.mean(labels == prediction))


def test_predictions_of_no_class_are_wrong_for_the_labelled_class() -> None:
    matrix = ConfusionMatrix(2)
    matrix.add(image([0, 0, 1, 1]), image([0, 2, 255, 1]), None)
    assert matrix.matrix.tolist() == [[1, 0, 1], [0, 1, 1]]
    assert matrix.iou().tolist() == [0.5, 0.5]
    assert matrix.pixel_accuracy() == 0.5


def test_ignored_pixels_do_not_count_whatever_is_predicted() -> None:
    """CamVid's void is the index right after the classes."""
    matrix = ConfusionMatrix(11)
    matrix.add(image([11, 11, 3]), image([11, 3, 3]), 11)
    assert matrix.matrix.sum() == 1
    assert matrix.iou()[3] == 1
    matrix.add(image([3, 3, 3]), image([11, 11, 11]), 11)
    assert matrix.iou()[3] == 0.25


def test_an_ignored_class_is_not_counted() -> None:
    matrix = ConfusionMatrix(2)
    matrix.add(image([0, 1]), image([1, 1]), 0)
    assert matrix.matrix.tolist() == [[0, 0, 0], [0, 1, 0]]


def test_an_ignored_class_has_no_score_but_predicting_it_is_wrong() -> None:
    matrix = ConfusionMatrix(3)
    matrix.add(image([0, 1, 1, 2, 2, 2]), image([0, 1, 0, 2, 2, 2]), 0)
    iou = matrix.iou()
    assert math.isnan(iou[0])
    assert iou[1:].tolist() == [0.5, 1]
    assert matrix.mean_iou() == 0.75


def test_classes_that_do_not_come_have_no_score() -> None:
    matrix = ConfusionMatrix(3)
    matrix.add(image([0, 0]), image([0, 1]), None)
    iou = matrix.iou()
    assert iou[:2].tolist() == [0.5, 0]
    assert math.isnan(iou[2])
    assert matrix.mean_iou() == 0.25


def test_nothing_counted() -> None:
    matrix = ConfusionMatrix(3)
    assert np.isnan(matrix.iou()).all()
    assert math.isnan(matrix.mean_iou())
    assert math.isnan(matrix.pixel_accuracy())


def test_the_matrix_given_out_is_a_copy() -> None:
    matrix = ConfusionMatrix(2)
    matrix.matrix[0, 0] = 5
    assert matrix.matrix.sum() == 0


def test_unknown_labels_are_named_and_nothing_is_counted() -> None:
    matrix = ConfusionMatrix(3)
    with pytest.raises(LabelError, match=r"labels must be 0\.\.2 \(255 is ignored\), but 2 pixels have the value 7"):
        matrix.add(image([0, 7, 7, 255, 9]), image([0, 0, 0, 0, 0]), 255)
    with pytest.raises(LabelError, match=r"\(nothing is ignored\), but 1 pixels have the value 255"):
        matrix.add(image([0, 255]), image([0, 0]), None)
    assert matrix.matrix.sum() == 0


def test_wrong_arrays() -> None:
    matrix = ConfusionMatrix(3)
    with pytest.raises(ShapeError, match=r"must be \(H, W\), but are \(1, 2\) and \(1, 3\)"):
        matrix.add(image([0, 0]), image([0, 0, 0]), None)
    with pytest.raises(ShapeError, match="must be uint8, but are uint8 and int64"):
        matrix.add(image([0, 0]), np.zeros((1, 2), np.int64), None)  # type: ignore[arg-type]


@pytest.mark.parametrize("classes", [0, 256])
def test_number_of_classes(classes: int) -> None:
    with pytest.raises(LabelError, match=f"1 to 255 classes, but {classes} were asked for"):
        ConfusionMatrix(classes)


def test_255_classes() -> None:
    matrix = ConfusionMatrix(255)
    matrix.add(image([254, 254, 255]), image([254, 255, 3]), 255)
    assert matrix.iou()[254] == 0.5
