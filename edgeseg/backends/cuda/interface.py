"""What edgeseg needs of CUDA: about thirty calls, the same whichever Python library makes them.

A library is adapted in one file (`cuda_bindings`, `pycuda_driver`) that knows nothing of the rest: handles are plain
integers, and every failure is a `CudaCallError` with CUDA's own name for it. `device` builds on this protocol the
objects that the runtime holds, with their rules of life and edgeseg's errors.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = ["LOST", "OUT_OF_MEMORY", "Argument", "CudaCallError", "CudaLibrary", "DeviceFacts", "Grid"]

Grid = tuple[int, int, int]
"""Size along x, y and z: of a grid in blocks, or of a block in threads."""

Argument = np.int32 | np.uint32 | np.float32 | np.uint64
"""A kernel's argument by value; a pointer is a uint64."""

OUT_OF_MEMORY = frozenset({"cudaErrorMemoryAllocation", "CUDA_ERROR_OUT_OF_MEMORY"})
"""Names of the error for too little memory: runtime API, driver API."""

LOST = frozenset(
    {
        "cudaErrorAssert",
        "cudaErrorContextIsDestroyed",
        "cudaErrorECCUncorrectable",
        "cudaErrorHardwareStackError",
        "cudaErrorIllegalAddress",
        "cudaErrorIllegalInstruction",
        "cudaErrorInvalidAddressSpace",
        "cudaErrorInvalidPc",
        "cudaErrorLaunchFailure",
        "cudaErrorLaunchTimeout",
        "cudaErrorMisalignedAddress",
        "cudaErrorNvlinkUncorrectable",
        "CUDA_ERROR_ASSERT",
        "CUDA_ERROR_CONTEXT_IS_DESTROYED",
        "CUDA_ERROR_ECC_UNCORRECTABLE",
        "CUDA_ERROR_HARDWARE_STACK_ERROR",
        "CUDA_ERROR_ILLEGAL_ADDRESS",
        "CUDA_ERROR_ILLEGAL_INSTRUCTION",
        "CUDA_ERROR_INVALID_ADDRESS_SPACE",
        "CUDA_ERROR_INVALID_PC",
        "CUDA_ERROR_LAUNCH_FAILED",
        "CUDA_ERROR_LAUNCH_TIMEOUT",
        "CUDA_ERROR_MISALIGNED_ADDRESS",
        "CUDA_ERROR_NVLINK_UNCORRECTABLE",
    }
)
"""Errors after which every further call of the process fails the same way (CUDA Runtime API, enum cudaError)."""


@dataclass(frozen=True)
class DeviceFacts:
    """What a device is.

    Attributes:
        name: as the driver has it, "Orin".
        compute_capability: (major, minor); (8, 7) for Orin.
        integrated: whether it shares the processor's memory, as every Jetson does.
        maps_host_memory: whether kernels can read and write pinned host memory.
        multiprocessors: number of streaming multiprocessors.
        driver_version: newest CUDA version that the driver serves, (12, 6).
        runtime_version: CUDA version that the Python library was made with.
        total_memory, free_memory: bytes, when the device was opened.
    """

    name: str
    compute_capability: tuple[int, int]
    integrated: bool
    maps_host_memory: bool
    multiprocessors: int
    driver_version: tuple[int, int]
    runtime_version: tuple[int, int]
    total_memory: int
    free_memory: int


class CudaCallError(Exception):
    """A call to CUDA that failed.

    Args:
        code: CUDA's name for the error, "cudaErrorIllegalAddress" or "CUDA_ERROR_ILLEGAL_ADDRESS".
        text: CUDA's sentence for it.
        call: the function that failed.
    """

    def __init__(self, code: str, text: str, call: str) -> None:
        super().__init__(f"{call} failed: {code} ({text})")
        self.code = code
        self.text = text
        self.call = call


class CudaLibrary(Protocol):
    """One Python library for CUDA, on one device.

    Streams, events, graphs, modules and functions are integers that mean something to this library only, except that a
    stream is its CUstream handle, as TensorRT takes it. Memory is its address. Every method but `current` and `reset`
    must be called inside `current`; all raise CudaCallError.
    """

    @property
    def name(self) -> str:
        """Distribution and version, "cuda-bindings 12.9.4"."""
        ...

    @property
    def ordinal(self) -> int:
        """Number of the device."""
        ...

    @property
    def has_graphs(self) -> bool:
        """Whether streams can be captured."""
        ...

    def current(self) -> AbstractContextManager[None]:
        """Make the device's primary context, which TensorRT uses too, the calling thread's."""
        ...

    def reset(self) -> bool:
        """Throw the device's context away, with all that was made in it; False where the library cannot."""
        ...

    def facts(self) -> DeviceFacts: ...

    def memory_info(self) -> tuple[int, int]:
        """Bytes (free, total)."""
        ...

    def allocate(self, size: int) -> int: ...

    def free(self, pointer: int) -> None: ...

    def allocate_host(self, size: int, *, mapped: bool, write_combined: bool) -> tuple[NDArray[np.uint8], int | None]:
        """Pinned bytes, and their address on the device when mapped."""
        ...

    def free_host(self, array: NDArray[np.uint8]) -> None:
        """Free what `allocate_host` gave, the very array."""
        ...

    def copy_to_device(self, pointer: int, array: NDArray[Any], stream: int) -> None: ...

    def copy_to_host(self, array: NDArray[Any], pointer: int, stream: int) -> None: ...

    def copy_on_device(self, target: int, source: int, size: int, stream: int) -> None: ...

    def fill(self, pointer: int, value: int, size: int, stream: int) -> None: ...

    def create_stream(self) -> int:
        """A stream that does not wait for the default stream."""
        ...

    def destroy_stream(self, stream: int) -> None: ...

    def synchronize(self, stream: int) -> None:
        """Wait for a stream, also one that another library made."""
        ...

    def is_done(self, stream: int) -> bool: ...

    def wait(self, stream: int, event: int) -> None: ...

    def create_event(self, *, timing: bool) -> int: ...

    def destroy_event(self, event: int) -> None: ...

    def record(self, event: int, stream: int) -> None: ...

    def synchronize_event(self, event: int) -> None: ...

    def elapsed(self, start: int, end: int) -> float:
        """Milliseconds between two recorded events."""
        ...

    def begin_capture(self, stream: int) -> None: ...

    def end_capture(self, stream: int) -> int:
        """The executable graph of what was captured."""
        ...

    def launch_graph(self, graph: int, stream: int) -> None: ...

    def destroy_graph(self, graph: int) -> None: ...

    def compile(self, source: str, options: Sequence[str]) -> bytes:
        """Machine code (cubin) for this device from CUDA C++.

        Raises:
            CudaCallError: with the compiler's log as its text.
            MissingDependencyError: when there is no compiler.
        """
        ...

    def load_module(self, code: bytes) -> int: ...

    def unload_module(self, module: int) -> None: ...

    def function(self, module: int, name: str) -> int: ...

    def launch(
        self, function: int, grid: Grid, block: Grid, arguments: Sequence[Argument], stream: int, shared_bytes: int
    ) -> None: ...
