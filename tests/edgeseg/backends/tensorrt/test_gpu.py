"""On a real GPU with TensorRT, or TensorRT-RTX where the GPU is one of its: the same classes as on the processor."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.backend_tester import BackendTester
from support.graphs import random_frame
from support.tensorrt_machines import promised_bundle

import edgeseg
from edgeseg.apps.engine_build import EngineRequest, build_engine
from edgeseg.backends import Backend, Target, get_backend
from edgeseg.backends.cuda import open_cuda
from edgeseg.backends.tensorrt.board import find_device
from edgeseg.backends.tensorrt.engine import TensorRTEngine
from edgeseg.backends.tensorrt.options import BuildOptions
from edgeseg.backends.tensorrt.plans import list_plans
from edgeseg.backends.tensorrt.versions.library import load_library
from edgeseg.bundle import Bundle
from edgeseg.calibration.frames import frames_from
from edgeseg.converters.convert import convert
from edgeseg.converters.options import ConvertOptions
from edgeseg.errors import EdgesegError, EngineError
from edgeseg.upsample import reference_class_map, upsampling

_log = logging.getLogger(__name__)

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(find_device() is None, reason="no NVIDIA GPU, or no driver"),
]


def needs(library: str) -> Any:
    return pytest.mark.skipif(importlib.util.find_spec(library) is None, reason=f"{library} is not installed")


@pytest.fixture(
    scope="module",
    params=[
        pytest.param("tensorrt", marks=needs("tensorrt")),
        pytest.param("tensorrt-rtx", marks=needs("tensorrt_rtx")),
    ],
)
def name(request: pytest.FixtureRequest) -> str:
    backend: Any = get_backend(request.param)
    try:
        backend.check_device()
    except EngineError as error:
        pytest.skip(str(error))
    found: str = request.param
    return found


@pytest.fixture(scope="module")
def bundle(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The published ESPNet."""
    folder = tmp_path_factory.mktemp("gpu")
    camvid = shared / "data" / "camvid"
    options = ConvertOptions(
        classes="camvid", color_order="BGR", mean=(110.3, 108.4, 105.0), std=(18392.1, 18536.1, 17825.6), count=8,
        output=folder / "espnet.edgeseg",
    )  # fmt: skip
    return convert(shared / "models" / "espnet_camvid_360x480.onnx", str(camvid / "train" / "images"), options).bundle


@pytest.fixture(scope="module")
def frames(shared: Path) -> list[np.ndarray]:
    return [frame.image for frame in frames_from(shared / "data" / "camvid" / "val" / "images").select(8)]


@pytest.fixture(scope="module")
def plan(bundle: Bundle, name: str) -> bytes:
    library: Any = name.replace("-", "_")
    result = build_engine(bundle, EngineRequest(BuildOptions(library=library)))
    assert result.plan.record.build.proven_int8 == bundle.manifest.quantization.count("int8")
    return result.plan.read()


def load(plan: bytes, name: str, goal: Any = "latency", **options: Any) -> TensorRTEngine:
    target = Target(goal=goal, profiling=options.pop("profiling", False))
    return TensorRTEngine(load_library(name.replace("-", "_")), open_cuda(), plan, target, **options)


