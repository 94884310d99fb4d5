"""Scores before and after, and the check that the canonical graph is still the given network."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from edgeseg.calibration.datasets import LabelledFrame
from edgeseg.calibration.frames import Frame
from edgeseg.converters.verify import WORST, verify
from edgeseg.errors import FrameError
from edgeseg.labels import ClassMapping, LabelSet

Image = NDArray[np.uint8]
CLASSES = LabelSet(("road", "sky"), ((128, 64, 128), (70, 130, 180)), ignore_index=255)


def frame(value: int) -> Frame:
    return Frame(f"frame{value}", np.full((4, 5, 3), value, np.uint8))


def zeros(image: Image) -> Image:
    return np.zeros(image.shape[:2], np.uint8)


def ones_in(columns: int) -> Image:
    result = np.zeros((4, 5), np.uint8)
    result[:, :columns] = 1
    return result


def test_agreement_without_labels() -> None:
    pairs = [(frame(value), None) for value in range(3)]
    found = verify(zeros, lambda image: ones_in(int(image[0, 0, 0])), pairs, CLASSES)
    # 0, 1 and 2 of 5 columns differ.
    assert found.scores.metric == "agreement"
    assert found.scores.float_score == 100
    assert found.scores.int8_score == pytest.approx(80.0)
    assert found.scores.drop == pytest.approx(20.0)
    assert found.scores.frame_names == ("frame0", "frame1", "frame2")
    assert found.scores.int8_iou["road"] == pytest.approx(80.0)


def test_miou_with_labels_and_ignored_pixels() -> None:
    labels = ones_in(2)
    labels[0] = 255
    pairs = [(frame(0), LabelledFrame(frame(0), labels))]
    found = verify(lambda image: ones_in(2), lambda image: ones_in(1), pairs, CLASSES)
    assert found.scores.metric == "miou"
    assert found.scores.float_score == pytest.approx(100.0)
    # INT8: sky 3 of 6 labelled pixels found; road 9 right of 9 labelled and 3 more predicted.
    assert found.scores.int8_iou == pytest.approx({"road": 75.0, "sky": 50.0})
    assert found.agreement == pytest.approx(80.0)


def test_mapping_to_the_classes_of_the_labels() -> None:
    target = LabelSet(("only",), ((1, 2, 3),), ignore_index=255)
    mapping = ClassMapping((0, 255), target)
    pairs = [(frame(0), LabelledFrame(frame(0), zeros(frame(0).image)))]
    found = verify(zeros, lambda image: ones_in(1), pairs, CLASSES, mapping)
    assert (found.scores.float_score, found.scores.int8_score) == (pytest.approx(100), pytest.approx(80))


def test_worst_frames_come_first_and_are_few() -> None:
    pairs = [(frame(value), None) for value in (1, 5, 0, 3, 2, 4)]
    found = verify(zeros, lambda image: ones_in(int(image[0, 0, 0])), pairs, CLASSES)
    assert len(found.worst) == WORST
    assert [w.name for w in found.worst] == ["frame5", "frame4", "frame3", "frame2"]
    assert found.worst[0].agreement == 0


def test_the_interval_of_the_drop_is_that_of_the_same_resampled_frames() -> None:
    """Of one class, INT8 has a fifth of each frame more wrong than float, whose frames differ widely."""
    names = LabelSet(("road",), ((128, 64, 128),), ignore_index=255)
    mapping = ClassMapping((0, 255), names)
    pairs = [(frame(value), LabelledFrame(frame(value), zeros(frame(value).image))) for value in (0, 1, 2, 3, 4)]
    found = verify(
        lambda image: ones_in(int(image[0, 0, 0])),
        lambda image: ones_in(int(image[0, 0, 0]) + 1),
        pairs,
        CLASSES,
        mapping,
    )
    assert found.scores.drop == pytest.approx(20)
    assert found.scores.drop_interval == pytest.approx((20, 20))
    assert found.intervals is not None
    assert found.intervals.float_score[1] - found.intervals.float_score[0] > 30


def test_the_interval_of_agreement() -> None:
    pairs = [(frame(value), None) for value in range(5)]
    found = verify(zeros, lambda image: ones_in(int(image[0, 0, 0])), pairs, CLASSES)
    assert found.scores.drop_interval is not None
    low, high = found.scores.drop_interval
    assert found.scores.drop == pytest.approx(40)
    assert 0 < low < 40 < high < 80
    assert found.intervals is not None
    assert found.intervals.int8_score == pytest.approx((100 - high, 100 - low))
    assert verify(zeros, zeros, pairs[:1], CLASSES).scores.drop_interval is None


def test_progress_counts_frames() -> None:
    seen: list[int] = []
    verify(zeros, zeros, [(frame(0), None), (frame(1), None)], CLASSES, progress=seen.append)
    assert seen == [1, 1]


def test_no_frame_left() -> None:
    with pytest.raises(FrameError, match=r"no frame is left to score: .* --score-frames DIR"):
        verify(zeros, zeros, [], CLASSES)
