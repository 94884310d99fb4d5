"""Which frames calibrate and which score: never the same ones, by path or by content."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edgeseg.calibration.datasets import LabelledFrame, pair_labels
from edgeseg.calibration.frames import Frame, FrameSource, frames_from
from edgeseg.converters.options import ConvertOptions

__all__ = ["LARGEST_SCORED", "FrameSplit", "split_frames"]

LARGEST_SCORED = 128
"""Frames scored when they are taken from the calibration source; an explicit source is scored whole."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FrameSplit:
    """Frames that calibrate and frames that score.

    Attributes:
        calibration: frames whose activations give the ranges.
        scoring: frames to score on; None where a single frame left nothing over.
        labels: folder with a label image for each scored frame, or None.
    """

    calibration: FrameSource
    scoring: FrameSource | None
    labels: Path | None

    def scored(self, calibrated: frozenset[str]) -> Iterator[tuple[Frame, LabelledFrame | None]]:
        """The frames to score with their labels, without those whose pixels calibration has seen.

        Args:
            calibrated: digests of the calibration frames.
        """
        if self.scoring is None:
            return
        if self.labels is None:
            pairs: Iterator[tuple[Frame, LabelledFrame | None]] = ((frame, None) for frame in self.scoring)
        else:
            pairs = ((item.frame, item) for item in pair_labels(self.scoring, self.labels))
        for frame, labelled in pairs:
            if frame.digest in calibrated:
                _log.warning("%s is left out of the score: calibration has seen the same pixels", frame.name)
                continue
            yield frame, labelled


def split_frames(source: str, options: ConvertOptions) -> FrameSplit:
    """Choose evenly spaced frames for calibration and others for the score.

    Without frames of its own, the score takes what calibration leaves, and at least a quarter of the source is kept
    back for it.

    Raises:
        FrameError: when a source is missing, empty or unreadable.
    """
    frames = frames_from(source, skip_broken=options.skip_broken)
    if options.score_frames is not None:
        scoring = frames_from(options.score_frames, skip_broken=options.skip_broken)
        return FrameSplit(frames.select(options.count), scoring, options.labels)
    calibration = frames.select(min(options.count, max(1, len(frames) * 3 // 4)))
    left = frames.exclude(set(calibration.names)) if len(frames) > len(calibration) else None
    return FrameSplit(calibration, left.select(LARGEST_SCORED) if left is not None else None, options.labels)
