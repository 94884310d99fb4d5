"""CUDA through cuda-bindings, NVIDIA's own (also as `cuda.cudart`, its name up to cuda-python 12.5)."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeseg.backends.cuda.interface import Argument, CudaCallError, DeviceFacts, Grid
from edgeseg.errors import MissingDependencyError

__all__ = ["CudaBindings", "compile_with_nvrtc", "device_count", "version_pair"]


class CudaBindings:
    """The calls of `CudaLibrary` on the runtime API; modules and launches go through the driver API.

    Args:
        runtime, driver, nvrtc: the modules `cuda.bindings.runtime`, `.driver` and `.nvrtc`.
        ordinal: number of the device.
        version: of the distribution.
        pip_suffix: of the distribution that brings NVRTC, "-cu12" or "".
    """

    has_graphs = True

    def __init__(
        self, runtime: Any, driver: Any, nvrtc: Any, *, ordinal: int = 0, version: str = "", pip_suffix: str = ""
    ) -> None:
        self.name = f"cuda-bindings {version}".strip()
        self._rt = runtime
        self._driver = driver
        self._nvrtc = nvrtc
        self.ordinal = ordinal
        self._pip_suffix = pip_suffix
        self._entered = threading.local()
        self._handles: dict[int, Any] = {}

    def current(self) -> AbstractContextManager[None]:
        # The runtime keeps a device for each thread, and one call makes its primary context. Others in this thread may
        # have chosen another device since, so it is set every time; that costs about a microsecond.
        self._call("cudaSetDevice", self.ordinal)
        if not getattr(self._entered, "ready", False):
            self._call("cudaFree", 0)  # cuda-python before 12.8 makes the context on its first use only
            self._entered.ready = True
        return nullcontext()

    def reset(self) -> bool:
        self._entered = threading.local()
        self._call("cudaSetDevice", self.ordinal)
        self._call("cudaDeviceReset")
        return True

    def facts(self) -> DeviceFacts:
        free, total = self.memory_info()
        properties = self._call("cudaGetDeviceProperties", self.ordinal)
        return DeviceFacts(
            name=properties.name.rstrip(b"\0").decode("utf-8", "replace"),
            compute_capability=(
                self._attribute("cudaDevAttrComputeCapabilityMajor"),
                self._attribute("cudaDevAttrComputeCapabilityMinor"),
            ),
            integrated=bool(self._attribute("cudaDevAttrIntegrated")),
            maps_host_memory=bool(self._attribute("cudaDevAttrCanMapHostMemory")),
            multiprocessors=self._attribute("cudaDevAttrMultiProcessorCount"),
            driver_version=version_pair(self._call("cudaDriverGetVersion")),
            runtime_version=version_pair(self._call("cudaRuntimeGetVersion")),
            total_memory=total,
            free_memory=free,
        )

    def memory_info(self) -> tuple[int, int]:
        free, total = self._call("cudaMemGetInfo")
        return int(free), int(total)

    def allocate(self, size: int) -> int:
        return int(self._call("cudaMalloc", size))

    def free(self, pointer: int) -> None:
        self._call("cudaFree", pointer)

    def allocate_host(self, size: int, *, mapped: bool, write_combined: bool) -> tuple[NDArray[np.uint8], int | None]:
        flags = self._rt.cudaHostAllocPortable
        flags |= self._rt.cudaHostAllocMapped if mapped else 0
        flags |= self._rt.cudaHostAllocWriteCombined if write_combined else 0
        address = int(self._call("cudaHostAlloc", size, flags))
        array = np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address))
        if not mapped:
            return array, None
        try:
            return array, int(self._call("cudaHostGetDevicePointer", address, 0))
        except CudaCallError:
            self._call("cudaFreeHost", address)
            raise

    def free_host(self, array: NDArray[np.uint8]) -> None:
        self._call("cudaFreeHost", array.ctypes.data)

    def copy_to_device(self, pointer: int, array: NDArray[Any], stream: int) -> None:
        kind = self._rt.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._call("cudaMemcpyAsync", pointer, array.ctypes.data, array.nbytes, kind, stream)

    def copy_to_host(self, array: NDArray[Any], pointer: int, stream: int) -> None:
        kind = self._rt.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._call("cudaMemcpyAsync", array.ctypes.data, pointer, array.nbytes, kind, stream)

    def copy_on_device(self, target: int, source: int, size: int, stream: int) -> None:
        kind = self._rt.cudaMemcpyKind.cudaMemcpyDeviceToDevice
        self._call("cudaMemcpyAsync", target, source, size, kind, stream)

    def fill(self, pointer: int, value: int, size: int, stream: int) -> None:
        self._call("cudaMemsetAsync", pointer, value, size, stream)

    def create_stream(self) -> int:
        return self._keep(self._call("cudaStreamCreateWithFlags", self._rt.cudaStreamNonBlocking))

    def destroy_stream(self, stream: int) -> None:
        self._call("cudaStreamDestroy", self._handles.pop(stream))

    def synchronize(self, stream: int) -> None:
        self._call("cudaStreamSynchronize", stream)

    def is_done(self, stream: int) -> bool:
        try:
            self._call("cudaStreamQuery", stream)
        except CudaCallError as error:
            if error.code == "cudaErrorNotReady":
                return False
            raise
        return True

    def wait(self, stream: int, event: int) -> None:
        self._call("cudaStreamWaitEvent", stream, event, 0)

    def create_event(self, *, timing: bool) -> int:
        flags = self._rt.cudaEventDefault if timing else self._rt.cudaEventDisableTiming
        return self._keep(self._call("cudaEventCreateWithFlags", flags))

    def destroy_event(self, event: int) -> None:
        self._call("cudaEventDestroy", self._handles.pop(event))

    def record(self, event: int, stream: int) -> None:
        self._call("cudaEventRecord", event, stream)

    def synchronize_event(self, event: int) -> None:
        self._call("cudaEventSynchronize", event)

    def elapsed(self, start: int, end: int) -> float:
        return float(self._call("cudaEventElapsedTime", start, end))

    def begin_capture(self, stream: int) -> None:
        # Thread-local: another thread may allocate meanwhile, as a segmenter of several threads does.
        mode = self._rt.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self._call("cudaStreamBeginCapture", stream, mode)

    def end_capture(self, stream: int) -> int:
        graph = self._call("cudaStreamEndCapture", stream)
        try:
            return self._keep(self._call("cudaGraphInstantiate", graph, 0))
        finally:
            self._call("cudaGraphDestroy", graph)

    def launch_graph(self, graph: int, stream: int) -> None:
        self._call("cudaGraphLaunch", graph, stream)

    def destroy_graph(self, graph: int) -> None:
        self._call("cudaGraphExecDestroy", self._handles.pop(graph))

    def compile(self, source: str, options: Sequence[str]) -> bytes:
        major, minor = self.facts().compute_capability
        arguments = [f"--gpu-architecture=sm_{major}{minor}".encode(), *(option.encode() for option in options)]
        return compile_with_nvrtc(self._nvrtc, source, arguments, self._pip_suffix)

    def load_module(self, code: bytes) -> int:
        return self._keep(self._drive("cuModuleLoadData", code))

    def unload_module(self, module: int) -> None:
        self._drive("cuModuleUnload", self._handles.pop(module))

    def function(self, module: int, name: str) -> int:
        return self._keep(self._drive("cuModuleGetFunction", self._handles[module], name.encode()))

    def launch(
        self, function: int, grid: Grid, block: Grid, arguments: Sequence[Argument], stream: int, shared_bytes: int
    ) -> None:
        # CUDA takes an array of addresses, one for each value, and copies the values before it returns.
        values = [np.array(argument) for argument in arguments]
        addresses = np.array([value.ctypes.data for value in values], np.uint64)
        self._drive(
            "cuLaunchKernel", self._handles[function], *grid, *block, shared_bytes, stream, addresses.ctypes.data, 0
        )

    def _attribute(self, name: str) -> int:
        return int(self._call("cudaDeviceGetAttribute", getattr(self._rt.cudaDeviceAttr, name), self.ordinal))

    def _keep(self, handle: Any) -> int:
        """The integer of a handle; the object is kept, since older versions free nothing but take no integer either."""
        number = int(handle)
        self._handles[number] = handle
        return number

    def _call(self, name: str, *arguments: Any) -> Any:
        """One call of the runtime API."""
        code, *values = _invoke(getattr(self._rt, name), name, arguments)
        if code != self._rt.cudaError_t.cudaSuccess:
            text = self._rt.cudaGetErrorString(code)[1]
            # An error that is not sticky is reported once more by whichever call asks next, unless it is read.
            self._rt.cudaGetLastError()
            raise CudaCallError(code.name, text.decode("utf-8", "replace"), name)
        return values[0] if len(values) == 1 else values

    def _drive(self, name: str, *arguments: Any) -> Any:
        """One call of the driver API."""
        code, *values = _invoke(getattr(self._driver, name), name, arguments)
        if code != self._driver.CUresult.CUDA_SUCCESS:
            text = self._driver.cuGetErrorString(code)[1]
            raise CudaCallError(code.name, text.decode("utf-8", "replace"), name)
        return values[0] if len(values) == 1 else values


def device_count(runtime: Any) -> int:
    """Number of CUDA devices.

    Raises:
        CudaCallError: without a driver or device; up to version 12 the library raises where later ones return a code.
    """
    code, count = _invoke(runtime.cudaGetDeviceCount, "cudaGetDeviceCount", ())
    if code != runtime.cudaError_t.cudaSuccess:
        text = runtime.cudaGetErrorString(code)[1].decode("utf-8", "replace")
        raise CudaCallError(code.name, text, "cudaGetDeviceCount")
    return int(count)


def version_pair(number: int) -> tuple[int, int]:
    """CUDA's 12060 as (12, 6)."""
    return number // 1000, number % 1000 // 10


