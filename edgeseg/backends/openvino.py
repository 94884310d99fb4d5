"""OpenVINO on a CPU: the embedded default."""

from __future__ import annotations

import io
import logging
import threading
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeseg.arrays import contiguous_arrays
from edgeseg.backends import LayerProfile, Target, TensorSpec
from edgeseg.errors import EngineError
from edgeseg.libraries import require
from edgeseg.machine import split_threads

__all__ = ["OpenVINOBackend", "OpenVINOEngine", "adds_exactly"]

_log = logging.getLogger(__name__)
_TYPES = {"u8": "uint8", "f32": "float32", "i64": "int64"}
_PRECISIONS = {"i8": "int8", "u8": "int8", "f32": "float32", "bf16": "bfloat16", "f16": "float16", "i32": "int32"}


class OpenVINOBackend:
    """Compiles for the CPU plug-in; the compiled form is OpenVINO's export, which loads several times as fast."""

    name = "openvino"

    def version(self) -> str:
        """Version of openvino."""
        return str(_library().__version__)

    def compile(self, model: bytes, target: Target) -> bytes:
        """Compile a serialised ONNX model.

        Where the processor's INT8 arithmetic is not exact (see `adds_exactly`), the Q/DQ graph is computed in float:
        its results are the quantized network's, without the speed.

        Raises:
            EngineError: when it does not compile.
        """
        try:
            exported: bytes = self._compiled(model, target).export_model().getvalue()
        except RuntimeError as error:
            raise EngineError(f"openvino cannot export the engine: {error}") from error
        return exported

    def open(self, model: bytes, target: Target) -> OpenVINOEngine:
        """Compile a serialised ONNX model for this process alone: nothing is exported and loaded again.

        Raises:
            EngineError: when it does not compile.
        """
        return OpenVINOEngine(self._compiled(model, target), target.profiling)

    def _compiled(self, model: bytes, target: Target) -> Any:
        core = _core()
        options = _options(target)
        if not adds_exactly():
            _log.info("this processor's INT8 sums overflow (no VNNI), so the quantized layers are computed in float32")
            options["LP_TRANSFORMS_MODE"] = "NO"
        try:
            network = core.read_model(model)
            _protect_from_lowering(network)
            return core.compile_model(network, "CPU", options)
        except RuntimeError as error:
            raise EngineError(f"openvino cannot compile the graph: {error}; lint it with: edgeseg lint") from error

    def load(self, engine: bytes, target: Target) -> OpenVINOEngine:
        """Load what `compile` gave.

        Raises:
            EngineError: for bytes that this version of OpenVINO did not export.
        """
        try:
            compiled = _core().import_model(io.BytesIO(engine), "CPU", _options(target))
        except RuntimeError as error:
            raise EngineError(f"openvino cannot load the engine: {error}; compile it again") from error
        return OpenVINOEngine(compiled, target.profiling)


