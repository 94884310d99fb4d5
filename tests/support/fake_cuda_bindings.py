"""The three modules of cuda-bindings that edgeseg uses, over a fake GPU: tuples with a code first, no exceptions."""

# ruff: noqa: N801, N802, N803, N815 - names are NVIDIA's

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from enum import IntEnum
from types import SimpleNamespace
from typing import Any

import numpy as np
from support.cpu_kernels import KernelCompileError, compile_kernels
from support.fake_gpu import FakeGpu, GpuError


class cudaError_t(IntEnum):
    """Values of CUDA 12 and 13."""

    cudaSuccess = 0
    cudaErrorInvalidValue = 1
    cudaErrorMemoryAllocation = 2
    cudaErrorInsufficientDriver = 35
    cudaErrorNoDevice = 100
    cudaErrorInvalidDevice = 101
    cudaErrorInvalidResourceHandle = 400
    cudaErrorNotReady = 600
    cudaErrorIllegalAddress = 700
    cudaErrorStreamCaptureInvalidated = 901


class CUresult(IntEnum):
    CUDA_SUCCESS = 0
    CUDA_ERROR_INVALID_VALUE = 1
    CUDA_ERROR_OUT_OF_MEMORY = 2
    CUDA_ERROR_INVALID_IMAGE = 200
    CUDA_ERROR_INVALID_CONTEXT = 201
    CUDA_ERROR_INVALID_HANDLE = 400
    CUDA_ERROR_NOT_FOUND = 500
    CUDA_ERROR_NOT_READY = 600
    CUDA_ERROR_ILLEGAL_ADDRESS = 700


class nvrtcResult(IntEnum):
    NVRTC_SUCCESS = 0
    NVRTC_ERROR_COMPILATION = 6


class cudaMemcpyKind(IntEnum):
    cudaMemcpyHostToDevice = 1
    cudaMemcpyDeviceToHost = 2
    cudaMemcpyDeviceToDevice = 3


class cudaStreamCaptureMode(IntEnum):
    cudaStreamCaptureModeThreadLocal = 1


class cudaDeviceAttr(IntEnum):
    cudaDevAttrMultiProcessorCount = 16
    cudaDevAttrIntegrated = 18
    cudaDevAttrCanMapHostMemory = 19
    cudaDevAttrComputeCapabilityMajor = 75
    cudaDevAttrComputeCapabilityMinor = 76


TEXTS = {
    1: b"invalid argument",
    2: b"out of memory",
    35: b"CUDA driver version is insufficient for CUDA runtime version",
    100: b"no CUDA-capable device is detected",
    101: b"invalid device ordinal",
    200: b"device kernel image is invalid",
    201: b"invalid device context",
    400: b"invalid resource handle",
    500: b"named symbol not found",
    600: b"device not ready",
    700: b"an illegal memory access was encountered",
    901: b"operation failed due to a previous error during capture",
}
NUMBERS = {code.name.removeprefix("CUDA_ERROR_"): code.value for code in CUresult}
NUMBERS["STREAM_CAPTURE_INVALIDATED"] = 901


class Handle:
    """A CUstream, CUevent and so on: an object that turns into its address."""

    def __init__(self, value: int) -> None:
        self._value = value

    def __int__(self) -> int:
        return self._value


