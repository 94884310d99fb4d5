"""Arrays of other libraries in the GPU's memory, taken in place: DLPack, or the CUDA array interface.

DLPack (dmlc.github.io/dlpack, data-apis.org/array-api) goes first, because with it the owner's pending work is waited
for on our stream; the CUDA array interface (Numba's documentation, version 3) says at most which stream that is, and
not on which GPU an array lies.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeseg.backends.cuda.device import Cuda
from edgeseg.backends.cuda.resources import Memory, Stream
from edgeseg.errors import ShapeError

__all__ = ["DeviceArray", "take_array"]

_CUDA, _CUDA_MANAGED = 2, 13
"""kDLCUDA and kDLCUDAManaged of DLPack's DLDeviceType."""

_DLPACK_KINDS = {0: "i", 1: "u", 2: "f", 6: "b"}
"""NumPy's kind of a DLDataTypeCode."""


@dataclass(frozen=True, eq=False)
class DeviceArray:
    """An array in the GPU's memory that belongs to somebody else.

    Attributes:
        memory: where its first element lies; as long as its bytes where it is contiguous.
        shape: of the array.
        dtype: of an element, such as "uint8".
        strides: bytes from one element to the next, by axis.
        writable: whether it may be written.
        owner: what keeps the memory alive, as long as this is held.
    """

    memory: Memory
    shape: tuple[int, ...]
    dtype: str
    strides: tuple[int, ...]
    writable: bool
    owner: object

    @property
    def contiguous(self) -> bool:
        """Whether the elements follow each other in C order."""
        return self.strides == _contiguous(self.shape, np.dtype(self.dtype).itemsize)


def take_array(given: Any, cuda: Cuda, stream: Stream) -> DeviceArray:
    """An array of another library, ready for what is put on a stream from now on.

    Args:
        given: has `__dlpack__` or `__cuda_array_interface__`, and lies on a GPU.
        cuda: the GPU on which it must lie.
        stream: that will use it.

    Raises:
        ShapeError: for one that DLPack places on another GPU or device, or that its library does not give.
    """
    if not hasattr(given, "__dlpack__"):
        return _from_interface(given, cuda)
    kind, ordinal = given.__dlpack_device__()
    if kind not in (_CUDA, _CUDA_MANAGED) or (kind == _CUDA and ordinal != cuda.library.ordinal):
        raise ShapeError(
            f"the {type(given).__name__} lies on device {ordinal} of DLPack's kind {kind}, but the engine runs on CUDA "
            f"device {cuda.library.ordinal}; bring it there first"
        )
    try:
        capsule = given.__dlpack__(stream=stream.handle)
    except (BufferError, RuntimeError, TypeError, ValueError) as error:
        raise ShapeError(f"this {type(given).__name__} is not given away: {error}") from error
    return _from_capsule(capsule, cuda)


class _Tensor(ctypes.Structure):
    """DLTensor of dlpack.h, which DLManagedTensor begins with."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("type_code", ctypes.c_uint8),
        ("type_bits", ctypes.c_uint8),
        ("type_lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


_pointer_of = ctypes.pythonapi.PyCapsule_GetPointer
_pointer_of.restype = ctypes.c_void_p
_pointer_of.argtypes = (ctypes.py_object, ctypes.c_char_p)


def _from_capsule(capsule: Any, cuda: Cuda) -> DeviceArray:
    # The capsule keeps its name, so that it gives the memory back itself when it goes.
    tensor = _Tensor.from_address(_pointer_of(capsule, b"dltensor"))
    shape = tuple(tensor.shape[axis] for axis in range(tensor.ndim))
    if tensor.type_lanes != 1 or tensor.type_bits % 8 or tensor.type_code not in _DLPACK_KINDS:
        dtype, size = f"DLPack type {tensor.type_code} of {tensor.type_bits} bits", 1
    else:
        size = tensor.type_bits // 8
        dtype = np.dtype(f"{_DLPACK_KINDS[tensor.type_code]}{size}").name
    strides = _contiguous(shape, size)
    if tensor.strides:
        strides = tuple(tensor.strides[axis] * size for axis in range(tensor.ndim))
    memory = cuda.foreign((tensor.data or 0) + tensor.byte_offset, _bytes(shape, size), "array of the caller")
    return DeviceArray(memory, shape, dtype, strides, True, capsule)


def _from_interface(given: Any, cuda: Cuda) -> DeviceArray:
    found = given.__cuda_array_interface__
    shape, dtype = tuple(found["shape"]), np.dtype(found["typestr"])
    pointer, read_only = found["data"]
    if found.get("stream") is not None:
        cuda.wait_for(int(found["stream"]))
    strides = found.get("strides") or _contiguous(shape, dtype.itemsize)
    memory = cuda.foreign(pointer, _bytes(shape, dtype.itemsize), "array of the caller")
    return DeviceArray(memory, shape, dtype.name, tuple(strides), not read_only, given)


def _contiguous(shape: tuple[int, ...], size: int) -> tuple[int, ...]:
    strides = []
    for extent in reversed(shape):
        strides.append(size)
        size *= extent
    return tuple(reversed(strides))


def _bytes(shape: tuple[int, ...], size: int) -> int:
    for extent in shape:
        size *= extent
    return size
