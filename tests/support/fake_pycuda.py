"""`pycuda.driver` and `pycuda.compiler` as edgeseg uses them, over a fake GPU: objects, and errors with a sentence."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from support.cpu_kernels import KernelCompileError, compile_kernels
from support.fake_cuda_bindings import NUMBERS, TEXTS
from support.fake_gpu import FakeGpu, GpuError


class Error(Exception):
    """Root of pycuda's errors."""


class LogicError(Error):
    pass


class PycudaMemoryError(Error):
    pass


class LaunchError(Error):
    pass


class CompileError(Error):
    def __init__(self, msg: str, command_line: Sequence[str], stdout: str | None = None, stderr: str | None = None):
        super().__init__(msg)
        self.stderr = stderr


class Contexts(threading.local):
    """pycuda's stack of contexts, one a thread."""

    def __init__(self) -> None:
        self.stack: list[Any] = []


class FakeDriver(SimpleNamespace):
    """`pycuda.driver`."""

    Error = Error
    LogicError = LogicError
    MemoryError = PycudaMemoryError
    LaunchError = LaunchError
    CompileError = CompileError
    host_alloc_flags = SimpleNamespace(PORTABLE=1, DEVICEMAP=2, WRITECOMBINED=4)
    event_flags = SimpleNamespace(DEFAULT=0, BLOCKING_SYNC=1, DISABLE_TIMING=2)
    device_attribute = SimpleNamespace(INTEGRATED="integrated", CAN_MAP_HOST_MEMORY="maps", MULTIPROCESSOR_COUNT="mp")

    def __init__(self, gpu: FakeGpu) -> None:
        super().__init__()
        self.gpu = gpu
        self.contexts = Contexts()
        self.retained = 0
        self.outside: list[str] = []
        self.host_flags: list[int] = []
        self.init_error: str | None = None
        driver = self

        class Device:
            def __init__(self, ordinal: int) -> None:
                self.ordinal = ordinal

            @staticmethod
            def count() -> int:
                return 1

            def name(self) -> str:
                return gpu.name

            def compute_capability(self) -> tuple[int, int]:
                return gpu.capability

            def get_attribute(self, attribute: str) -> int:
                return {
                    "integrated": int(gpu.integrated),
                    "maps": int(gpu.maps_host_memory),
                    "mp": gpu.multiprocessors,
                }[attribute]

            def retain_primary_context(self) -> Any:
                driver.retained += 1
                return Context()

        class Context:
            def push(self) -> None:
                driver.contexts.stack.append(self)

            @staticmethod
            def pop() -> None:
                driver.contexts.stack.pop()

            @staticmethod
            def synchronize() -> None:
                driver.do("cuCtxSynchronize", gpu.run_all)

            def detach(self) -> None:
                driver.retained -= 1
                if gpu.broken:
                    raise LogicError("cuDevicePrimaryCtxRelease failed: invalid device context")

        class Owned:
            """Frees itself when it goes, which needs a context."""

            made = False

            def __del__(self) -> None:
                if self.made:
                    if not driver.contexts.stack:
                        driver.outside.append(type(self).__name__)
                    self._drop()

            def _drop(self) -> None:
                raise NotImplementedError

        class Stream(Owned):
            def __init__(self, flags: int = 0) -> None:
                assert flags == 1, "a stream that waits for the default stream"
                self.handle = driver.do("cuStreamCreate", gpu.make_stream)
                self.made = True

            def _drop(self) -> None:
                if self.handle in gpu.streams and not gpu.broken:
                    gpu.drop_stream(self.handle)

            def synchronize(self) -> None:
                driver.do("cuStreamSynchronize", lambda: gpu.run(self.handle))

            def is_done(self) -> bool:
                return driver.do("cuStreamQuery", lambda: not gpu.streams[self.handle].waiting)

            def wait_for_event(self, event: Event) -> None:
                driver.do("cuStreamWaitEvent", lambda: gpu.wait(self.handle, event.number))

        class Event(Owned):
            def __init__(self, flags: int = 0) -> None:
                self.number = driver.do("cuEventCreate", lambda: gpu.make_event(not flags & 2))
                self.made = True

            def _drop(self) -> None:
                gpu.events.pop(self.number, None)

            def record(self, stream: Stream) -> Event:
                driver.do("cuEventRecord", lambda: gpu.record(self.number, stream.handle))
                return self

            def synchronize(self) -> Event:
                driver.do("cuEventSynchronize", lambda: gpu.pass_event(self.number))
                return self

            def time_since(self, event: Event) -> float:
                return driver.do("cuEventElapsedTime", lambda: gpu.elapsed(event.number, self.number))

        class Module(Owned):
            def __init__(self, buffer: bytes) -> None:
                self.number = driver.do("cuModuleLoadDataEx", lambda: gpu.load(buffer))
                self.made = True

            def _drop(self) -> None:
                gpu.modules.pop(self.number, None)

            def get_function(self, name: str) -> Function:
                return Function(driver.do("cuModuleGetFunction", lambda: gpu.function(self.number, name)))

        class Function:
            def __init__(self, number: int) -> None:
                self.number = number

            def __call__(self, *args: Any, grid: Any, block: Any, shared: int, stream: Stream) -> None:
                assert all(isinstance(arg, np.number) for arg in args), "TypeError: invalid type on parameter"
                values = [arg.tobytes() for arg in args]
                driver.do("cuLaunchKernel", lambda: gpu.launch(self.number, grid, block, values, stream.handle))

        self.Device, self.Stream, self.Event = Device, Stream, Event
        self.module_from_buffer = Module

    def do(self, name: str, work: Callable[[], Any]) -> Any:
        try:
            self.gpu.enter(name)
            if not self.contexts.stack:
                raise GpuError("INVALID_CONTEXT")
            return work()
        except GpuError as fault:
            kinds = {"OUT_OF_MEMORY": PycudaMemoryError, "ILLEGAL_ADDRESS": LaunchError}
            text = TEXTS[NUMBERS[fault.name]].decode()
            raise kinds.get(fault.name, LogicError)(f"{name} failed: {text}") from None

    def init(self) -> None:
        if self.init_error:
            raise LogicError(f"cuInit failed: {self.init_error}")

    def get_version(self) -> tuple[int, int, int]:
        return (12, 6, 0)

    def get_driver_version(self) -> int:
        return 12060

    def mem_get_info(self) -> tuple[int, int]:
        return self.do("cuMemGetInfo", lambda: (self.gpu.total - self.gpu.used, self.gpu.total))

    def mem_alloc(self, size: int) -> DeviceAllocation:
        return DeviceAllocation(self, self.do("cuMemAlloc", lambda: self.gpu.allocate(size, "device")))

    def pagelocked_empty(self, shape: Any, dtype: Any, order: str = "C", mem_flags: int = 0) -> NDArray[Any]:
        self.host_flags.append(mem_flags)
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        place = "mapped" if mem_flags & 2 else "host"
        address = self.do("cuMemHostAlloc", lambda: self.gpu.allocate(size, place))
        owner = HostAllocation(self, address, size)
        return np.ndarray(shape, dtype, owner, order=order)  # type: ignore[call-overload, no-any-return]

    def memcpy_htod_async(self, dest: int, src: NDArray[Any], stream: Any) -> None:
        assert src.flags.contiguous
        self.do("cuMemcpyHtoDAsync", lambda: self.gpu.copy_in(dest, src.ctypes.data, src.nbytes, stream.handle))

    def memcpy_dtoh_async(self, dest: NDArray[Any], src: int, stream: Any) -> None:
        assert dest.flags.contiguous
        assert dest.flags.writeable
        self.do("cuMemcpyDtoHAsync", lambda: self.gpu.copy_out(dest.ctypes.data, src, dest.nbytes, stream.handle))

    def memcpy_dtod_async(self, dest: int, src: int, size: int, stream: Any) -> None:
        self.do("cuMemcpyDtoDAsync", lambda: self.gpu.copy_inside(dest, src, size, stream.handle))

    def memset_d8_async(self, dest: int, data: int, size: int, stream: Any) -> None:
        self.do("cuMemsetD8Async", lambda: self.gpu.fill(dest, data, size, stream.handle))


