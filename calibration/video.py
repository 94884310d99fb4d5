"""A video file as a frame source: decoded in order, one frame in memory at a time."""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeseg.calibration.frames import Frame, evenly_spaced
from edgeseg.calibration.images import import_cv2, quiet_cv2
from edgeseg.errors import FrameError

__all__ = ["VIDEO_SUFFIXES", "VideoFrames", "open_video"]

VIDEO_SUFFIXES = frozenset({".avi", ".mkv", ".mov", ".mp4", ".webm"})

# Containers without a frame count give duration x rate, which is off by a frame or two on whole files.
_SLACK_FRAMES = 2

_log = logging.getLogger(__name__)


def open_video(path: Path, *, skip_broken: bool = False) -> VideoFrames:
    """Open a video file and count its frames, from the header where it has the number, otherwise by reading through.

    Args:
        path: an mp4, mkv, avi, mov or webm file.
        skip_broken: take what can be decoded of a truncated video.

    Raises:
        FrameError: for a file that is missing, no video, or has no frame.
    """
    capture = _open(path)
    try:
        count = int(capture.get(import_cv2().CAP_PROP_FRAME_COUNT))
        if count <= 0:
            count = 0
            while capture.grab():
                count += 1
    finally:
        capture.release()
    if count == 0:
        raise FrameError(f"no frame of the video {path} can be decoded; check it with: ffprobe {path}")
    return VideoFrames(path, tuple(range(count)), count, skip_broken)


def _open(path: Path) -> Any:
    if not path.is_file():
        raise FrameError(f"there is no video {path}")
    # FFmpeg's own lines on stderr would stand beside the error raised here; it reads the variable when it first opens.
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    cv2 = import_cv2()
    with quiet_cv2():
        capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    if not capture.isOpened():
        raise FrameError(f"cannot open the video {path}: it is truncated, or not a format that OpenCV reads")
    return capture


@dataclass(frozen=True)
class VideoFrames:
    """Some or all frames of one video, in order.

    Attributes:
        path: the file.
        indices: the frames taken, ascending, counted from 0.
        total: frames that the file announces.
        skip_broken: end quietly (with a warning in the log) where the video breaks off.
    """

    path: Path
    indices: tuple[int, ...]
    total: int
    skip_broken: bool = False
    _lost: set[str] = field(default_factory=set, compare=False, repr=False)

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def names(self) -> tuple[str, ...]:
        """Stem of the file and number of the frame: clip_000012."""
        return tuple(f"{self.path.stem}_{index:06d}" for index in self.indices)

    @property
    def skipped(self) -> int:
        """Frames that the latest pass could not decode."""
        return len(self._lost)

    def select(self, count: int) -> VideoFrames:
        """An evenly spaced subset; frames between are decoded once and dropped."""
        chosen = tuple(self.indices[i] for i in evenly_spaced(len(self), count))
        return VideoFrames(self.path, chosen, self.total, self.skip_broken)

    def exclude(self, names: Collection[str]) -> VideoFrames:
        """All but the frames named."""
        left = tuple(index for index, name in zip(self.indices, self.names, strict=True) if name not in names)
        return VideoFrames(self.path, left, self.total, self.skip_broken)

    def __iter__(self) -> Iterator[Frame]:
        """Decode up to the last frame taken.

        Raises:
            FrameError: where the video ends earlier than it announces (unless `skip_broken`).
        """
        self._lost.clear()
        capture = _open(self.path)
        try:
            position = 0
            for index, name in zip(self.indices, self.names, strict=True):
                while position <= index:
                    if not capture.grab():
                        self._ended(position)
                        return
                    position += 1
                yield Frame(name, self._retrieve(capture, index))
        finally:
            capture.release()

    def _retrieve(self, capture: Any, index: int) -> NDArray[np.uint8]:
        decoded, image = capture.retrieve()
        if not decoded:
            raise FrameError(f"frame {index} of the video {self.path} cannot be decoded; the file is damaged")
        cv2 = import_cv2()
        rgb: NDArray[np.uint8] = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
        return rgb

    def _ended(self, decoded: int) -> None:
        self._lost.update(name for name, index in zip(self.names, self.indices, strict=True) if index >= decoded)
        message = f"the video {self.path} announces {self.total} frames, but only {decoded} can be decoded"
        if decoded == 0 or (self.total - decoded > _SLACK_FRAMES and not self.skip_broken):
            raise FrameError(f"{message}: it is truncated; use --skip-broken to take what is there")
        _log.warning("%s; %d of the chosen frames are left out", message, len(self._lost))