class FakeRuntime(SimpleNamespace):
    """`cuda.bindings.runtime`."""

    cudaError_t = cudaError_t
    cudaMemcpyKind = cudaMemcpyKind
    cudaStreamCaptureMode = cudaStreamCaptureMode
    cudaDeviceAttr = cudaDeviceAttr
    cudaHostAllocPortable = 1
    cudaHostAllocMapped = 2
    cudaHostAllocWriteCombined = 4
    cudaStreamNonBlocking = 1
    cudaEventDefault = 0
    cudaEventDisableTiming = 2

    def __init__(self, gpu: FakeGpu) -> None:
        super().__init__()
        self.gpu = gpu
        self.chosen = threading.local()
        self.devices = 1
        self.driver_version = 12060
        self.runtime_version = 12090
        self.last = cudaError_t.cudaSuccess
        self.host_flags: list[int] = []

    def _do(self, name: str, work: Callable[[], Any]) -> tuple[Any, ...]:
        try:
            self.gpu.enter(name)
            result = work()
        except GpuError as fault:
            self.last = cudaError_t(NUMBERS[fault.name])
            return (self.last, None) if name in RETURNING else (self.last,)
        good = cudaError_t.cudaSuccess
        if name not in RETURNING:
            return (good,)
        return (good, *result) if isinstance(result, tuple) else (good, result)

    def cudaGetDeviceCount(self) -> Any:
        if not self.driver_version:
            return cudaError_t.cudaErrorInsufficientDriver, None
        return (cudaError_t.cudaSuccess, self.devices) if self.devices else (cudaError_t.cudaErrorNoDevice, None)

    def cudaSetDevice(self, device: int) -> Any:
        self.chosen.device = device
        return (cudaError_t.cudaSuccess,)

    def cudaDeviceReset(self) -> Any:
        self.gpu.reset()
        return (cudaError_t.cudaSuccess,)

    def cudaDriverGetVersion(self) -> Any:
        return cudaError_t.cudaSuccess, self.driver_version

    def cudaRuntimeGetVersion(self) -> Any:
        return cudaError_t.cudaSuccess, self.runtime_version

    def cudaGetErrorString(self, error: cudaError_t) -> Any:
        return cudaError_t.cudaSuccess, TEXTS[int(error)]

    def cudaGetLastError(self) -> Any:
        last, self.last = self.last, cudaError_t.cudaSuccess
        return (last,)

    def cudaGetDeviceProperties(self, device: int) -> Any:
        named = SimpleNamespace(name=self.gpu.name.encode() + b"\0\0")
        return self._do("cudaGetDeviceProperties", lambda: named)

    def cudaDeviceGetAttribute(self, attr: cudaDeviceAttr, device: int) -> Any:
        values = {16: self.gpu.multiprocessors, 18: int(self.gpu.integrated), 19: int(self.gpu.maps_host_memory)}
        values |= {75: self.gpu.capability[0], 76: self.gpu.capability[1]}
        return self._do("cudaDeviceGetAttribute", lambda: values[int(attr)])

    def cudaMemGetInfo(self) -> Any:
        return self._do("cudaMemGetInfo", lambda: (self.gpu.total - self.gpu.used, self.gpu.total))

    def cudaMalloc(self, size: int) -> Any:
        return self._do("cudaMalloc", lambda: self.gpu.allocate(size, "device"))

    def cudaFree(self, devPtr: int) -> Any:
        return self._do("cudaFree", lambda: self.gpu.free(devPtr, "device") if devPtr else None)

    def cudaHostAlloc(self, size: int, flags: int) -> Any:
        self.host_flags.append(flags)
        return self._do("cudaHostAlloc", lambda: self.gpu.allocate(size, "mapped" if flags & 2 else "host"))

    def cudaHostGetDevicePointer(self, pHost: int, flags: int) -> Any:
        def find() -> int:
            if self.gpu.block_of(pHost, 1, "mapped") is None:
                raise GpuError("INVALID_VALUE")
            return pHost

        return self._do("cudaHostGetDevicePointer", find)

    def cudaFreeHost(self, ptr: int) -> Any:
        return self._do("cudaFreeHost", lambda: self.gpu.free(ptr, "host", "mapped"))

    def cudaMemcpyAsync(self, dst: int, src: int, count: int, kind: cudaMemcpyKind, stream: int) -> Any:
        copies = {1: self.gpu.copy_in, 2: self.gpu.copy_out, 3: self.gpu.copy_inside}
        return self._do("cudaMemcpyAsync", lambda: copies[int(kind)](dst, src, count, int(stream)))

    def cudaMemsetAsync(self, devPtr: int, value: int, count: int, stream: int) -> Any:
        return self._do("cudaMemsetAsync", lambda: self.gpu.fill(devPtr, value, count, int(stream)))

    def cudaStreamCreateWithFlags(self, flags: int) -> Any:
        return self._do("cudaStreamCreateWithFlags", lambda: Handle(self.gpu.make_stream()))

    def cudaStreamDestroy(self, stream: Any) -> Any:
        return self._do("cudaStreamDestroy", lambda: self.gpu.drop_stream(int(stream)))

    def cudaStreamSynchronize(self, stream: Any) -> Any:
        return self._do("cudaStreamSynchronize", lambda: self.gpu.run(int(stream)))

    def cudaStreamQuery(self, stream: Any) -> Any:
        def ask() -> None:
            if self.gpu.streams[int(stream)].waiting:
                raise GpuError("NOT_READY")

        return self._do("cudaStreamQuery", ask)

    def cudaStreamWaitEvent(self, stream: Any, event: Any, flags: int) -> Any:
        return self._do("cudaStreamWaitEvent", lambda: self.gpu.wait(int(stream), int(event)))

    def cudaEventCreateWithFlags(self, flags: int) -> Any:
        return self._do("cudaEventCreateWithFlags", lambda: Handle(self.gpu.make_event(not flags & 2)))

    def cudaEventDestroy(self, event: Any) -> Any:
        return self._do("cudaEventDestroy", lambda: self.gpu.events.pop(int(event)))

    def cudaEventRecord(self, event: Any, stream: Any) -> Any:
        return self._do("cudaEventRecord", lambda: self.gpu.record(int(event), int(stream)))

    def cudaEventSynchronize(self, event: Any) -> Any:
        return self._do("cudaEventSynchronize", lambda: self.gpu.pass_event(int(event)))

    def cudaEventElapsedTime(self, start: Any, end: Any) -> Any:
        return self._do("cudaEventElapsedTime", lambda: self.gpu.elapsed(int(start), int(end)))

    def cudaStreamBeginCapture(self, stream: Any, mode: cudaStreamCaptureMode) -> Any:
        return self._do("cudaStreamBeginCapture", lambda: self.gpu.begin_capture(int(stream)))

    def cudaStreamEndCapture(self, stream: Any) -> Any:
        return self._do("cudaStreamEndCapture", lambda: SimpleNamespace(work=self.gpu.end_capture(int(stream))))

    def cudaGraphInstantiate(self, graph: Any, flags: int) -> Any:
        return self._do("cudaGraphInstantiate", lambda: Handle(self.gpu.make_graph(graph.work)))

    def cudaGraphDestroy(self, graph: Any) -> Any:
        return self._do("cudaGraphDestroy", lambda: None)

    def cudaGraphLaunch(self, graphExec: Any, stream: Any) -> Any:
        return self._do("cudaGraphLaunch", lambda: self.gpu.launch_graph(int(graphExec), int(stream)))

    def cudaGraphExecDestroy(self, graphExec: Any) -> Any:
        return self._do("cudaGraphExecDestroy", lambda: self.gpu.graphs.pop(int(graphExec)))


