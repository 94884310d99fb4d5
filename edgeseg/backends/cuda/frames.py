"""Frames that lie in the GPU's memory already, brought to the network's input there."""

from __future__ import annotations

import threading
from importlib import resources
from typing import Any

import numpy as np

from edgeseg.backends.cuda.arrays import DeviceArray, take_array
from edgeseg.backends.cuda.device import Cuda
from edgeseg.backends.cuda.resources import Kernel, Memory, Module, Stream
from edgeseg.errors import ShapeError

__all__ = ["DeviceFrames"]

_BLOCK = (32, 8, 1)
_MOST_BYTES = 2**31 - 1


class DeviceFrames:
    """Takes frames and gives class maps in the memory of one GPU. Safe to use from several threads.

    Args:
        cuda: the GPU.
        shape: of the network's input, (1, height, width, 3).
    """

    def __init__(self, cuda: Cuda, shape: tuple[int, ...]) -> None:
        self._cuda, self._size = cuda, shape[1:3]
        self._lock = threading.Lock()
        self._module: Module | None = None
        self._kernel: Kernel | None = None

    def frame(self, given: Any, stream: Stream) -> DeviceArray:
        """Take a frame (H, W, 3) uint8 RGB of any size and any strides.

        Raises:
            ShapeError: for another shape or type, or memory that this GPU does not have.
        """
        taken = take_array(given, self._cuda, stream)
        if len(taken.shape) != 3 or taken.shape[2] != 3 or taken.dtype != "uint8" or 0 in taken.shape:
            raise ShapeError(
                f"frame must be (H, W, 3) uint8 RGB, but got {taken.shape} {taken.dtype} on the GPU; bring it to that "
                "with its own library, planes with frame.permute(1, 2, 0) of torch"
            )
        span = sum((size - 1) * abs(stride) for size, stride in zip(taken.shape, taken.strides, strict=True))
        if span > _MOST_BYTES:
            raise ShapeError(f"a frame spans at most 2 GiB, but this one {span} bytes; copy it into memory of its own")
        return taken

    def class_map(self, given: Any, size: tuple[int, int], stream: Stream) -> DeviceArray:
        """Take an array that a class map is to be written into.

        Args:
            given: (H, W) uint8, contiguous and writable.
            size: of the frame, (H, W).
            stream: that will write it.

        Raises:
            ShapeError: for any other.
        """
        taken = take_array(given, self._cuda, stream)
        if taken.shape != size or taken.dtype != "uint8":
            raise ShapeError(
                f"class_map must be {size} uint8, the size of the frame, but got {taken.shape} {taken.dtype} on the "
                f"GPU; make it once with torch.empty({size}, dtype=torch.uint8, device='cuda') or "
                f"cupy.empty({size}, 'uint8')"
            )
        if not (taken.contiguous and taken.writable):
            raise ShapeError("class_map must be contiguous and writable, but is a view or read-only; make a new array")
        return taken

    def fit(self, frame: DeviceArray, target: Memory, stream: Stream) -> None:
        """Put on a stream what brings a frame to the network's size, as `edgeseg.frame.fit_frame` does.

        Args:
            frame: as `frame` gave it; it must be held until the stream is done.
            target: the network's input, (1, height, width, 3) uint8.
            stream: where.

        Raises:
            EngineError, MissingDependencyError: when the kernel for other sizes does not compile.
        """
        if frame.shape[:2] == self._size and frame.contiguous:
            stream.copy_on_device(target, frame.memory)
            return
        rows, columns, _ = frame.shape
        grid = (-(-self._size[1] // _BLOCK[0]), -(-self._size[0] // _BLOCK[1]), 1)
        numbers = [np.int32(number) for number in (rows, columns, *frame.strides)]
        arguments = [np.uint64(frame.memory.pointer), *numbers, np.uint64(target.pointer)]
        self._compiled().launch(stream, grid, _BLOCK, arguments)

    def close(self) -> None:
        """Free the kernel; no run may outlast it. A second call does nothing."""
        with self._lock:
            if self._module is not None:
                self._module.close()
            self._module = self._kernel = None

    def _compiled(self) -> Kernel:
        """Compiled when the first frame of another size comes, which takes a fraction of a second."""
        with self._lock:
            if self._kernel is None:
                source = resources.files(__package__).joinpath("fit_frame.cu").read_text("utf-8")
                options = [f"-DROWS={self._size[0]}", f"-DCOLUMNS={self._size[1]}", "--fmad=false"]
                self._module = self._cuda.compile(source, "frames", options)
                self._kernel = self._module.kernel("fit_frame")
            return self._kernel
