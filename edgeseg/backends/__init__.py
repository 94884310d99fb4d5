"""The seam between edgeseg and the engines that run a graph.

A backend compiles the canonical ONNX graph for a target and loads the result; an engine runs it. Evaluation, benchmark
and applications know only these two protocols.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal, Protocol

from numpy.typing import NDArray

from edgeseg.errors import UsageError, unknown_name

__all__ = ["BACKENDS", "Backend", "Engine", "LayerProfile", "Target", "TensorSpec", "get_backend"]


@dataclass(frozen=True)
class TensorSpec:
    """Name, shape and numpy dtype name ("uint8", "float32") of an input or output."""

    name: str
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class Target:
    """What to compile for.

    Attributes:
        threads: CPU threads; None for all that this process may use.
        goal: "latency" for one frame at a time, "throughput" for several in flight.
        precision: what layers outside INT8 compute in: "auto" lets the backend take BF16 or FP16 where the hardware has
            it, "float32" forbids that.
        profiling: keep per-layer times and types, for `Engine.profile`.
    """

    threads: int | None = None
    goal: Literal["latency", "throughput"] = "latency"
    precision: Literal["auto", "float32"] = "auto"
    profiling: bool = False


class Engine(Protocol):
    """A network ready to run. Safe to call from several threads."""

    @property
    def inputs(self) -> tuple[TensorSpec, ...]: ...

    @property
    def outputs(self) -> tuple[TensorSpec, ...]: ...

    def infer(self, arrays: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        """Run once. The arrays returned may be overwritten by the same thread's next call.

        Raises:
            ShapeError: for a wrong number, shape or dtype of arrays.
            EngineError: when the engine fails or is closed.
        """
        ...

    def profile(self) -> list[LayerProfile]:
        """Layers of the last run, for an engine compiled with `Target.profiling`; otherwise EngineError."""
        ...

    def close(self) -> None:
        """Free the engine; a second call does nothing."""
        ...


@dataclass(frozen=True)
class LayerProfile:
    """One executed layer: its name, the backend's type, the kernel, its precision ("int8", "float32", ...) and ms."""

    name: str
    kind: str
    kernel: str
    precision: str
    milliseconds: float


class Backend(Protocol):
    """Turns a graph into an engine."""

    @property
    def name(self) -> str: ...

    def version(self) -> str:
        """Version of the backend's library.

        Raises:
            MissingDependencyError: when it is not installed.
        """
        ...

    def compile(self, model: bytes, target: Target) -> bytes:
        """Compile a serialised ONNX model; the bytes can be stored and loaded on the same machine."""
        ...

    def load(self, engine: bytes, target: Target) -> Engine:
        """Load what `compile` returned for the same target."""
        ...


BACKENDS: dict[str, str] = {
    "openvino": "edgeseg.backends.openvino:OpenVINOBackend",
    "onnxruntime": "edgeseg.backends.onnxruntime:ONNXRuntimeBackend",
}
"""Where each backend stands; nothing is imported before it is asked for."""


def get_backend(name: str) -> Backend:
    """The backend of that name.

    Raises:
        UsageError: for an unknown name, with the nearest spelling.
        MissingDependencyError: on use, when its library is not installed.
    """
    if name not in BACKENDS:
        raise UsageError(unknown_name("backend", name, BACKENDS))
    module, _, attribute = BACKENDS[name].partition(":")
    factory: Callable[[], Backend] = getattr(import_module(module), attribute)
    return factory()
