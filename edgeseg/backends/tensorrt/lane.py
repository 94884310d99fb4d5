"""One way through an engine: an execution context, a stream, and the buffers of its inputs and outputs.

Several lanes overlap: while one waits for its class map, another copies its frame in and a third computes.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeseg.backends.cuda import Cuda, Graph, Memory, Stream
from edgeseg.backends.cuda.arrays import DeviceArray
from edgeseg.backends.cuda.class_map import ClassMapKernel
from edgeseg.backends.tensorrt.buffer import LaneBuffer
from edgeseg.backends.tensorrt.versions.library import Library
from edgeseg.backends.tensorrt.versions.parsing import Shape
from edgeseg.backends.tensorrt.versions.running import (
    IOTensor,
    create_context,
    enqueue,
    listen_to_layers,
    set_input_shape,
    set_tensor_address,
)
from edgeseg.errors import EngineError

__all__ = ["Lane", "StageTimes"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StageTimes:
    """Milliseconds of one run: of the device for each stage and for all of it as it is run usually, and of the caller.

    With zero-copy memory nothing is copied, and both copies are 0.
    """

    copy_in: float
    inference: float
    copy_out: float
    gpu: float
    wall: float


class Lane:
    """Runs one call at a time; its owner sees to that.

    Args:
        cuda: the GPU.
        library, engine: the deserialized engine, and whose it is.
        tensors: its inputs and outputs.
        largest: shape by name of every tensor, at the largest batch.
        number: of this lane, from 0.
        mapped: let the device work on the host's memory, without copies.
        graphs: capture a CUDA graph once a run is warm.
        listen: gets each layer's name and ms of every run; a lane that is listened to captures nothing.

    Raises:
        EngineError: when memory is short.
    """

    def __init__(
        self,
        cuda: Cuda,
        library: Library,
        engine: Any,
        tensors: Sequence[IOTensor],
        largest: Mapping[str, Shape],
        *,
        number: int = 0,
        mapped: bool = False,
        graphs: bool = True,
        listen: Callable[[str, float], None] | None = None,
    ) -> None:
        self.mapped = mapped
        self._cuda, self._number = cuda, number
        self._dynamic = [port.name for port in tensors if port.is_input and -1 in port.shape]
        self._largest = largest
        self._frames: int | None = None
        self._capturing = graphs and cuda.has_graphs and listen is None
        self._graphs: dict[object, Graph | None] = {}
        self._class_maps: dict[ClassMapKernel, LaneBuffer] = {}
        with ExitStack() as made:
            self._stream = made.enter_context(cuda.stream(f"lane {number}"))
            with cuda.current():
                self._context: Any = create_context(library, engine)
                self._listener = None if listen is None else listen_to_layers(library, self._context, listen)
            made.callback(self._drop_context)
            buffers = {}
            for port in tensors:
                purpose = f"{'input' if port.is_input else 'output'} {port.name}"
                buffer = LaneBuffer(cuda, made, largest[port.name], port.dtype, purpose, mapped=mapped)
                with cuda.current():
                    set_tensor_address(self._context, port.name, buffer.address)
                buffers[port.name] = buffer
            self._made = made.pop_all()
        self._inputs = [buffers[port.name] for port in tensors if port.is_input]
        self._outputs = [buffers[port.name] for port in tensors if not port.is_input]

    @property
    def stream(self) -> Stream:
        """Of this lane's work."""
        return self._stream

    @property
    def captures(self) -> bool:
        """Whether runs are, or will be, launches of a CUDA graph."""
        return self._capturing

    def run(self, arrays: Sequence[NDArray[Any]], frames: int) -> list[NDArray[Any]]:
        """Run once.

        Args:
            arrays: the inputs, checked.
            frames: their batch.

        Returns:
            The outputs, of their own.
        """
        self._take(arrays, frames)
        self._repeat(None, lambda: self._work(frames))
        return [self._rows(buffer, frames).copy() for buffer in self._outputs]

    def run_class_map(self, arrays: Sequence[NDArray[Any]], kernel: ClassMapKernel) -> NDArray[np.uint8]:
        """Run once with one frame, and give its class map (H, W) uint8, of its own.

        Raises:
            EngineError: also for logits that are not finite.
        """
        target = self._class_map_buffer(kernel)
        self._take(arrays, 1)
        self._repeat(kernel, lambda: self._work_to_class_map(kernel, target))
        kernel.check(self._number)
        class_map: NDArray[np.uint8] = target.host.array.copy()
        return class_map

    def run_on_device(
        self, fit: Callable[[Memory, Stream], None], kernel: ClassMapKernel, class_map: DeviceArray | None
    ) -> NDArray[np.uint8] | None:
        """Run once with one frame that lies on the device.

        Args:
            fit: puts what writes the network's input on a stream. It is not captured, since frames lie elsewhere each
                time.
            kernel: for the frame's size.
            class_map: gets the class map; None for an array in the host's memory.

        Returns:
            The class map (H, W) uint8, of its own, where it does not go into `class_map`.

        Raises:
            EngineError: also for logits that are not finite.
        """
        own = self._class_map_buffer(kernel)

        def give() -> None:
            if class_map is not None:
                self._stream.copy_on_device(class_map.memory, own.on_device)
            elif own.memory is not None:
                self._stream.copy_to_host(own.host.array, own.memory)

        self._choose_batch(1)
        fit(self._inputs[0].on_device, self._stream)
        self._repeat((kernel, "on device"), lambda: self._compute_class_map(kernel, own), end=give)
        kernel.check(self._number)
        return own.host.array.copy() if class_map is None else None

    def time(self, arrays: Sequence[NDArray[Any]], frames: int) -> StageTimes:
        """Run twice, once stage by stage and once as usual, with the device's clock between."""
        self._take(arrays, frames)
        with ExitStack() as made:
            events = [made.enter_context(self._cuda.event()) for _ in range(4)]
            events[0].record(self._stream)
            self._copy_in(frames)
            events[1].record(self._stream)
            self._compute()
            events[2].record(self._stream)
            self._copy_out(frames)
            events[3].record(self._stream)
            self._stream.synchronize()
            copy_in, inference, copy_out = (b.elapsed_ms(a) for a, b in pairwise(events))
            if self.mapped:
                copy_in = copy_out = 0.0
            started = time.perf_counter()
            self._take(arrays, frames)
            events[0].record(self._stream)
            self._repeat(None, lambda: self._work(frames), end=lambda: events[3].record(self._stream))
            for buffer in self._outputs:
                self._rows(buffer, frames).copy()
            wall = 1e3 * (time.perf_counter() - started)
            return StageTimes(copy_in, inference, copy_out, events[3].elapsed_ms(events[0]), wall)

    def close(self) -> None:
        """Free everything; a second call does nothing."""
        self._forget_graphs()
        self._made.close()

    def _drop_context(self) -> None:
        with suppress(EngineError), self._cuda.current():
            self._context = self._listener = None
        self._context = self._listener = None  # also on a GPU that is lost

    def _class_map_buffer(self, kernel: ClassMapKernel) -> LaneBuffer:
        if kernel not in self._class_maps:
            self._class_maps[kernel] = LaneBuffer(
                self._cuda, self._made, kernel.frame_size, "uint8", "class map", mapped=self.mapped
            )
        return self._class_maps[kernel]

    def _take(self, arrays: Sequence[NDArray[Any]], frames: int) -> None:
        """Put the inputs into pinned memory, and choose the batch."""
        self._choose_batch(frames)
        for buffer, array in zip(self._inputs, arrays, strict=True):
            np.copyto(self._rows(buffer, frames), array)

    def _choose_batch(self, frames: int) -> None:
        if frames != self._frames:
            self._forget_graphs()  # what a graph holds belongs to the shapes at its capture
            with self._cuda.current():
                for name in self._dynamic:
                    set_input_shape(self._context, name, (frames, *self._largest[name][1:]))
            self._frames = frames

    def _rows(self, buffer: LaneBuffer, frames: int) -> NDArray[Any]:
        return buffer.host.array[:frames] if self._dynamic else buffer.host.array

    def _repeat(self, key: object, work: Callable[[], None], end: Callable[[], None] | None = None) -> None:
        """Do work on the stream and wait for it: plainly at first, captured the second time, then as a graph."""
        graph = self._graphs.get(key)
        if graph is None and self._capturing and key in self._graphs:
            graph = self._graphs[key] = self._capture(work)
        if graph is not None:
            graph.launch(self._stream)
        else:
            work()
            self._graphs.setdefault(key, None)
        if end is not None:
            end()
        self._stream.synchronize()

    def _capture(self, work: Callable[[], None]) -> Graph | None:
        try:
            return self._stream.capture(work)
        except EngineError as error:
            if self._cuda.lost is not None:
                raise
            self._capturing = False
            _log.info("the engine runs without a CUDA graph: %s", error)
            return None

    def _forget_graphs(self) -> None:
        for graph in self._graphs.values():
            if graph is not None:
                graph.close()
        self._graphs.clear()

    def _work(self, frames: int) -> None:
        self._copy_in(frames)
        self._compute()
        self._copy_out(frames)

    def _work_to_class_map(self, kernel: ClassMapKernel, target: LaneBuffer) -> None:
        self._copy_in(1)
        self._compute_class_map(kernel, target)
        if target.memory is not None:
            self._stream.copy_to_host(target.host.array, target.memory)

    def _compute_class_map(self, kernel: ClassMapKernel, target: LaneBuffer) -> None:
        self._compute()
        kernel.launch(self._stream, self._outputs[0].address, target.address, slot=self._number)

    def _copy_in(self, frames: int) -> None:
        for buffer in self._inputs:
            if buffer.memory is not None:
                self._stream.copy_to_device(buffer.memory, self._rows(buffer, frames))

    def _compute(self) -> None:
        with self._cuda.current():
            enqueue(self._context, self._stream.handle)

    def _copy_out(self, frames: int) -> None:
        for buffer in self._outputs:
            if buffer.memory is not None:
                self._stream.copy_to_host(self._rows(buffer, frames), buffer.memory)