class TestSegmenter:
    @pytest.fixture
    def classes(self, bundle: Bundle, frames: list[np.ndarray]) -> list[np.ndarray]:
        with edgeseg.load(bundle.path, backend="onnxruntime") as segmenter:
            return [segmenter(frame).class_map for frame in frames]

    def test_agrees_with_the_processor(
        self, bundle: Bundle, plan: bytes, name: str, frames: list[np.ndarray], classes: list[np.ndarray]
    ) -> None:
        with edgeseg.load(bundle.path, backend=name) as segmenter:
            single = [segmenter(frame).class_map for frame in frames]
            streamed = [result.class_map for result in segmenter.stream(frames * 4)]
        assert np.mean([(a == b).mean() for a, b in zip(single, classes, strict=True)]) >= 0.99
        assert all(np.array_equal(a, b) for a, b in zip(single * 4, streamed, strict=True))

    def test_auto_takes_it(self, bundle: Bundle, plan: bytes, name: str) -> None:
        with edgeseg.load(bundle.path) as segmenter:
            assert segmenter.backend_name.startswith("tensorrt")

    def test_refuses_a_damaged_plan(self, bundle: Bundle, plan: bytes, name: str, tmp_path: Path) -> None:
        for content in (b"", plan[: len(plan) // 2], b"no plan" * 100, b"\0" * len(plan)):
            with pytest.raises(EngineError, match="does not load the plan"):
                load(content or b"\0", name)
        engine = load(plan, name)
        engine.close()


class TestEngine:
    @pytest.fixture
    def engine(self, plan: bytes, name: str) -> Iterator[TensorRTEngine]:
        engine = load(plan, name)
        yield engine
        engine.close()

    def arrays(self, engine: TensorRTEngine, count: int = 6) -> list[np.ndarray]:
        _, height, width, _ = engine.inputs[0].shape
        return [random_frame(height, width, seed)[None] for seed in range(count)]

    def test_a_graph_changes_nothing(self, engine: TensorRTEngine, plan: bytes, name: str) -> None:
        plain = load(plan, name, graphs=False)
        for array in self.arrays(engine):
            assert np.array_equal(engine.infer([array])[0], plain.infer([array])[0])
        assert not plain.has_graph
        _log.warning("CUDA graph: %s", engine.has_graph)
        plain.close()

    def test_memory_without_copies_changes_nothing(self, engine: TensorRTEngine, plan: bytes, name: str) -> None:
        shared = load(plan, name, mapped=True)
        for array in self.arrays(engine):
            assert np.array_equal(engine.infer([array])[0], shared.infer([array])[0])
        shared.close()

    def test_lanes_change_nothing(self, engine: TensorRTEngine, plan: bytes, name: str) -> None:
        from concurrent.futures import ThreadPoolExecutor

        many, arrays = load(plan, name, goal="throughput"), self.arrays(engine)
        expected = [engine.infer([array])[0] for array in arrays]
        with ThreadPoolExecutor(6) as pool:
            found = list(pool.map(lambda i: many.infer([arrays[i % 6]])[0], range(120)))
        assert all(np.array_equal(logits, expected[i % 6]) for i, logits in enumerate(found))
        many.close()

    @pytest.mark.parametrize("size", [(360, 480), (720, 960), (173, 211)])
    def test_the_class_map_equals_the_reference(
        self, engine: TensorRTEngine, bundle: Bundle, size: tuple[int, int]
    ) -> None:
        output = bundle.manifest.output
        axes = upsampling(size, bundle.manifest.map_size, (output.height, output.width), output.coordinates)
        for array in self.arrays(engine):
            (logits,) = engine.infer([array])
            found = engine.infer_class_map([array], axes)
            assert found is not None
            assert np.array_equal(found, reference_class_map(logits[0], axes.rows, axes.columns))

    def test_times_its_stages(self, engine: TensorRTEngine) -> None:
        times = engine.stage_times(self.arrays(engine, 1))
        _log.warning("%s", times)
        assert 0 < times.inference <= times.copy_in + times.inference + times.copy_out
        assert times.gpu <= times.wall

    def test_profiles_its_layers(self, plan: bytes, name: str) -> None:
        engine = load(plan, name, profiling=True)
        for array in self.arrays(engine, 2):
            engine.infer([array])
        rows = engine.profile()
        assert len(rows) > 20
        assert all(row.milliseconds >= 0 for row in rows)
        engine.close()


class TestDeviceFrames:
    """Frames of torch on the GPU: what the same frames in the processor's memory give, bit for bit."""

    @pytest.mark.parametrize("size", [(360, 480), (720, 960), (173, 211)])
    def test_give_the_same_classes(self, bundle: Bundle, plan: bytes, name: str, size: tuple[int, int]) -> None:
        torch = pytest.importorskip("torch")
        if not torch.cuda.is_available():
            pytest.skip("this torch has no CUDA")
        mine = torch.empty(size, dtype=torch.uint8, device="cuda")
        with edgeseg.load(bundle.path, backend=name) as segmenter:
            for seed in range(5):
                image = random_frame(*size, seed)
                expected = segmenter(image).class_map
                tensor = torch.from_numpy(image).cuda()
                planes = tensor.permute(2, 0, 1).contiguous().permute(1, 2, 0)
                for frame in (tensor, planes):
                    assert np.array_equal(segmenter(frame).class_map, expected)
                    assert segmenter.segment_into(frame, mine).class_map is mine
                    assert np.array_equal(mine.cpu().numpy(), expected)

    def test_wait_for_the_stream_that_makes_them(self, bundle: Bundle, plan: bytes, name: str) -> None:
        torch = pytest.importorskip("torch")
        if not torch.cuda.is_available():
            pytest.skip("this torch has no CUDA")
        image = random_frame(360, 480, 0)
        with edgeseg.load(bundle.path, backend=name) as segmenter, torch.cuda.stream(torch.cuda.Stream()):
            expected = segmenter(image).class_map
            ready = torch.from_numpy(image).cuda()
            for _ in range(5):
                late = torch.zeros_like(ready)
                torch.cuda._sleep(50_000_000)
                late.copy_(ready)
                assert np.array_equal(segmenter(late).class_map, expected)


class TestBatch:
    def test_gives_what_single_frames_give(self, name: str, tmp_path: Path) -> None:
        library: Any = name.replace("-", "_")
        bundle = promised_bundle(tmp_path / "toy.edgeseg")
        options = BuildOptions(library=library, batch=(1, 8, 8))
        engine = load(build_engine(bundle, EngineRequest(options)).plan.read(), name)
        frames = np.stack([random_frame(32, 48, seed) for seed in range(8)])
        for count in (1, 8, 3, 3, 3):
            (found,) = engine.infer([frames[:count]])
            alone = np.concatenate([engine.infer([frames[i : i + 1]])[0] for i in range(count)])
            assert (found.argmax(1) == alone.argmax(1)).mean() >= 0.99
        engine.close()


class TestLoadThatBuilds:
    def test_builds_once(self, name: str, tmp_path: Path) -> None:
        bundle = promised_bundle(tmp_path / "toy.edgeseg")
        with pytest.raises(EdgesegError, match="has no engine for this device"):
            edgeseg.load(bundle.path, backend=name, build=False)
        for _ in range(2):
            with edgeseg.load(bundle.path, backend=name, build=True) as segmenter:
                assert segmenter(random_frame(32, 48)).class_map.shape == (32, 48)
        assert len(list_plans(bundle)) == 1


@needs("tensorrt")
class TestTensorRT(BackendTester):
    """A Q/DQ graph as it is, which TensorRT 10 takes."""

    backend = "tensorrt"

    def test_refuses_what_is_no_graph(self, maker: Backend) -> None:
        with pytest.raises(EngineError, match="does not take the graph"):
            maker.compile(b"no graph", Target())
