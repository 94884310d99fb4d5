"""A plan, ready to run: lanes that are taken and given back, and the class map computed on the GPU where it can be."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeseg.arrays import contiguous_arrays
from edgeseg.backends import LayerProfile, Target, TensorSpec
from edgeseg.backends.cuda import Cuda
from edgeseg.backends.cuda.frames import DeviceFrames
from edgeseg.backends.tensorrt.class_maps import ClassMapKernels
from edgeseg.backends.tensorrt.lane import Lane, StageTimes
from edgeseg.backends.tensorrt.layers import EngineLayer, layers_from_inspector
from edgeseg.backends.tensorrt.logger import BuildLog
from edgeseg.backends.tensorrt.versions.library import Library
from edgeseg.backends.tensorrt.versions.parsing import Shape, make_logger
from edgeseg.backends.tensorrt.versions.running import (
    IOTensor,
    create_runtime,
    describe_layers,
    io_tensors,
    load_plan,
    profile_shapes,
)
from edgeseg.errors import EngineError, ShapeError
from edgeseg.upsample import Upsampling

__all__ = ["TensorRTEngine"]

_log = logging.getLogger(__name__)

_LANES = {"latency": 1, "throughput": 3}
"""Runs at once: three let copy-in, inference and copy-out of successive frames overlap."""

_WARM_UP = 3
_RUNS = 10


class TensorRTEngine:
    """Runs a plan. It owns the GPU that it is given, and closes it.

    Args:
        library: that built the plan.
        cuda: the GPU.
        plan: TensorRT's serialised engine.
        target: "throughput" runs several frames at once; with `profiling`, times of layers are kept.
        dla_core: deep learning accelerator that the plan was built for.
        graphs: use CUDA graphs where the library for CUDA has them.
        mapped: whether the GPU works on the host's memory without copies; None measures on a GPU that shares it.

    Raises:
        EngineError: for a plan that does not load, or too little memory.
    """

    def __init__(
        self,
        library: Library,
        cuda: Cuda,
        plan: bytes,
        target: Target,
        *,
        dla_core: int | None = None,
        graphs: bool = True,
        mapped: bool | None = None,
    ) -> None:
        self._library, self._cuda = library, cuda
        self._name = library.name.replace("_", "-")
        self._profiling, self._graphs = target.profiling, graphs
        self._log = BuildLog(keep_noise=True)
        self._logger = make_logger(library, self._log.receive)
        self._times: list[tuple[str, float]] = []
        self._state = threading.Condition()
        self._idle: list[Lane] = []
        self._limit = 1 if target.profiling else _LANES[target.goal]
        self._made, self._closed = 0, False
        self._class_maps = ClassMapKernels(cuda, slots=self._limit)
        self._device_frames: DeviceFrames | None = None
        self._runtime: Any = None
        self._engine: Any = None
        self._layers: tuple[EngineLayer, ...] | None = None
        try:
            self._load(plan, dla_core)
            self._idle.append(self._first_lane(mapped))
            self._made = 1
        except BaseException:
            self.close()
            raise

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """Inputs, of the least batch that the plan takes."""
        return self._specs(True, self._batch[0])

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """Outputs for those inputs."""
        return self._specs(False, self._batch[0])

    @property
    def batch(self) -> tuple[int, int]:
        """Least and largest number of frames at once."""
        return self._batch

    @property
    def mapped(self) -> bool:
        """Whether the GPU works on the host's memory without copies."""
        return self._mapped

    @property
    def has_graph(self) -> bool:
        """Whether the lanes at rest launch CUDA graphs; false from the first capture that failed."""
        with self._state:
            return any(lane.captures for lane in self._idle)

    def infer(self, arrays: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        """Run once; see `Engine.infer`. A plan with a dynamic batch takes every number of frames in `batch`."""
        frames = self._frames(arrays)
        arrays = contiguous_arrays(arrays, self._specs(True, frames))
        with self._lane() as lane:
            return lane.run(arrays, frames)

    def infer_class_map(self, arrays: Sequence[NDArray[Any]], upsampling: Upsampling) -> NDArray[np.uint8] | None:
        """Run once and upsample and decide on the GPU; see `ClassMapEngine.infer_class_map`."""
        arrays = contiguous_arrays(arrays, self._specs(True, 1))
        with self._lane() as lane:
            kernel = self._class_maps.get(self.outputs, upsampling)
            if kernel is None:
                return None
            return lane.run_class_map(arrays, kernel)

    def infer_on_device(
        self, frame: Any, upsampling: Callable[[tuple[int, int]], Upsampling], class_map: Any = None
    ) -> NDArray[np.uint8] | None:
        """Run once with a frame in the GPU's memory; see `DeviceEngine.infer_on_device`."""
        with self._lane() as lane:
            frames = self._frames_on_device()
            taken = frames.frame(frame, lane.stream)
            size = (taken.shape[0], taken.shape[1])
            target = None if class_map is None else frames.class_map(class_map, size, lane.stream)
            kernel = self._class_maps.get(self.outputs, upsampling(size))
            if kernel is None:
                raise EngineError(
                    "frames in the GPU's memory need its kernels for class maps, which there are for a few sizes of "
                    "frames only and where they compile; give the frame in the processor's memory"
                )
            return lane.run_on_device(partial(frames.fit, taken), kernel, target)

    def stage_times(self, arrays: Sequence[NDArray[Any]], runs: int = 20) -> StageTimes:
        """Median ms of each stage over some runs, by CUDA's events."""
        frames = self._frames(arrays)
        arrays = contiguous_arrays(arrays, self._specs(True, frames))
        with self._lane() as lane:
            for _ in range(_WARM_UP):
                lane.run(arrays, frames)
            found = [lane.time(arrays, frames) for _ in range(runs)]
        names = ("copy_in", "inference", "copy_out", "gpu", "wall")
        return StageTimes(*(float(np.median([getattr(times, name) for times in found])) for name in names))

    def profile(self) -> list[LayerProfile]:
        """Layers of the last run with their times; see `Engine.profile`. TensorRT names no kernels: it is the type."""
        if not self._profiling:
            raise EngineError("the engine was not compiled for profiling; use Target(profiling=True)")
        with self._lane():
            times = list(self._times)
            if not times:
                raise EngineError("there is nothing to profile yet; run the engine first")
            if self._layers is None:
                self._layers = self._describe()
        known = {layer.name: layer for layer in self._layers}
        rows = []
        for name, milliseconds in times:
            layer = known.get(name)
            kind, precision = (layer.kind, layer.precision) if layer else ("", "")
            rows.append(LayerProfile(name, layer.role if layer else "", kind, precision, milliseconds))
        return rows

    def close(self) -> None:
        """Free the plan, after the runs at hand; a second call does nothing."""
        with self._state:
            if self._closed:
                return
            self._closed = True
            self._state.notify_all()
            self._state.wait_for(lambda: len(self._idle) >= self._made)
            lanes, self._idle = self._idle, []
        for lane in lanes:
            lane.close()
        self._class_maps.close()
        if self._device_frames is not None:
            self._device_frames.close()
        with suppress(EngineError), self._cuda.current():
            self._engine = None
            self._runtime = None
        self._engine = self._runtime = None
        self._cuda.close()

    def _frames_on_device(self) -> DeviceFrames:
        with self._state:
            if self._device_frames is None:
                self._device_frames = DeviceFrames(self._cuda, self.inputs[0].shape)
            return self._device_frames

    def _load(self, plan: bytes, dla_core: int | None) -> None:
        with self._cuda.current():
            self._runtime = create_runtime(self._library, self._logger, dla_core)
            self._engine = load_plan(self._runtime, plan)
            if self._engine is None:
                said = f": {self._log.errors[-1]}" if self._log.errors else ""
                raise EngineError(
                    f"{self._library} does not load the plan{said}; build it again with: edgeseg build BUNDLE --force"
                )
            self._tensors: tuple[IOTensor, ...] = io_tensors(self._library, self._engine)
            dynamic = [port for port in self._tensors if port.is_input and -1 in port.shape]
            self._batch = (1, 1)
            if dynamic:
                least, _, largest = profile_shapes(self._engine, dynamic[0].name)
                self._batch = (least[0], largest[0])
            elif self._tensors and self._tensors[0].shape:
                self._batch = (self._tensors[0].shape[0],) * 2
        self._dynamic = bool(dynamic)

    def _specs(self, inputs: bool, frames: int) -> tuple[TensorSpec, ...]:
        found = [port for port in self._tensors if port.is_input is inputs]
        return tuple(TensorSpec(t.name, _with_batch(t.shape, frames), t.dtype) for t in found)

    def _frames(self, arrays: Sequence[NDArray[Any]]) -> int:
        least, largest = self._batch
        shape = arrays[0].shape if len(arrays) else ()
        if not self._dynamic or not shape:
            return least
        if shape[1:] == self.inputs[0].shape[1:] and not least <= shape[0] <= largest:
            raise ShapeError(
                f"the engine takes {least} to {largest} frames at once, but got {shape[0]}; build it again with --batch"
            )
        return int(shape[0]) if least <= shape[0] <= largest else least

    def _first_lane(self, mapped: bool | None) -> Lane:
        if mapped is None and self._cuda.facts.integrated and self._cuda.facts.maps_host_memory:
            return self._faster_lane()
        self._mapped = bool(mapped)
        return self._make_lane(0, mapped=self._mapped)

    def _faster_lane(self) -> Lane:
        """Copies against zero-copy memory, where the GPU shares the processor's: which is faster depends on the frame.

        Without copies the GPU reads the frame past its caches; with them each byte moves twice.
        """
        lanes = [self._make_lane(0, mapped=mapped) for mapped in (False, True)]
        seconds = [self._fastest(lane) for lane in lanes]
        best = min((0, 1), key=lambda i: seconds[i])
        lanes[1 - best].close()
        self._mapped = lanes[best].mapped
        copied, shared = (1e3 * value for value in seconds)
        _log.info("a frame takes %.3f ms with copies, %.3f ms without: %s", copied, shared, ("copies", "none")[best])
        return lanes[best]

    def _fastest(self, lane: Lane, clock: Callable[[], float] = time.perf_counter) -> float:
        arrays = [np.zeros(spec.shape, spec.dtype) for spec in self.inputs]
        for _ in range(_WARM_UP):
            lane.run(arrays, self._batch[0])
        times = []
        for _ in range(_RUNS):
            started = clock()
            lane.run(arrays, self._batch[0])
            times.append(clock() - started)
        return min(times)

    def _make_lane(self, number: int, *, mapped: bool) -> Lane:
        largest = {port.name: _with_batch(port.shape, self._batch[1]) for port in self._tensors}
        listen = self._note if self._profiling else None
        return Lane(
            self._cuda, self._library, self._engine, self._tensors, largest,
            number=number, mapped=mapped, graphs=self._graphs, listen=listen,
        )  # fmt: skip

    def _note(self, layer: str, milliseconds: float) -> None:
        """A layer's time; a name that comes again begins the next run."""
        if any(name == layer for name, _ in self._times):
            self._times.clear()
        self._times.append((layer, milliseconds))

    @contextmanager
    def _lane(self) -> Iterator[Lane]:
        lane = self._take()
        try:
            yield lane
        finally:
            with self._state:
                self._idle.append(lane)
                self._state.notify_all()

    def _take(self) -> Lane:
        """A lane that no other thread has, made where more are allowed."""
        with self._state:
            while True:
                if self._closed:
                    raise EngineError(f"the {self._name} engine is closed; load it again")
                if self._idle:
                    return self._idle.pop()
                if self._made < self._limit:
                    try:
                        lane = self._make_lane(self._made, mapped=self._mapped)
                    except EngineError as error:
                        if self._cuda.lost is not None:
                            raise
                        _log.warning("no more than %d at once can run: %s", self._made, error)
                        self._limit = self._made
                        continue
                    self._made += 1
                    return lane
                self._state.wait()

    def _describe(self) -> tuple[EngineLayer, ...]:
        shapes = {t.name: _with_batch(t.shape, self._batch[0]) for t in self._tensors if t.is_input and -1 in t.shape}
        try:
            with self._cuda.current():
                return layers_from_inspector(describe_layers(self._library, self._engine, shapes))
        except EngineError as error:
            _log.info("the layers' types are not known: %s", error)
            return ()


def _with_batch(shape: Shape, frames: int) -> Shape:
    return (frames, *shape[1:]) if shape[:1] == (-1,) else shape
