"""Logits on the GPU to the class map of a frame, and its overlay, in one pass; the kernels are in class_map.cu."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from importlib import resources
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from edgeseg.backends.cuda.device import Cuda
from edgeseg.backends.cuda.interface import Argument
from edgeseg.backends.cuda.resources import Memory, Stream
from edgeseg.errors import EngineError, ShapeError
from edgeseg.upsample import Upsampling

__all__ = ["ClassMapKernel", "LogitsFormat"]

_BLOCK = (32, 8, 1)
_MOST_CLASSES = 256
_MOST_ELEMENTS = 2**31 - 1


@dataclass(frozen=True)
class LogitsFormat:
    """How an engine lays the logits of one frame out in memory.

    Attributes:
        channels, rows, columns: their number; one channel a class.
        dtype: of an element.
        strides: elements from one channel, row and column to the next.
    """

    channels: int
    rows: int
    columns: int
    dtype: Literal["float32", "float16"]
    strides: tuple[int, int, int]

    @classmethod
    def of(
        cls,
        shape: tuple[int, int, int],
        dtype: Literal["float32", "float16"] = "float32",
        layout: Literal["NCHW", "NHWC"] = "NCHW",
    ) -> LogitsFormat:
        """Contiguous logits; `shape` is (channels, rows, columns) in either layout."""
        channels, rows, columns = shape
        strides = (rows * columns, columns, 1) if layout == "NCHW" else (1, columns * channels, channels)
        return cls(channels, rows, columns, dtype, strides)

    def __post_init__(self) -> None:
        if not 1 <= self.channels <= _MOST_CLASSES:
            raise ShapeError(
                f"a class map of one byte holds 1 to {_MOST_CLASSES} classes, but logits have {self.channels}"
            )
        if self.dtype not in ("float32", "float16"):
            raise ShapeError(f"logits must be float32 or float16, but are {self.dtype}")
        sizes = (self.channels, self.rows, self.columns)
        last = sum((size - 1) * stride for size, stride in zip(sizes, self.strides, strict=True))
        if min(*sizes, *self.strides) < 1 or last >= _MOST_ELEMENTS:
            raise ShapeError(f"logits of {sizes} with strides {self.strides} are none, or too many for one frame")


class ClassMapKernel:
    """Upsampling, argmax and blending for frames of one size.

    Args:
        cuda: the GPU.
        logits: how the engine gives them.
        upsampling: where the frame's pixels sample them.
        palette: (classes, 3) uint8 RGB to draw an overlay with; None for the class map alone.
        alpha: share of the colour in the overlay, 0..1.
        slots: launches that may be in flight at once, each with a `slot` of its own.

    Raises:
        ShapeError: for logits, tables or a palette that do not fit together.
        EngineError: when the kernels do not compile, or memory is short.
    """

    def __init__(
        self,
        cuda: Cuda,
        logits: LogitsFormat,
        upsampling: Upsampling,
        *,
        palette: NDArray[np.uint8] | None = None,
        alpha: float = 0.5,
        slots: int = 1,
    ) -> None:
        self.frame_size = (len(upsampling.rows.lower), len(upsampling.columns.lower))
        _check(logits, upsampling, palette, alpha)
        self._overlay = palette is not None
        self._alpha = np.float32(alpha)
        self._strips = strips(upsampling.columns.lower) if upsampling.interpolated else None
        with ExitStack() as made:
            options = compiler_options(logits, self.frame_size, overlay=self._overlay)
            module = made.enter_context(cuda.compile(kernel_source(), "class maps", options))
            self._kernel = module.kernel("argmax_classes" if self._strips is None else "interpolate_classes")
            self._status = made.enter_context(cuda.host_buffer((slots,), np.uint32, "class map states", mapped=True))
            self._status.array[:] = 0
            self._tables = _upload(cuda, made, self._arrays(upsampling, palette))
            self._made = made.pop_all()

    def launch(
        self,
        stream: Stream,
        logits: int,
        class_map: int,
        *,
        frame: int | None = None,
        overlay: int | None = None,
        slot: int = 0,
    ) -> None:
        """Put one frame's work on a stream; the arguments are addresses on the device.

        Args:
            stream: after the engine that gives the logits.
            logits: of one frame.
            class_map: (H, W) uint8, at a multiple of 4 bytes.
            frame, overlay: (H, W, 3) uint8 RGB, read and written; for a kernel with a palette.
            slot: whose result `check` reads.

        Raises:
            EngineError: for a missing or unaligned address, or when the launch fails.
        """
        if class_map % 4:
            raise EngineError(f"a class map must begin at a multiple of 4 bytes, but begins at {class_map:#x}")
        if self._overlay and (frame is None or overlay is None):
            raise EngineError("a kernel with a palette draws an overlay, and needs the addresses of frame and overlay")
        rows, columns = self.frame_size
        across = columns if self._strips is None else len(self._strips) - 1
        grid = (-(-across // _BLOCK[0]), -(-rows // _BLOCK[1]), 1)
        self._kernel.launch(stream, grid, _BLOCK, self._arguments(logits, class_map, frame, overlay, slot))

    def check(self, slot: int = 0) -> None:
        """Say whether the logits of a finished launch were numbers; call it after the stream is done.

        Raises:
            EngineError: for logits that are not finite.
        """
        status = self._status.array
        if status[slot]:
            status[slot] = 0
            raise EngineError("the engine gave logits that are not finite; check the network and its ranges")

    def close(self) -> None:
        """Free the tables and the kernels; a second call does nothing."""
        self._made.close()

    def _arguments(
        self, logits: int, class_map: int, frame: int | None, overlay: int | None, slot: int
    ) -> list[Argument]:
        tables = [np.uint64(table.pointer) for table in self._tables]
        palette = tables.pop() if self._overlay else np.uint64(0)
        # The count of strips stands behind the tables that describe them.
        counts: list[Argument] = [] if self._strips is None else [np.int32(len(self._strips) - 1)]
        status = self._status.device_pointer + slot * self._status.array.itemsize
        images = [np.uint64(class_map), np.uint64(status), np.uint64(frame or 0), np.uint64(overlay or 0)]
        return [np.uint64(logits), *tables, *counts, *images, palette, self._alpha]

    def _arrays(self, upsampling: Upsampling, palette: NDArray[np.uint8] | None) -> list[NDArray[Any]]:
        """The tables in the order of the kernel's arguments."""
        rows, columns = upsampling.rows, upsampling.columns
        arrays: list[NDArray[Any]] = [rows.lower, columns.lower]
        if self._strips is not None:
            arrays = [rows.lower, rows.weight, self._strips, columns.lower, columns.weight]
        return arrays if palette is None else [*arrays, palette]


