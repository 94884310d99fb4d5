"""CUDA through pycuda, which many Jetson images carry; it has no graphs."""

from __future__ import annotations

import atexit
import itertools
import shutil
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from edgeseg.backends.cuda.interface import Argument, CudaCallError, DeviceFacts, Grid
from edgeseg.environment import read_environment
from edgeseg.errors import MissingDependencyError

__all__ = ["PyCuda", "call_error", "find_nvcc"]

_NON_BLOCKING = 1
"""CU_STREAM_NON_BLOCKING, for which pycuda has no name."""

_NAMES = {
    "invalid argument": "CUDA_ERROR_INVALID_VALUE",
    "out of memory": "CUDA_ERROR_OUT_OF_MEMORY",
    "initialization error": "CUDA_ERROR_NOT_INITIALIZED",
    "driver shutting down": "CUDA_ERROR_DEINITIALIZED",
    "no CUDA-capable device is detected": "CUDA_ERROR_NO_DEVICE",
    "invalid device ordinal": "CUDA_ERROR_INVALID_DEVICE",
    "device kernel image is invalid": "CUDA_ERROR_INVALID_IMAGE",
    "invalid device context": "CUDA_ERROR_INVALID_CONTEXT",
    "no kernel image is available for execution on the device": "CUDA_ERROR_NO_BINARY_FOR_GPU",
    "uncorrectable ECC error encountered": "CUDA_ERROR_ECC_UNCORRECTABLE",
    "uncorrectable NVLink error detected during the execution": "CUDA_ERROR_NVLINK_UNCORRECTABLE",
    "invalid resource handle": "CUDA_ERROR_INVALID_HANDLE",
    "named symbol not found": "CUDA_ERROR_NOT_FOUND",
    "device not ready": "CUDA_ERROR_NOT_READY",
    "an illegal memory access was encountered": "CUDA_ERROR_ILLEGAL_ADDRESS",
    "too many resources requested for launch": "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES",
    "the launch timed out and was terminated": "CUDA_ERROR_LAUNCH_TIMEOUT",
    "context is destroyed": "CUDA_ERROR_CONTEXT_IS_DESTROYED",
    "device-side assert triggered": "CUDA_ERROR_ASSERT",
    "hardware stack error": "CUDA_ERROR_HARDWARE_STACK_ERROR",
    "an illegal instruction was encountered": "CUDA_ERROR_ILLEGAL_INSTRUCTION",
    "misaligned address": "CUDA_ERROR_MISALIGNED_ADDRESS",
    "operation not supported on global/shared address space": "CUDA_ERROR_INVALID_ADDRESS_SPACE",
    "invalid program counter": "CUDA_ERROR_INVALID_PC",
    "unspecified launch failure": "CUDA_ERROR_LAUNCH_FAILED",
    "CUDA-capable device(s) is/are busy or unavailable": "CUDA_ERROR_DEVICE_UNAVAILABLE",
}
"""CUDA's name by its sentence (cuGetErrorString), which is all that pycuda's errors hold."""

_retaining = threading.Lock()
_contexts: dict[int, Any] = {}
"""Primary context by device, kept until the process ends: pycuda cannot release one without leaving it current."""