class OpenVINOEngine:
    """A compiled model with one request for each thread that runs it.

    Args:
        compiled: openvino.CompiledModel.
        profiling: whether it was compiled with times by layer.
    """

    def __init__(self, compiled: Any, profiling: bool) -> None:
        self._compiled = compiled
        self._profiling = profiling
        self._requests = threading.local()
        self._last: Any = None
        self._inputs = tuple(_spec(port) for port in compiled.inputs)
        self._outputs = tuple(_spec(port) for port in compiled.outputs)

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        return self._inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        return self._outputs

    def infer(self, arrays: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        """Run once; see `Engine.infer`. Input and output arrays are used in place, without copies."""
        arrays = contiguous_arrays(arrays, self._inputs)
        request = self._request()
        try:
            outputs = request.infer(dict(enumerate(arrays)), share_inputs=True, share_outputs=True)
        except RuntimeError as error:
            raise EngineError(f"openvino failed to run the graph: {error}") from error
        self._last = request
        return [outputs[i] for i in range(len(self._outputs))]

    def profile(self) -> list[LayerProfile]:
        """Executed layers of the last run, with OpenVINO's kernel names such as "jit_avx2_I8"."""
        if not self._profiling:
            raise EngineError("the engine was not compiled for profiling; use Target(profiling=True)")
        if self._compiled is None:
            raise EngineError("the openvino engine is closed; load it again")
        if self._last is None:
            raise EngineError("there is nothing to profile yet; run the engine first")
        rows = self._last.get_profiling_info()
        return [_layer(row) for row in rows if str(row.status).endswith("EXECUTED")]

    def close(self) -> None:
        """Free the model and its requests; a second call does nothing."""
        self._compiled = None
        self._last = None
        self._requests = threading.local()

    def _request(self) -> Any:
        compiled = self._compiled
        if compiled is None:
            raise EngineError("the openvino engine is closed; load it again")
        request = getattr(self._requests, "request", None)
        if request is None:
            request = self._requests.request = compiled.create_infer_request()
        return request


def _library() -> Any:
    return require("openvino", "run a bundle with the openvino backend")


@lru_cache(maxsize=1)
def _core() -> Any:
    return _library().Core()


def _options(target: Target) -> dict[str, Any]:
    """Settings of the CPU plug-in, each on purpose."""
    streams, threads = split_threads(target.threads, target.goal)
    options: dict[str, Any] = {
        # A stream runs one request with its own threads: one for latency, one a processor for throughput.
        "PERFORMANCE_HINT": "LATENCY" if target.goal == "latency" else "THROUGHPUT",
        "NUM_STREAMS": streams,
        "INFERENCE_NUM_THREADS": streams * threads,
        # Pinned threads cannot give way to those that read frames and draw class maps.
        "ENABLE_CPU_PINNING": False,
        # Lets layers outside INT8 take BF16 where the processor has it, but no approximation beyond that.
        "EXECUTION_MODE_HINT": "PERFORMANCE",
        "PERF_COUNT": target.profiling,
    }
    if target.precision == "float32":
        options["INFERENCE_PRECISION_HINT"] = "f32"
    return options


def _spec(port: Any) -> TensorSpec:
    kind = port.element_type.get_type_name()
    return TensorSpec(port.any_name, tuple(int(n) for n in port.shape), _TYPES.get(kind, kind))


def _layer(row: Any) -> LayerProfile:
    kernel = str(row.exec_type)
    kind = kernel.rpartition("_")[2].lower()
    milliseconds = row.real_time.total_seconds() * 1e3
    return LayerProfile(row.node_name, row.node_type, kernel, _PRECISIONS.get(kind, kind), milliseconds)


def _protect_from_lowering(model: Any) -> None:
    """Stop OpenVINO's low-precision passes (seen in 2026.4) where they change what a graph computes.

    A maximum with the lowest float changes no value and stands in the way of
    - MoveFakeQuantize, which turns Concat, Q, Conv into Q, Concat, Conv, also across one operator between Concat and Q:
      the convolution then counts the zero points of the branches wrongly, by a third of its result;
    - the reading of the frame's normalisation as a dequantization, which is then moved behind an average pooling: that
      rounds to integers and pads with black, where the graph pads with the mean.
    """
    for node in model.get_ops():
        if node.get_type_name() == "FakeQuantize":
            before = node.input_value(0).get_node()
            above = [before, *(port.get_node() for port in before.input_values()[:1])]
            if any(op.get_type_name() == "Concat" for op in above):
                _insert_maximum(node.input_value(0), [node.input(0)])
    for entry in model.inputs:
        port, consumers = entry, list(entry.get_target_inputs())
        while len(consumers) == 1 and consumers[0].get_node().get_type_name() in _NORMALISING:
            port = consumers[0].get_node().output(0)
            consumers = list(port.get_target_inputs())
        _insert_maximum(port, consumers)


_NORMALISING = frozenset({"Add", "Convert", "Divide", "Multiply", "Subtract", "Transpose"})


def _insert_maximum(port: Any, consumers: Sequence[Any]) -> None:
    ops = _library().opset13
    if port.get_element_type().is_real():
        barrier = ops.maximum(port, ops.constant(np.float32(np.finfo(np.float32).min)))
        for consumer in consumers:
            consumer.replace_source_output(barrier.output(0))


@lru_cache(maxsize=1)
def adds_exactly() -> bool:
    """Whether an INT8 convolution of OpenVINO on this processor gives the exact sum.

    x86 processors without VNNI add pairs of u8 x s8 products in 16 bits and saturate (OpenVINO's documentation calls it
    the saturation issue); on light networks that destroys the class map. A convolution whose every product is the
    largest shows it.
    """
    openvino = _library()
    ops = openvino.opset13
    channels, amax = 16, np.float32(127)
    frame = ops.parameter([1, channels, 4, 4], np.float32, name="frame")
    activation = ops.fake_quantize(frame, -amax - 1, amax, -amax - 1, amax, 256)
    stored = ops.constant(np.full((channels, channels, 1, 1), 127, np.int8))
    weights = ops.multiply(ops.convert(stored, np.float32), ops.constant(np.full((channels, 1, 1, 1), 1, np.float32)))
    convolved = ops.convolution(activation, weights, [1, 1], [0, 0], [0, 0], [1, 1])
    # Without the hint a processor with BF16 rounds the sum itself.
    options = {"NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    compiled = _core().compile_model(openvino.Model([convolved], [frame], "sum"), "CPU", options)
    result = compiled({0: np.full((1, channels, 4, 4), amax)})[0]
    return bool(np.array_equal(result, np.full(result.shape, channels * 127.0 * 127.0)))
