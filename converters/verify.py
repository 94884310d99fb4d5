"""The proof: the float and the INT8 network on frames that calibration never saw, side by side in one pass."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from edgeseg.calibration.bootstrap import ScoreIntervals, class_counts, score_intervals
from edgeseg.calibration.datasets import LabelledFrame
from edgeseg.calibration.frames import Frame
from edgeseg.calibration.scoring import Predictor, resize_nearest
from edgeseg.converters.report import WorstFrame
from edgeseg.errors import FrameError
from edgeseg.labels import ClassMapping, LabelSet
from edgeseg.manifest import Scores
from edgeseg.metrics import ConfusionMatrix

__all__ = ["WORST", "Verification", "verify"]

WORST = 4
"""Frames shown in the report: those on which the two networks differ most."""


@dataclass(frozen=True)
class Verification:
    """Scores before and after quantization, how sure they are, and the frames that differ most.

    Attributes:
        scores: of both networks.
        agreement: share of the pixels with the same class in both maps, 0..100.
        worst: the frames with the least agreement, the worst first.
        intervals: of the scores, by bootstrap over the frames; None for a single frame.
    """

    scores: Scores
    agreement: float
    worst: tuple[WorstFrame, ...]
    intervals: ScoreIntervals | None = None


@dataclass
class _Tally:
    """What one pass over the frames adds up."""

    float_matrix: ConfusionMatrix
    int8_matrix: ConfusionMatrix
    names: list[str] = field(default_factory=list)
    digests: list[str] = field(default_factory=list)
    equal: int = 0
    pixels: int = 0
    worst: list[tuple[float, int, WorstFrame]] = field(default_factory=list)
    float_counts: list[NDArray[np.int64]] = field(default_factory=list)
    int8_counts: list[NDArray[np.int64]] = field(default_factory=list)

    def note(self, frame: Frame, float_map: NDArray[np.uint8], int8_map: NDArray[np.uint8]) -> None:
        equal = int(np.count_nonzero(float_map == int8_map))
        self.equal += equal
        self.pixels += float_map.size
        share = 100.0 * equal / float_map.size
        # A heap of the negated share keeps the worst few frames without holding all images.
        entry = (-share, len(self.names), WorstFrame(frame.name, share, frame.image, float_map, int8_map))
        if len(self.worst) < WORST:
            heapq.heappush(self.worst, entry)
        else:
            heapq.heappushpop(self.worst, entry)
        self.names.append(frame.name)
        self.digests.append(frame.digest)

    def compare(self, float_map: NDArray[np.uint8], int8_map: NDArray[np.uint8]) -> None:
        """Count a frame without labels: the float network's map is the truth."""
        self.int8_matrix.add(float_map, int8_map, None)
        pixels, equal = float_map.size, int(np.count_nonzero(float_map == int8_map))
        # Agreement is the IoU of a single class: the share of equal pixels.
        self.float_counts.append(np.array([[pixels], [pixels]], np.int64))
        self.int8_counts.append(np.array([[equal], [pixels]], np.int64))

    def score(
        self,
        labels: NDArray[np.uint8],
        predictions: tuple[NDArray[np.uint8], NDArray[np.uint8]],
        mapping: ClassMapping | None,
        ignore_index: int | None,
    ) -> None:
        """Count a frame with labels: the float and the INT8 network's map against them."""
        sides = ((self.float_matrix, self.float_counts), (self.int8_matrix, self.int8_counts))
        for (matrix, counts), prediction in zip(sides, predictions, strict=True):
            mapped = prediction if mapping is None else mapping(prediction)
            before = matrix.matrix
            matrix.add(labels, resize_nearest(mapped, labels.shape[0], labels.shape[1]), ignore_index)
            counts.append(class_counts(matrix.matrix - before, ignore_index))


def verify(
    float_network: Predictor,
    int8_network: Predictor,
    frames: Iterable[tuple[Frame, LabelledFrame | None]],
    classes: LabelSet,
    mapping: ClassMapping | None = None,
    progress: Callable[[int], None] = lambda units: None,
) -> Verification:
    """Score both networks.

    Args:
        float_network, int8_network: take a frame (H, W, 3) uint8 RGB, give its class map (H, W) uint8.
        frames: frames, all with labels or all without.
        classes: classes of the network.
        mapping: from them to the classes of the labels, where they differ.
        progress: called with 1 after every frame.

    Returns:
        With labels the mean IoU of both; without, the share of pixels on which INT8 agrees with float, and the IoU of
        each class against the float network's own map.

    Raises:
        FrameError: when there is no frame.
        LabelError: for label values that the classes do not have.
    """
    # Without labels, the truth of a frame is the float network's own class map, void channel included.
    labelled = (classes if mapping is None else mapping.target).classes()
    tally: _Tally | None = None
    with_labels = False
    for frame, item in frames:
        if tally is None:
            with_labels = item is not None
            size = len(labelled) if with_labels else len(classes)
            tally = _Tally(ConfusionMatrix(size), ConfusionMatrix(size))
        float_map, int8_map = float_network(frame.image), int8_network(frame.image)
        tally.note(frame, float_map, int8_map)
        if item is None:
            tally.compare(float_map, int8_map)
        else:
            tally.score(item.labels, (float_map, int8_map), mapping, labelled.ignore_index)
        progress(1)
    if tally is None:
        raise FrameError(
            "no frame is left to score: every one was used for calibration; give others with --score-frames DIR"
        )
    return _conclude(tally, labelled if with_labels else classes, with_labels)


def _conclude(tally: _Tally, classes: LabelSet, with_labels: bool) -> Verification:
    agreement = 100.0 * tally.equal / tally.pixels
    int8_iou = _by_class(tally.int8_matrix, classes)
    worst = tuple(entry for _, _, entry in sorted(tally.worst, key=lambda e: (-e[0], e[1])))
    names, digests = tuple(tally.names), tuple(tally.digests)
    intervals = score_intervals(tally.float_counts, tally.int8_counts)
    drop = intervals.drop if intervals else None
    if with_labels:
        before, after = 100.0 * tally.float_matrix.mean_iou(), 100.0 * tally.int8_matrix.mean_iou()
        scores = Scores("miou", before, after, _by_class(tally.float_matrix, classes), int8_iou, names, digests, drop)
    else:
        scores = Scores("agreement", 100.0, agreement, {}, int8_iou, names, digests, drop)
    return Verification(scores, agreement, worst, intervals)


def _by_class(matrix: ConfusionMatrix, classes: LabelSet) -> dict[str, float | None]:
    values = (100.0 * matrix.iou()).tolist()
    return {name: None if np.isnan(v) else v for name, v in zip(classes.names, values, strict=True)}
