"""Frames in the GPU's memory: taken from other libraries, and brought to the network's size as OpenCV does."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
import pytest
from support.cuda_devices import fake_device
from support.fake_gpu import FakeGpu
from support.gpu_tensors import DLPackTensor, GpuTensor, InterfaceTensor
from support.graphs import random_frame

from edgeseg.backends.cuda import Cuda, Stream
from edgeseg.backends.cuda.arrays import take_array
from edgeseg.backends.cuda.frames import DeviceFrames
from edgeseg.errors import ShapeError

HEIGHT, WIDTH = 32, 48
KINDS = [DLPackTensor, InterfaceTensor]


@pytest.fixture
def cuda(gpu: FakeGpu, library: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cuda]:
    with fake_device(library, gpu, monkeypatch)[0] as device:
        yield device


@pytest.fixture
def stream(cuda: Cuda) -> Iterator[Stream]:
    with cuda.stream() as made:
        yield made


@pytest.fixture
def frames(cuda: Cuda) -> Iterator[DeviceFrames]:
    made = DeviceFrames(cuda, (1, HEIGHT, WIDTH, 3))
    yield made
    made.close()


class Elsewhere:
    """An array of another library that says to lie on the GPU."""

    def __init__(self, array: Any) -> None:
        self.array = array

    def __dlpack_device__(self) -> tuple[int, int]:
        return (2, 0)

    def __dlpack__(self, *, stream: int) -> object:
        return self.array.__dlpack__()


def fitted(cuda: Cuda, frames: DeviceFrames, given: Any, stream: Stream) -> np.ndarray:
    """What the network gets of a frame."""
    out = np.empty((HEIGHT, WIDTH, 3), np.uint8)
    with cuda.allocate(out.nbytes) as target:
        taken = frames.frame(given, stream)
        frames.fit(taken, target, stream)
        stream.copy_to_host(out, target)
        stream.synchronize()
    return out


def resized(image: np.ndarray) -> np.ndarray:
    found: np.ndarray = cv2.resize(image, (WIDTH, HEIGHT), interpolation=cv2.INTER_LINEAR)
    return found


@pytest.mark.parametrize("kind", KINDS)
class TestFit:
    def test_a_frame_of_the_networks_size_is_copied(
        self, cuda: Cuda, gpu: FakeGpu, frames: DeviceFrames, stream: Stream, kind: type[GpuTensor]
    ) -> None:
        image = random_frame(HEIGHT, WIDTH, 0)
        assert np.array_equal(fitted(cuda, frames, kind(gpu, image), stream), image)
        assert gpu.modules == {}, "no kernel is compiled for it"

    @pytest.mark.parametrize(
        "size", [(64, 96), (63, 97), (31, 47), (1, 1), (2, 200), (200, 2), (270, 480), (16, 24), (33, 48)]
    )
    def test_another_size_is_resized_as_opencv_does(
        self, cuda: Cuda, gpu: FakeGpu, frames: DeviceFrames, stream: Stream, kind: type[GpuTensor], size: Any
    ) -> None:
        image = random_frame(*size, 1)
        assert np.array_equal(fitted(cuda, frames, kind(gpu, image), stream), resized(image))

    def test_planes_are_read_in_place(
        self, cuda: Cuda, gpu: FakeGpu, frames: DeviceFrames, stream: Stream, kind: type[GpuTensor]
    ) -> None:
        for size in ((HEIGHT, WIDTH), (50, 40)):
            image = random_frame(*size, 2)
            planes = kind(gpu, image.transpose(2, 0, 1), (1, 2, 0))
            assert np.array_equal(fitted(cuda, frames, planes, stream), resized(image))


class TestTake:
    def test_the_owners_work_is_waited_for(self, cuda: Cuda, gpu: FakeGpu, stream: Stream) -> None:
        content = np.arange(24, dtype=np.int32).reshape(4, 6)
        for kind in KINDS:
            given = kind(gpu, content)
            out = np.empty_like(content)
            taken = take_array(given, cuda, stream)
            stream.copy_to_host(out, taken.memory)
            stream.synchronize()
            assert np.array_equal(out, content)
            assert (taken.shape, taken.dtype, taken.strides) == ((4, 6), "int32", (24, 4))
            assert taken.contiguous
            assert taken.writable

    def test_a_stream_of_none_is_ready(self, cuda: Cuda, gpu: FakeGpu, stream: Stream) -> None:
        given = InterfaceTensor(gpu, np.zeros(3, np.uint8))
        given.tells_stream = False
        calls = len(gpu.calls)
        take_array(given, cuda, stream)
        assert len(gpu.calls) == calls

    @pytest.mark.parametrize("dtype", ["uint8", "int64", "float16", "float32", "bool"])
    def test_types(self, cuda: Cuda, gpu: FakeGpu, stream: Stream, dtype: str) -> None:
        for kind in KINDS:
            taken = take_array(kind(gpu, np.zeros((2, 3), dtype)), cuda, stream)
            assert (taken.dtype, taken.memory.size) == (dtype, 6 * np.dtype(dtype).itemsize)

    def test_a_type_that_numpy_does_not_have(self, frames: DeviceFrames, gpu: FakeGpu, stream: Stream) -> None:
        given = DLPackTensor(gpu, np.zeros((4, 4, 3), np.complex64))
        with pytest.raises(ShapeError, match=r"got \(4, 4, 3\) DLPack type 5 of 64 bits on the GPU"):
            frames.frame(given, stream)

    def test_the_memory_is_held_as_long_as_it_is_used(self, cuda: Cuda, stream: Stream) -> None:
        content = np.arange(12, dtype=np.uint8).reshape(3, 4)
        alive = weakref.ref(content)
        taken = take_array(Elsewhere(content), cuda, stream)
        assert taken.memory.pointer == content.ctypes.data
        del content
        gc.collect()
        assert alive() is not None
        del taken
        gc.collect()
        assert alive() is None

    def test_a_capsule_of_torch(self, cuda: Cuda, stream: Stream) -> None:
        torch = pytest.importorskip("torch")
        tensor = torch.arange(24, dtype=torch.int16).reshape(4, 6)[1:, ::2]
        taken = take_array(Elsewhere(tensor), cuda, stream)
        assert (taken.memory.pointer, taken.shape, taken.dtype) == (tensor.data_ptr(), (3, 3), "int16")
        assert (taken.strides, taken.contiguous) == ((12, 4), False)

    @pytest.mark.parametrize("device", [(2, 1), (10, 0), (7, 0)])
    def test_another_device(self, cuda: Cuda, gpu: FakeGpu, stream: Stream, device: tuple[int, int]) -> None:
        given = DLPackTensor(gpu, np.zeros(3, np.uint8))
        given.device = device
        with pytest.raises(
            ShapeError, match=r"lies on device \d of DLPack's kind \d+, but the engine runs on CUDA dev"
        ):
            take_array(given, cuda, stream)
        assert given.taken == 0

    def test_managed_memory_lies_everywhere(self, cuda: Cuda, gpu: FakeGpu, stream: Stream) -> None:
        given = DLPackTensor(gpu, np.zeros(3, np.uint8))
        given.device = (13, 3)
        assert take_array(given, cuda, stream).shape == (3,)

    def test_a_library_that_refuses(self, cuda: Cuda, stream: Stream) -> None:
        class Refusing:
            def __dlpack_device__(self) -> tuple[int, int]:
                return (2, 0)

            def __dlpack__(self, *, stream: int) -> object:
                raise BufferError("it requires gradients")

        with pytest.raises(ShapeError, match="this Refusing is not given away: it requires gradients"):
            take_array(Refusing(), cuda, stream)


@pytest.mark.parametrize("kind", KINDS)
class TestRefused:
    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (np.zeros((4, 4), np.uint8), r"frame must be \(H, W, 3\) uint8 RGB, but got \(4, 4\) uint8 on the GPU"),
            (np.zeros((3, 4, 4), np.uint8), r"but got \(3, 4, 4\) uint8.* frame.permute\(1, 2, 0\)"),
            (np.zeros((4, 4, 3), np.float32), r"but got \(4, 4, 3\) float32"),
        ],
    )
    def test_frames(
        self, frames: DeviceFrames, gpu: FakeGpu, stream: Stream, kind: type[GpuTensor], content: Any, message: str
    ) -> None:
        with pytest.raises(ShapeError, match=message):
            frames.frame(kind(gpu, content), stream)

    def test_class_maps(self, frames: DeviceFrames, gpu: FakeGpu, stream: Stream, kind: type[GpuTensor]) -> None:
        good = kind(gpu, np.zeros((8, 9), np.uint8))
        assert frames.class_map(good, (8, 9), stream).memory.pointer == good.pointer
        with pytest.raises(ShapeError, match=r"class_map must be \(9, 8\) uint8.* got \(8, 9\) uint8.* torch.empty\("):
            frames.class_map(good, (9, 8), stream)
        with pytest.raises(ShapeError, match=r"got \(8, 9\) int16"):
            frames.class_map(kind(gpu, np.zeros((8, 9), np.int16)), (8, 9), stream)
        with pytest.raises(ShapeError, match="must be contiguous and writable, but is a view or read-only; make a new"):
            frames.class_map(kind(gpu, np.zeros((9, 8), np.uint8), (1, 0)), (8, 9), stream)


def test_read_only_class_map(frames: DeviceFrames, gpu: FakeGpu, stream: Stream) -> None:
    given = InterfaceTensor(gpu, np.zeros((8, 9), np.uint8))
    given.read_only = True
    with pytest.raises(ShapeError, match="contiguous and writable"):
        frames.class_map(given, (8, 9), stream)


def test_a_frame_too_large_for_the_kernel(frames: DeviceFrames, stream: Stream) -> None:
    class Huge:
        __cuda_array_interface__ = {  # noqa: RUF012
            "shape": (40000, 40000, 3), "typestr": "|u1", "data": (4096, False), "stream": None, "version": 3,
        }  # fmt: skip

    with pytest.raises(ShapeError, match="a frame spans at most 2 GiB, but this one 4799999999 bytes"):
        frames.frame(Huge(), stream)
