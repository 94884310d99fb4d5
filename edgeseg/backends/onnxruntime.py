"""ONNX Runtime on a CPU: the reference for the meaning of a graph."""

from __future__ import annotations

import json
import tempfile
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from edgeseg.arrays import contiguous_arrays
from edgeseg.backends import LayerProfile, Target, TensorSpec
from edgeseg.errors import EngineError
from edgeseg.libraries import require
from edgeseg.machine import split_threads

__all__ = ["ONNXRuntimeBackend", "ONNXRuntimeEngine"]

_TYPES = {"tensor(uint8)": "uint8", "tensor(float)": "float32", "tensor(int64)": "int64"}
_INT8_OPERATORS = ("QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger", "QGemm")
_ERRORS_ONLY = 3


class ONNXRuntimeBackend:
    """Runs the graph itself: there is no compiled form, so `compile` checks it and gives it back."""

    name = "onnxruntime"

    def version(self) -> str:
        """Version of onnxruntime."""
        return str(_library().__version__)

    def compile(self, model: bytes, target: Target) -> bytes:
        """Check that a session can be made of the graph.

        Raises:
            EngineError: when it cannot.
        """
        _session(model, target, None)
        return model

    def load(self, engine: bytes, target: Target) -> ONNXRuntimeEngine:
        """Make the session.

        Raises:
            EngineError: when the graph does not load.
        """
        return ONNXRuntimeEngine(engine, target)


class ONNXRuntimeEngine:
    """A session; every thread may run it at once.

    Args:
        model: the serialised graph.
        target: threads and goal; with profiling, times are kept in a temporary file.
    """

    def __init__(self, model: bytes, target: Target) -> None:
        self._model = model
        self._target = target
        self._lock = threading.Lock()
        self._folder = tempfile.TemporaryDirectory(prefix="edgeseg-profile-") if target.profiling else None
        self._session: Any = self._open()
        self._inputs = tuple(_spec(value) for value in self._session.get_inputs())
        self._outputs = tuple(_spec(value) for value in self._session.get_outputs())

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        return self._inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        return self._outputs

    def infer(self, arrays: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        """Run once; see `Engine.infer`."""
        session = self._session
        if session is None:
            raise EngineError("the onnxruntime engine is closed; load it again")
        arrays = contiguous_arrays(arrays, self._inputs)
        feeds = {spec.name: array for spec, array in zip(self._inputs, arrays, strict=True)}
        try:
            outputs: list[NDArray[Any]] = session.run(None, feeds)
        except Exception as error:  # onnxruntime's errors share no base class below Exception
            raise EngineError(f"onnxruntime failed to run the graph: {error}") from error
        return outputs

    def profile(self) -> list[LayerProfile]:
        """Nodes of the last run. ONNX Runtime ends a profile to give it, so the session is made anew for later runs."""
        if self._folder is None:
            raise EngineError("the engine was not compiled for profiling; use Target(profiling=True)")
        with self._lock:
            if self._session is None:
                raise EngineError("the onnxruntime engine is closed; load it again")
            path = Path(self._session.end_profiling())
            events = json.loads(path.read_text("utf-8"))
            path.unlink()
            self._session = self._open()
        return _last_run(events)

    def close(self) -> None:
        """Free the session; a second call does nothing."""
        with self._lock:
            session, self._session = self._session, None
            folder, self._folder = self._folder, None
        if folder is not None:
            if session is not None:
                session.end_profiling()
            folder.cleanup()

    def _open(self) -> Any:
        return _session(self._model, self._target, None if self._folder is None else self._folder.name)


def _library() -> Any:
    return require("onnxruntime", "run a bundle with the onnxruntime backend")


def _session(model: bytes, target: Target, profile_folder: str | None) -> Any:
    runtime = _library()
    options = runtime.SessionOptions()
    options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_ENABLE_ALL
    # Segmentation networks are one chain with short branches: parallel branches cost more than they bring.
    options.execution_mode = runtime.ExecutionMode.ORT_SEQUENTIAL
    options.inter_op_num_threads = 1
    streams, options.intra_op_num_threads = split_threads(target.threads, target.goal)
    # Shapes are fixed: one plan of all buffers serves every run.
    options.enable_mem_pattern = True
    options.enable_cpu_mem_arena = True
    options.log_severity_level = _ERRORS_ONLY
    # Waiting threads that spin win a little latency for one run at a time, but steal processors from several.
    options.add_session_config_entry("session.intra_op.allow_spinning", "1" if streams == 1 else "0")
    # x86 processors without VNNI add pairs of u8 x s8 products in 16 bits and saturate; u8 x u8 sums are exact.
    options.add_session_config_entry("session.x64quantprecision", "1")
    # Denormal numbers cost hundreds of cycles each (a tenth of ESPNet's time in float) and change no class.
    options.add_session_config_entry("session.set_denormal_as_zero", "1")
    if profile_folder is not None:
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(profile_folder) / "run")
    try:
        # In a thread that ends here: the option above also changes the arithmetic of the thread that makes the session,
        # and that of the user's program is not ours to change.
        with ThreadPoolExecutor(1, "edgeseg-session") as maker:
            return maker.submit(runtime.InferenceSession, model, options, providers=["CPUExecutionProvider"]).result()
    except Exception as error:  # onnxruntime's errors share no base class below Exception
        raise EngineError(f"onnxruntime cannot load the graph: {error}; lint it with: edgeseg lint") from error


def _spec(value: Any) -> TensorSpec:
    return TensorSpec(value.name, tuple(value.shape), _TYPES.get(value.type, value.type))


def _last_run(events: list[dict[str, Any]]) -> list[LayerProfile]:
    """Kernels between the last run's start and end, in order of execution."""
    runs = [e for e in events if e.get("cat") == "Session" and e.get("name") == "model_run"]
    if not runs:
        raise EngineError("there is nothing to profile yet; run the engine first")
    last = max(runs, key=lambda e: int(e["ts"]))
    start, end = int(last["ts"]), int(last["ts"]) + int(last["dur"])
    kernels = [e for e in events if e.get("cat") == "Node" and str(e.get("name", "")).endswith("_kernel_time")]
    return [_layer(e) for e in sorted(kernels, key=lambda e: int(e["ts"])) if start <= int(e["ts"]) <= end]


def _layer(event: dict[str, Any]) -> LayerProfile:
    details = event["args"]
    kind = str(details["op_name"])
    types = [next(iter(t)) for t in details.get("input_type_shape", [])] or ["float"]
    precision = "int8" if kind in _INT8_OPERATORS else {"float": "float32"}.get(types[0], types[0])
    name = str(event["name"]).removesuffix("_kernel_time")
    return LayerProfile(name, kind, f"{details.get('provider', '')}:{kind}", precision, int(event["dur"]) / 1e3)