RETURNING = frozenset(
    {
        "cudaGetDeviceProperties",
        "cudaDeviceGetAttribute",
        "cudaMemGetInfo",
        "cudaMalloc",
        "cudaHostAlloc",
        "cudaHostGetDevicePointer",
        "cudaStreamCreateWithFlags",
        "cudaEventCreateWithFlags",
        "cudaEventElapsedTime",
        "cudaStreamEndCapture",
        "cudaGraphInstantiate",
        "cuModuleLoadData",
        "cuModuleGetFunction",
    }
)
"""Functions that return a value behind their code."""


class FakeDriver(SimpleNamespace):
    """`cuda.bindings.driver`: needs a context, which the runtime's cudaSetDevice makes this thread's."""

    CUresult = CUresult

    def __init__(self, gpu: FakeGpu, runtime: FakeRuntime) -> None:
        super().__init__()
        self.gpu = gpu
        self.runtime = runtime

    def _do(self, name: str, work: Callable[[], Any]) -> tuple[Any, ...]:
        try:
            self.gpu.enter(name)
            if not hasattr(self.runtime.chosen, "device"):
                raise GpuError("INVALID_CONTEXT")
            result = work()
        except GpuError as fault:
            code = CUresult(NUMBERS[fault.name])
            return (code, None) if name in RETURNING else (code,)
        return (CUresult.CUDA_SUCCESS, result) if name in RETURNING else (CUresult.CUDA_SUCCESS,)

    def cuGetErrorString(self, error: CUresult) -> Any:
        return CUresult.CUDA_SUCCESS, TEXTS[int(error)]

    def cuModuleLoadData(self, image: bytes) -> Any:
        return self._do("cuModuleLoadData", lambda: Handle(self.gpu.load(image)))

    def cuModuleUnload(self, hmod: Any) -> Any:
        return self._do("cuModuleUnload", lambda: self.gpu.modules.pop(int(hmod)))

    def cuModuleGetFunction(self, hmod: Any, name: bytes) -> Any:
        return self._do("cuModuleGetFunction", lambda: Handle(self.gpu.function(int(hmod), name.decode())))

    def cuLaunchKernel(
        self,
        f: Any,
        gx: int,
        gy: int,
        gz: int,
        bx: int,
        by: int,
        bz: int,
        shared: int,
        stream: Any,
        params: int,
        extra: int,
    ) -> Any:
        def launch() -> None:
            kernels, name = self.gpu.functions[int(f)]
            sizes = kernels.sizes(name)
            addresses = np.ctypeslib.as_array((ctypes.c_uint64 * len(sizes)).from_address(params))
            values = [ctypes.string_at(int(at), size) for at, size in zip(addresses, sizes, strict=True)]
            self.gpu.launch(int(f), (gx, gy, gz), (bx, by, bz), values, int(stream))

        return self._do("cuLaunchKernel", launch)


