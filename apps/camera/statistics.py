"""What happened to the frames of each stream: counts, and latencies by stage as histograms of bounded size."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from edgeseg.apps.camera.results import CameraResult
from edgeseg.errors import InputError
from edgeseg.power import Sensors, find_sensors, total_rails

__all__ = ["STAGES", "Board", "Histogram", "StreamStatistics", "log_line"]

STAGES = ("wait", "preprocess", "infer", "postprocess", "total")
"""From capture to the network, resize, network, class map, and all from capture to class map."""

_LEAST, _RATIO, _BUCKETS = 0.01, 1.05, 340
"""Bounds of the histograms' buckets: 0.01 ms and on by 5 %, which reaches 160 s."""


class Histogram:
    """Durations in ms in buckets 5 % wide: the memory does not grow, and a quantile is right within 2.5 %."""

    def __init__(self) -> None:
        self.counts = [0] * _BUCKETS
        self.count = 0
        self.sum = 0.0
        self.most = 0.0

    def add(self, value: float) -> None:
        """Count a duration."""
        place = 0 if value <= _LEAST else math.ceil(math.log(value / _LEAST) / math.log(_RATIO))
        self.counts[min(place, _BUCKETS - 1)] += 1
        self.count += 1
        self.sum += value
        self.most = max(self.most, value)

    def quantile(self, share: float) -> float | None:
        """The duration, ms, that this share of them does not exceed; None without any."""
        if not self.count:
            return None
        left = math.ceil(share * self.count)
        for place, count in enumerate(self.counts):
            left -= count
            if left <= 0 and count:
                return min(float(_LEAST * _RATIO ** (place - 0.5)), self.most)
        return self.most

    def below(self, limit: float) -> int:
        """How many durations are at most `limit` ms, to within a bucket."""
        places = math.floor(math.log(limit / _LEAST) / math.log(_RATIO)) + 1
        return sum(self.counts[: max(places, 0)])

    def summary(self) -> dict[str, Any]:
        """Mean, quantiles and largest, ms."""
        mean = self.sum / self.count if self.count else None
        shares = {f"p{100 * share:g}": self.quantile(share) for share in (0.5, 0.95, 0.99)}
        return {"mean": mean, **shares, "max": self.most if self.count else None}


class StreamStatistics:
    """Counts of one stream; filled by the threads that capture and segment it, read by any.

    At the end of a stream, captured = segmented + dropped + skipped + broken.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._lock = threading.Lock()
        self._counts = dict.fromkeys(("captured", "segmented", "dropped", "skipped", "broken", "reconnects"), 0)
        self._stages = {stage: Histogram() for stage in STAGES}
        self._recent = Histogram()
        self._recent_counts = dict(self._counts)
        self._since = time.monotonic()

    def arrived(self, frames: int, dropped: int, broken: int) -> None:
        """Frames that the source gave: taken, left out on the way because a newer one came, and broken ones."""
        with self._lock:
            self._counts["captured"] += frames + dropped + broken
            self._counts["dropped"] += dropped
            self._counts["broken"] += broken

    def dropped(self, frames: int = 1) -> None:
        """Frames that gave way to a newer one in the queue before the network."""
        with self._lock:
            self._counts["dropped"] += frames

    def skipped(self) -> None:
        """A frame that was left out on purpose: --max-latency or --every-n."""
        with self._lock:
            self._counts["skipped"] += 1

    def failed(self) -> None:
        """A frame that the network refused."""
        with self._lock:
            self._counts["broken"] += 1

    def reconnected(self) -> None:
        """The stream is back."""
        with self._lock:
            self._counts["reconnects"] += 1

    def segmented(self, result: CameraResult) -> None:
        """A class map is there."""
        timing = result.segmentation.timing
        total = result.latency_ms
        wait = max(total - timing.total, 0.0)
        values = (wait, timing.preprocess, timing.infer, timing.postprocess, total)
        with self._lock:
            self._counts["segmented"] += 1
            for stage, value in zip(STAGES, values, strict=True):
                self._stages[stage].add(value)
            self._recent.add(total)

    def snapshot(self) -> dict[str, Any]:
        """Counts, and latencies in ms by stage, since the start."""
        with self._lock:
            return {**self._counts, "latency_ms": {stage: h.summary() for stage, h in self._stages.items()}}

    def histograms(self, limits: Sequence[float]) -> dict[str, tuple[list[int], float]]:
        """By stage: how many durations are at most each limit (ms, ascending) and, last, all of them; and their sum."""
        with self._lock:
            return {
                stage: ([*(histogram.below(limit) for limit in limits), histogram.count], histogram.sum)
                for stage, histogram in self._stages.items()
            }

    def recent(self) -> dict[str, Any]:
        """The same for the time since the last call, with frames per second; for one caller."""
        with self._lock:
            now = time.monotonic()
            seconds, self._since = now - self._since, now
            counts = {key: value - self._recent_counts[key] for key, value in self._counts.items()}
            self._recent_counts = dict(self._counts)
            recent, self._recent = self._recent, Histogram()
        rate = counts["segmented"] / seconds if seconds else 0.0
        return {**counts, "fps": rate, "latency_ms": recent.summary()}


@dataclass(frozen=True)
class Board:
    """Temperature and power of a Jetson; without values on any other machine."""

    sensors: Sensors | None

    @classmethod
    def find(cls) -> Board:
        """This machine's."""
        try:
            return cls(find_sensors())
        except InputError:
            return cls(None)

    def read(self) -> dict[str, Any]:
        """`watts` of the whole board where its rails are known, and `celsius` by zone; empty without sensors."""
        if self.sensors is None:
            return {}
        watts = {rail.name: value for rail in self.sensors.rails if (value := _read(rail)) is not None}
        total = total_rails(watts)
        celsius = {zone.name: value for zone in self.sensors.zones if (value := _read(zone)) is not None}
        return {"watts": sum(watts[name] for name in total) if total else None, "celsius": celsius}


def _read(sensor: Any) -> float | None:
    try:
        return float(sensor.read())
    except (OSError, ValueError):
        return None


def log_line(name: str, recent: dict[str, Any], board: dict[str, Any]) -> str:
    """One line about the last second of a stream."""
    latency = recent["latency_ms"]
    parts = [f"stream {name}: {recent['fps']:.1f} frames/s"]
    if latency["p50"] is not None:
        parts.append(f"latency {latency['p50']:.0f} ms, p99 {latency['p99']:.0f}")
    parts += [f"{recent[key]} {key}" for key in ("dropped", "skipped", "broken") if recent[key]]
    if board.get("watts") is not None:
        parts.append(f"{board['watts']:.1f} W")
    if board.get("celsius"):
        parts.append(f"{max(board['celsius'].values()):.0f} C")
    return ", ".join(parts)
