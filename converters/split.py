"""Which frames calibrate and which score: never the same ones, by path or by content."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass

from edgeseg.calibration.datasets import LabelledFrame, LabelledFrames, pair_labels
from edgeseg.calibration.frames import Frame, FrameSource, ImageFrames, frames_from
from edgeseg.calibration.scenes import is_scene
from edgeseg.converters.options import ConvertOptions
from edgeseg.labels import LabelSet, load_labels

__all__ = ["LARGEST_SCORED", "FrameSplit", "only_scored", "split_frames"]

LARGEST_SCORED = 128
"""Frames scored when they are taken from the calibration source; an explicit source is scored whole."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FrameSplit:
    """Frames that calibrate and frames that score.

    Attributes:
        calibration: frames whose activations give the ranges; empty in FP16.
        scoring: frames to score on; None where a single frame left nothing over, or none were given.
        labelled: the frames to score with their labels, where there are any.
    """

    calibration: FrameSource
    scoring: FrameSource | None
    labelled: LabelledFrames | None

    def scored(
        self, calibrated: frozenset[str], searched: frozenset[str] = frozenset()
    ) -> Iterator[tuple[Frame, LabelledFrame | None]]:
        """The frames to score with their labels, without those whose pixels calibration or a search has seen.

        Args:
            calibrated: digests of the calibration frames.
            searched: digests of frames held back for a search.
        """
        pairs: Iterator[tuple[Frame, LabelledFrame | None]]
        if self.labelled is not None:
            pairs = ((item.frame, item) for item in self.labelled)
        else:
            pairs = ((frame, None) for frame in self.scoring or ())
        for frame, labelled in pairs:
            if frame.digest in calibrated:
                _log.warning("%s is left out of the score: calibration has seen the same pixels", frame.name)
                continue
            if frame.digest not in searched:
                yield frame, labelled


def split_frames(source: str, options: ConvertOptions, truth: LabelSet) -> FrameSplit:
    """Choose evenly spaced frames for calibration and others for the score.

    Without frames of its own, the score takes what calibration leaves, and at least a quarter of the source is kept
    back for it.

    Args:
        source: what `frames_from` takes.
        options: count, frames to score on and labels.
        truth: classes of the labels.

    Raises:
        FrameError: when a source is missing or empty.
        LabelError: when a frame to score has no label image.
    """
    frames = frames_from(source, skip_broken=options.skip_broken)
    scoring: FrameSource | None
    if options.score_frames is not None:
        calibration = frames.select(options.count)
        scoring = frames_from(options.score_frames, skip_broken=options.skip_broken)
    else:
        calibration = frames.select(min(options.count, max(1, len(frames) * 3 // 4)))
        left = frames.exclude(set(calibration.names))
        scoring = left.select(LARGEST_SCORED) if len(left) else None
    return FrameSplit(calibration, scoring, _labelled(scoring, options.score_frames or source, options, truth))


def only_scored(source: str | None, options: ConvertOptions, truth: LabelSet) -> FrameSplit:
    """Frames to score where nothing is calibrated: those of their own source, else evenly spaced ones of the other.

    Args:
        source: what `frames_from` takes, or None.
        options: frames to score on and labels.
        truth: classes of the labels.

    Raises:
        FrameError: when a source is missing or empty.
        LabelError: when a frame to score has no label image.
    """
    chosen = source if options.score_frames is None else options.score_frames
    if chosen is None:
        return FrameSplit(ImageFrames((), ()), None, None)
    scoring = frames_from(chosen, skip_broken=options.skip_broken)
    if options.score_frames is None:
        scoring = scoring.select(LARGEST_SCORED)
    return FrameSplit(ImageFrames((), ()), scoring, _labelled(scoring, chosen, options, truth))


def _labelled(
    scoring: FrameSource | None, source: str, options: ConvertOptions, truth: LabelSet
) -> LabelledFrames | None:
    """The frames to score with their labels, before anything is computed: a missing one is found in a second."""
    if scoring is None:
        return None
    if options.labels is not None:
        return pair_labels(scoring, options.labels, truth)
    scene = load_labels("camvid")
    # Rendered scenes bring their labels, which count for a network of the same classes.
    return LabelledFrames(scoring, {}, scene) if is_scene(source) and truth.names == scene.names else None
