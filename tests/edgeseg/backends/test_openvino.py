"""OpenVINO behind the seam: exact INT8 arithmetic, or none."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from support.backend_tester import FRAMES, MODEL, BackendTester, reference
from support.bundles import quantized_graph

from edgeseg.backends import LayerProfile, Target
from edgeseg.backends import openvino as module
from edgeseg.backends.openvino import OpenVINOBackend, adds_exactly
from edgeseg.errors import EngineError

PROFILED = Target(threads=1, profiling=True)


def run(model: bytes) -> tuple[np.ndarray, list[LayerProfile]]:
    backend = OpenVINOBackend()
    engine = backend.load(backend.compile(model, PROFILED), PROFILED)
    logits = engine.infer([FRAMES[0]])[0].copy()
    layers = engine.profile()
    engine.close()
    return logits, layers


class TestOpenVINO(BackendTester):
    backend = "openvino"

    def test_refuses_what_it_did_not_export(self) -> None:
        with pytest.raises(EngineError, match="openvino cannot load the engine"):
            OpenVINOBackend().load(b"something else", Target(threads=1))


class TestInt8:
    @pytest.fixture
    def as_if_exact(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        monkeypatch.setattr(module, "adds_exactly", lambda: True)
        return

    @pytest.mark.usefixtures("as_if_exact")
    def test_int8_kernels_run(self) -> None:
        # Pairs of weights up to 64 cannot overflow 16 bits, so the result is exact on every processor.
        model = quantized_graph(largest=64)
        logits, layers = run(model)
        convolutions = [layer for layer in layers if layer.kind == "Convolution"]
        assert [layer.precision for layer in convolutions] == ["int8"] * 3
        assert all(layer.kernel.endswith("I8") for layer in convolutions)
        assert (np.abs(logits - reference(FRAMES[0], model)) < 1e-4).mean() > 0.95

    @pytest.mark.skipif(not adds_exactly(), reason="this processor's INT8 sums overflow: it has no VNNI")
    def test_int8_kernels_run_with_full_weights(self) -> None:
        _, layers = run(MODEL)
        assert [layer.precision for layer in layers if layer.kind == "Convolution"] == ["int8"] * 3

    @pytest.mark.skipif(adds_exactly(), reason="this processor's INT8 sums are exact")
    def test_overflowing_int8_is_not_used(self) -> None:
        _, layers = run(MODEL)
        assert [layer.precision for layer in layers if layer.kind == "Convolution"] == ["float32"] * 3

    def test_float_is_taken_where_sums_overflow(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "adds_exactly", lambda: False)
        logits, layers = run(MODEL)
        assert {layer.precision for layer in layers if layer.kind == "Convolution"} <= {"float32", "bfloat16"}
        assert (np.abs(logits - reference(FRAMES[0])) < 1e-4).mean() > 0.95

    def test_float32_is_kept_where_asked(self) -> None:
        target = Target(threads=1, precision="float32", profiling=True)
        backend = OpenVINOBackend()
        engine = backend.load(backend.compile(MODEL, target), target)
        engine.infer([FRAMES[0]])
        assert {layer.precision for layer in engine.profile()}.isdisjoint({"bfloat16", "float16"})
        engine.close()