def _upload(cuda: Cuda, made: ExitStack, arrays: list[NDArray[Any]]) -> list[Memory]:
    with cuda.stream("class map tables") as stream:
        tables = []
        for array in map(np.ascontiguousarray, arrays):
            tables.append(made.enter_context(cuda.allocate(array.nbytes, "class map tables")))
            stream.copy_to_device(tables[-1], array)
            stream.synchronize()
        return tables


def kernel_source() -> str:
    """The CUDA C++ of class_map.cu."""
    return resources.files(__package__).joinpath("class_map.cu").read_text("utf-8")


def compiler_options(logits: LogitsFormat, frame_size: tuple[int, int], *, overlay: bool) -> list[str]:
    """Options for NVRTC and nvcc: what class_map.cu is told, and exact arithmetic."""
    values = {
        "CHANNELS": logits.channels,
        "CHANNEL_STRIDE": logits.strides[0],
        "ROW_STRIDE": logits.strides[1],
        "COLUMN_STRIDE": logits.strides[2],
        "ROWS": logits.rows,
        "COLUMNS": logits.columns,
        "FRAME_ROWS": frame_size[0],
        "FRAME_COLUMNS": frame_size[1],
        "HALF": int(logits.dtype == "float16"),
        "OVERLAY": int(overlay),
    }
    return [*(f"-D{name}={value}" for name, value in values.items()), "--fmad=false"]


def strips(lower: NDArray[np.int32]) -> NDArray[np.int32]:
    """Where the pixels of an axis begin to lie between another two logits, and the number of pixels behind."""
    starts = np.flatnonzero(np.diff(lower, prepend=-1))
    return np.append(starts, len(lower)).astype(np.int32)


def _check(logits: LogitsFormat, upsampling: Upsampling, palette: NDArray[np.uint8] | None, alpha: float) -> None:
    sizes = (upsampling.rows.size, upsampling.columns.size)
    if sizes != (logits.rows, logits.columns):
        raise ShapeError(f"the tables are for logits of {sizes}, but the engine gives {(logits.rows, logits.columns)}")
    if palette is not None and (palette.shape != (logits.channels, 3) or palette.dtype != np.uint8):
        raise ShapeError(
            f"the palette must be {(logits.channels, 3)} uint8, but is {palette.shape} {palette.dtype}; "
            "one RGB colour a class"
        )
    if not 0 <= alpha <= 1:
        raise ShapeError(f"alpha is the share of colour and must be 0..1, but is {alpha}")
