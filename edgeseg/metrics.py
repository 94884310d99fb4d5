"""How right a class map is: a confusion matrix over any number of frames, and the scores read from it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgeseg.errors import LabelError, ShapeError

__all__ = ["ConfusionMatrix"]


class ConfusionMatrix:
    """Counts pixels by labelled and predicted class.

    One matrix is filled with all frames of a data set before a score is read from it, as PASCAL VOC and Cityscapes do;
    the mean of the scores of single frames is another number.

    Args:
        classes: number of classes that can be labelled, 1..255.
    """

    def __init__(self, classes: int) -> None:
        if not 1 <= classes <= 255:
            raise LabelError(f"a confusion matrix has 1 to 255 classes, but {classes} were asked for")
        self.classes = classes
        self._matrix = np.zeros((classes, classes + 1), np.int64)
        self._ignored: set[int] = set()

    @property
    def matrix(self) -> NDArray[np.int64]:
        """(classes, classes + 1) int64 copy: pixels by label (row) and prediction (column).

        The last column counts predictions that are none of the classes: a void channel, or a class without a
        counterpart in the labels. They are wrong for the class that is labelled.
        """
        copy: NDArray[np.int64] = self._matrix.copy()
        return copy

    def add(self, labels: NDArray[np.uint8], prediction: NDArray[np.uint8], ignore_index: int | None) -> None:
        """Count one frame.

        Args:
            labels: (H, W) uint8 class indices.
            prediction: (H, W) uint8 class indices; values from `classes` on stand for none of the classes.
            ignore_index: label value whose pixels are not counted; None to count all. A class with this index is never
                labelled, so it has no score, and predicting it is wrong.

        Raises:
            ShapeError: for arrays of another type, dimension or of different sizes.
            LabelError: for a label that is neither a class nor `ignore_index`.
        """
        if labels.shape != prediction.shape or labels.ndim != 2:
            raise ShapeError(f"labels and prediction must be (H, W), but are {labels.shape} and {prediction.shape}")
        if labels.dtype != np.uint8 or prediction.dtype != np.uint8:
            raise ShapeError(f"labels and prediction must be uint8, but are {labels.dtype} and {prediction.dtype}")
        # One count over (label, prediction) pairs is a single pass; unwanted labels are dropped from its small result.
        pairs = np.bincount((labels.astype(np.uint16) << 8 | prediction).reshape(-1), minlength=65536).reshape(256, 256)
        if ignore_index is not None:
            pairs[ignore_index] = 0
            self._ignored.update({ignore_index} & set(range(self.classes)))
        unknown = np.flatnonzero(pairs[self.classes :].any(axis=1)) + self.classes
        if unknown.size:
            value = int(unknown[0])
            ignored = "nothing is" if ignore_index is None else f"{ignore_index} is"
            raise LabelError(
                f"labels must be 0..{self.classes - 1} ({ignored} ignored), but {int(pairs[value].sum())} pixels have "
                f"the value {value}; give the label set and mapping of these labels"
            )
        self._matrix[:, : self.classes] += pairs[: self.classes, : self.classes]
        self._matrix[:, self.classes] += pairs[: self.classes, self.classes :].sum(axis=1)

    def iou(self) -> NDArray[np.float64]:
        """(classes,) float64, 0..1: intersection over union; NaN for a class that is ignored or neither labelled nor
        predicted."""
        hits = np.diagonal(self._matrix).astype(np.float64)
        labelled = self._matrix.sum(axis=1)
        predicted = self._matrix[:, : self.classes].sum(axis=0)
        union = labelled + predicted - hits
        iou: NDArray[np.float64] = np.full(self.classes, np.nan)
        np.divide(hits, union, out=iou, where=union > 0)
        iou[list(self._ignored)] = np.nan
        return iou

    def mean_iou(self) -> float:
        """Mean of `iou` over the classes that have one, 0..1; NaN when none has."""
        iou = self.iou()
        present = iou[~np.isnan(iou)]
        return float(present.mean()) if present.size else float("nan")

    def pixel_accuracy(self) -> float:
        """Share of the counted pixels whose prediction is right, 0..1; NaN when no pixel was counted."""
        total = int(self._matrix.sum())
        return float(np.trace(self._matrix) / total) if total else float("nan")
