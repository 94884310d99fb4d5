"""What is made on a GPU and must be given back: memory, pinned buffers, streams, events, graphs, modules."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import DTypeLike, NDArray

from edgeseg.backends.cuda.interface import Argument, CudaCallError, Grid
from edgeseg.errors import EngineError, ShapeError

if TYPE_CHECKING:
    from edgeseg.backends.cuda.device import Cuda

__all__ = ["Event", "Graph", "HostBuffer", "Kernel", "Memory", "Module", "Resource", "Stream", "nbytes_of"]

_Self = TypeVar("_Self", bound="Resource")


class Resource:
    """Something of a device that lives until `close`, or until the device is closed.

    Args:
        cuda: the device.
        handle: the library's number for it.
        purpose: what it holds, for messages.
        free: gives it back.
    """

    kind = "resource"

    def __init__(self, cuda: Cuda, handle: int, purpose: str, free: Callable[[], None]) -> None:
        self._cuda = cuda
        self._handle: int | None = handle
        self._free = free
        self.purpose = purpose

    @property
    def handle(self) -> int:
        """The library's number: an address in memory; of a stream the CUstream, as TensorRT takes it.

        Raises:
            EngineError: once it is closed.
        """
        if self._handle is None:
            raise EngineError(f"the {self} is closed; load the engine again")
        return self._handle

    @property
    def closed(self) -> bool:
        """Whether it is given back."""
        return self._handle is None

    def close(self) -> None:
        """Give it back, after the device is done with it; a second call does nothing."""
        if self._handle is not None:
            self._cuda.release(self, self._free)
            self._handle = None

    def __str__(self) -> str:
        return f"{self.kind} for {self.purpose}" if self.purpose else self.kind

    def __enter__(self: _Self) -> _Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Memory(Resource):
    """Memory of the device; `size` in bytes."""

    kind = "GPU memory"

    def __init__(self, cuda: Cuda, pointer: int, size: int, purpose: str, free: Callable[[], None]) -> None:
        super().__init__(cuda, pointer, purpose, free)
        self.size = size

    @property
    def pointer(self) -> int:
        """Address on the device."""
        return self.handle


class HostBuffer(Resource):
    """Pinned memory of the host as an array, which the device copies from and to while the processor works on.

    Never use the array, or a view of it, after `close`: its memory is gone.
    """

    kind = "pinned buffer"

    def __init__(
        self, cuda: Cuda, array: NDArray[Any], device_pointer: int | None, purpose: str, free: Callable[[], None]
    ) -> None:
        super().__init__(cuda, array.ctypes.data, purpose, free)
        self._array = array
        self._device_pointer = device_pointer

    @property
    def array(self) -> NDArray[Any]:
        """The array, C-contiguous.

        Raises:
            EngineError: once it is closed.
        """
        _ = self.handle
        return self._array

    @property
    def device_pointer(self) -> int:
        """Address at which the device reads and writes the same bytes.

        Raises:
            EngineError: for a buffer that was not made with `mapped=True`.
        """
        _ = self.handle
        if self._device_pointer is None:
            raise EngineError(f"the {self} is not mapped into the GPU; make it with mapped=True")
        return self._device_pointer


class Event(Resource):
    """A moment in a stream."""

    kind = "event"

    def record(self, stream: Stream) -> None:
        """Mark the stream's present end."""
        self._cuda.perform("record an event", self._cuda.library.record, self.handle, stream.handle)

    def synchronize(self) -> None:
        """Wait until the device has passed it."""
        self._cuda.perform("wait for an event", self._cuda.library.synchronize_event, self.handle)

    def elapsed_ms(self, start: Event) -> float:
        """Milliseconds of the device's clock since another event; both must be made with `timing` and passed."""
        return float(self._cuda.perform("time a stream", self._cuda.library.elapsed, start.handle, self.handle))


class Graph(Resource):
    """Captured work of a stream, launched as one."""

    kind = "CUDA graph"

    def launch(self, stream: Stream) -> None:
        """Run it once more, after what the stream holds; the addresses are those at its capture."""
        self._cuda.perform("launch a CUDA graph", self._cuda.library.launch_graph, self.handle, stream.handle)