class DeviceAllocation:
    def __init__(self, driver: FakeDriver, address: int) -> None:
        self._driver = driver
        self._address = address

    def __int__(self) -> int:
        return self._address

    def free(self) -> None:
        self._driver.do("cuMemFree", lambda: self._driver.gpu.free(self._address, "device"))


class HostAllocation(ctypes.Array):  # type: ignore[type-arg]
    """Placeholder that `__new__` replaces: an array needs an owner with a buffer, which also frees it."""

    _type_ = ctypes.c_char
    _length_ = 0

    def __new__(cls, driver: FakeDriver, address: int, size: int) -> Any:
        def free(self: Any) -> None:
            driver.do("cuMemFreeHost", lambda: driver.gpu.free(address, "host", "mapped"))

        def get_device_pointer(self: Any) -> int:
            return address

        body = {"_type_": ctypes.c_char, "_length_": size, "free": free, "get_device_pointer": get_device_pointer}
        return type("PagelockedHostAllocation", (ctypes.Array,), body).from_address(address)  # type: ignore[attr-defined]


class FakeCompiler(SimpleNamespace):
    """`pycuda.compiler`, with g++ in nvcc's place."""

    def __init__(self, gpu: FakeGpu) -> None:
        super().__init__()
        self.gpu = gpu
        self.asked: dict[str, Any] = {}

    def compile(
        self,
        source: str,
        nvcc: str = "nvcc",
        options: list[str] | None = None,
        keep: bool = False,
        no_extern_c: bool = False,
        arch: str | None = None,
        code: str | None = None,
        cache_dir: str | bool | None = None,
        include_dirs: Any = None,
        target: str = "cubin",
    ) -> bytes:
        self.asked = {"nvcc": nvcc, "options": options, "arch": arch, "no_extern_c": no_extern_c, "cache": cache_dir}
        try:
            return self.gpu.compiled(compile_kernels(source, tuple(options or ())))
        except KernelCompileError as error:
            raise CompileError("nvcc compilation failed", [nvcc], stderr=str(error)) from None
