"""`null` throws results away: for measuring; `null://draw` draws them before."""

from __future__ import annotations

from edgeseg.apps.camera.results import CameraResult, StreamFacts
from edgeseg.apps.camera.sinks.options import SinkOptions
from edgeseg.apps.camera.sinks.worker import WorkerSink
from edgeseg.errors import UsageError

__all__ = ["NullSink"]


class NullSink(WorkerSink):
    """Takes every result and keeps none."""

    def __init__(self, address: str, options: SinkOptions) -> None:
        super().__init__(address, lossless=options.lossless)
        words = address.partition("://")[2]
        if words not in ("", "draw"):
            raise UsageError(f"this sink is null or null://draw, but got {address}")
        self._painter = options.painter if words == "draw" else None

    def start(self, stream: StreamFacts) -> None:
        """Only drawing needs a thread."""
        if self._painter is not None:
            super().start(stream)

    def put(self, result: CameraResult) -> None:
        """Take a result."""
        if self._painter is not None:
            super().put(result)

    def work(self, result: CameraResult) -> None:
        """Draw it."""
        if self._painter is not None:
            self._painter.paint_for_video(result)
