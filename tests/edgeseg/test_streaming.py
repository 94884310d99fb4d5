"""The bounded, ordered pipeline under every way to end."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from edgeseg.streaming import ordered


def threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("edgeseg-")]


def double(item: int, number: int, decode: float) -> tuple[int, int]:
    return 2 * item, number


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    yield
    end = time.monotonic() + 5
    while threads() and time.monotonic() < end:
        time.sleep(0.01)
    assert threads() == []


class TestOrdered:
    @pytest.mark.parametrize("workers", [1, 3])
    def test_gives_results_in_order(self, workers: int) -> None:
        assert list(ordered(range(50), double, workers)) == [(2 * i, i) for i in range(50)]

    def test_slow_first_item_does_not_change_the_order(self) -> None:
        def work(item: int, number: int, decode: float) -> int:
            time.sleep(0.05 if item == 0 else 0)
            return item

        assert list(ordered(range(8), work, 4)) == list(range(8))

    def test_reads_ahead_by_a_bounded_number(self) -> None:
        taken = []

        def source() -> Iterator[int]:
            for i in range(1000):
                taken.append(i)
                yield i

        results = ordered(source(), double, 2)
        next(results)
        time.sleep(0.3)
        assert len(taken) <= 2 * 2 + 3
        results.close()  # type: ignore[attr-defined]

    def test_an_error_of_the_source_comes_after_the_results_before_it(self) -> None:
        def source() -> Iterator[int]:
            yield 1
            yield 2
            raise OSError("the camera is gone")

        results = ordered(source(), double, 2)
        assert [next(results), next(results)] == [(2, 0), (4, 1)]
        with pytest.raises(OSError, match="the camera is gone"):
            next(results)

    def test_a_source_that_cannot_be_iterated(self) -> None:
        with pytest.raises(TypeError, match="not iterable"):
            list(ordered(3, double, 2))  # type: ignore[arg-type, misc]

    def test_an_error_of_the_work_comes_in_its_place(self) -> None:
        def work(item: int, number: int, decode: float) -> int:
            return 10 // item

        results = ordered([5, 2, 0, 1], work, 2)
        assert [next(results), next(results)] == [2, 5]
        with pytest.raises(ZeroDivisionError):
            next(results)

    def test_leaving_early_stops_an_endless_source(self) -> None:
        def endless() -> Iterator[int]:
            while True:
                yield 1

        for number, _ in enumerate(ordered(endless(), double, 2)):
            if number == 3:
                break

    def test_closes_the_iterator_that_it_made(self) -> None:
        class Source:
            closed = False

            def __iter__(self) -> Iterator[int]:
                try:
                    yield from range(100)
                finally:
                    self.closed = True

        source = Source()
        results = ordered(source, double, 2)
        next(results)
        results.close()  # type: ignore[attr-defined]
        assert source.closed

    def test_leaves_the_caller_s_own_iterator_open(self) -> None:
        mine = (i for i in range(100))
        results = ordered(mine, double, 1)
        next(results)
        results.close()  # type: ignore[attr-defined]
        assert next(mine) < 10

    def test_tells_how_long_the_source_took(self) -> None:
        def source() -> Iterator[int]:
            time.sleep(0.02)
            yield 1

        assert next(ordered(source(), lambda item, number, decode: decode, 1)) >= 20

    def test_interrupt_ends_the_process(self) -> None:
        code = (
            "import itertools, time\n"
            "from edgeseg.streaming import ordered\n"
            "print('ready', flush=True)\n"
            "for _ in ordered(itertools.count(), lambda *a: time.sleep(0.01), 2): pass\n"
        )
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=20)
        assert process.returncode == -signal.SIGINT
        assert b"KeyboardInterrupt" in errors
