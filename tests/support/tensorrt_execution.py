"""What an engine of the fakes computes, as work on a stream of the fake GPU."""

from __future__ import annotations

import ctypes
import math
import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray
from support.fake_gpu import FakeGpu

__all__ = ["Execution", "logits_of"]


def logits_of(frames: NDArray[np.uint8], classes: int, height: int, width: int) -> NDArray[np.float32]:
    """(N, classes, height, width) float32 from (N, H, W, 3) uint8: how near a channel of the pixel is to a class."""
    sampled = frames[:, :: frames.shape[1] // height, :: frames.shape[2] // width].astype(np.float32)
    levels = np.arange(classes, dtype=np.float32)[None, :, None, None] * np.float32(64)
    near: NDArray[np.float32] = -np.abs(sampled[:, None, :, :, 0] - levels) + sampled[:, None, :, :, 1] / np.float32(7)
    return near[:, :, :height, :width]


class Execution:
    """Runs contexts of the fakes on a fake GPU; for `Behaviour.run`.

    Attributes:
        runs: number of runs that reached the device.
        refuses: TensorRT refuses the next runs.
        refuses_capture: it refuses while the stream is captured.
        loses_device: the next run breaks the device.
        poisons: the logits are not finite.
        gate: a barrier that every run passes before it is put on its stream.
    """

    def __init__(self, gpu: FakeGpu) -> None:
        self.gpu = gpu
        self.runs = 0
        self.enqueued = 0
        self.gate: threading.Barrier | None = None
        self.refuses = self.refuses_capture = self.loses_device = self.poisons = False

    def __call__(self, context: Any, stream: int) -> bool:
        if self.refuses or (self.refuses_capture and self.gpu.streams[stream].captured is not None):
            return False
        if self.gate is not None:
            self.gate.wait()
        self.enqueued += 1
        content, addresses = context._engine._content, dict(context._addresses)
        (frame,), (output,) = content["inputs"], content["outputs"]
        shape = tuple(context.get_tensor_shape(frame))
        result = (shape[0], *content["outputs"][output][1:])
        kind = content["types"][output]

        def work() -> None:
            self.runs += 1
            if self.loses_device:
                self.loses_device = False
                self.gpu.on_device(0x10, 1)
            frames = self._view(addresses[frame], shape, np.uint8)
            if kind == "UINT8":
                self._view(addresses[output], result, np.uint8)[:] = frames[:, :, :, 0] // 64
                return
            logits = logits_of(frames, *result[1:])
            if self.poisons:
                logits[0, 0, 0, 0] = np.nan
            self._view(addresses[output], result, np.float32)[:] = logits

        self.gpu.put(stream, work)
        return True

    def _view(self, address: int, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
        size = math.prod(shape) * np.dtype(dtype).itemsize
        self.gpu.on_device(address, size)
        return np.frombuffer((ctypes.c_char * size).from_address(address), dtype).reshape(shape)
