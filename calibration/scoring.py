"""How right a predictor is on labelled frames: mean IoU, IoU by class, pixel accuracy and, if asked, boundary IoU.

The protocol: a prediction is brought to the size of its label image by nearest neighbour, one confusion matrix runs
over all frames, pixels with the ignore index do not count, and a prediction that stands for no class (a void channel,
or a class without a counterpart in the mapping) is wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeseg.boundary import BoundaryScore
from edgeseg.calibration.bootstrap import class_counts, score_interval
from edgeseg.calibration.datasets import LabelledFrame
from edgeseg.errors import FrameError, LabelError, ShapeError
from edgeseg.labels import ClassMapping, LabelSet
from edgeseg.metrics import ConfusionMatrix

__all__ = ["BoundaryIoU", "Predictor", "Score", "check_classes", "resize_nearest", "score_labels"]

Predictor = Callable[[NDArray[np.uint8]], NDArray[np.uint8]]
"""Takes a frame, (H, W, 3) uint8 RGB, and gives its class map, (h, w) uint8, of any size."""


@dataclass(frozen=True)
class BoundaryIoU:
    """Accuracy near outlines; see `edgeseg.boundary`.

    Attributes:
        mean: over the classes that have a labelled or predicted pixel, 0..100.
        iou: by class name, 0..100; None for a class without a labelled or predicted pixel.
        share: width of the boundary over a frame's diagonal.
        pixels: that width in the smallest and in the largest frame.
    """

    mean: float
    iou: dict[str, float | None]
    share: float
    pixels: tuple[int, int]


@dataclass(frozen=True)
class Score:
    """Accuracy against labels.

    Attributes:
        miou: mean IoU over the classes that have a labelled or predicted pixel, 0..100.
        iou: IoU by class name, 0..100; None for a class without a labelled or predicted pixel.
        pixel_accuracy: share of the labelled pixels that are right, 0..100.
        confusion: (classes, classes + 1) int64, labelled class by row, predicted class by column; the last column
            counts predictions that stand for none of the classes.
        frame_accuracy: share of right pixels of each frame, 0..100; NaN for a frame without a labelled pixel.
        names: names of the frames, in order.
        digests: SHA-256 of their pixels.
        miou_interval: low and high end of the 95 % interval of `miou`, by bootstrap over the frames; None for fewer
            than two frames.
        boundary: boundary IoU, where it was asked for.
    """

    miou: float
    iou: dict[str, float | None]
    pixel_accuracy: float
    confusion: NDArray[np.int64]
    frame_accuracy: tuple[float, ...]
    names: tuple[str, ...]
    digests: tuple[str, ...]
    miou_interval: tuple[float, float] | None = None
    boundary: BoundaryIoU | None = None

    @property
    def frames(self) -> int:
        """Number of frames scored."""
        return len(self.names)


def score_labels(
    predict: Predictor,
    data: Iterable[LabelledFrame],
    classes: LabelSet,
    mapping: ClassMapping | None = None,
    *,
    data_classes: LabelSet | None = None,
    boundary: float | None = None,
    progress: Callable[[int], None] = lambda units: None,
) -> Score:
    """Score a predictor against labels.

    Args:
        predict: the predictor; its class map may have any size.
        data: frames with label images, (H, W) uint8 class indices.
        classes: classes of the predictor; a void channel among them is never right.
        mapping: brings the predictor's classes to those of the labels, where they differ.
        data_classes: classes of the labels as the data set names them; by default the attribute `label_set` of `data`,
            and where that is missing or None, the labels are taken to hold the predictor's (or mapped) classes.
        boundary: score boundary IoU too, within this share of a frame's diagonal of an outline.
        progress: called with 1 after every frame.

    Raises:
        LabelError: when the predictor's classes are not those of the labels, or a label value is unknown.
        FrameError: when there is no frame.
        ShapeError: when the predictor gives no class map.
        UsageError: for a share that is not above 0 and at most 1.
    """
    if data_classes is None:
        data_classes = getattr(data, "label_set", None)
    scored = check_classes(classes, mapping, data_classes)
    total = ConfusionMatrix(len(scored))
    outlines = None if boundary is None else BoundaryScore(len(scored), boundary)
    accuracy, names, digests, counts = [], [], [], []
    for item in data:
        prediction = _class_map(predict(item.frame.image))
        if mapping is not None:
            prediction = mapping(prediction)
        prediction = resize_nearest(prediction, item.labels.shape[0], item.labels.shape[1])
        before = total.matrix
        total.add(item.labels, prediction, scored.ignore_index)
        if outlines is not None:
            outlines.add(item.labels, prediction, scored.ignore_index)
        counts.append(class_counts(total.matrix - before, scored.ignore_index))
        accuracy.append(_accuracy(item.labels, prediction, scored.ignore_index))
        names.append(item.frame.name)
        digests.append(item.frame.digest)
        progress(1)
    if not names:
        raise FrameError("there is no labelled frame to score; check the data set's folder and split")
    if not total.matrix.any():
        raise LabelError(f"none of the {len(names)} label images has a pixel of one of the {len(scored)} classes")
    return Score(
        miou=100.0 * total.mean_iou(),
        iou=_by_class(scored, total.iou()),
        pixel_accuracy=100.0 * total.pixel_accuracy(),
        confusion=total.matrix,
        frame_accuracy=tuple(accuracy),
        names=tuple(names),
        digests=tuple(digests),
        miou_interval=score_interval(counts),
        boundary=None if outlines is None else _boundary_iou(outlines, scored),
    )


def check_classes(classes: LabelSet, mapping: ClassMapping | None, data_classes: LabelSet | None) -> LabelSet:
    """The label set that a score is over.

    Args:
        classes: classes of the predictor.
        mapping: from these classes to the labels', or None.
        data_classes: classes of the labels, or None where the data set does not name them.

    Raises:
        LabelError: when the predictor's (mapped) classes are not those of the labels.
    """
    scored = (classes if mapping is None else mapping.target).classes()
    if data_classes is None:
        return scored
    labelled = data_classes.classes()
    if scored.names != labelled.names:
        what = "the mapping leads to" if mapping is not None else "the network has"
        raise LabelError(
            f"{what} {len(scored)} classes ({_listing(scored)}), but the labels have {len(labelled)} "
            f"({_listing(labelled)}); give the classes with --classes or a mapping with --map"
        )
    return labelled


def resize_nearest(class_map: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """Bring a (h, w) class map to another size; row y takes source row floor(y * h / height), as cv2.INTER_NEAREST."""
    if class_map.shape == (height, width):
        return class_map
    rows = np.arange(height) * class_map.shape[0] // height
    columns = np.arange(width) * class_map.shape[1] // width
    resized: NDArray[np.uint8] = class_map[rows[:, None], columns[None, :]]
    return resized


def _by_class(scored: LabelSet, iou: NDArray[np.float64]) -> dict[str, float | None]:
    """IoU in 0..100 by class name; None where there is none."""
    values = (100.0 * iou).tolist()
    return {name: None if np.isnan(value) else value for name, value in zip(scored.names, values, strict=True)}


def _boundary_iou(outlines: BoundaryScore, scored: LabelSet) -> BoundaryIoU:
    assert outlines.widths is not None  # of the frames, of which there is one at least
    return BoundaryIoU(
        100.0 * outlines.mean_iou(), _by_class(scored, outlines.iou()), outlines.dilation, outlines.widths
    )


def _class_map(prediction: NDArray[np.uint8]) -> NDArray[np.uint8]:
    if prediction.ndim != 2 or prediction.dtype != np.uint8 or not prediction.size:
        raise ShapeError(f"a class map must be (H, W) uint8, but got {prediction.shape} {prediction.dtype}")
    return prediction


def _accuracy(labels: NDArray[np.uint8], prediction: NDArray[np.uint8], ignore_index: int | None) -> float:
    right = int(np.count_nonzero(labels == prediction))
    if ignore_index is None:
        return 100.0 * right / labels.size
    ignored = labels == ignore_index
    right -= int(np.count_nonzero(ignored & (prediction == ignore_index)))
    counted = labels.size - int(np.count_nonzero(ignored))
    return 100.0 * right / counted if counted else float("nan")


def _listing(classes: LabelSet) -> str:
    shown = ", ".join(classes.names[:4])
    return shown if len(classes) <= 4 else f"{shown}, ..."
