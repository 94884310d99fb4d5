"""What the element does with a frame: which frames are segmented, what is drawn, and what is counted."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeseg.apps.camera.element.painter import Painter
from edgeseg.apps.camera.element.pixels import FrameLayout, planes_of, rgb_of
from edgeseg.apps.camera.element.segmenters import SegmenterKey, shared
from edgeseg.apps.camera.element.settings import ElementSettings
from edgeseg.segmentation import Segmentation
from edgeseg.segmenter import Segmenter
from edgeseg.upsample import nearest_class_map, upsampling

__all__ = ["Counts", "Stage"]


@dataclass
class Counts:
    """What has been done since the start; times in ms, summed up.

    Attributes:
        frames: that came through.
        segmented: with a class map of their own.
        late: that were due, but passed without inference because the sink said that they come too late.
        inference: of the engine.
        work: in the element, from the frame's arrival to its leaving.
        seconds: from the arrival of the first frame to the leaving of the last.
    """

    frames: int = 0
    segmented: int = 0
    late: int = 0
    inference: float = 0.0
    work: float = 0.0
    seconds: float = 0.0


class Stage:
    """The element without GStreamer: arrays in, drawn on in place. Used by one streaming thread.

    Args:
        settings: of the element; `change` replaces them.

    Raises:
        EdgesegError: for settings that do not fit the bundle, and as `edgeseg.load` does.
    """

    def __init__(self, settings: ElementSettings) -> None:
        self.counts = Counts()
        self.last: Segmentation | None = None
        self._settings = settings
        self._key: SegmenterKey | None = None
        self._segmenter: Segmenter | None = None
        self._layout: FrameLayout | None = None
        self._painter: Painter | None = None
        self._since = 0
        self._first = 0.0
        try:
            self.change(settings)
        except BaseException:
            self.close()
            raise

    @property
    def draws(self) -> bool:
        """Whether frames are written to."""
        return self._settings.enabled and self._settings.mode != "none"

    def change(self, settings: ElementSettings) -> None:
        """Take other settings; bundle, backend and threads stay those of the first that were enabled.

        Raises:
            EdgesegError: as for a new stage.
        """
        settings.check()
        self._settings = settings
        mode, chosen = settings.mode, settings.chosen
        if settings.enabled and self._segmenter is None:
            key = SegmenterKey(settings.bundle.resolve(), settings.backend, settings.threads or None)
            self._segmenter = shared.acquire(key)
            self._key = key
        self._painter = None
        if self._segmenter is None:
            return
        for name in chosen or ():
            self._segmenter.labels.index(name)
        if self._layout is not None and mode != "none":
            self._painter = Painter(self._layout, self._segmenter.labels, mode, settings.alpha, chosen)
            if self.last is not None:
                self._painter.take(self.last.class_map)

    def resize(self, layout: FrameLayout) -> None:
        """Frames have this layout from now on; the last class map means nothing for them."""
        self._layout, self.last = layout, None
        self.change(self._settings)

    def frame(
        self, data: NDArray[np.uint8], layout: FrameLayout, *, late: bool = False, draw: bool = True
    ) -> Segmentation | None:
        """Segment a frame when it is due, and draw on it.

        Args:
            data: (N,) uint8, the whole buffer.
            layout: of this frame; size and format are those of the last `resize`.
            late: whether the sink says that it has no time for this frame; it gets the last class map then.
            draw: False for a buffer that cannot be written.

        Returns:
            The result of this frame; None where it got the last one.

        Raises:
            FrameError, EngineError: when the frame or the engine fails.
        """
        started = time.perf_counter()
        if not self.counts.frames:
            self._first = started
        self.counts.frames += 1
        try:
            return self._frame(data, layout, late, draw)
        finally:
            finished = time.perf_counter()
            self.counts.work += 1e3 * (finished - started)
            self.counts.seconds = finished - self._first

    def close(self) -> None:
        """Give the segmenter back; a second call does nothing."""
        key, self._key, self._segmenter = self._key, None, None
        if key is not None:
            shared.release(key)

    def _frame(self, data: NDArray[np.uint8], layout: FrameLayout, late: bool, draw: bool) -> Segmentation | None:
        self._since += 1
        if not self._settings.enabled or self._segmenter is None:
            return None
        planes, result = planes_of(data, layout), None
        due = self.last is None or self._since >= self._settings.every_n
        if due and late:
            self.counts.late += 1
        elif due:
            result = self.last = self._segment(self._segmenter, planes, layout)
            self._since = 0
            if self._painter is not None:
                self._painter.take(result.class_map)
        if self._painter is not None and draw:
            self._painter.draw(planes)
        return result

    def _segment(
        self, segmenter: Segmenter, planes: tuple[NDArray[np.uint8], ...], layout: FrameLayout
    ) -> Segmentation:
        entry = segmenter.bundle.manifest.input
        result = segmenter(rgb_of(planes, layout, (entry.height, entry.width)))
        self.counts.segmented += 1
        self.counts.inference += result.timing.infer
        size, found = (layout.height, layout.width), result.class_map
        if found.shape != size:
            axes = upsampling(size, found.shape, found.shape, None)
            found = nearest_class_map(found, axes.rows, axes.columns)
        return dataclasses.replace(result, class_map=found, frame_number=self.counts.frames - 1)
