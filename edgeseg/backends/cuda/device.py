"""A GPU, and everything made on it, with errors that say what to do."""

from __future__ import annotations

import logging
import threading
import weakref
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, TypeVar

from numpy.typing import DTypeLike

from edgeseg.backends.cuda.interface import LOST, OUT_OF_MEMORY, CudaCallError, CudaLibrary, DeviceFacts
from edgeseg.backends.cuda.resources import Event, HostBuffer, Memory, Module, Resource, Stream, nbytes_of
from edgeseg.errors import EngineError

__all__ = ["Cuda"]

_log = logging.getLogger(__name__)
_R = TypeVar("_R", bound=Resource)
_open: weakref.WeakSet[Cuda] = weakref.WeakSet()


class Cuda:
    """One GPU through one library. Safe to use from several threads; a resource is used by one thread at a time.

    Args:
        library: makes the calls.

    Raises:
        EngineError: when the device does not answer.
    """

    def __init__(self, library: CudaLibrary) -> None:
        self.library = library
        self._lock = threading.Lock()
        self._resources: dict[int, Resource] = {}
        self._lost: str | None = None
        self._closed = False
        self.facts = self._first_call()
        _open.add(self)

    @property
    def has_graphs(self) -> bool:
        """Whether `Stream.capture` works."""
        return self.library.has_graphs

    @property
    def lost(self) -> str | None:
        """CUDA's error since which nothing works on this device any more; None while all is well."""
        return self._lost

    @property
    def open_resources(self) -> Mapping[str, int]:
        """Number of resources not yet closed, by kind."""
        with self._lock:
            return dict(Counter(resource.kind for resource in self._resources.values()))

    def current(self) -> AbstractContextManager[None]:
        """Make the device the calling thread's, for a library that works on whichever is current (TensorRT)."""
        self._check_alive()
        return self.library.current()

    def free_memory(self) -> int:
        """Bytes free on the device, or in the shared memory of a Jetson."""
        free, _ = self.perform("ask for the free memory", self.library.memory_info)
        return int(free)

    def allocate(self, size: int, purpose: str = "") -> Memory:
        """Memory of the device.

        Args:
            size: bytes, 1 or more.
            purpose: what it holds, for messages: "input frame".

        Raises:
            EngineError: when there is not enough, with what was asked and what is free.
        """
        pointer = self.perform(f"allocate {_where(purpose)}", self.library.allocate, _positive(size), size=size)
        return self.own(Memory(self, pointer, size, purpose, lambda: self.library.free(pointer)))

    def foreign(self, pointer: int, size: int, purpose: str = "") -> Memory:
        """Memory that somebody else owns and frees, for copies from and to it."""
        return Memory(self, pointer, size, purpose, lambda: None)

    def wait_for(self, stream: int) -> None:
        """Wait for the work of another library's stream, a CUstream."""
        self.perform("wait for another library's work", self.library.synchronize, stream)

    def host_buffer(
        self,
        shape: Sequence[int],
        dtype: DTypeLike,
        purpose: str = "",
        *,
        mapped: bool = False,
        write_combined: bool = False,
    ) -> HostBuffer:
        """A pinned array; its content is not set.

        Args:
            shape, dtype: of the array.
            purpose: what it holds.
            mapped: let kernels use it in place (`HostBuffer.device_pointer`): no copy on a Jetson, slow over PCIe.
            write_combined: faster for the device to read over PCIe, very slow for the processor to read.
        """
        if mapped and not self.facts.maps_host_memory:
            raise EngineError(f"{self.facts.name} cannot map host memory; make the buffer without mapped=True")
        size = _positive(nbytes_of(shape, dtype))
        doing = f"allocate {_where(purpose, 'pinned host memory')}"
        raw, pointer = self.perform(
            doing, lambda: self.library.allocate_host(size, mapped=mapped, write_combined=write_combined), size=size
        )
        array = raw.view(dtype).reshape(tuple(shape))
        return self.own(HostBuffer(self, array, pointer, purpose, lambda: self.library.free_host(raw)))

    def stream(self, purpose: str = "") -> Stream:
        """A stream that runs beside all others."""
        stream = self.perform("make a stream", self.library.create_stream)
        return self.own(Stream(self, stream, purpose, lambda: self.library.destroy_stream(stream)))

    def event(self, *, timing: bool = True) -> Event:
        """An event; without timing it costs less, and `elapsed_ms` fails."""
        event = self.perform("make an event", lambda: self.library.create_event(timing=timing))
        return self.own(Event(self, event, "", lambda: self.library.destroy_event(event)))

    def compile(self, source: str, purpose: str, options: Sequence[str] = ()) -> Module:
        """Compile CUDA C++ for this device and load it; takes a fraction of a second.

        Args:
            source: with the kernels as extern "C" __global__.
            purpose: what they do, for messages.
            options: that NVRTC and nvcc share: "-DNAME=1", "--fmad=false".

        Raises:
            EngineError: with the compiler's log.
            MissingDependencyError: when there is no compiler.
        """
        code = self.perform(f"compile the kernels for {purpose}", self.library.compile, source, list(options))
        module = self.perform(f"load the kernels for {purpose}", self.library.load_module, code)
        return self.own(Module(self, module, purpose, lambda: self.library.unload_module(module)))

    def perform(self, doing: str, call: Callable[..., Any], *arguments: Any, size: int | None = None) -> Any:
        """Make one call of the library on this device.

        Args:
            doing: what it is for, as the end of "cannot ...".
            call: method of `library`.
            arguments: its arguments.
            size: bytes that it asks for.

        Raises:
            EngineError: when it fails, or the device is closed or lost.
        """
        self._check_alive()
        try:
            with self.library.current():
                return call(*arguments)
        except CudaCallError as error:
            raise self._failed(error, doing, size) from error

    def own(self, resource: _R) -> _R:
        """Remember a resource, so that `close` gives it back."""
        with self._lock:
            self._resources[id(resource)] = resource
        return resource

    def release(self, resource: Resource, free: Callable[[], None]) -> None:
        """Give a resource back; on a lost device, whose memory is gone already, only forget it."""
        with self._lock:
            self._resources.pop(id(resource), None)
        if self._lost is not None or self._closed:
            return
        try:
            with self.library.current():
                free()
        except CudaCallError as error:
            _log.warning("%s", self._failed(error, f"free the {resource}", None))

    def close(self) -> None:
        """Give back what is still open, with a warning, since its owner should have; a second call does nothing."""
        if self._closed:
            return
        left = self.open_resources
        if left and self._lost is None:
            counts = ", ".join(f"{count} x {kind}" for kind, count in left.items())
            _log.warning("the GPU is closed with %s in use, which are freed now", counts)
        for resource in reversed(list(self._resources.values())):
            resource.close()
        self._closed = True
        _open.discard(self)

    def __enter__(self) -> Cuda:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _check_alive(self) -> None:
        if self._closed:
            raise EngineError("the GPU is closed; load the engine again")
        if self._lost is not None:
            raise EngineError(f"the GPU was lost earlier in this process ({self._lost}); load the engine again")

    def _first_call(self) -> DeviceFacts:
        """Facts of the device; a context that an earlier error broke is thrown away first."""
        try:
            with self.library.current():
                return self.library.facts()
        except CudaCallError as error:
            if error.code not in LOST:
                raise self._failed(error, "open the GPU", None) from error
            broken = error
        try:
            if not self.library.reset():
                raise broken
            for other in _open:
                other._lost = other._lost or str(broken)  # its addresses belong to the context that is gone
            with self.library.current():
                facts = self.library.facts()
        except CudaCallError as error:
            raise EngineError(
                f"the GPU was lost earlier in this process ({error}) and does not come back; restart the program"
            ) from error
        _log.warning("the GPU was lost earlier in this process (%s); it was reset and works again", broken)
        return facts

    def _failed(self, error: CudaCallError, doing: str, size: int | None) -> EngineError:
        if error.code in LOST:
            self._lost = self._lost or str(error)
            return EngineError(
                f"cannot {doing}: {error}; the GPU's context of this process is lost: load the engine again, and "
                "restart the program if that fails"
            )
        if error.code in OUT_OF_MEMORY:
            return EngineError(f"cannot {doing}: {error}; {self._memory_advice(size)}")
        return EngineError(f"cannot {doing}: {error}")

    def _memory_advice(self, size: int | None) -> str:
        asked = "" if size is None else f"{megabytes(size)} were asked for, "
        try:
            with self.library.current():
                free, total = self.library.memory_info()
        except CudaCallError:
            state = "and the free memory is not known"
        else:
            state = f"{megabytes(free)} of {megabytes(total)} are free"
        return f"{asked}{state}; close other programs that use the GPU, or take a smaller batch or network"


def megabytes(size: int) -> str:
    """Bytes as text, in MB of 10^6 bytes."""
    return f"{size / 1e6:.1f} MB"


def _where(purpose: str, kind: str = "GPU memory") -> str:
    return f"{kind} for {purpose}" if purpose else kind


def _positive(size: int) -> int:
    if size < 1:
        raise EngineError(f"memory on the GPU has at least 1 byte, but {size} were asked for")
    return size
