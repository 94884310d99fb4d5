"""OpenVINO behind the seam: exact INT8 arithmetic, or none."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto
from support.backend_tester import FRAMES, MODEL, BackendTester, reference
from support.bundles import quantized_graph
from support.graphs import GraphBuilder, random_frame, run_graph

from edgeseg.backends import LayerProfile, OpeningBackend, Target
from edgeseg.backends import openvino as module
from edgeseg.backends.openvino import OpenVINOBackend, adds_exactly
from edgeseg.errors import EngineError


def quantized_concat(between: str | None) -> bytes:
    """Two convolutions, their Concat, perhaps an operator, then a quantized convolution (1, 8, 12, 16)."""
    builder = GraphBuilder(4)
    x = builder.add("Concat", builder.conv("image", 3, 12), builder.conv("image", 3, 19), axis=1)
    x = builder.add(between, x) if between else x
    scale, zero = builder.constant(np.float32(0.02)), builder.constant(np.int8(0))
    x = builder.add("DequantizeLinear", builder.add("QuantizeLinear", x, scale, zero), scale, zero)
    scales, zeros = builder.constant(np.full(8, 0.01, np.float32)), builder.constant(np.zeros(8, np.int8))
    stored = builder.constant(builder.random.integers(-64, 65, (8, 31, 3, 3)).astype(np.int8))
    weight = builder.add("DequantizeLinear", stored, scales, zeros, axis=0)
    bias = builder.constant(builder.random.normal(0, 1, 8).astype(np.float32))
    y = builder.add("Conv", x, weight, bias, kernel_shape=[3, 3], pads=[1] * 4)
    content: bytes = builder.model(y, (1, 3, 12, 16)).SerializeToString()
    return content


def pooled_frame() -> bytes:
    """A normalised frame that a quantized convolution and, through a pooling that pads, another one read."""
    builder = GraphBuilder(5)
    x = builder.add("Transpose", builder.add("Cast", "image", to=TensorProto.FLOAT), perm=[0, 3, 1, 2])
    x = builder.add("Sub", x, builder.constant(np.full((1, 3, 1, 1), 110, np.float32)))
    x = builder.add("Mul", x, builder.constant(np.full((1, 3, 1, 1), 1 / 60, np.float32)))
    scale, zero = builder.constant(np.float32(0.02)), builder.constant(np.int8(0))
    branches = []
    for stride in (1, 2):
        pooling = {"kernel_shape": [3, 3], "strides": [stride] * 2, "pads": [1] * 4, "count_include_pad": 1}
        y = builder.add("AveragePool", x, **pooling) if stride > 1 else x
        y = builder.add("DequantizeLinear", builder.add("QuantizeLinear", y, scale, zero), scale, zero)
        stored = builder.constant(builder.random.integers(-64, 65, (4, 3, 3, 3)).astype(np.int8))
        scales, zeros = builder.constant(np.full(4, 0.01, np.float32)), builder.constant(np.zeros(4, np.int8))
        weight = builder.add("DequantizeLinear", stored, scales, zeros, axis=0)
        branches.append(builder.add("Conv", y, weight, kernel_shape=[3, 3], pads=[1] * 4, strides=[3 - stride] * 2))
    y = builder.add("Add", *branches)
    model = builder.model(y, (1, 12, 16, 3), (1, 4, 6, 8), input_type=TensorProto.UINT8)
    content: bytes = model.SerializeToString()
    return content


PROFILED = Target(threads=1, precision="float32", profiling=True)


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


class TestOpen:
    def test_gives_what_compiling_and_loading_give(self) -> None:
        backend, target = OpenVINOBackend(), Target(precision="float32")
        assert isinstance(backend, OpeningBackend)
        model = quantized_concat(None)
        image = np.random.default_rng(0).normal(0, 1, (1, 3, 12, 16)).astype(np.float32)
        engines = backend.open(model, target), backend.load(backend.compile(model, target), target)
        assert engines[0].outputs == engines[1].outputs
        (one,), (other,) = (engine.infer([image]) for engine in engines)
        np.testing.assert_array_equal(one, other)

    def test_refuses_what_does_not_compile(self) -> None:
        with pytest.raises(EngineError, match="openvino cannot compile the graph"):
            OpenVINOBackend().open(b"no graph", Target())


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
        # "jit_avx512_I8", but "brgconv_avx512_amx_i8" on a processor with AMX.
        assert all(layer.kernel.lower().endswith("i8") for layer in convolutions)
        assert (np.abs(logits - reference(FRAMES[0], model)) < 1e-4).mean() > 0.95

    @pytest.mark.skipif(not adds_exactly(), reason="this processor's INT8 sums overflow: it has no VNNI")
    def test_int8_kernels_run_with_full_weights(self) -> None:
        _, layers = run(MODEL)
        assert [layer.precision for layer in layers if layer.kind == "Convolution"] == ["int8"] * 3

    @pytest.mark.parametrize("between", [None, "Relu", "LeakyRelu"])
    @pytest.mark.usefixtures("as_if_exact")
    def test_quantization_behind_concat_stays_exact(self, between: str | None) -> None:
        # OpenVINO moves it in front of the Concat and then counts the zero points of the branches wrongly.
        model = quantized_concat(between)
        frame = random_frame(12, 16, 3).astype(np.float32).transpose(2, 0, 1)[None] / 64 - 2
        backend = OpenVINOBackend()
        engine = backend.load(backend.compile(model, PROFILED), PROFILED)
        (found,) = engine.infer([frame])
        assert [layer.precision for layer in engine.profile() if layer.kind == "Convolution"].count("int8") == 1
        (expected,) = run_graph(onnx.load_from_string(model), image=frame)
        # Values at the edge between two int8 values may round to either.
        assert np.abs(found - expected).max() < 0.05 * np.abs(expected).max()
        engine.close()

    @pytest.mark.usefixtures("as_if_exact")
    def test_the_normalised_frame_is_pooled_in_float(self) -> None:
        # OpenVINO takes the normalisation for a dequantization and pools the uint8 frame, padded with black.
        model, frame = pooled_frame(), random_frame(12, 16, 3)[None]
        backend = OpenVINOBackend()
        engine = backend.load(backend.compile(model, PROFILED), PROFILED)
        (found,) = engine.infer([frame])
        (expected,) = run_graph(onnx.load_from_string(model), image=frame)
        assert np.abs(found - expected).max() < 0.05 * np.abs(expected).max()
        engine.close()

    @pytest.mark.skipif(adds_exactly(), reason="this processor's INT8 sums are exact")
    def test_overflowing_int8_is_not_used(self) -> None:
        _, layers = run(MODEL)
        assert [layer.precision for layer in layers if layer.kind == "Convolution"] == ["float32"] * 3

    def test_float_is_taken_where_sums_overflow(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "adds_exactly", lambda: False)
        logits, layers = run(MODEL)
        assert {layer.precision for layer in layers if layer.kind == "Convolution"} == {"float32"}
        assert (np.abs(logits - reference(FRAMES[0])) < 1e-4).mean() > 0.95

    def test_exact_sums_are_seen_whatever_the_precision_of_float(self) -> None:
        # The processor's own flags are a second source: with VNNI sums are exact, even where BF16 is the default.
        flags = Path("/proc/cpuinfo")
        if not flags.is_file() or "vnni" not in flags.read_text():
            pytest.skip("this processor has no VNNI, or no /proc/cpuinfo to say so")
        assert adds_exactly()

    def test_float32_is_kept_where_asked(self) -> None:
        target = Target(threads=1, precision="float32", profiling=True)
        backend = OpenVINOBackend()
        engine = backend.load(backend.compile(MODEL, target), target)
        engine.infer([FRAMES[0]])
        assert {layer.precision for layer in engine.profile()}.isdisjoint({"bfloat16", "float16"})
        engine.close()
