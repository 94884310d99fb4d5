"""Frames and class maps that stay in the GPU's memory: through an engine, and through a segmenter."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.bundles import quantized_bundle, quantized_graph
from support.cuda_devices import fake_device
from support.fake_gpu import FakeGpu
from support.gpu_tensors import DLPackTensor, GpuTensor, InterfaceTensor
from support.graphs import random_frame
from support.tensorrt_execution import Execution
from support.tensorrt_fakes import Behaviour, fake_library

import edgeseg
from edgeseg.backends import DeviceEngine, Target
from edgeseg.backends.tensorrt.backend import TensorRTBackend
from edgeseg.backends.tensorrt.construct import construct
from edgeseg.backends.tensorrt.engine import TensorRTEngine
from edgeseg.backends.tensorrt.options import BuildOptions
from edgeseg.errors import EngineError, ShapeError
from edgeseg.segmenter import Segmenter
from edgeseg.upsample import Upsampling, upsampling

HEIGHT, WIDTH = 32, 48
SIZES = [(32, 48), (45, 31)]
KINDS = [DLPackTensor, InterfaceTensor]


@pytest.fixture
def gpu() -> FakeGpu:
    return FakeGpu()


@pytest.fixture
def execution(gpu: FakeGpu) -> Execution:
    return Execution(gpu)


@pytest.fixture(params=[("cuda-bindings", False), ("cuda-bindings", True), ("pycuda", False)])
def segmenter(
    tmp_path: Path, gpu: FakeGpu, execution: Execution, monkeypatch: pytest.MonkeyPatch, request: Any
) -> Iterator[Segmenter]:
    """On TensorRT with each library for CUDA, and with memory that needs no copies."""
    name, mapped = request.param
    library = fake_library("tensorrt-10.3.0", Behaviour(run=execution))
    plan = construct(library, quantized_graph(HEIGHT, WIDTH), BuildOptions()).plan

    def make(target: Target) -> TensorRTEngine:
        return TensorRTEngine(library, fake_device(name, gpu, monkeypatch)[0], plan, target, mapped=mapped)

    bundle = quantized_bundle(tmp_path / "toy.edgeseg", HEIGHT, WIDTH)
    with Segmenter(bundle, TensorRTBackend(), make, Target()) as made:
        yield made


def tables(size: tuple[int, int]) -> Upsampling:
    return upsampling(size, (HEIGHT, WIDTH), (HEIGHT // 4, WIDTH // 4), "half_pixel")


@pytest.mark.parametrize("kind", KINDS)
class TestSegmenter:
    @pytest.mark.parametrize("size", SIZES)
    def test_gives_what_the_frame_in_the_processors_memory_gives(
        self, segmenter: Segmenter, gpu: FakeGpu, kind: type[GpuTensor], size: tuple[int, int]
    ) -> None:
        assert isinstance(segmenter._engine_for("latency"), DeviceEngine)
        for seed in range(5):  # the third run is a CUDA graph
            image = random_frame(*size, seed)
            expected = segmenter(image).class_map
            frame, mine = kind(gpu, image), kind(gpu, np.zeros(size, np.uint8))
            assert np.array_equal(segmenter(frame).class_map, expected)
            found = segmenter.segment_into(frame, mine)
            assert found.class_map is mine
            assert np.array_equal(mine.numpy(), expected)

    def test_by_every_way_in(self, segmenter: Segmenter, gpu: FakeGpu, kind: type[GpuTensor]) -> None:
        image = random_frame(HEIGHT, WIDTH, 0)
        expected, frame = segmenter(image).class_map, kind(gpu, image)
        host, mine = np.empty((HEIGHT, WIDTH), np.uint8), kind(gpu, np.zeros((HEIGHT, WIDTH), np.uint8))
        assert segmenter.segment_into(frame, host).class_map is host
        assert np.array_equal(host, expected)
        assert np.array_equal(segmenter.submit(frame).result(20).class_map, expected)
        assert segmenter.submit(frame, class_map=mine).result(20).class_map is mine  # type: ignore[arg-type]
        assert np.array_equal(mine.numpy(), expected)
        results = list(segmenter.stream([frame, image, frame]))
        assert all(np.array_equal(result.class_map, expected) for result in results)

    def test_nothing_comes_to_the_processor_but_the_class_map(
        self, segmenter: Segmenter, gpu: FakeGpu, kind: type[GpuTensor], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        frame, mine = (kind(gpu, np.zeros((50, 60, *more), np.uint8)) for more in ((3,), ()))
        segmenter.segment_into(frame, mine)
        moved: list[tuple[str, int]] = []

        def watch(name: str) -> None:
            real = getattr(gpu, name)

            def copy(to: int, come_from: int, size: int, stream: int) -> None:
                moved.append((name, size))
                real(to, come_from, size, stream)

            monkeypatch.setattr(gpu, name, copy)

        watch("copy_in")
        watch("copy_out")
        segmenter.segment_into(frame, mine)
        assert moved == []
        segmenter(frame)
        mapped = segmenter._engine_for("latency").mapped  # type: ignore[attr-defined]
        assert moved == ([] if mapped else [("copy_out", 50 * 60)])

    def test_the_result_is_drawn_from_a_copy(self, segmenter: Segmenter, gpu: FakeGpu, kind: type[GpuTensor]) -> None:
        frame, mine = (kind(gpu, np.zeros((32, 48, *more), np.uint8)) for more in ((3,), ()))
        mine.shape = (32, 48)  # type: ignore[attr-defined]
        result = segmenter.segment_into(frame, mine)
        for draw in (result.colorize, result.areas, lambda: result.overlay(np.zeros((32, 48, 3), np.uint8))):
            with pytest.raises(ShapeError, match="the class map lies in a GPU's memory, as was asked for"):
                draw()

    def test_errors_leave_the_next_frame_alone(
        self, segmenter: Segmenter, gpu: FakeGpu, execution: Execution, kind: type[GpuTensor]
    ) -> None:
        image = random_frame(HEIGHT, WIDTH, 0)
        expected, frame = segmenter(image).class_map, kind(gpu, image)
        execution.poisons = True
        with pytest.raises(EngineError, match="logits that are not finite"):
            segmenter(frame)
        execution.poisons = False
        with pytest.raises(ShapeError, match=r"class_map must be \(32, 48\) uint8"):
            segmenter.segment_into(frame, kind(gpu, np.zeros((9, 9), np.uint8)))
        with pytest.raises(ShapeError, match=r"class_map must be \(32, 48\) uint8"):
            segmenter.segment_into(frame, np.empty((9, 9), np.uint8))
        with pytest.raises(ShapeError, match=r"class_map lies in a GPU's memory .*, but the frame does not"):
            segmenter.segment_into(image, kind(gpu, np.zeros((32, 48), np.uint8)))
        with pytest.raises(ShapeError, match="this engine takes frames in the processor's"):
            segmenter.logits(frame)
        assert np.array_equal(segmenter(frame).class_map, expected)


class TestEngine:
    @pytest.fixture
    def engine(self, gpu: FakeGpu, execution: Execution, monkeypatch: pytest.MonkeyPatch) -> Iterator[TensorRTEngine]:
        library = fake_library("tensorrt-10.3.0", Behaviour(run=execution))
        plan = construct(library, quantized_graph(HEIGHT, WIDTH), BuildOptions()).plan
        cuda = fake_device("cuda-bindings", gpu, monkeypatch)[0]
        engine = TensorRTEngine(library, cuda, plan, Target(goal="throughput"))
        yield engine
        engine.close()

    def test_runs_in_many_threads(self, engine: TensorRTEngine, gpu: FakeGpu) -> None:
        images = [random_frame(*SIZES[index % 2], index) for index in range(6)]
        expected = [engine.infer_on_device(DLPackTensor(gpu, image), tables) for image in images]
        given = [DLPackTensor(gpu, images[index % 6]) for index in range(60)]

        def run(index: int) -> bool:
            found, wanted = engine.infer_on_device(given[index], tables), expected[index % 6]
            assert found is not None
            assert wanted is not None
            return np.array_equal(found, wanted)

        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(run, range(60)))

    def test_frees_everything(self, engine: TensorRTEngine, gpu: FakeGpu) -> None:
        frame, mine = DLPackTensor(gpu, random_frame(45, 31, 0)), DLPackTensor(gpu, np.zeros((45, 31), np.uint8))
        for _ in range(3):
            engine.infer_on_device(frame, tables, mine)
        gpu.run_all()
        frame.close()
        mine.close()
        engine.close()
        assert gpu.left == {}

    def test_a_size_without_a_kernel(self, engine: TensorRTEngine, gpu: FakeGpu) -> None:
        for extra in range(4):
            engine.infer_on_device(DLPackTensor(gpu, random_frame(8 + extra, 9, 0)), tables)
        with pytest.raises(
            EngineError, match="need its kernels for class maps, which there are for a few sizes of fram"
        ):
            engine.infer_on_device(DLPackTensor(gpu, random_frame(20, 20, 0)), tables)


class TestProcessor:
    @pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
    @pytest.mark.parametrize("kind", KINDS)
    def test_refuses_what_lies_on_a_gpu(
        self, tmp_path: Path, gpu: FakeGpu, backend: str, kind: type[GpuTensor]
    ) -> None:
        bundle = quantized_bundle(tmp_path / "toy.edgeseg", HEIGHT, WIDTH)
        frame, mine = (kind(gpu, np.zeros((32, 48, *more), np.uint8)) for more in ((3,), ()))
        with edgeseg.load(bundle.path, backend=backend, threads=1) as segmenter:
            with pytest.raises(ShapeError, match=r"frame lies in a GPU's memory .* frame.cpu\(\) with torch"):
                segmenter(frame)
            with pytest.raises(ShapeError, match=r"make it with np.empty\(\(32, 48\), np.uint8\)"):
                segmenter.segment_into(random_frame(32, 48, 0), mine)
