"""Boundary IoU: how right a class map is near the outlines of its regions.

Cheng, Girshick, Dollar, Berg, Kirillov, *Boundary IoU: Improving Object-Centric Image Segmentation Evaluation*, CVPR
2021. The paper counts masks of objects; here the two masks are those of a class in a frame, and as for mean IoU one sum
runs over all frames.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeseg.errors import LabelError, ShapeError, UsageError
from edgeseg.libraries import require

__all__ = ["DILATION", "BoundaryScore", "boundary"]

DILATION = 0.02
"""Width of the boundary as a share of the frame's diagonal, as the paper has it."""


def boundary(mask: NDArray[np.bool_], width: int) -> NDArray[np.bool_]:
    """The pixels of a mask within a distance of its outline; the frame's edge is outline too, as in the authors' code.

    Args:
        mask: (H, W) bool.
        width: in pixels, by steps to the 8 neighbours.
    """
    cv2: Any = require("cv2", "find boundaries")
    padded = np.pad(mask.astype(np.uint8), 1)
    inner = cv2.erode(padded, np.ones((3, 3), np.uint8), iterations=width)[1:-1, 1:-1]
    found: NDArray[np.bool_] = mask & (inner == 0)
    return found


class BoundaryScore:
    """Sums the boundaries that labels and predictions share, by class.

    Args:
        classes: number of classes that can be labelled, 1..255.
        dilation: width of the boundary as a share of the diagonal, at least one pixel.

    Attributes:
        widths: smallest and largest width of the frames so far, in pixels; None before the first.
    """

    def __init__(self, classes: int, dilation: float = DILATION) -> None:
        if not 1 <= classes <= 255:
            raise LabelError(f"a boundary score has 1 to 255 classes, but {classes} were asked for")
        if not 0 < dilation <= 1:
            raise UsageError(f"dilation is a share of the diagonal, above 0 and at most 1, but is {dilation}")
        self.classes, self.dilation = classes, dilation
        self.widths: tuple[int, int] | None = None
        self._shared = np.zeros(classes, np.int64)
        self._either = np.zeros(classes, np.int64)

    def add(self, labels: NDArray[np.uint8], prediction: NDArray[np.uint8], ignore_index: int | None) -> None:
        """Count one frame.

        Ignored pixels are taken out of the prediction's masks too, so that a region that ends at them has the same
        outline there on both sides.

        Args:
            labels, prediction: (H, W) uint8 class indices; values from `classes` on stand for none of the classes.
            ignore_index: label value whose pixels are not counted; None to count all.

        Raises:
            ShapeError: for arrays of another type, dimension or of different sizes.
        """
        if (
            labels.shape != prediction.shape
            or labels.ndim != 2
            or labels.dtype != np.uint8
            or prediction.dtype != np.uint8
        ):
            raise ShapeError(
                f"labels and prediction must be (H, W) uint8, but are {labels.shape} {labels.dtype} and "
                f"{prediction.shape} {prediction.dtype}"
            )
        width = max(1, round(self.dilation * float(np.hypot(*labels.shape))))
        narrowest, widest = self.widths or (width, width)
        self.widths = min(width, narrowest), max(width, widest)
        counted = labels != (256 if ignore_index is None else ignore_index)
        for index in range(self.classes):
            truth, found = (labels == index) & counted, (prediction == index) & counted
            if truth.any() or found.any():
                truth, found = boundary(truth, width), boundary(found, width)
                self._shared[index] += np.count_nonzero(truth & found)
                self._either[index] += np.count_nonzero(truth | found)

    def iou(self) -> NDArray[np.float64]:
        """(classes,) float64, 0..1; NaN for a class that is neither labelled nor predicted."""
        iou: NDArray[np.float64] = np.full(self.classes, np.nan)
        np.divide(self._shared, self._either, out=iou, where=self._either > 0)
        return iou

    def mean_iou(self) -> float:
        """Mean of `iou` over the classes that have one, 0..1; NaN when none has."""
        present = self.iou()[self._either > 0]
        return float(present.mean()) if present.size else float("nan")