class PyCuda:
    """The calls of `CudaLibrary` on pycuda.

    pycuda frees what it made when the Python object goes, so the objects are held here, and dropped inside `current`.

    Args:
        driver, compiler: the modules `pycuda.driver` and `pycuda.compiler`; `driver.init()` has been called.
        ordinal: number of the device.
        version: of the distribution.
        nvcc: path of the compiler; None to look for it.
    """

    has_graphs = False

    def __init__(
        self, driver: Any, compiler: Any, *, ordinal: int = 0, version: str = "", nvcc: str | None = None
    ) -> None:
        self.name = f"pycuda {version}".strip()
        self._driver = driver
        self._compiler = compiler
        self._nvcc = nvcc
        self.ordinal = ordinal
        with self._translated():
            self._device = driver.Device(ordinal)
        self._numbers = itertools.count(1)
        self._allocations: dict[int, Any] = {}
        self._streams: dict[int, Any] = {}
        self._objects: dict[int, Any] = {}

    @contextmanager
    def current(self) -> Iterator[None]:
        # Pushed and popped each time: pycuda ends the process when a thread ends with a context on its stack.
        with self._translated():
            context = self._primary_context()
            context.push()
        try:
            yield
        finally:
            with self._translated():
                context.pop()

    def reset(self) -> bool:
        return False

    def facts(self) -> DeviceFacts:
        free, total = self.memory_info()
        attribute = self._driver.device_attribute
        with self._translated():
            number = self._driver.get_driver_version()
            capability, version = self._device.compute_capability(), self._driver.get_version()
            return DeviceFacts(
                name=self._device.name(),
                compute_capability=(capability[0], capability[1]),
                integrated=bool(self._device.get_attribute(attribute.INTEGRATED)),
                maps_host_memory=bool(self._device.get_attribute(attribute.CAN_MAP_HOST_MEMORY)),
                multiprocessors=int(self._device.get_attribute(attribute.MULTIPROCESSOR_COUNT)),
                driver_version=(number // 1000, number % 1000 // 10),
                runtime_version=(version[0], version[1]),
                total_memory=total,
                free_memory=free,
            )

    def memory_info(self) -> tuple[int, int]:
        with self._translated():
            free, total = self._driver.mem_get_info()
        return int(free), int(total)

    def allocate(self, size: int) -> int:
        with self._translated():
            allocation = self._driver.mem_alloc(size)
        self._allocations[int(allocation)] = allocation
        return int(allocation)

    def free(self, pointer: int) -> None:
        with self._translated():
            self._allocations.pop(pointer).free()

    def allocate_host(self, size: int, *, mapped: bool, write_combined: bool) -> tuple[NDArray[np.uint8], int | None]:
        flags = self._driver.host_alloc_flags
        wanted = flags.PORTABLE | (flags.DEVICEMAP if mapped else 0) | (flags.WRITECOMBINED if write_combined else 0)
        with self._translated():
            array = self._driver.pagelocked_empty((size,), np.uint8, mem_flags=wanted)
            return array, int(array.base.get_device_pointer()) if mapped else None

    def free_host(self, array: NDArray[np.uint8]) -> None:
        owner: Any = array.base
        with self._translated():
            owner.free()

    def copy_to_device(self, pointer: int, array: NDArray[Any], stream: int) -> None:
        with self._translated():
            self._driver.memcpy_htod_async(pointer, array, self._streams[stream])

    def copy_to_host(self, array: NDArray[Any], pointer: int, stream: int) -> None:
        with self._translated():
            self._driver.memcpy_dtoh_async(array, pointer, self._streams[stream])

    def copy_on_device(self, target: int, source: int, size: int, stream: int) -> None:
        with self._translated():
            self._driver.memcpy_dtod_async(target, source, size, self._streams[stream])

    def fill(self, pointer: int, value: int, size: int, stream: int) -> None:
        with self._translated():
            self._driver.memset_d8_async(pointer, value, size, self._streams[stream])

    def create_stream(self) -> int:
        with self._translated():
            stream = self._driver.Stream(_NON_BLOCKING)
        self._streams[int(stream.handle)] = stream
        return int(stream.handle)

    def destroy_stream(self, stream: int) -> None:
        del self._streams[stream]

    def synchronize(self, stream: int) -> None:
        # pycuda has no object for a stream that it did not make; then the whole device is waited for.
        with self._translated():
            (self._streams.get(stream) or self._primary_context()).synchronize()

    def is_done(self, stream: int) -> bool:
        with self._translated():
            return bool(self._streams[stream].is_done())

    def wait(self, stream: int, event: int) -> None:
        with self._translated():
            self._streams[stream].wait_for_event(self._objects[event])

    def create_event(self, *, timing: bool) -> int:
        flags = self._driver.event_flags
        with self._translated():
            return self._keep(self._driver.Event(flags.DEFAULT if timing else flags.DISABLE_TIMING))

    def destroy_event(self, event: int) -> None:
        del self._objects[event]

    def record(self, event: int, stream: int) -> None:
        with self._translated():
            self._objects[event].record(self._streams[stream])

    def synchronize_event(self, event: int) -> None:
        with self._translated():
            self._objects[event].synchronize()

    def elapsed(self, start: int, end: int) -> float:
        with self._translated():
            return float(self._objects[end].time_since(self._objects[start]))

    def begin_capture(self, stream: int) -> None:
        self._no_graphs()

    def end_capture(self, stream: int) -> int:
        self._no_graphs()

    def launch_graph(self, graph: int, stream: int) -> None:
        self._no_graphs()

    def destroy_graph(self, graph: int) -> None:
        self._no_graphs()

    def compile(self, source: str, options: Sequence[str]) -> bytes:
        nvcc = self._nvcc or find_nvcc()
        major, minor = self.facts().compute_capability
        folder = read_environment().cache_dir / "kernels"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            cache: str | bool = str(folder)
        except OSError:
            cache = False
        try:
            code: bytes = self._compiler.compile(
                source, nvcc=nvcc, options=list(options), no_extern_c=True, arch=f"sm_{major}{minor}", cache_dir=cache
            )
        except self._driver.CompileError as error:
            raise CudaCallError("nvcc", str(error.stderr or error), "pycuda.compiler.compile") from error
        return code

    def load_module(self, code: bytes) -> int:
        with self._translated():
            return self._keep(self._driver.module_from_buffer(code))

    def unload_module(self, module: int) -> None:
        del self._objects[module]

    def function(self, module: int, name: str) -> int:
        with self._translated():
            return self._keep(self._objects[module].get_function(name))

    def launch(
        self, function: int, grid: Grid, block: Grid, arguments: Sequence[Argument], stream: int, shared_bytes: int
    ) -> None:
        with self._translated():
            self._objects[function](
                *arguments, grid=grid, block=block, shared=shared_bytes, stream=self._streams[stream]
            )

    def _primary_context(self) -> Any:
        with _retaining:
            if self.ordinal not in _contexts:
                context = _contexts[self.ordinal] = self._device.retain_primary_context()
                # Left to itself, pycuda gives a primary context back with the wrong call, and warns.
                atexit.register(_detach, context, self._driver.Error)
            return _contexts[self.ordinal]

    def _keep(self, thing: Any) -> int:
        """Hold an object that has no handle of its own."""
        number = next(self._numbers)
        self._objects[number] = thing
        return number

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except self._driver.Error as error:
            raise call_error(str(error)) from error

    def _no_graphs(self) -> NoReturn:
        raise CudaCallError("CUDA_ERROR_NOT_SUPPORTED", "pycuda has no CUDA graphs", "cuStreamBeginCapture")


def _detach(context: Any, kind: type[Exception]) -> None:
    """Give a context back as the process ends; on a device that was lost there is nothing to give back."""
    with suppress(kind):
        context.detach()


def call_error(message: str) -> CudaCallError:
    """The error of pycuda's message, "cuMemAlloc failed: out of memory"."""
    call, _, text = message.partition(" failed: ")
    sentence = text.partition(" - ")[0].strip()
    return CudaCallError(_NAMES.get(sentence, "CUDA error"), text or message, call if text else "pycuda")


def find_nvcc() -> str:
    """The compiler on the path, or where JetPack and NVIDIA's packages put it.

    Raises:
        MissingDependencyError: when there is none.
    """
    usual = Path("/usr/local/cuda/bin/nvcc")
    found = shutil.which("nvcc") or (str(usual) if usual.is_file() else None)
    if found is None:
        cure = "sudo apt-get install cuda-nvcc-X-Y of your CUDA version, or pip install cuda-bindings"
        raise MissingDependencyError("nvcc", "compile CUDA kernels with pycuda", cure)
    return found
