"""The page's numbers: frame rate, latency and areas of the last seconds."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeseg.apps.camera.results import CameraResult
from edgeseg.libraries import require

__all__ = ["Figures", "class_areas"]

_SPAN_S = 2.0
_SHORTEST_SPAN_S = 0.5
_MOST_FRAMES = 2048
"""Frames remembered: more than any network computes in the span."""


class Figures:
    """Counts results as they come; `put` costs microseconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Start with nothing.

        Args:
            clock: seconds on the clock of `CameraResult.finished`.
        """
        self._clock = clock
        self._lock = threading.Lock()
        self._recent: deque[tuple[float, float]] = deque(maxlen=_MOST_FRAMES)
        self._first: float | None = None
        self._last_number: int | None = None
        self._frames = self._missed = 0

    def put(self, result: CameraResult) -> None:
        """Count a result."""
        number = result.frame.number
        with self._lock:
            if self._first is None:
                self._first = result.finished
            before = number - 1 if self._last_number is None else self._last_number
            self._missed += max(0, number - before - 1)
            self._last_number = number
            self._frames += 1
            self._recent.append((result.finished, result.latency_ms))

    def numbers(self) -> dict[str, Any]:
        """What the last two seconds were like.

        Returns:
            frames (results so far), missed (frames of the stream between them without one), number (of the newest
            frame), fps, latency_ms (p50 and p95; None without a frame in the last two seconds), age_s (since the newest
            result; None before the first).
        """
        now = self._clock()
        with self._lock:
            recent = [latency for finished, latency in self._recent if finished > now - _SPAN_S]
            last = self._recent[-1][0] if self._recent else None
            first, frames, missed, number = self._first, self._frames, self._missed, self._last_number
        span = _SPAN_S if first is None else min(_SPAN_S, max(_SHORTEST_SPAN_S, now - first))
        return {
            "frames": frames,
            "missed": missed,
            "number": number,
            "fps": round(len(recent) / span, 2),
            "latency_ms": _percentiles(recent),
            "age_s": None if last is None else round(max(0.0, now - last), 3),
        }


def _percentiles(values: Sequence[float]) -> dict[str, float] | None:
    if not values:
        return None
    p50, p95 = np.percentile(values, (50, 95))
    return {"p50": round(float(p50), 2), "p95": round(float(p95), 2)}


def class_areas(class_map: NDArray[np.uint8], classes: int) -> list[float]:
    """Share of the pixels, 0..1, by class index.

    `Segmentation.areas` says the same; this one leaves Python's lock to the network while it counts.
    """
    cv2 = require("cv2", "count classes")
    counts = cv2.calcHist([class_map], [0], None, [256], [0, 256]).ravel()
    return [round(float(count) / class_map.size, 6) for count in counts[:classes]]
