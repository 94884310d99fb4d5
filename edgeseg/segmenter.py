"""The runtime: a bundle, an engine and the way from a frame to its class map."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from edgeseg import engine_cache, fused, streaming
from edgeseg.backends import Backend, Engine, Target, TensorSpec, get_backend
from edgeseg.bundle import Bundle
from edgeseg.environment import read_environment
from edgeseg.errors import BundleError, EngineError, UsageError
from edgeseg.frame import fit_frame
from edgeseg.labels import LabelSet
from edgeseg.machine import split_threads
from edgeseg.segmentation import Segmentation, Timing
from edgeseg.selection import choose_backend
from edgeseg.upsample import nearest_class_map, upsampling

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
) -> Segmenter:
    """Open a bundle and make its engine ready, from the cache where it was compiled before.

    Args:
        path: the bundle's folder.
        backend: "openvino", "onnxruntime", or "auto": EDGESEG_BACKEND, else the faster one, timed once per machine,
            bundle and library version.
        threads: CPU threads of the engine; None for all that this process may use.
        precision: see `Target.precision`.

    Raises:
        BundleError: for a bundle that cannot be trusted or does not fit its graph.
        UsageError: for an unknown backend or a number of threads below one.
        MissingDependencyError: when the backend's library, or every backend's, is missing.
        EngineError: when the graph does not compile.
    """
    if threads is not None and threads < 1:
        raise UsageError(f"threads must be at least 1, but is {threads}; leave it out for all processors")
    bundle = Bundle.open(path)
    target = Target(threads=threads, precision=precision)
    model, digest = bundle.read_model(), bundle.manifest.files["model.onnx"]
    asked = read_environment().backend if backend == "auto" else backend
    chosen = get_backend(asked) if asked else choose_backend(model, digest, target)

    def make(target: Target) -> Engine:
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
                class map brought back to the frame's size by nearest sampling.

        Raises:
            ShapeError: for another shape or type.
            EngineError: when the engine fails or the segmenter is closed.
        """
        return self._segment(self._engine_for("latency"), frame)

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
            if isinstance(item, np.ndarray):
                return self._segment(engine, item, number, decode=decode)
            return self._segment(engine, item.image, number, item.name, decode)

        return streaming.ordered(frames, work, min(in_flight or parallel + 1, 16))

    def close(self) -> None:
        """Free the engines; a second call does nothing, and later frames raise EngineError."""
        with self._lock:
            self._closed = True
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
                target = Target(self._target.threads, goal, self._target.precision, self._target.profiling)
                engine = self._make_engine(target)
                _check_engine(self.bundle, engine)
                self._engines[goal] = engine
            return self._engines[goal]

    def _segment(
        self, engine: Engine, frame: NDArray[Any], number: int = 0, name: str = "", decode: float = 0.0
    ) -> Segmentation:
        started = time.perf_counter()
        entry = self.bundle.manifest.input
        image = fit_frame(frame, entry.height, entry.width)
        prepared = time.perf_counter()
        (output,) = engine.infer([image])
        inferred = time.perf_counter()
        class_map = self._finish(output[0], frame.shape[:2])
        finished = time.perf_counter()
        seconds = (prepared - started, inferred - prepared, finished - inferred, finished - started)
        return Segmentation(class_map, self.labels, Timing(decode, *(1e3 * s for s in seconds)), number, name)

    def _finish(self, output: NDArray[Any], size: tuple[int, int]) -> NDArray[np.uint8]:
        manifest = self.bundle.manifest
        shape = (manifest.output.height, manifest.output.width)
        if manifest.output.kind == "logits":
            return fused.class_map(output, upsampling(size, manifest.map_size, shape, manifest.output.coordinates))
        axes = upsampling(size, manifest.map_size, manifest.map_size, None)
        return nearest_class_map(output, axes.rows, axes.columns)


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
