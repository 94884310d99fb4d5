"""Frames handed in by a program that does not wait: one thread segments them, and the newest goes first.

A robot's control loop must act on what the camera sees now. So a frame that still waits when its successor comes is
given up, and no frame waits longer than its caller allows: a class map is then at most twice the network's time old.
"""

from __future__ import annotations

import atexit
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeseg.errors import DeadlineError, EngineError, FrameDroppedError, UsageError
from edgeseg.segmentation import Segmentation

__all__ = ["Submissions"]

SegmentFrame = Callable[[NDArray[Any], int, "NDArray[np.uint8] | None"], Segmentation]
"""Segments a frame; takes its number too, and the array for its class map or None for a new one."""


@dataclass
class _Submission:
    """A frame that waits.

    Attributes:
        frame: as it was submitted; nothing is copied.
        number: position among all that were submitted, from 0.
        class_map: where its class map goes; None for a new array.
        deadline_ms: longest wait; None for any.
        submitted: `time.monotonic()` in seconds.
        future: what its caller holds.
    """

    frame: NDArray[Any]
    number: int
    class_map: NDArray[np.uint8] | None
    deadline_ms: float | None
    submitted: float
    future: Future[Segmentation] = field(default_factory=Future)


class Submissions:
    """A thread that segments what is submitted, and the frames that wait for it.

    Args:
        segment: called in that thread alone, for one frame at a time.
    """

    def __init__(self, segment: SegmentFrame) -> None:
        self._segment = segment
        self._waiting: deque[_Submission] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._count = 0
        self._thread = threading.Thread(target=self._work, name="edgeseg-submissions", daemon=True)
        self._thread.start()
        _open.add(self)

    def submit(
        self,
        frame: NDArray[Any],
        *,
        deadline_ms: float | None = None,
        waiting: int = 1,
        class_map: NDArray[np.uint8] | None = None,
    ) -> Future[Segmentation]:
        """Hand in a frame; see `edgeseg.segmenter.Segmenter.submit`."""
        if waiting < 1:
            raise UsageError(f"waiting is a number of frames, this one included, of at least 1, but is {waiting}")
        if deadline_ms is not None and not deadline_ms > 0:
            raise UsageError(f"deadline_ms must be more than 0 ms, but is {deadline_ms}; leave it out for none")
        dropped: list[_Submission] = []
        with self._changed:
            if self._closed:
                raise EngineError("the segmenter is closed; load the bundle again")
            submission = _Submission(frame, self._count, class_map, deadline_ms, time.monotonic())
            self._count += 1
            self._waiting.append(submission)
            while len(self._waiting) > waiting:
                dropped.append(self._waiting.popleft())
            self._changed.notify()
        # Outside the lock: a callback of a future may submit the next frame.
        for older in dropped:
            _fail(
                older,
                FrameDroppedError(
                    f"frame {older.number} was given up before the engine was free, because frame {submission.number} "
                    f"came and {waiting} may wait; submit fewer frames or let more wait"
                ),
            )
        return submission.future

    def close(self) -> None:
        """Cancel what waits and end the thread after the frame in work; a second call does nothing."""
        with self._changed:
            self._closed = True
            waiting = list(self._waiting)
            self._waiting.clear()
            self._changed.notify()
        for submission in waiting:
            submission.future.cancel()
        if threading.current_thread() is not self._thread:
            self._thread.join()
        _open.discard(self)

    def _work(self) -> None:
        while self._work_once():
            pass

    def _work_once(self) -> bool:
        """One frame; a function of its own, so that no frame or result is held while the next is awaited."""
        submission = self._next()
        if submission is None:
            return False
        self._run(submission)
        return True

    def _next(self) -> _Submission | None:
        with self._changed:
            while not self._waiting and not self._closed:
                self._changed.wait()
            return None if self._closed else self._waiting.popleft()

    def _run(self, submission: _Submission) -> None:
        """Give a future its result or its error; a frame that its caller cancelled meanwhile costs nothing."""
        waited = 1e3 * (time.monotonic() - submission.submitted)
        if submission.deadline_ms is not None and waited > submission.deadline_ms:
            _fail(
                submission,
                DeadlineError(
                    f"frame {submission.number} waited {waited:.1f} ms for the engine, longer than its deadline of "
                    f"{submission.deadline_ms:g} ms; take a smaller network or a longer deadline"
                ),
            )
            return
        if not submission.future.set_running_or_notify_cancel():
            return
        try:
            result = self._segment(submission.frame, submission.number, submission.class_map)
        except BaseException as error:  # a worker thread must not swallow anything: the caller raises it
            submission.future.set_exception(error)
        else:
            submission.future.set_result(result)


_open: weakref.WeakSet[Submissions] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    """End the threads while Python still stands: one that comes back from an engine later takes the process down."""
    for submissions in list(_open):
        submissions.close()


def _fail(submission: _Submission, error: FrameDroppedError) -> None:
    """Give up a frame that waits, unless its caller cancelled it before."""
    if submission.future.set_running_or_notify_cancel():
        submission.future.set_exception(error)
