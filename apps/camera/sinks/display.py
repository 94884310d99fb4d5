"""`display://0`: a window on this machine's screen."""

from __future__ import annotations

import os
import re

from edgeseg.apps.camera.platform import find_platform
from edgeseg.apps.camera.results import CameraResult, StreamFacts
from edgeseg.apps.camera.sinks.encoding import PICTURES, Encoding
from edgeseg.apps.camera.sinks.options import SinkOptions
from edgeseg.apps.camera.sinks.worker import WorkerSink
from edgeseg.errors import OutputError, UsageError

__all__ = ["Display"]


class Display(WorkerSink):
    """Shows the drawn results; display://ELEMENT takes another of GStreamer's video sinks, such as fbdevsink."""

    def __init__(self, address: str, options: SinkOptions) -> None:
        super().__init__(address)
        words = address.partition("://")[2]
        if not re.fullmatch(r"\d*|[a-z]\w*", words):
            raise UsageError(f"a display is display://0 or display://ELEMENT, but got {address}")
        self._element = words if words and not words.isdecimal() else None
        self._painter = options.painter
        self._first: float | None = None
        self._pipeline: Encoding | None = None

    def open(self, stream: StreamFacts) -> None:
        """Open the window.

        Raises:
            OutputError: without a screen.
        """
        element = self._element
        if element is None:
            # Without a screen GStreamer would take a sink that shows nothing, and say nothing.
            if not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
                raise OutputError(
                    f"{self.address} needs a screen, but neither DISPLAY nor WAYLAND_DISPLAY is set; "
                    "on a machine without one take --sink web://127.0.0.1:8080"
                )
            element = find_platform().first("nv3dsink") or "autovideosink"
        convert = "nvvidconv ! video/x-raw(memory:NVMM)" if element == "nv3dsink" else "videoconvert"
        launch = f"appsrc name={PICTURES} format=time ! videoconvert ! {convert} ! {element}"
        self._pipeline = Encoding(f"{launch} sync=false", self.address)

    def work(self, result: CameraResult) -> None:
        """Show one."""
        if self._pipeline is None:
            return
        self._first = result.frame.captured if self._first is None else self._first
        self._pipeline.push(self._painter.paint_for_video(result), max(result.frame.captured - self._first, 0.0), 25.0)

    def close(self) -> None:
        """Close the window."""
        if self._pipeline is not None:
            self._pipeline.free()
