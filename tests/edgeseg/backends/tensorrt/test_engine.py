"""Engines on fakes of every version, over a GPU in the host's memory."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import pytest
from support.bundles import quantized_graph
from support.cuda_devices import fake_device
from support.fake_gpu import FakeGpu
from support.graphs import random_frame
from support.tensorrt_api import DUMPS
from support.tensorrt_execution import Execution, logits_of
from support.tensorrt_fakes import Behaviour, fake_library

from edgeseg.backends import ClassMapEngine, Target, TensorSpec
from edgeseg.backends.cuda import Cuda
from edgeseg.backends.tensorrt.construct import construct
from edgeseg.backends.tensorrt.engine import TensorRTEngine
from edgeseg.backends.tensorrt.options import BuildOptions
from edgeseg.backends.tensorrt.versions.library import Library
from edgeseg.converters.targets.batch import with_dynamic_batch
from edgeseg.errors import EngineError, ShapeError
from edgeseg.upsample import reference_class_map, upsampling

HEIGHT, WIDTH, CLASSES = 32, 48, 4
FRAMES = [random_frame(HEIGHT, WIDTH, seed)[None] for seed in range(6)]
GRAPH = quantized_graph(HEIGHT, WIDTH)


def logits(frames: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return logits_of(frames, CLASSES, HEIGHT // 4, WIDTH // 4)


def plan_of(library: Library, graph: bytes = GRAPH, batch: tuple[int, int, int] = (1, 1, 1)) -> bytes:
    target = "rtx" if library.name == "tensorrt_rtx" else "auto"
    return construct(library, graph, BuildOptions(target=target, batch=batch)).plan


@dataclass
class Bench:
    """A fake GPU with a fake TensorRT on it."""

    gpu: FakeGpu
    execution: Execution
    library: Library
    open: Callable[[], Cuda]

    def load(self, plan: bytes | None = None, goal: Any = "latency", **options: Any) -> TensorRTEngine:
        target = Target(goal=goal, profiling=options.pop("profiling", False))
        return TensorRTEngine(self.library, self.open(), plan or plan_of(self.library), target, **options)


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Bench]:
    def made(version: str = "tensorrt-10.3.0", cuda: str = "cuda-bindings", integrated: bool = False) -> Bench:
        gpu = FakeGpu()
        gpu.integrated = integrated
        execution = Execution(gpu)
        library = fake_library(version, Behaviour(run=execution))
        return Bench(gpu, execution, library, lambda: fake_device(cuda, gpu, monkeypatch)[0])

    return made


@pytest.fixture
def bench(make: Callable[..., Bench]) -> Bench:
    return make()


@pytest.fixture
def engine(bench: Bench) -> Iterator[TensorRTEngine]:
    engine = bench.load()
    yield engine
    engine.close()


class TestInfer:
    @pytest.mark.parametrize("version", DUMPS)
    @pytest.mark.parametrize("cuda", ["cuda-bindings", "pycuda"])
    def test_runs_on_every_version(self, make: Callable[..., Bench], version: str, cuda: str) -> None:
        bench = make(version, cuda)
        engine = bench.load()
        assert engine.inputs == (TensorSpec("frame", (1, HEIGHT, WIDTH, 3), "uint8"),)
        assert engine.outputs == (TensorSpec("logits", (1, CLASSES, HEIGHT // 4, WIDTH // 4), "float32"),)
        for frame in FRAMES:
            (found,) = engine.infer([frame])
            assert np.array_equal(found, logits(frame))
        engine.close()
        assert bench.gpu.left == {}

    def test_gives_arrays_of_their_own(self, engine: TensorRTEngine) -> None:
        found = [engine.infer([frame])[0] for frame in FRAMES]
        assert all(np.array_equal(a, logits(frame)) for a, frame in zip(found, FRAMES, strict=True))

    def test_takes_frames_that_are_not_contiguous(self, engine: TensorRTEngine) -> None:
        (found,) = engine.infer([FRAMES[0][:, ::-1]])
        assert np.array_equal(found, logits(FRAMES[0][:, ::-1]))

    @pytest.mark.parametrize(
        ("arrays", "message"),
        [
            ([FRAMES[0][:, :, 1:]], r"input frame must be \(1, 32, 48, 3\) uint8, but got \(1, 32, 47, 3\)"),
            ([FRAMES[0].astype(np.float32)], "but got .* float32"),
            ([np.concatenate(FRAMES[:2])], r"but got \(2, 32, 48, 3\)"),
            ([], "takes 1 arrays, but got 0"),
        ],
    )
    def test_refuses_other_arrays(self, engine: TensorRTEngine, arrays: list[Any], message: str) -> None:
        with pytest.raises(ShapeError, match=message):
            engine.infer(arrays)

    def test_a_class_map_in_the_graph_comes_as_it_is(self, bench: Bench) -> None:
        model = onnx.load_from_string(GRAPH)
        output = onnx.helper.make_tensor_value_info("logits", onnx.TensorProto.UINT8, [1, HEIGHT, WIDTH])
        model.graph.output[0].CopyFrom(output)
        engine = bench.load(plan_of(bench.library, model.SerializeToString()))
        assert engine.outputs[0].dtype == "uint8"
        assert np.array_equal(engine.infer([FRAMES[0]])[0], FRAMES[0][..., 0] // 64)
        assert engine.infer_class_map([FRAMES[0]], upsampling((32, 48), (32, 48), (32, 48), None)) is None
        engine.close()

    def test_runs_in_many_threads(self, bench: Bench) -> None:
        engine = bench.load(goal="throughput")

        def run(index: int) -> bool:
            return np.array_equal(engine.infer([FRAMES[index % 6]])[0], logits(FRAMES[index % 6]))

        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(run, range(200)))
        engine.close()
        assert bench.gpu.left == {}

    def test_refused_by_tensorrt(self, bench: Bench, engine: TensorRTEngine) -> None:
        bench.execution.refuses = True
        with pytest.raises(EngineError, match="the engine did not run: TensorRT's log says why; load it again"):
            engine.infer([FRAMES[0]])
        bench.execution.refuses = False
        assert np.array_equal(engine.infer([FRAMES[0]])[0], logits(FRAMES[0]))


class TestGraph:
    def test_is_captured_once_warm(self, bench: Bench, engine: TensorRTEngine) -> None:
        for frame in FRAMES:
            assert np.array_equal(engine.infer([frame])[0], logits(frame))
        assert engine.has_graph
        assert bench.execution.enqueued == 2  # once plainly, once for the capture
        assert bench.gpu.calls.count("cudaGraphLaunch") == 5

    def test_with_and_without_are_equal(self, bench: Bench, engine: TensorRTEngine) -> None:
        plain = bench.load(graphs=False)
        for frame in FRAMES:
            assert np.array_equal(engine.infer([frame])[0], plain.infer([frame])[0])
        assert not plain.has_graph
        plain.close()

    def test_falls_back_when_it_cannot_be_captured(self, bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO)
        bench.execution.refuses_capture = True
        engine = bench.load()
        for frame in FRAMES:
            assert np.array_equal(engine.infer([frame])[0], logits(frame))
        assert not engine.has_graph
        assert caplog.text.count("the engine runs without a CUDA graph: the engine did not run") == 1
        engine.close()

    def test_pycuda_has_none(self, make: Callable[..., Bench]) -> None:
        engine = make(cuda="pycuda").load()
        assert not engine.has_graph
        engine.close()


class TestLanes:
    def test_frames_overlap(self, bench: Bench) -> None:
        """Three runs are on the device at once for throughput, one for latency."""
        for goal, expected in (("throughput", 3), ("latency", 1)):
            engine = bench.load(goal=goal, graphs=False)
            engine.infer([FRAMES[0]])
            bench.execution.gate = threading.Barrier(expected, timeout=30)  # passed by that many at once, or never
            with ThreadPoolExecutor(6) as pool:
                assert all(np.array_equal(a[0], logits(FRAMES[0])) for a in pool.map(engine.infer, [[FRAMES[0]]] * 6))
            bench.execution.gate = None
            assert len(bench.gpu.streams) == expected
            engine.close()

    def test_runs_fewer_where_memory_is_short(self, bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
        engine = bench.load(goal="throughput", graphs=False)
        engine.infer([FRAMES[0]])
        bench.gpu.total = bench.gpu.used
        with ThreadPoolExecutor(4) as pool:
            assert all(np.array_equal(a[0], logits(FRAMES[0])) for a in pool.map(engine.infer, [[FRAMES[0]]] * 40))
        assert len(bench.gpu.streams) == 1
        engine.close()
        assert bench.gpu.left == {}

    def test_too_little_memory_from_the_start(self, bench: Bench) -> None:
        plan = plan_of(bench.library)
        bench.gpu.total = 100
        with pytest.raises(EngineError, match=r"out of memory.*close other programs that use the GPU"):
            bench.load(plan)
        assert bench.gpu.left == {}


class TestZeroCopy:
    def test_is_measured_where_memory_is_shared(self, make: Callable[..., Bench], monkeypatch: Any) -> None:
        for copied, shared in ((1.0, 2.0), (2.0, 1.0)):
            bench = make(integrated=True)
            seconds = {False: copied, True: shared}
            monkeypatch.setattr(TensorRTEngine, "_fastest", lambda self, lane, seconds=seconds: seconds[lane.mapped])
            engine = bench.load()
            assert engine.mapped is (shared < copied)
            for frame in FRAMES:
                assert np.array_equal(engine.infer([frame])[0], logits(frame))
            kinds = {block.place for block in bench.gpu.blocks.values()}
            assert kinds == ({"mapped"} if engine.mapped else {"device", "host"})
            engine.close()
            assert bench.gpu.left == {}

    def test_takes_the_fastest_run(self, make: Callable[..., Bench]) -> None:
        bench = make(integrated=True)
        engine = bench.load()
        lane = engine._idle[0]
        ticks = iter([0.0, 5.0, 10.0, 12.0, *(float(n) for n in range(20, 100, 5))])
        assert engine._fastest(lane, lambda: next(ticks)) == 2.0
        engine.close()

    def test_not_over_pcie(self, engine: TensorRTEngine) -> None:
        assert not engine.mapped


class TestBatch:
    @pytest.fixture
    def dynamic(self, bench: Bench) -> Iterator[TensorRTEngine]:
        graph = with_dynamic_batch(onnx.load_from_string(GRAPH)).SerializeToString()
        engine = bench.load(plan_of(bench.library, graph, (1, 4, 8)))
        yield engine
        engine.close()

    def test_takes_any_number_of_frames(self, dynamic: TensorRTEngine) -> None:
        assert dynamic.batch == (1, 8)
        assert dynamic.inputs[0].shape == (1, HEIGHT, WIDTH, 3)
        for count in (1, 8, 8, 8, 3, 1, 1, 1, 8, 2):
            frames = np.concatenate([FRAMES[i % 6] for i in range(count)])
            (found,) = dynamic.infer([frames])
            assert found.shape == (count, CLASSES, HEIGHT // 4, WIDTH // 4)
            assert np.array_equal(found, logits(frames))

    def test_refuses_more(self, dynamic: TensorRTEngine) -> None:
        with pytest.raises(ShapeError, match="takes 1 to 8 frames at once, but got 9; build it again with --batch"):
            dynamic.infer([np.zeros((9, HEIGHT, WIDTH, 3), np.uint8)])
        with pytest.raises(ShapeError, match=r"must be \(1, 32, 48, 3\) uint8, but got \(9, 32, 47, 3\)"):
            dynamic.infer([np.zeros((9, HEIGHT, WIDTH - 1, 3), np.uint8)])


class TestClassMap:
    def expected(self, frame: Any, size: tuple[int, int]) -> Any:
        axes = upsampling(size, (HEIGHT, WIDTH), (HEIGHT // 4, WIDTH // 4), "half_pixel")
        return reference_class_map(logits(frame)[0], axes.rows, axes.columns), axes

    @pytest.mark.parametrize("integrated", [False, True])
    def test_equals_the_reference(self, make: Callable[..., Bench], integrated: bool) -> None:
        bench = make(integrated=integrated)
        engine = bench.load(goal="throughput", mapped=integrated)
        assert isinstance(engine, ClassMapEngine)
        for size in ((32, 48), (45, 31), (32, 48)):
            for frame in FRAMES:
                wanted, axes = self.expected(frame, size)
                found = engine.infer_class_map([frame], axes)
                assert found is not None
                assert found.dtype == np.uint8
                assert np.array_equal(found, wanted)
                assert np.array_equal(engine.infer([frame])[0], logits(frame))
        engine.close()
        assert bench.gpu.left == {}

    def test_in_many_threads(self, bench: Bench) -> None:
        engine = bench.load(goal="throughput")

        def run(index: int) -> bool:
            wanted, axes = self.expected(FRAMES[index % 6], ((32, 48), (20, 30))[index % 2])
            return np.array_equal(engine.infer_class_map([FRAMES[index % 6]], axes), wanted)

        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(run, range(60)))
        engine.close()

    def test_refuses_what_is_not_finite(self, bench: Bench, engine: TensorRTEngine) -> None:
        wanted, axes = self.expected(FRAMES[0], (32, 48))
        bench.execution.poisons = True
        with pytest.raises(EngineError, match="logits that are not finite; check the network and its ranges"):
            engine.infer_class_map([FRAMES[0]], axes)
        bench.execution.poisons = False
        assert np.array_equal(engine.infer_class_map([FRAMES[0]], axes), wanted)

    def test_few_sizes_get_a_kernel(self, engine: TensorRTEngine) -> None:
        made = [engine.infer_class_map([FRAMES[0]], self.expected(FRAMES[0], (8 + n, 9))[1]) for n in range(5)]
        assert [found is None for found in made] == [False] * 4 + [True]

    def test_without_a_compiler(self, bench: Bench, monkeypatch: Any, caplog: pytest.LogCaptureFixture) -> None:
        engine = bench.load()

        def broken(*arguments: Any, **options: Any) -> None:
            raise EngineError("cannot compile the kernels for class maps: no compiler")

        monkeypatch.setattr(engine._cuda, "compile", broken)
        _, axes = self.expected(FRAMES[0], (32, 48))
        assert engine.infer_class_map([FRAMES[0]], axes) is None
        assert engine.infer_class_map([FRAMES[0]], axes) is None
        assert caplog.text.count("class maps are made on the processor, which is slower: cannot compile") == 1
        engine.close()


class TestTimes:
    def test_by_stage(self, engine: TensorRTEngine) -> None:
        times = engine.stage_times([FRAMES[0]], runs=3)
        # Each piece of work takes the fake device a millisecond: an event behind each of the three, and what a graph
        # holds between its first and its last.
        assert (times.copy_in, times.inference, times.copy_out, times.gpu) == (2, 2, 2, 4)
        assert times.wall > 0

    def test_nothing_is_copied_without_copies(self, make: Callable[..., Bench]) -> None:
        engine = make(integrated=True).load(mapped=True)
        times = engine.stage_times([FRAMES[0]], runs=3)
        assert (times.copy_in, times.inference, times.copy_out, times.gpu) == (0, 2, 0, 2)
        engine.close()


class TestProfile:
    @pytest.mark.parametrize("version", DUMPS)
    def test_has_the_layers_of_the_last_run(self, make: Callable[..., Bench], version: str) -> None:
        engine = make(version).load(profiling=True, goal="throughput")
        for _ in range(3):
            engine.infer([FRAMES[0]])
        rows = engine.profile()
        assert len(rows) == 3
        assert {(row.kind, row.precision, row.milliseconds) for row in rows} == {("convolution", "int8", 0.5)}
        assert [row.name.partition(".")[0] for row in rows] == ["conv_8", "conv_14", "conv_20"]
        engine.close()
        with pytest.raises(EngineError, match="engine is closed; load it again"):
            engine.profile()

    def test_only_where_asked(self, engine: TensorRTEngine) -> None:
        with pytest.raises(EngineError, match=r"not compiled for profiling; use Target\(profiling=True\)"):
            engine.profile()

    def test_only_what_ran(self, bench: Bench) -> None:
        engine = bench.load(profiling=True)
        with pytest.raises(EngineError, match="there is nothing to profile yet; run the engine first"):
            engine.profile()
        engine.close()


class TestLoading:
    @pytest.mark.parametrize("content", [b"", b"no plan", b"ftrt" + bytes(100)])
    def test_no_plan(self, bench: Bench, content: bytes) -> None:
        with pytest.raises(EngineError) as caught:
            bench.load(content or b"\0")
        assert str(caught.value) == (
            "TensorRT 10.3.0 does not load the plan: deserializeCudaEngine: Error Code 1: magic tag does not match; "
            "build it again with: edgeseg build BUNDLE --force"
        )
        assert bench.gpu.left == {}

    def test_no_gpu(self, bench: Bench) -> None:
        plan = plan_of(bench.library)
        library = fake_library("tensorrt-10.3.0", Behaviour(gpu=False))
        with pytest.raises(EngineError, match="cannot start: it needs an NVIDIA GPU and a driver that fits it"):
            TensorRTEngine(library, bench.open(), plan, Target())

    def test_a_dla_is_chosen(self, bench: Bench) -> None:
        engine = bench.load(dla_core=1)
        assert engine._runtime.DLA_core == 1
        engine.close()


class TestClosing:
    def test_twice_and_then_refuses(self, bench: Bench, engine: TensorRTEngine) -> None:
        engine.infer([FRAMES[0]])
        engine.close()
        engine.close()
        assert bench.gpu.left == {}
        with pytest.raises(EngineError, match="the tensorrt engine is closed; load it again"):
            engine.infer([FRAMES[0]])
        with pytest.raises(EngineError, match="the tensorrt engine is closed; load it again"):
            engine.infer_class_map([FRAMES[0]], upsampling((32, 48), (32, 48), (8, 12), "half_pixel"))

    def test_waits_for_the_runs_at_hand(self, bench: Bench) -> None:
        engine = bench.load(graphs=False)
        bench.execution.gate = gate = threading.Barrier(2, timeout=30)
        with ThreadPoolExecutor(3) as pool:
            running = pool.submit(engine.infer, [FRAMES[0]])
            while not gate.n_waiting:
                time.sleep(0.01)
            waiting = pool.submit(engine.infer, [FRAMES[1]])
            closing = pool.submit(engine.close)
            with pytest.raises(EngineError, match="engine is closed; load it again"):
                waiting.result(30)
            assert not closing.done()
            gate.wait()
            assert np.array_equal(running.result(30)[0], logits(FRAMES[0]))
            closing.result(30)
        assert bench.gpu.left == {}


class TestLostDevice:
    def test_is_a_clean_error_and_the_next_load_works(self, bench: Bench) -> None:
        engine = bench.load()
        for frame in FRAMES[:3]:
            engine.infer([frame])
        bench.execution.loses_device = True
        with pytest.raises(EngineError, match=r"cudaErrorIllegalAddress .*the GPU's context of this process is lost"):
            engine.infer([FRAMES[0]])
        with pytest.raises(EngineError, match="the GPU was lost earlier in this process"):
            engine.infer([FRAMES[0]])
        engine.close()
        engine.close()
        again = bench.load()
        assert np.array_equal(again.infer([FRAMES[0]])[0], logits(FRAMES[0]))
        again.close()
        assert bench.gpu.resets == 1
        assert bench.gpu.left == {}
