"""What travels through the camera application: frames, results, and the sinks that take them."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edgeseg.apps.camera.yuv import YuvFrame
from edgeseg.labels import LabelSet
from edgeseg.segmentation import Segmentation

__all__ = ["CameraFrame", "CameraResult", "Sink", "StreamFacts"]


@dataclass(frozen=True, eq=False)
class CameraFrame:
    """One frame of a stream.

    Attributes:
        pixels: (H, W, 3) uint8 RGB, or a decoder's frame as it is; nothing writes to it any more.
        number: position in the stream, from 0, counted over reconnections and with the frames that were dropped.
        captured: `time.monotonic()` in seconds when the source captured it, or when it arrived where that is unknown.
        stream: name of the stream, "0", "1", ... in the order of `--source`.
    """

    pixels: NDArray[np.uint8] | YuvFrame
    number: int
    captured: float
    stream: str = "0"

    @functools.cached_property
    def image(self) -> NDArray[np.uint8]:
        """The frame as (H, W, 3) uint8 RGB, made when it is first asked for; nobody writes to it."""
        return self.pixels.rgb() if isinstance(self.pixels, YuvFrame) else self.pixels


@dataclass(frozen=True, eq=False)
class CameraResult:
    """A frame with its class map.

    Attributes:
        frame: what was segmented.
        segmentation: class map of the frame's size, with its timing.
        finished: `time.monotonic()` in seconds when the class map was there.
    """

    frame: CameraFrame
    segmentation: Segmentation
    finished: float

    @property
    def latency_ms(self) -> float:
        """From the capture of the frame to its class map."""
        return 1e3 * (self.finished - self.frame.captured)


@dataclass(frozen=True)
class StreamFacts:
    """What a sink knows before the first result.

    Attributes:
        name: of the stream.
        source: the URI as it was given, without a password.
        labels: names and colours of the classes.
        frame_rate: frames per second that the source announces; None where it does not.
    """

    name: str
    source: str
    labels: LabelSet
    frame_rate: float | None = None


class Sink(Protocol):
    """Takes results. One sink serves one stream; its methods are called by one thread."""

    def start(self, stream: StreamFacts) -> None:
        """Get ready.

        Raises:
            EdgesegError: when that cannot be done; the application then does not start.
        """
        ...

    def put(self, result: CameraResult) -> None:
        """Take a result, at once: what is slow happens in the sink's own thread, which leaves out what it cannot keep
        up with. The size of frames may change from one to the next.

        Raises:
            EdgesegError: when the sink can go on no more (a full disk); the application says so in one line, stops
                this sink, and goes on with the others.
        """
        ...

    def stop(self) -> None:
        """Finish what was begun (a file is closed so that it plays) and free everything; called once."""
        ...
