"""The runtime: a bundle, an engine and the way from a frame to its class map."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from edgeseg import engine_cache, fused, streaming
from edgeseg.backends import Backend, BundleBackend, ClassMapEngine, Engine, Target, TensorSpec, get_backend
from edgeseg.bundle import Bundle
from edgeseg.environment import read_environment
from edgeseg.errors import BundleError, EngineError, ShapeError, UsageError
from edgeseg.frame import FrameFitter, as_frame
from edgeseg.labels import LabelSet
from edgeseg.machine import split_threads
from edgeseg.segmentation import Segmentation, Timing
from edgeseg.selection import choose_backend
from edgeseg.submission import Submissions
from edgeseg.upsample import Upsampling, frame_logits, nearest_class_map, upsampling

__all__ = ["NamedFrame", "Segmenter", "load"]

EngineMaker = Callable[[Target], Engine]


class NamedFrame(Protocol):
    """A frame with a name, as frame sources give them: `image` is (H, W, 3) uint8 RGB."""

    @property
    def name(self) -> str: ...

    @property
    def image(self) -> NDArray[np.uint8]: ...


def load(
    path: str | Path,
    *,
    backend: str = "auto",
    threads: int | None = None,
    precision: Literal["auto", "float32"] = "auto",
    build: bool | None = None,
    plan: str | Path | None = None,
) -> Segmenter:
    """Open a bundle and make its engine ready, from the bundle or the cache where it was built before.

    Args:
        path: the bundle's folder.
        backend: a name of `edgeseg.backends.BACKENDS`, or "auto": EDGESEG_BACKEND, else TensorRT where it and a GPU
            are here, else the faster of the others, timed once per machine, bundle and library version.
        threads: CPU threads of the engine; None for all that this process may use. It means nothing to a GPU.
        precision: see `Target.precision`.
        build: for TensorRT, whether to build an engine where the bundle has none for this device, which takes minutes,
            once; None for yes on a Jetson.
        plan: for TensorRT, the file of an engine that `edgeseg build -o` wrote; None for the one in the bundle.

    Raises:
        BundleError: for a bundle that cannot be trusted or does not fit its graph.
        UsageError: for an unknown backend, a number of threads below one, or a plan for a backend that has none.
        MissingDependencyError: when the backend's library, or every backend's, is missing.
        EngineError: when the graph does not compile, or there is no engine for this device.
    """
    if threads is not None and threads < 1:
        raise UsageError(f"threads must be at least 1, but is {threads}; leave it out for all processors")
    bundle = Bundle.open(path)
    target = Target(threads=threads, precision=precision)
    model, digest = bundle.read_model(), bundle.manifest.files["model.onnx"]
    asked = read_environment().backend if backend == "auto" else backend
    chosen = get_backend(asked) if asked else choose_backend(model, digest, target)

    if plan is not None and not isinstance(chosen, BundleBackend):
        raise UsageError(f"plan is an engine of TensorRT's, but the backend is {chosen.name}; give backend='tensorrt'")

    def make(target: Target) -> Engine:
        if isinstance(chosen, BundleBackend):
            return chosen.load_bundle(bundle, target, build=build, plan=None if plan is None else Path(plan))
        return engine_cache.engine(chosen, model, digest, target)

    return Segmenter(bundle, chosen, make, target)


class Segmenter:
    """Frames in, class maps out; safe to call from several threads. `load` makes one.

    Args:
        bundle: names, sizes and rules.
        backend: what made the engine; for its name.
        make_engine: gives an engine of the bundle's graph for a target.
        target: for single frames; a stream uses the same with the goal "throughput".
    """

    def __init__(self, bundle: Bundle, backend: Backend, make_engine: EngineMaker, target: Target) -> None:
        self.bundle = bundle
        self.backend_name = backend.name
        self._make_engine = make_engine
        self._target = target
        self._lock = threading.Lock()
        self._closed = False
        self._engines: dict[str, Engine] = {}
        self._submissions: Submissions | None = None
        self._fit = FrameFitter(bundle.manifest.input.height, bundle.manifest.input.width)
        self._engine_for("latency")
        manifest = bundle.manifest
        if manifest.output.kind == "logits":
            fused.warm_up()

    @property
    def labels(self) -> LabelSet:
        """Classes by index of the class map."""
        return self.bundle.manifest.labels

    def __call__(self, frame: NDArray[Any]) -> Segmentation:
        """Segment one frame.

        Args:
            frame: (H, W, 3) uint8 RGB of any size; another size than the network's is resized bilinearly, and the
                class map brought back to the frame's size by nearest sampling. An array, or a tensor of another
                library in the processor's memory (see `edgeseg.frame.as_frame`).

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
            class_map: (H, W) uint8 of the frame's size, contiguous and writable; gets the classes.

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
        engine = self._engine_for("latency")
        frame = as_frame(frame)
        (output,) = engine.infer([self._fit(frame)])
        axes = self._upsampling((frame.shape[0], frame.shape[1]))
        values = frame_logits(output[0], axes.rows, axes.columns)
        if not np.isfinite(values).all():
            raise EngineError("the engine gave logits that are not finite; check the network and its ranges")
        return values

    def make_engine(self, goal: Literal["latency", "throughput"]) -> Engine:
        """Another engine of the same bundle and options, for measuring; the caller closes it."""
        engine = self._make_engine(self._target_for(goal))
        _check_engine(self.bundle, engine)
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
        frame: NDArray[Any],
        number: int = 0,
        name: str = "",
        decode: float = 0.0,
        class_map: NDArray[np.uint8] | None = None,
    ) -> Segmentation:
        """Segment a frame, into `class_map` where it is given."""
        started = time.perf_counter()
        frame = as_frame(frame)
        size = frame.shape[0], frame.shape[1]
        if class_map is not None:
            _check_class_map(class_map, size)
        image = self._fit(frame)
        prepared = time.perf_counter()
        done = self._infer_class_map(engine, image, size)
        inferred = time.perf_counter()
        if done is None:
            (output,) = engine.infer([image])
            inferred = time.perf_counter()
            class_map = self._finish(output[0], size, class_map)
        elif class_map is None:
            class_map = done
        else:
            np.copyto(class_map, done)
        finished = time.perf_counter()
        seconds = (prepared - started, inferred - prepared, finished - inferred, finished - started)
        return Segmentation(class_map, self.labels, Timing(decode, *(1e3 * s for s in seconds)), number, name)

    def _infer_class_map(
        self, engine: Engine, image: NDArray[np.uint8], size: tuple[int, int]
    ) -> NDArray[np.uint8] | None:
        """The class map by the engine alone, which does both in one; None for an engine that gives its output only."""
        if self.bundle.manifest.output.kind != "logits" or not isinstance(engine, ClassMapEngine):
            return None
        return engine.infer_class_map([image], self._upsampling(size))

    def _upsampling(self, size: tuple[int, int]) -> Upsampling:
        manifest = self.bundle.manifest
        shape = (manifest.output.height, manifest.output.width)
        return upsampling(size, manifest.map_size, shape, manifest.output.coordinates)

    def _finish(self, output: NDArray[Any], size: tuple[int, int], out: NDArray[np.uint8] | None) -> NDArray[np.uint8]:
        manifest = self.bundle.manifest
        if manifest.output.kind == "logits":
            return fused.class_map(output, self._upsampling(size), out)
        axes = upsampling(size, manifest.map_size, manifest.map_size, None)
        return nearest_class_map(output, axes.rows, axes.columns, out)


