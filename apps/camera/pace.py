"""What --max-latency does: frames that come too late are skipped, and a smaller network takes over where that fails."""

from __future__ import annotations

import logging
import statistics
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from edgeseg.apps.camera.results import CameraFrame, CameraResult

__all__ = ["NetworkChoice", "Pace"]

_log = logging.getLogger(__name__)

_LEAST_RATE = 1.0
"""Results per second that --max-latency leaves even to a network that is too slow for it."""

_WINDOW = 10
"""Results that a choice of the network rests on: one that is late by chance decides nothing."""

_ROOM = 0.8
"""Share of the limit that a larger network must be expected to keep before it comes back."""

_FIRST_HOLD, _LONGEST_HOLD = 5.0, 300.0
"""Seconds before a larger network comes back; doubled each time that it did not keep the limit."""


class Pace:
    """Decides which frames of a stream are too late for --max-latency, by what the last ones took."""

    def __init__(self, limit: float | None, name: str) -> None:
        self._limit, self._name = limit, name
        self._needed: float | None = None
        self._last = -1.0
        self._captured: float | None = None
        self._interval = 0.0
        self._skipping = self._told = False

    def is_late(self, frame: CameraFrame) -> bool:
        """Whether a frame's class map would come after the limit, and another frame may make it."""
        if self._limit is None or self._needed is None:
            return False
        now = time.monotonic()
        if self._captured is not None:
            self._interval = 0.9 * self._interval + 0.1 * max(1e3 * (frame.captured - self._captured), 0.0)
        self._captured = frame.captured
        age = 1e3 * (now - frame.captured)
        if self._needed > self._limit and not self._told:
            self._told = True
            _log.warning(
                "stream %s: the network alone takes %.0f ms, more than --max-latency %.0f; only fresh frames are taken",
                *(self._name, self._needed, self._limit),
            )
        # A network that is too slow by itself gets the freshest frames, and one a second in any case.
        allowed = max(self._limit - self._needed, min(self._interval, self._limit))
        late = age > allowed and now - self._last < 1 / _LEAST_RATE
        if late and not self._skipping:
            _log.warning("stream %s: skipping frames to keep --max-latency %.0f ms", self._name, self._limit)
        self._skipping = self._skipping or late
        return late

    def done(self, result: CameraResult) -> None:
        """What a frame took."""
        self._last = result.finished
        needed = result.segmentation.timing.total
        self._needed = needed if self._needed is None else 0.8 * self._needed + 0.2 * needed

    def network_changed(self) -> None:
        """What the frames took until now says nothing of the next ones."""
        self._needed = None


@dataclass
class _Step:
    """A step down.

    Attributes:
        larger: ms that the larger network took when it was left.
        smaller: ms that the smaller one took at first; None until that is known.
        time: of the step, `time.monotonic()`.
    """

    larger: float
    smaller: float | None
    time: float


class NetworkChoice:
    """Which of several networks of the same classes segments the next frame, so that a latency is kept.

    A step down is taken when more than half of the last results came too late, although late frames are skipped. A
    step up is taken when the larger network is expected to keep the limit with room to spare: by its time when it was
    left, scaled by how the present network's time has changed since then, and by how long frames wait now. Where it
    does not keep it after all, the next attempt comes later, up to five minutes later.

    All that is known comes from the results; no clock is read. One thread calls `done`, any may read.

    Args:
        names: of the networks, for people, the largest first.
        limit: ms from capture to class map; None keeps the first network.
    """

    def __init__(self, names: Sequence[str], limit: float | None) -> None:
        self.names = tuple(names)
        self.level = 0
        """Of `names`, the network that segments the next frame."""
        self.switches = 0
        self.segmented = [0] * len(names)
        """Results of each network."""
        self._limit = limit
        self._results: deque[tuple[float, float]] = deque(maxlen=_WINDOW)
        self._steps: list[_Step] = []
        self._hold = _FIRST_HOLD
        self._returned: float | None = None

    @property
    def name(self) -> str:
        """Of the network that segments the next frame."""
        return self.names[self.level]

    def done(self, result: CameraResult) -> bool:
        """Take a result of the present network into account.

        Returns:
            Whether another network segments the next frame.
        """
        self.segmented[self.level] += 1
        if self._limit is None or len(self.names) == 1:
            return False
        self._results.append((result.latency_ms, result.segmentation.timing.total))
        if len(self._results) < _WINDOW:
            return False
        latency, needed = (statistics.median(values) for values in zip(*self._results, strict=True))
        if self._steps and self._steps[-1].smaller is None:
            self._steps[-1].smaller = needed
        if self.level + 1 < len(self.names) and sum(one > self._limit for one, _ in self._results) > _WINDOW / 2:
            self._down(latency, needed, result.finished)
        elif self.level and self._has_room(latency, needed, result.finished):
            self._up(result.finished)
        else:
            return False
        self.switches += 1
        self._results.clear()
        return True

    def snapshot(self) -> dict[str, Any]:
        """The present network, the number of switches, and the results by network."""
        counts = dict(zip(self.names, self.segmented, strict=True))
        return {"name": self.name, "level": self.level, "switches": self.switches, "segmented": counts}

    def _down(self, latency: float, needed: float, now: float) -> None:
        if self._returned is not None:
            failed = now - self._returned < self._hold
            self._hold = min(2 * self._hold, _LONGEST_HOLD) if failed else _FIRST_HOLD
        self._steps.append(_Step(needed, None, now))
        self.level += 1
        _log.warning(
            "the latency is %.0f ms, more than --max-latency %.0f even with frames skipped: the network is now %s "
            "instead of %s",
            *(latency, self._limit, self.name, self.names[self.level - 1]),
        )

    def _has_room(self, latency: float, needed: float, now: float) -> bool:
        step = self._steps[-1]
        if self._limit is None or not step.smaller or now - step.time < self._hold:
            return False
        expected = step.larger * needed / step.smaller
        return expected + max(latency - needed, 0.0) <= _ROOM * self._limit

    def _up(self, now: float) -> None:
        self._steps.pop()
        self._returned = now
        self.level -= 1
        _log.warning(
            "there is room below --max-latency %.0f again: the network is now %s instead of %s",
            *(self._limit, self.name, self.names[self.level + 1]),
        )
