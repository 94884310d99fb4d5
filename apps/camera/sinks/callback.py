"""A function of a program's own as a sink."""

from __future__ import annotations

from collections.abc import Callable

from edgeseg.apps.camera.results import CameraResult
from edgeseg.apps.camera.sinks.worker import WorkerSink

__all__ = ["CallbackSink"]


class CallbackSink(WorkerSink):
    """Calls a function with the newest result, in a thread of its own: one that is slow misses results.

    Args:
        function: takes a result; an exception in it ends this sink, not the application.
        lossless: whether it gets every result and the network waits for it.
    """

    def __init__(self, function: Callable[[CameraResult], None], *, lossless: bool = False) -> None:
        super().__init__(getattr(function, "__name__", "callback"), lossless=lossless)
        self._function = function

    def work(self, result: CameraResult) -> None:
        """Call it."""
        self._function(result)
