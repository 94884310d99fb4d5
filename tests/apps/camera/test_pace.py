"""Which network segments when a latency is to be kept: on results of networks whose time is known."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from support.colours import COLOURS

from edgeseg.apps.camera.pace import NetworkChoice, Pace
from edgeseg.apps.camera.results import CameraFrame, CameraResult
from edgeseg.segmentation import Segmentation, Timing

LIMIT = 100.0


def result(finished: float, network: float, wait: float = 10.0) -> CameraResult:
    """A class map that was there at that second, with ms of its network and of waiting before."""
    frame = CameraFrame(np.zeros((2, 2, 3), np.uint8), 0, finished - (network + wait) / 1e3)
    timing = Timing(0.0, 0.0, network, 0.0, network)
    return CameraResult(frame, Segmentation(np.zeros((2, 2), np.uint8), COLOURS, timing), finished)


class Played:
    """A camera of ten frames a second before networks that take what `times` says, ms, the largest first."""

    def __init__(self, times: list[float], limit: float | None = LIMIT) -> None:
        self.times, self.now = times, 0.0
        self.waits = [10.0] * len(times)
        self.choice = NetworkChoice([f"network {number}" for number in range(len(times))], limit)

    def run(self, seconds: float) -> list[int]:
        """The network of each frame."""
        levels = []
        for _ in range(round(10 * seconds)):
            self.now += 0.1
            levels.append(self.choice.level)
            level = self.choice.level
            self.choice.done(result(self.now, self.times[level], self.waits[level]))
        return levels


class TestDown:
    def test_a_network_that_is_too_slow_gives_way(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO)
        played = Played([150.0, 40.0])
        assert played.run(3) == [0] * 10 + [1] * 20
        assert caplog.messages == [
            "the latency is 160 ms, more than --max-latency 100 even with frames skipped: the network is now network 1 "
            "instead of network 0"
        ]
        assert played.choice.snapshot() == {
            "name": "network 1", "level": 1, "switches": 1, "segmented": {"network 0": 10, "network 1": 20},
        }  # fmt: skip

    def test_one_step_after_the_other(self) -> None:
        played = Played([500.0, 150.0, 60.0])
        assert played.run(4) == [0] * 10 + [1] * 10 + [2] * 20

    def test_the_smallest_stays_whatever_it_takes(self) -> None:
        played = Played([500.0, 300.0])
        assert played.run(60)[10:] == [1] * 590
        assert played.choice.switches == 1

    def test_few_late_frames_change_nothing(self) -> None:
        choice = NetworkChoice(["large", "small"], LIMIT)
        for number in range(200):
            late = number % 2 == 0  # five of each ten
            assert not choice.done(result(number / 10, 150.0 if late else 50.0))
        assert choice.level == 0

    @pytest.mark.parametrize(("times", "limit"), [([500.0, 1.0], None), ([500.0], LIMIT)])
    def test_nothing_without_a_limit_or_a_choice(self, times: list[float], limit: float | None) -> None:
        played = Played(times, limit)
        assert played.run(5) == [0] * 50
        assert played.choice.segmented[0] == 50


class TestUp:
    def test_the_larger_returns_when_the_load_has_gone(self, caplog: pytest.LogCaptureFixture) -> None:
        played = Played([150.0, 60.0])
        played.run(20)
        assert played.choice.level == 1
        played.times = [50.0, 20.0]  # what the board can do when nothing else works on it
        caplog.clear()
        levels = played.run(20)
        assert levels.index(0) <= 10
        assert set(levels[levels.index(0) :]) == {0}
        assert caplog.messages == [
            "there is room below --max-latency 100 again: the network is now network 0 instead of network 1"
        ]

    def test_not_while_nothing_has_changed(self) -> None:
        played = Played([110.0, 40.0])
        played.run(300)
        assert (played.choice.level, played.choice.switches) == (1, 1)

    def test_not_without_room_to_spare(self) -> None:
        """Expected are 75 ms of the network and 10 of waiting: below the limit, but not by a fifth."""
        played = Played([150.0, 60.0])
        played.run(20)
        played.times = [75.0, 30.0]
        played.run(100)
        assert played.choice.level == 1
        played.times = [65.0, 26.0]
        played.run(5)
        assert played.choice.level == 0

    def test_not_where_frames_wait_too_long_for_it(self) -> None:
        choice = NetworkChoice(["large", "small"], LIMIT)
        for number in range(10):
            choice.done(result(number / 10, 60.0, wait=60.0))
        assert choice.level == 1
        for number in range(10, 300):
            choice.done(result(number / 10, 30.0, wait=25.0))  # 60 and 25 are more than 80
        assert choice.level == 1

    def test_an_attempt_that_failed_is_not_soon_made_again(self) -> None:
        """Frames of several cameras wait for a large network longer than the small one tells."""
        played = Played([60.0, 30.0])
        played.waits = [60.0, 10.0]
        levels = played.run(400)
        attempts = [i / 10 for i in range(1, len(levels)) if (levels[i - 1], levels[i]) == (1, 0)]
        pauses = np.diff(attempts)
        assert 4 <= len(attempts) <= 8
        assert (pauses[1:] > 1.7 * pauses[:-1]).all()

    def test_from_the_smallest_step_by_step(self) -> None:
        played = Played([500.0, 150.0, 60.0])
        played.run(20)
        assert played.choice.level == 2
        played.times = [50.0, 15.0, 6.0]
        levels = played.run(30)
        assert levels[-1] == 0
        assert [level for level, before in zip(levels[1:], levels, strict=False) if level != before] == [1, 0]


class TestPace:
    def test_another_network_begins_without_a_past(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from edgeseg.apps.camera import pace as module

        monkeypatch.setattr(module.time, "monotonic", lambda: 10.0)
        pace = Pace(LIMIT, "0")
        pace.done(result(9.9, 95.0))
        old = CameraFrame(np.zeros((2, 2, 3), np.uint8), 1, 9.98)
        assert pace.is_late(old)
        pace.network_changed()
        assert not pace.is_late(old)
