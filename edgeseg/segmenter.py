"""The runtime: a bundle's engines, and frames in from any thread, class maps out."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from edgeseg import streaming
from edgeseg.backends import Backend, Engine, Target
from edgeseg.bundle import Bundle
from edgeseg.checks import check_engine
from edgeseg.errors import EngineError, UsageError
from edgeseg.frame import FittableFrame
from edgeseg.inference import FrameInference
from edgeseg.labels import LabelSet
from edgeseg.machine import split_threads
from edgeseg.segmentation import Segmentation
from edgeseg.submission import Submissions

__all__ = ["NamedFrame", "Segmenter"]

EngineMaker = Callable[[Target], Engine]


class NamedFrame(Protocol):
    """A frame with a name, as frame sources give them: `image` is (H, W, 3) uint8 RGB."""

    @property
    def name(self) -> str: ...

    @property
    def image(self) -> NDArray[np.uint8]: ...


class Segmenter:
    """Frames in, class maps out; safe to call from several threads. `edgeseg.load` makes one.

    Args:
        bundle: names, sizes and rules.
        backend: what made the engine; for its name.
        make_engine: gives an engine of the bundle's graph for a target.
        target: for single frames; a stream uses the same with the goal "throughput".
        compiled: False for a few frames alone, see `edgeseg.inference.FrameInference`.
    """

    def __init__(
        self, bundle: Bundle, backend: Backend, make_engine: EngineMaker, target: Target, *, compiled: bool = True
    ) -> None:
        self.bundle = bundle
        self.backend_name = backend.name
        self._make_engine = make_engine
        self._target = target
        self._lock = threading.Lock()
        self._closed = False
        self._engines: dict[str, Engine] = {}
        self._submissions: Submissions | None = None
        self._engine_for("latency")
        self._inference = FrameInference(bundle.manifest, compiled=compiled)

    @property
    def labels(self) -> LabelSet:
        """Classes by index of the class map."""
        return self.bundle.manifest.labels

    def __call__(self, frame: NDArray[Any] | FittableFrame) -> Segmentation:
        """Segment one frame.

        Args:
            frame: (H, W, 3) uint8 RGB of any size; another size than the network's is resized bilinearly, and the
                class map brought back to the frame's size by nearest sampling. An array, or a tensor of another
                library in the processor's memory (see `edgeseg.frame.as_frame`) or, where the engine runs there, in
                the GPU's (see `edgeseg.backends.DeviceEngine`); it is not copied from one to the other. A frame in a
                form of its own makes the network's input itself.

        Raises:
            ShapeError: for another shape or type.
            EngineError: when the engine fails or the segmenter is closed.
        """
        return self._segment(self._engine_for("latency"), frame)

    def segment_into(self, frame: NDArray[Any], class_map: NDArray[np.uint8]) -> Segmentation:
        """Segment one frame into an array of the caller's; from the second frame on no array is allocated on a CPU.

        The result's `class_map` is that array: a result of an earlier call with it changes too. All other ways to
        segment give every result a class map of its own.

        Args:
            frame: as for a call.
            class_map: (H, W) uint8 of the frame's size, contiguous and writable; gets the classes. For a frame in the
                GPU's memory it may lie there too, as a tensor of any library.

        Raises:
            ShapeError, EngineError: as for a call; ShapeError also for another class map. After an error the content
                of `class_map` is undefined.
        """
        return self._segment(self._engine_for("latency"), frame, class_map=class_map)

    def submit(
        self,
        frame: NDArray[Any],
        *,
        deadline_ms: float | None = None,
        waiting: int = 1,
        class_map: NDArray[np.uint8] | None = None,
    ) -> Future[Segmentation]:
        """Hand in a frame and go on; a thread of this segmenter's takes frames in order, one at a time.

        The future raises FrameDroppedError for a frame that was given up for newer ones, DeadlineError for one that
        waited too long, and what a call raises. `close` cancels the futures of frames that wait. The result's
        `frame_number` counts the submissions from 0, so gaps in it are the frames given up.

        Args:
            frame: as for a call. Nothing is copied: leave it unchanged until the future is done.
            deadline_ms: longest wait for the engine, in ms from this call; a frame that waited longer is not
                segmented. None for no limit. The network's own time comes on top.
            waiting: frames that may wait while another is segmented, this one included; beyond that the oldest are
                given up. 1 is the mode of a control loop: latest only.
            class_map: as for `segment_into`, the caller's own until this call and again when the future is done; None
                for a new array.

        Raises:
            UsageError: for a deadline that is not above 0 or a number below 1.
            EngineError: when the segmenter is closed.
        """
        with self._lock:
            if self._submissions is None and not self._closed:
                self._submissions = Submissions(self._segment_submitted)
            submissions = self._submissions
        if submissions is None:
            raise EngineError("the segmenter is closed; load the bundle again")
        return submissions.submit(frame, deadline_ms=deadline_ms, waiting=waiting, class_map=class_map)

    def stream(
        self, frames: Iterable[NDArray[Any] | NamedFrame], *, in_flight: int | None = None
    ) -> Iterator[Segmentation]:
        """Segment frames in order, several at once: reading, inference and post-processing overlap.

        The iterator reads ahead by a bounded number of frames. Leaving it early, an error of the source or of a frame,
        and Ctrl-C end its threads; an error reaches the caller in the frame's place.

        Args:
            frames: (H, W, 3) uint8 RGB arrays, or values with `image` and `name`; sizes may differ.
            in_flight: frames worked on at once; None for one more than the engine runs in parallel.

        Raises:
            ShapeError, EngineError: as for a single frame.
            UsageError: for `in_flight` below one.
        """
        if in_flight is not None and in_flight < 1:
            raise UsageError(f"in_flight must be at least 1, but is {in_flight}")
        engine = self._engine_for("throughput")
        parallel, _ = split_threads(self._target.threads, "throughput")

        def work(item: NDArray[Any] | NamedFrame, number: int, decode: float) -> Segmentation:
            # Tensors of other libraries are frames too, and may have a name of their own, but no image.
            image: Any = getattr(item, "image", item)
            name = "" if image is item else str(getattr(item, "name", ""))
            return self._segment(engine, image, number, name, decode)

        return streaming.ordered(frames, work, min(in_flight or parallel + 1, 16))

    def logits(self, frame: NDArray[Any]) -> NDArray[np.float32]:
        """The class scores behind a frame's class map, for a refinement or a look at what is close.

        Args:
            frame: as for a call.

        Returns:
            (C, H, W) float32 of the frame's size, a new array; its largest channel is the class of a call.

        Raises:
            ShapeError, EngineError: as for a call.
            UsageError: for a bundle whose graph ends with class maps.
        """
        if self.bundle.manifest.output.kind != "logits":
            raise UsageError(f"{self.bundle.path} gives class maps, not logits; convert the network without an argmax")
        return self._inference.logits(self._engine_for("latency"), frame)

    def make_engine(self, goal: Literal["latency", "throughput"]) -> Engine:
        """Another engine of the same bundle and options, for measuring; the caller closes it."""
        engine = self._make_engine(self._target_for(goal))
        check_engine(self.bundle, engine)
        return engine

    def close(self) -> None:
        """Cancel what was submitted and waits, and free the engines; a second call does nothing.

        Later frames raise EngineError.
        """
        with self._lock:
            self._closed = True
            submissions = self._submissions
        if submissions is not None:
            submissions.close()
        with self._lock:
            engines, self._engines = list(self._engines.values()), {}
        for engine in engines:
            engine.close()

    def __enter__(self) -> Segmenter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _engine_for(self, goal: Literal["latency", "throughput"]) -> Engine:
        """The engine of a goal, made on first use; with one thread both goals are the same engine."""
        if split_threads(self._target.threads, "throughput")[0] == 1:
            goal = "latency"
        with self._lock:
            if self._closed:
                raise EngineError("the segmenter is closed; load the bundle again")
            if goal not in self._engines:
                self._engines[goal] = self.make_engine(goal)
            return self._engines[goal]

    def _target_for(self, goal: Literal["latency", "throughput"]) -> Target:
        return Target(self._target.threads, goal, self._target.precision, self._target.profiling)

    def _segment_submitted(self, frame: NDArray[Any], number: int, class_map: NDArray[np.uint8] | None) -> Segmentation:
        return self._segment(self._engine_for("latency"), frame, number, class_map=class_map)

    def _segment(
        self,
        engine: Engine,
        frame: NDArray[Any] | FittableFrame,
        number: int = 0,
        name: str = "",
        decode: float = 0.0,
        class_map: NDArray[np.uint8] | None = None,
    ) -> Segmentation:
        """Segment a frame, into `class_map` where it is given."""
        found, timing = self._inference.class_map(engine, frame, class_map, decode)
        return Segmentation(found, self.labels, timing, number, name)
