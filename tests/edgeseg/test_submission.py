"""Frames handed in without waiting: which of them are segmented, and what the others' futures say."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import CancelledError, Future
from pathlib import Path

import numpy as np
import pytest
from support.bundles import quantized_bundle, toy_bundle
from support.fake_backend import FakeBackend

from edgeseg.backends import Target
from edgeseg.errors import DeadlineError, EngineError, FrameDroppedError, ShapeError, UsageError
from edgeseg.segmentation import Segmentation
from edgeseg.segmenter import Segmenter

HEIGHT, WIDTH = 8, 12
PATIENCE = 20


def frame(red: int) -> np.ndarray:
    return np.full((HEIGHT, WIDTH, 3), red, np.uint8)


class Gate:
    """Holds the engine back until it is opened; `seen` are the red values of the frames that reached it."""

    def __init__(self) -> None:
        self.reached, self.opened = threading.Semaphore(0), threading.Event()
        self.seen: list[int] = []

    def __call__(self, image: np.ndarray) -> None:
        self.seen.append(int(image[0, 0, 0, 0]))
        self.reached.release()
        assert self.opened.wait(PATIENCE)

    def wait(self) -> None:
        assert self.reached.acquire(timeout=PATIENCE)


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture
def segmenter(tmp_path: Path, gate: Gate) -> Iterator[Segmenter]:
    backend = FakeBackend(size=(HEIGHT, WIDTH))
    backend.before = gate

    def make(target: Target) -> object:
        return backend.load(backend.compile(b"graph", target), target)

    with Segmenter(toy_bundle(tmp_path / "toy.edgeseg"), backend, make, Target(threads=2)) as made:
        yield made
        gate.opened.set()


def result(future: Future[Segmentation]) -> Segmentation:
    return future.result(PATIENCE)


class TestOrder:
    def test_gives_what_a_call_gives(self, segmenter: Segmenter, gate: Gate) -> None:
        gate.opened.set()
        found = result(segmenter.submit(frame(130)))
        assert (found.class_map == 2).all()
        assert found.frame_number == 0
        assert result(segmenter.submit(frame(10))).frame_number == 1

    def test_returns_while_the_engine_works(self, segmenter: Segmenter, gate: Gate) -> None:
        future = segmenter.submit(frame(70))
        gate.wait()
        assert not future.done()
        gate.opened.set()
        assert (result(future).class_map == 1).all()

    def test_only_the_latest_waits(self, segmenter: Segmenter, gate: Gate) -> None:
        futures = [segmenter.submit(frame(0))]
        gate.wait()
        futures += [segmenter.submit(frame(red)) for red in (1, 2, 3)]
        for number in (1, 2):
            with pytest.raises(
                FrameDroppedError, match=rf"frame {number} was given up .* frame {number + 1} came and 1 may wait"
            ):
                futures[number].result(0)
        gate.opened.set()
        assert [result(futures[i]).frame_number for i in (0, 3)] == [0, 3]
        assert gate.seen == [0, 3]

    def test_as_many_wait_as_are_allowed(self, segmenter: Segmenter, gate: Gate) -> None:
        first = segmenter.submit(frame(0))
        gate.wait()
        futures = [segmenter.submit(frame(red), waiting=2) for red in (1, 2, 3)]
        with pytest.raises(FrameDroppedError, match=r"frame 1 .* frame 3 came and 2 may wait"):
            futures[0].result(0)
        gate.opened.set()
        assert [result(future).frame_number for future in (first, *futures[1:])] == [0, 2, 3]
        assert gate.seen == [0, 2, 3]

    def test_a_callback_may_submit(self, segmenter: Segmenter, gate: Gate) -> None:
        gate.opened.set()
        second: list[Future[Segmentation]] = []
        done = threading.Event()

        def again(future: Future[Segmentation]) -> None:
            second.append(segmenter.submit(frame(200)))
            done.set()

        segmenter.submit(frame(0)).add_done_callback(again)
        assert done.wait(PATIENCE)
        assert (result(second[0]).class_map == 3).all()

    def test_writes_into_the_given_class_map(self, segmenter: Segmenter, gate: Gate) -> None:
        gate.opened.set()
        mine = np.full((HEIGHT, WIDTH), 9, np.uint8)
        assert result(segmenter.submit(frame(130), class_map=mine)).class_map is mine
        assert (mine == 2).all()


class TestDeadline:
    def test_a_frame_that_waited_too_long_is_not_segmented(self, segmenter: Segmenter, gate: Gate) -> None:
        first = segmenter.submit(frame(0))
        gate.wait()
        late = segmenter.submit(frame(1), deadline_ms=1)
        threading.Event().wait(0.05)
        gate.opened.set()
        with pytest.raises(DeadlineError, match=r"frame 1 waited \d+\.\d ms .* longer than its deadline of 1 ms"):
            result(late)
        assert result(first).frame_number == 0
        assert gate.seen == [0]

    def test_a_frame_in_time_is_segmented(self, segmenter: Segmenter, gate: Gate) -> None:
        gate.opened.set()
        assert result(segmenter.submit(frame(0), deadline_ms=1e6)).frame_number == 0

    def test_is_a_dropped_frame_too(self) -> None:
        assert issubclass(DeadlineError, FrameDroppedError)

    @pytest.mark.parametrize("deadline", [0, -1.0, float("nan")])
    def test_refuses_no_time(self, segmenter: Segmenter, deadline: float) -> None:
        with pytest.raises(UsageError, match=rf"deadline_ms must be more than 0 ms, but is {deadline}; leave it out"):
            segmenter.submit(frame(0), deadline_ms=deadline)

    def test_refuses_no_place(self, segmenter: Segmenter) -> None:
        with pytest.raises(UsageError, match=r"waiting is a number of frames.* at least 1, but is 0"):
            segmenter.submit(frame(0), waiting=0)


class TestErrors:
    def test_an_error_reaches_its_frame_alone(self, segmenter: Segmenter, gate: Gate) -> None:
        gate.opened.set()
        with pytest.raises(ShapeError, match=r"got \(4, 4\) uint8"):
            result(segmenter.submit(np.zeros((4, 4), np.uint8)))
        assert result(segmenter.submit(frame(0))).frame_number == 1

    def test_a_frame_cancelled_by_its_caller_costs_nothing(self, segmenter: Segmenter, gate: Gate) -> None:
        segmenter.submit(frame(0))
        gate.wait()
        future = segmenter.submit(frame(1))
        assert future.cancel()
        gate.opened.set()
        assert result(segmenter.submit(frame(2), waiting=3)).frame_number == 2
        assert gate.seen == [0, 2]

    def test_a_cancelled_frame_can_be_followed(self, segmenter: Segmenter, gate: Gate) -> None:
        segmenter.submit(frame(0))
        gate.wait()
        assert segmenter.submit(frame(1)).cancel()
        last = segmenter.submit(frame(2))
        gate.opened.set()
        assert result(last).frame_number == 2


class TestClose:
    def test_cancels_what_waits_and_lets_the_work_end(self, segmenter: Segmenter, gate: Gate) -> None:
        working = segmenter.submit(frame(0))
        gate.wait()
        waiting = segmenter.submit(frame(1))
        closing = threading.Thread(target=segmenter.close)
        closing.start()
        with pytest.raises(CancelledError):
            result(waiting)
        assert not working.done()
        gate.opened.set()
        closing.join(PATIENCE)
        assert result(working).frame_number == 0
        assert gate.seen == [0]
        assert not [t for t in threading.enumerate() if t.name == "edgeseg-submissions"]

    def test_twice_then_refuse(self, segmenter: Segmenter, gate: Gate) -> None:
        gate.opened.set()
        result(segmenter.submit(frame(0)))
        segmenter.close()
        segmenter.close()
        with pytest.raises(EngineError, match="the segmenter is closed; load the bundle again"):
            segmenter.submit(frame(0))

    def test_refuse_when_nothing_was_submitted(self, segmenter: Segmenter) -> None:
        segmenter.close()
        with pytest.raises(EngineError, match="the segmenter is closed"):
            segmenter.submit(frame(0))

    def test_from_a_callback(self, segmenter: Segmenter, gate: Gate) -> None:
        closed = threading.Event()

        def close(future: Future[Segmentation]) -> None:
            segmenter.close()
            closed.set()

        segmenter.submit(frame(0)).add_done_callback(close)
        gate.opened.set()
        assert closed.wait(PATIENCE)

    @pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
    def test_a_program_may_end_without_it(self, tmp_path: Path, backend: str) -> None:
        path = quantized_bundle(tmp_path / "toy.edgeseg", 256, 384).path
        code = (
            "import edgeseg, numpy as np\n"
            f"segmenter = edgeseg.load({str(path)!r}, backend={backend!r}, threads=1)\n"
            "frame = np.zeros((256, 384, 3), np.uint8)\n"
            "for _ in range(5): segmenter.submit(frame, waiting=9)\n"
            "print('end')"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
        assert (done.returncode, done.stdout, done.stderr) == (0, "end\n", "")