def compile_with_nvrtc(nvrtc: Any, source: str, options: Sequence[bytes], pip_suffix: str = "") -> bytes:
    """Compile CUDA C++ to machine code; needs no device.

    Args:
        nvrtc: the module `cuda.bindings.nvrtc`.
        source: CUDA C++.
        options: the compiler's, with a real architecture (sm_87).
        pip_suffix: of the distribution that brings NVRTC.

    Raises:
        CudaCallError: with the compiler's log.
        MissingDependencyError: when the compiler's library is not there.
    """
    try:
        code, program = nvrtc.nvrtcCreateProgram(source.encode(), b"edgeseg.cu", 0, [], [])
    except RuntimeError as error:
        cure = f"pip install nvidia-cuda-nvrtc{pip_suffix} (on a Jetson: sudo apt-get install cuda-nvrtc-dev)"
        raise MissingDependencyError("libnvrtc", "compile CUDA kernels", cure) from error
    good = nvrtc.nvrtcResult.NVRTC_SUCCESS
    if code != good:
        raise CudaCallError(code.name, "the compiler did not start", "nvrtcCreateProgram")
    try:
        (code,) = nvrtc.nvrtcCompileProgram(program, len(options), list(options))
        if code != good:
            raise CudaCallError(code.name, _log(nvrtc, program), "nvrtcCompileProgram")
        _, size = nvrtc.nvrtcGetCUBINSize(program)
        binary: bytes = _room(size)
        (code,) = nvrtc.nvrtcGetCUBIN(program, binary)
        if code != good:
            raise CudaCallError(code.name, "the compiler gave no machine code", "nvrtcGetCUBIN")
        return binary[:size]
    finally:
        nvrtc.nvrtcDestroyProgram(program)


def _log(nvrtc: Any, program: Any) -> str:
    _, size = nvrtc.nvrtcGetProgramLogSize(program)
    log = _room(size)
    nvrtc.nvrtcGetProgramLog(program, log)
    return log.decode("utf-8", "replace").strip("\0 \n")


def _room(size: int) -> bytes:
    """Bytes for the library to write into, as its interface has it; Python shares those of length 0 and 1."""
    return bytes(max(size, 2))


def _invoke(function: Any, name: str, arguments: Sequence[Any]) -> Any:
    try:
        return function(*arguments)
    except RuntimeError as error:  # libcuda.so.1, or a function of it, is not there
        raise CudaCallError("cudaErrorInsufficientDriver", str(error), name) from error
