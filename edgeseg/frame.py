"""A camera's frame as the network's input."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeseg.errors import ShapeError
from edgeseg.libraries import require

__all__ = ["FittableFrame", "FrameFitter", "as_frame", "fit_frame", "lies_on_gpu"]

_CPU_DEVICES = (1, 3)
"""kDLCPU and kDLCUDAHost of DLPack's DLDeviceType: memory that the processor reads."""


class FittableFrame(ABC):
    """A frame in a form of its own, such as a decoder's luma and chroma, that a network's input is made from at once.

    What takes frames to segment takes these too.
    """

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int, int]:
        """(H, W, 3), as of an array."""

    @abstractmethod
    def fit(self, out: NDArray[np.uint8]) -> None:
        """Write the frame as RGB at the size of `out`, (h, w, 3) uint8 and contiguous, as `fit_frame` does."""


class FrameFitter:
    """`fit_frame` into one buffer for each thread, so that a stream of frames allocates nothing.

    Args:
        height, width: the network's size in pixels.
    """

    def __init__(self, height: int, width: int) -> None:
        self._size = height, width
        self._buffers = threading.local()

    def __call__(self, frame: NDArray[np.uint8] | FittableFrame) -> NDArray[np.uint8]:
        """The frame at the network's size; in this thread's buffer, until its next call, where work had to be done."""
        buffer = getattr(self._buffers, "buffer", None)
        if buffer is None:
            buffer = self._buffers.buffer = np.empty((*self._size, 3), np.uint8)
        if isinstance(frame, FittableFrame):
            frame.fit(buffer)
            return buffer[None]
        return fit_frame(frame, *self._size, buffer=buffer)


def as_frame(frame: Any) -> NDArray[np.uint8]:
    """Check a frame, and take over one of another library without copying it.

    Args:
        frame: (H, W, 3) uint8 RGB; an array, or what gives one in the processor's memory through `__dlpack__` (the
            protocol of data-apis.org/array-api), such as a tensor of torch.

    Raises:
        ShapeError: for another shape or type, or a frame in a GPU's memory.
    """
    if not isinstance(frame, np.ndarray):
        frame = _from_library(frame)
    if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8 or 0 in frame.shape:
        raise ShapeError(f"frame must be (H, W, 3) uint8 RGB, but got {frame.shape} {frame.dtype}; {_cure(frame)}")
    checked: NDArray[np.uint8] = frame
    return checked


def lies_on_gpu(array: object) -> bool:
    """Whether an array of any library lies in a GPU's memory, as far as its protocols say it."""
    if array is None or isinstance(array, np.ndarray):
        return False
    device = getattr(array, "__dlpack_device__", None)
    return device()[0] not in _CPU_DEVICES if device is not None else hasattr(array, "__cuda_array_interface__")


def fit_frame(
    frame: NDArray[Any], height: int, width: int, *, buffer: NDArray[np.uint8] | None = None
) -> NDArray[np.uint8]:
    """Bring a frame to the network's size; colour order, normalisation and layout are the graph's work.

    Args:
        frame: (H, W, 3) uint8 RGB of any size; another size is resized bilinearly.
        height, width: the network's size in pixels.
        buffer: (height, width, 3) uint8, written where something had to be done; None for a new array.

    Returns:
        (1, height, width, 3) uint8 RGB, contiguous; the frame itself where nothing had to be done.

    Raises:
        ShapeError: for another shape or type.
    """
    frame = as_frame(frame)
    if frame.shape[:2] != (height, width):
        cv2 = require("cv2", "resize frames")
        frame = cv2.resize(frame, (width, height), dst=buffer, interpolation=cv2.INTER_LINEAR)
    elif not frame.flags.c_contiguous:
        if buffer is None:
            buffer = np.empty(frame.shape, np.uint8)
        np.copyto(buffer, frame)
        frame = buffer
    return frame[None]


def _from_library(frame: Any) -> NDArray[Any]:
    """An array of another library as NumPy sees it."""
    if lies_on_gpu(frame):
        raise ShapeError(
            f"frame lies in a GPU's memory ({type(frame).__name__}), but this engine takes frames in the processor's; "
            "copy it there first: frame.cpu() with torch, frame.get() with CuPy"
        )
    if not hasattr(frame, "__dlpack__"):
        raise ShapeError(f"frame must be a (H, W, 3) uint8 array, but is {type(frame).__name__}")
    try:
        taken: NDArray[Any] = np.from_dlpack(frame)
    except (BufferError, RuntimeError, TypeError, ValueError) as error:
        raise ShapeError(
            f"frame must be a (H, W, 3) uint8 array, but this {type(frame).__name__} does not become one: {error}"
        ) from error
    return taken


def _cure(frame: NDArray[Any]) -> str:
    if frame.ndim == 3 and frame.shape[2] == 4:
        return "drop the alpha channel with frame[:, :, :3]"
    if frame.ndim == 2:
        return "repeat a grey frame with np.repeat(frame[:, :, None], 3, axis=2)"
    if frame.ndim == 4:
        return "give one frame at a time"
    if frame.ndim == 3 and frame.shape[0] == 3:
        return "turn planes into pixels with frame.transpose(1, 2, 0)"
    return "convert it to 8 bits a channel first"