class FakeNvrtc(SimpleNamespace):
    """`cuda.bindings.nvrtc`, with g++ behind it."""

    nvrtcResult = nvrtcResult

    def __init__(self, gpu: FakeGpu) -> None:
        super().__init__()
        self.gpu = gpu
        self.options: list[bytes] = []
        self.programs = 0

    def nvrtcCreateProgram(self, src: bytes, name: bytes, numHeaders: int, headers: Any, includeNames: Any) -> Any:
        self.programs += 1
        return nvrtcResult.NVRTC_SUCCESS, SimpleNamespace(source=src.decode(), code=b"", log=b"\0")

    def nvrtcCompileProgram(self, prog: Any, numOptions: int, options: list[bytes]) -> Any:
        assert numOptions == len(options)
        self.options = options
        try:
            kernels = compile_kernels(prog.source, tuple(option.decode() for option in options))
        except KernelCompileError as error:
            prog.log = str(error).encode() + b"\0"
            return (nvrtcResult.NVRTC_ERROR_COMPILATION,)
        prog.code = self.gpu.compiled(kernels)
        return (nvrtcResult.NVRTC_SUCCESS,)

    def nvrtcGetCUBINSize(self, prog: Any) -> Any:
        return nvrtcResult.NVRTC_SUCCESS, len(prog.code)

    def nvrtcGetCUBIN(self, prog: Any, cubin: bytes) -> Any:
        return self._write(cubin, prog.code)

    def nvrtcGetProgramLogSize(self, prog: Any) -> Any:
        return nvrtcResult.NVRTC_SUCCESS, len(prog.log)

    def nvrtcGetProgramLog(self, prog: Any, log: bytes) -> Any:
        return self._write(log, prog.log)

    def nvrtcDestroyProgram(self, prog: Any) -> Any:
        self.programs -= 1
        return (nvrtcResult.NVRTC_SUCCESS,)

    def _write(self, room: bytes, content: bytes) -> Any:
        """Write into the caller's bytes, as the real one does: a bytes object holds its content behind its head."""
        assert len(room) >= max(len(content), 2), "too little room, or one of the byte strings that Python shares"
        ctypes.memmove(ctypes.c_char_p(room), content, len(content))
        return (nvrtcResult.NVRTC_SUCCESS,)
