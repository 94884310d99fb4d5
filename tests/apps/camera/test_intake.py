from __future__ import annotations

import threading

import numpy as np
import pytest

from edgeseg.apps.camera.intake import Intake
from edgeseg.apps.camera.results import CameraFrame
from edgeseg.apps.camera.statistics import StreamStatistics
from edgeseg.errors import UsageError


def frame(stream: str, number: int) -> CameraFrame:
    return CameraFrame(np.zeros((2, 2, 3), np.uint8), number, 0.0, stream)


@pytest.fixture
def statistics() -> dict[str, StreamStatistics]:
    return {name: StreamStatistics(name) for name in "ab"}


class TestLive:
    @pytest.mark.parametrize("length", [1, 3])
    def test_the_oldest_gives_way(self, statistics: dict[str, StreamStatistics], length: int) -> None:
        intake = Intake(statistics, length=length)
        for number in range(10):
            intake.put(frame("a", number))
        for name in "ab":
            intake.ended(name)
        taken = []
        while (found := intake.take()) is not None:
            taken.append(found.number)
        assert taken == list(range(10 - length, 10))
        assert statistics["a"].snapshot()["dropped"] == 10 - length

    def test_streams_take_turns(self, statistics: dict[str, StreamStatistics]) -> None:
        intake = Intake(statistics, length=4)
        for number in range(4):
            intake.put(frame("a", number))
        intake.put(frame("b", 0))
        intake.put(frame("b", 1))
        taken = [intake.take() for _ in range(6)]
        assert [(f.stream, f.number) for f in taken if f] == [
            *(("a", 0), ("b", 0), ("a", 1), ("b", 1), ("a", 2), ("a", 3)),
        ]

    def test_a_slow_stream_has_its_turn_at_once(self, statistics: dict[str, StreamStatistics]) -> None:
        intake = Intake(statistics)
        for number in range(40):
            intake.put(frame("a", number))
            if number % 8 == 7:
                intake.put(frame("b", number // 8))
                taken = [intake.take(), intake.take()]
                assert {found.stream for found in taken if found} == {"a", "b"}
            else:
                intake.take()
        assert [statistics[name].snapshot()["dropped"] for name in "ab"] == [0, 0]

    def test_closing_counts_what_is_left(self, statistics: dict[str, StreamStatistics]) -> None:
        intake = Intake(statistics, length=2)
        intake.put(frame("a", 0))
        intake.close()
        intake.put(frame("a", 1))
        assert intake.take() is None
        assert statistics["a"].snapshot()["dropped"] == 2


class TestLossless:
    def test_the_source_waits(self, statistics: dict[str, StreamStatistics]) -> None:
        intake = Intake(statistics, length=1, lossless=True)

        def fill() -> None:
            for number in range(20):
                intake.put(frame("a", number))
            intake.ended("a")
            intake.ended("b")

        thread = threading.Thread(target=fill)
        thread.start()
        taken = []
        while (found := intake.take()) is not None:
            taken.append(found.number)
        thread.join()
        assert taken == list(range(20))
        assert statistics["a"].snapshot()["dropped"] == 0

    def test_closing_frees_a_source_that_waits(self, statistics: dict[str, StreamStatistics]) -> None:
        intake = Intake(statistics, lossless=True)
        intake.put(frame("a", 0))
        thread = threading.Thread(target=intake.put, args=(frame("a", 1),))
        thread.start()
        intake.close()
        thread.join(10)
        assert not thread.is_alive()


def test_length() -> None:
    with pytest.raises(UsageError, match="at least 1 frame, but --queue is 0"):
        Intake({}, length=0)
