"""Where an input or output of a lane lies: in the host's memory and in the device's, which may be one."""

from __future__ import annotations

from contextlib import ExitStack

from edgeseg.backends.cuda import Cuda, HostBuffer, Memory
from edgeseg.backends.tensorrt.versions.parsing import Shape

__all__ = ["LaneBuffer"]


class LaneBuffer:
    """Pinned memory of the host and, unless the device works on that, memory of the device.

    Args:
        cuda: the GPU.
        made: frees both.
        shape, dtype: of the array.
        purpose: what it holds, for messages.
        mapped: whether the device works on the host's memory.

    Raises:
        EngineError: when memory is short.
    """

    def __init__(self, cuda: Cuda, made: ExitStack, shape: Shape, dtype: str, purpose: str, *, mapped: bool) -> None:
        self.host: HostBuffer = made.enter_context(cuda.host_buffer(shape, dtype, purpose, mapped=mapped))
        self.memory: Memory | None = None
        if not mapped:
            self.memory = made.enter_context(cuda.allocate(self.host.array.nbytes, purpose))
        pointer = self.host.device_pointer if self.memory is None else self.memory.pointer
        self.on_device = cuda.foreign(pointer, self.host.array.nbytes, purpose)
        """The bytes that the device works on."""

    @property
    def address(self) -> int:
        """Where the device finds them."""
        return self.on_device.pointer