def _check_class_map(given: NDArray[np.uint8], size: tuple[int, int]) -> None:
    """Refuse an array that cannot take the class map of a frame."""
    if not isinstance(given, np.ndarray) or given.shape != size or given.dtype != np.uint8:
        got = f"{given.shape} {given.dtype}" if isinstance(given, np.ndarray) else type(given).__name__
        raise ShapeError(
            f"class_map must be {size} uint8, the size of the frame, but got {got}; "
            f"make it once with np.empty({size}, np.uint8)"
        )
    if not (given.flags.c_contiguous and given.flags.writeable):
        raise ShapeError("class_map must be contiguous and writable, but is a view or read-only; make it with np.empty")


def _check_engine(bundle: Bundle, engine: Engine) -> None:
    """Refuse a graph that is not what the manifest says."""
    frame, out = bundle.manifest.input, bundle.manifest.output
    shape = (1, out.channels, out.height, out.width) if out.kind == "logits" else (1, *bundle.manifest.map_size)
    expected = (
        (TensorSpec(frame.tensor, (1, frame.height, frame.width, 3), "uint8"),),
        (TensorSpec(out.tensor, shape, "float32" if out.kind == "logits" else "uint8"),),
    )
    if (engine.inputs, engine.outputs) != expected:
        engine.close()
        raise BundleError(
            f"{bundle.path}: the manifest describes {_describe(*expected)}, but the graph has "
            f"{_describe(engine.inputs, engine.outputs)}; convert the network again"
        )


def _describe(inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...]) -> str:
    sides = [", ".join(f"{t.name} {t.shape} {t.dtype}" for t in side) for side in (inputs, outputs)]
    return " -> ".join(sides)