class Stream(Resource):
    """Work for the device, done in the order of the calls. All but `synchronize` return at once."""

    kind = "stream"

    def copy_to_device(self, memory: Memory, array: NDArray[Any]) -> None:
        """Copy an array to the start of a memory.

        Args:
            memory: at least as large.
            array: C-contiguous; only from a pinned buffer does the copy overlap with other work. It must live and stay
                as it is until the device has passed.

        Raises:
            ShapeError: for an array that is larger, or not contiguous.
        """
        _check(memory, array)
        self._cuda.perform(
            f"copy to the {memory}", self._cuda.library.copy_to_device, memory.pointer, array, self.handle
        )

    def copy_to_host(self, array: NDArray[Any], memory: Memory) -> None:
        """Fill an array from the start of a memory; as `copy_to_device`."""
        _check(memory, array)
        self._cuda.perform(
            f"copy from the {memory}", self._cuda.library.copy_to_host, array, memory.pointer, self.handle
        )

    def copy_on_device(self, target: Memory, source: Memory, size: int | None = None) -> None:
        """Copy `size` bytes, by default the source's, between the starts of two memories."""
        size = source.size if size is None else size
        if not 0 < size <= min(source.size, target.size):
            raise ShapeError(f"{size} bytes do not fit from {source.size} bytes ({source}) to {target.size} ({target})")
        arguments = (target.pointer, source.pointer, size, self.handle)
        self._cuda.perform(f"copy from the {source}", self._cuda.library.copy_on_device, *arguments)

    def fill(self, memory: Memory, value: int = 0) -> None:
        """Set every byte of a memory, to 0..255."""
        self._cuda.perform(
            f"fill the {memory}", self._cuda.library.fill, memory.pointer, value, memory.size, self.handle
        )

    def wait(self, event: Event) -> None:
        """Do what follows after an event of another stream; the processor does not wait."""
        self._cuda.perform("let a stream wait", self._cuda.library.wait, self.handle, event.handle)

    def synchronize(self) -> None:
        """Wait until all is done. An error of earlier work shows here at the latest."""
        self._cuda.perform("wait for the GPU", self._cuda.library.synchronize, self.handle)

    def is_done(self) -> bool:
        """Whether all is done."""
        return bool(self._cuda.perform("ask the GPU", self._cuda.library.is_done, self.handle))

    def capture(self, work: Callable[[], None]) -> Graph:
        """What `work` puts on this stream, as a graph; nothing of it runs now.

        Raises:
            EngineError: where the library has no graphs, or something in `work` cannot be captured.
        """
        cuda = self._cuda
        if not cuda.has_graphs:
            raise EngineError(f"{cuda.library.name} has no CUDA graphs; run without, or run: pip install cuda-bindings")
        cuda.perform("begin a CUDA graph", cuda.library.begin_capture, self.handle)
        try:
            work()
        except BaseException:
            self._abandon_capture()
            raise
        graph = cuda.perform("make a CUDA graph of a stream's work", cuda.library.end_capture, self.handle)
        return cuda.own(Graph(cuda, graph, self.purpose, lambda: cuda.library.destroy_graph(graph)))

    def _abandon_capture(self) -> None:
        library = self._cuda.library
        try:
            with library.current():
                library.destroy_graph(library.end_capture(self.handle))
        except (CudaCallError, EngineError):
            pass  # a broken capture ends with an error, which says no more than the one that is on its way


class Module(Resource):
    """Compiled kernels on the device."""

    kind = "kernel module"

    def kernel(self, name: str) -> Kernel:
        """The kernel of that name (extern "C")."""
        library = self._cuda.library
        function = self._cuda.perform(f"find the kernel {name}", library.function, self.handle, name)
        return Kernel(self._cuda, self, int(function), name)


class Kernel:
    """A function that runs on the device; it lives as long as its module."""

    def __init__(self, cuda: Cuda, module: Module, function: int, name: str) -> None:
        self._cuda = cuda
        self._module = module
        self._function = function
        self.name = name

    def launch(
        self, stream: Stream, grid: Grid, block: Grid, arguments: Sequence[Argument], shared_bytes: int = 0
    ) -> None:
        """Put it on a stream.

        Args:
            stream: where.
            grid, block: blocks, and threads of a block, along (x, y, z).
            arguments: values of the kernel's own types, pointers as np.uint64.
            shared_bytes: dynamic shared memory of a block.

        Raises:
            ShapeError: for an argument that is no NumPy scalar, whose size CUDA could not know.
        """
        _ = self._module.handle
        for number, argument in enumerate(arguments):
            if not isinstance(argument, np.number):
                raise ShapeError(
                    f"argument {number} of the kernel {self.name} must be a NumPy scalar, but is a "
                    f"{type(argument).__name__}; wrap it, pointers in np.uint64"
                )
        launch = self._cuda.library.launch
        self._cuda.perform(
            f"launch the kernel {self.name}",
            launch,
            self._function,
            grid,
            block,
            arguments,
            stream.handle,
            shared_bytes,
        )


def _check(memory: Memory, array: NDArray[Any]) -> None:
    if not array.flags.c_contiguous:
        raise ShapeError(f"an array for the {memory} must be C-contiguous; use numpy.ascontiguousarray")
    if not 0 < array.nbytes <= memory.size:
        raise ShapeError(f"an array of {array.nbytes} bytes does not fit the {memory} of {memory.size} bytes")


def nbytes_of(shape: Sequence[int], dtype: DTypeLike) -> int:
    """Bytes of an array."""
    return int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
