"""Frames that Python makes or reads (folders of images, rendered scenes, a program's own) into a pipeline's appsrc."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeseg.apps.camera.gst import gstreamer, mapped
from edgeseg.errors import ShapeError

__all__ = ["Feed", "buffer_of", "caps_of", "frames_of", "rate_of"]

_SCENE_RATE, _IMAGE_RATE = 25.0, 10.0


def frames_of(address: str) -> Callable[[], Iterator[NDArray[np.uint8]]]:
    """What reads the frames of a folder, glob, list, image or scene from its start.

    Raises:
        FrameError, UsageError: as `calibration.frames.frames_from`.
    """
    from edgeseg.calibration.frames import frames_from
    from edgeseg.calibration.scenes import is_scene

    words = address.removeprefix("file://")
    # A scene without a count is a camera, not a data set: it goes on for eleven hours.
    endless = is_scene(words) and "count=" not in words
    source = frames_from(words + ("&" if "?" in words else "?") + "count=1000000" if endless else words)
    return lambda: (frame.image for frame in source)


def rate_of(address: str) -> float:
    """Frames per second at which frames without a rate are shown."""
    return _SCENE_RATE if address.startswith("scene:") else _IMAGE_RATE


class Feed:
    """A thread that pushes frames into an appsrc until they end, fail, or the pipeline stops.

    Args:
        source: the appsrc.
        frames: reads (H, W, 3) uint8 RGB frames from the start.
        rate: frames per second at most; None for frames that come at a pace of their own.
        live: whether frames are held to the rate and stamped as they arrive; else their time stamps say the rate.
        loop: times that they are read once more, -1 for ever.
    """

    def __init__(
        self,
        source: Any,
        frames: Callable[[], Iterable[NDArray[Any]]],
        rate: float | None,
        *,
        live: bool,
        loop: int = 0,
    ) -> None:
        self._source, self._frames, self._rate, self._loop = source, frames, rate or 0.0, loop
        self._live = live
        self._stop = threading.Event()
        self.error: Exception | None = None
        if live:
            source.set_property("is-live", True)
            source.set_property("do-timestamp", True)
        self._thread = threading.Thread(target=self._run, name="edgeseg-feed", daemon=True)
        self._thread.start()

    def stop(self, seconds: float = 5.0) -> None:
        """Wait until the frame that is being made is done; after the pipeline, which a full appsrc waits for.

        A thread that is still inside OpenCV when the interpreter ends aborts the process.
        """
        self._stop.set()
        self._thread.join(seconds)

    def _run(self) -> None:
        gst = gstreamer().Gst
        number, size, due = 0, None, time.monotonic()
        try:
            for image in self._rounds():
                if self._live and self._rate:
                    # One that comes late is a camera's that came late: those behind it do not catch up.
                    due = max(due + 1 / self._rate, time.monotonic())
                    self._stop.wait(due - time.monotonic())
                if self._stop.is_set():
                    return
                if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
                    raise ShapeError(
                        f"frames of a source must be (H, W, 3) uint8 RGB, but got {image.shape} {image.dtype}"
                    )
                if image.shape != size:
                    size = image.shape
                    self._source.set_property("caps", caps_of(image.shape, self._rate))
                buffer = buffer_of(image)
                if not self._live:
                    rate = self._rate or _IMAGE_RATE
                    buffer.pts, buffer.duration = int(number * gst.SECOND / rate), int(gst.SECOND / rate)
                if self._source.push_buffer(buffer) != gst.FlowReturn.OK:
                    return
                number += 1
        except Exception as error:  # of a file, or of a program's own frames: the capture thread raises it
            self.error = error
        self._source.end_of_stream()

    def _rounds(self) -> Iterator[NDArray[Any]]:
        yield from self._frames()
        done = 0
        while self._loop < 0 or done < self._loop:
            yield from self._frames()
            done += 1


def caps_of(shape: tuple[int, ...], rate: float) -> Any:
    """Caps of (H, W, 3) uint8 RGB frames; rate 0 for one that varies."""
    fraction = f"{round(rate * 1000)}/1000" if rate else "0/1"
    text = f"video/x-raw,format=RGB,width={shape[1]},height={shape[0]},framerate={fraction}"
    return gstreamer().Gst.Caps.from_string(text)


def buffer_of(image: NDArray[np.uint8]) -> Any:
    """A new Gst.Buffer with a frame's pixels, its rows at multiples of four bytes, as GStreamer expects."""
    height, row = image.shape[0], image.shape[1] * 3
    stride = -(-row // 4) * 4
    buffer = gstreamer().Gst.Buffer.new_allocate(None, stride * height, None)
    with mapped(buffer, write=True) as content:
        np.copyto(content.reshape(height, stride)[:, :row].reshape(image.shape), image)
    return buffer
