"""What every backend must do; a backend's own test derives from it and names the backend."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import onnx
import pytest
from support.bundles import quantized_graph
from support.graphs import random_frame, run_graph

from edgeseg.backends import Backend, Engine, Target, TensorSpec, get_backend
from edgeseg.errors import EngineError, ShapeError

MODEL = quantized_graph()
FRAMES = [random_frame(32, 48, seed)[None] for seed in range(4)]


def reference(frame: np.ndarray[Any, Any], model: bytes = MODEL) -> np.ndarray[Any, Any]:
    (logits,) = run_graph(onnx.load_from_string(model), frame=frame)
    return logits


class BackendTester:
    """Set `backend`; a class attribute `pytestmark` may ask for hardware."""

    backend: str

    @pytest.fixture
    def maker(self) -> Backend:
        return get_backend(self.backend)

    @pytest.fixture(params=["latency", "throughput"])
    def engine(self, request: pytest.FixtureRequest, maker: Backend) -> Iterator[Engine]:
        # Exactness is promised for float32: a processor with BF16 rounds the layers outside INT8.
        target = Target(threads=2, goal=request.param, precision="float32")
        engine = maker.load(maker.compile(MODEL, target), target)
        yield engine
        engine.close()

    @pytest.fixture
    def profiled(self, maker: Backend) -> Iterator[Engine]:
        target = Target(threads=1, profiling=True)
        engine = maker.load(maker.compile(MODEL, target), target)
        yield engine
        engine.close()

    def test_is_registered_by_its_name(self, maker: Backend) -> None:
        assert maker.name == self.backend
        assert maker.version()[0].isdigit()

    def test_names_inputs_and_outputs(self, engine: Engine) -> None:
        assert engine.inputs == (TensorSpec("frame", (1, 32, 48, 3), "uint8"),)
        assert engine.outputs == (TensorSpec("logits", (1, 4, 8, 12), "float32"),)

    def test_runs_the_quantized_graph_exactly(self, engine: Engine) -> None:
        for frame in FRAMES:
            (logits,) = engine.infer([frame])
            expected = reference(frame)
            assert logits.dtype == np.float32
            # A value at the edge between two int8 values may round to either, which moves a logit by one step.
            assert (np.abs(logits - expected) < 1e-4).mean() > 0.95
            assert np.abs(logits - expected).max() < 0.05

    def test_stays_close_in_the_precision_of_the_hardware(self, maker: Backend) -> None:
        target = Target(threads=2)
        engine = maker.load(maker.compile(MODEL, target), target)
        for frame in FRAMES:
            (logits,) = engine.infer([frame])
            expected = reference(frame)
            assert np.abs(logits - expected).max() < 0.05
            assert (logits.argmax(1) == expected.argmax(1)).mean() > 0.95
        engine.close()

    def test_takes_frames_that_are_not_contiguous(self, engine: Engine) -> None:
        flipped = FRAMES[0][:, ::-1]
        (logits,) = engine.infer([flipped])
        assert (np.abs(logits - reference(np.ascontiguousarray(flipped))) < 1e-4).mean() > 0.95

    def test_runs_in_two_threads(self, engine: Engine) -> None:
        expected = [engine.infer([frame])[0].copy() for frame in FRAMES]

        def run(index: int) -> bool:
            return np.array_equal(engine.infer([FRAMES[index % 4]])[0], expected[index % 4])

        with ThreadPoolExecutor(2) as pool:
            assert all(pool.map(run, range(40)))

    def test_refuses_another_shape(self, engine: Engine) -> None:
        with pytest.raises(ShapeError, match=r"input frame must be \(1, 32, 48, 3\) uint8, but got \(1, 32, 47, 3\)"):
            engine.infer([FRAMES[0][:, :, 1:]])

    def test_refuses_another_type(self, engine: Engine) -> None:
        with pytest.raises(ShapeError, match=r"uint8, but got \(1, 32, 48, 3\) float32; the engine neither resizes"):
            engine.infer([FRAMES[0].astype(np.float32)])

    def test_refuses_another_number_of_arrays(self, engine: Engine) -> None:
        with pytest.raises(ShapeError, match="takes 1 arrays, but got 2"):
            engine.infer([FRAMES[0], FRAMES[1]])

    def test_closes_twice_and_then_refuses(self, engine: Engine) -> None:
        engine.close()
        engine.close()
        with pytest.raises(EngineError, match=f"the {self.backend} engine is closed; load it again"):
            engine.infer([FRAMES[0]])

    def test_profiles_the_last_run(self, profiled: Engine) -> None:
        for _ in range(3):
            profiled.infer([FRAMES[0]])
        for _ in range(2):
            layers = profiled.profile()
            convolutions = [layer for layer in layers if "conv" in layer.kind.lower()]
            assert len(convolutions) == 3
            assert all(layer.kernel and layer.precision and layer.milliseconds >= 0 for layer in layers)
            profiled.infer([FRAMES[1]])

    def test_profiles_only_what_ran(self, profiled: Engine) -> None:
        with pytest.raises(EngineError, match="nothing to profile yet; run the engine first"):
            profiled.profile()

    def test_profiles_only_where_asked(self, engine: Engine) -> None:
        with pytest.raises(EngineError, match=r"not compiled for profiling; use Target\(profiling=True\)"):
            engine.profile()

    def test_profiles_nothing_once_closed(self, profiled: Engine) -> None:
        profiled.infer([FRAMES[0]])
        profiled.close()
        with pytest.raises(EngineError, match=r"closed|not compiled for profiling"):
            profiled.profile()

    def test_refuses_what_is_no_graph(self, maker: Backend) -> None:
        with pytest.raises(EngineError, match=f"{self.backend} cannot .* the graph"):
            maker.compile(b"no graph", Target(threads=1))
