"""Arrays of another library in the fake GPU's memory: with DLPack, as torch has it, or the CUDA array interface."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
from numpy.typing import NDArray
from support.fake_gpu import FakeGpu

__all__ = ["DLPackTensor", "GpuTensor", "InterfaceTensor"]


class GpuTensor:
    """Memory of the fake GPU with a content that only arrives when somebody waits for its stream.

    Args:
        gpu: where it lies.
        content: what it will hold.
        axes: order of the axes in which it is shown, as a permuted view.
    """

    def __init__(self, gpu: FakeGpu, content: NDArray[Any], axes: tuple[int, ...] | None = None) -> None:
        self.gpu, self.stream = gpu, gpu.make_stream()
        self.pointer = gpu.allocate(content.nbytes, "device")
        stored = np.ascontiguousarray(content)
        view = np.frombuffer((ctypes.c_char * content.nbytes).from_address(self.pointer), content.dtype)
        view = view.reshape(content.shape)
        view.fill(77)
        gpu.put(self.stream, lambda: np.copyto(view, stored))
        self.view: NDArray[Any] = view if axes is None else view.transpose(axes)

    def numpy(self) -> NDArray[Any]:
        """Its content, once all that was put on streams is done."""
        self.gpu.run_all()
        return self.view.copy()

    def close(self) -> None:
        self.gpu.free(self.pointer, "device")
        self.gpu.drop_stream(self.stream)


class DLPackTensor(GpuTensor):
    """As torch: it lets the stream that it is given for wait for its own work.

    Attributes:
        device: what it says to lie on.
        taken: how often it was given away.
    """

    device = (2, 0)
    taken = 0

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.device

    def __dlpack__(self, *, stream: int | None = None) -> Any:
        assert stream is not None
        assert stream in self.gpu.streams, "a stream that the device knows"
        self.taken += 1
        event = self.gpu.make_event(False)
        self.gpu.record(event, self.stream)
        self.gpu.wait(stream, event)
        self.gpu.put(stream, lambda: self.gpu.events.pop(event))
        return self.view.__dlpack__()  # NumPy's capsule is a DLManagedTensor as any


class InterfaceTensor(GpuTensor):
    """As Numba: it says which stream works on it."""

    read_only = False
    tells_stream = True

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        contiguous = self.view.flags.c_contiguous
        return {
            "shape": self.view.shape,
            "typestr": self.view.dtype.str,
            "data": (self.pointer, self.read_only),
            "strides": None if contiguous else self.view.strides,
            "stream": self.stream if self.tells_stream else None,
            "version": 3,
        }
