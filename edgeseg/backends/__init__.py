"""The seam between edgeseg and the engines that run a graph.

A backend compiles the canonical ONNX graph for a target and loads the result; an engine runs it. Evaluation, benchmark
and applications know only these two protocols.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from numpy.typing import NDArray

from edgeseg.errors import UsageError, unknown_name

if TYPE_CHECKING:
    import numpy as np

    from edgeseg.bundle import Bundle
    from edgeseg.upsample import Upsampling

__all__ = [
    "BACKENDS",
    "Backend",
    "BundleBackend",
    "ClassMapEngine",
    "DeviceEngine",
    "Engine",
    "LayerProfile",
    "OpeningBackend",
    "Target",
    "TensorSpec",
    "get_backend",
]


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


@runtime_checkable
class ClassMapEngine(Protocol):
    """What an engine of logits may do beyond `Engine`: upsampling and argmax where the logits are."""

    def infer_class_map(self, arrays: Sequence[NDArray[Any]], upsampling: Upsampling) -> NDArray[np.uint8] | None:
        """Run once with one frame.

        Args:
            arrays: as for `Engine.infer`.
            upsampling: where the frame's pixels sample the logits.

        Returns:
            The class map (H, W) uint8, a new array equal to `edgeseg.upsample.reference_class_map` of the logits; None,
            before anything ran, where this engine cannot make it.

        Raises:
            ShapeError, EngineError: as for `Engine.infer`; EngineError also for logits that are not finite.
        """
        ...


@runtime_checkable
class DeviceEngine(Protocol):
    """What an engine of logits on a GPU may do beyond `ClassMapEngine`: leave frame and class map in its memory."""

    def infer_on_device(
        self, frame: Any, upsampling: Callable[[tuple[int, int]], Upsampling], class_map: Any = None
    ) -> NDArray[np.uint8] | None:
        """Run once with one frame that lies in the GPU's memory, and is not copied to the processor's.

        Args:
            frame: (H, W, 3) uint8 RGB of any size and strides, with `__dlpack__` or `__cuda_array_interface__`.
            upsampling: where the pixels of a frame of that size (H, W) sample the logits.
            class_map: (H, W) uint8 in the GPU's memory, written when this returns; None for an array.

        Returns:
            The class map (H, W) uint8, a new array in the processor's memory; None where `class_map` is given.

        Raises:
            ShapeError: for another frame or class map, or one on another GPU.
            EngineError: as `ClassMapEngine.infer_class_map`, and where its kernels are not to be had.
        """
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


@runtime_checkable
class OpeningBackend(Protocol):
    """A backend that makes an engine for this process without going through bytes."""

    def open(self, model: bytes, target: Target) -> Engine:
        """`compile` and `load` in one."""
        ...


@runtime_checkable
class BundleBackend(Protocol):
    """A backend of a device, whose engines take minutes to build and stand in the bundle that they belong to."""

    def check_device(self) -> None:
        """Look for the device, without importing the backend's library.

        Raises:
            EngineError: when it is not there.
        """
        ...

    def load_bundle(self, bundle: Bundle, target: Target, *, build: bool | None, plan: Path | None) -> Engine:
        """The engine of a bundle on this device.

        Args:
            bundle: whose network.
            target: what for.
            build: whether an engine may be built where there is none; None for yes on a Jetson.
            plan: the engine's file; None for the one in the bundle that fits this device.

        Raises:
            EngineError: when there is none, with the command that builds it, or the one given is of another device,
                another version or another network; when it does not build or load.
            MissingDependencyError: when a library is not installed.
        """
        ...


BACKENDS: dict[str, str] = {
    "tensorrt": "edgeseg.backends.tensorrt.backend:TensorRTBackend",
    "tensorrt-rtx": "edgeseg.backends.tensorrt.backend:TensorRTRTXBackend",
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
