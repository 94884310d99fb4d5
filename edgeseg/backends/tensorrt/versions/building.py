"""From a network to a plan: the builder's side of every version."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from edgeseg.backends.tensorrt.versions.library import Library
from edgeseg.backends.tensorrt.versions.parsing import Shape
from edgeseg.errors import EngineError, UsageError

__all__ = [
    "ProgressListener",
    "add_profile",
    "allow_precisions",
    "build_for_capabilities",
    "build_plan",
    "constrain_precisions",
    "create_config",
    "forbid_tf32",
    "limit_workspace",
    "listen_to_progress",
    "read_timing_cache",
    "set_optimization_level",
    "use_calibration_cache",
    "use_dla",
    "use_timing_cache",
]


class ProgressListener(Protocol):
    """What is told of a build. Phases nest, and steps count from 0."""

    def start(self, phase: str, parent: str | None, steps: int) -> None: ...

    def step(self, phase: str, step: int) -> bool:
        """Returns: whether the build is to go on."""
        ...

    def finish(self, phase: str) -> None: ...


def create_config(library: Library, builder: Any) -> Any:
    """A trt.IBuilderConfig whose engines tell what their layers are; at any lower verbosity they do not."""
    trt = library.module
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    return config


def limit_workspace(library: Library, config: Any, megabytes: int) -> None:
    """Limit the memory that a layer's kernel may take beside its tensors, in MB."""
    trt = library.module
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, megabytes << 20)


def set_optimization_level(library: Library, config: Any, level: int) -> None:
    """Choose the builder's effort, 0 (fast build) to 5 (fast engine).

    Raises:
        UsageError: for a version without levels.
    """
    if library.has_optimization_levels:
        config.builder_optimization_level = level
    else:
        raise UsageError(f"{library} has no optimization levels (8.6 brought them); leave --optimization-level away")


def allow_precisions(library: Library, config: Any, *, fp16: bool, int8: bool) -> None:
    """Let a weakly typed network compute in FP16 and INT8; a strongly typed one has its types from the graph.

    A Q/DQ graph needs the INT8 flag too: without it, it does not fall back as expected (NVIDIA/TensorRT#4021).
    """
    trt = library.module
    if library.weakly_typed:
        if fp16:
            config.set_flag(trt.BuilderFlag.FP16)
        if int8:
            config.set_flag(trt.BuilderFlag.INT8)


def forbid_tf32(library: Library, config: Any) -> None:
    """Keep float32 layers in float32: every version lets them round to TF32's 10 bits unless it is told otherwise."""
    trt = library.module
    config.clear_flag(trt.BuilderFlag.TF32)


def constrain_precisions(library: Library, config: Any, network: Any, precisions: Mapping[str, str]) -> None:
    """Ask for the precision of single layers of a weakly typed network.

    Args:
        library: whose network.
        config: of the build.
        network: the parsed network; its layers are called as the graph's nodes.
        precisions: "int8", "float16" or "float32" by layer name.

    Raises:
        UsageError: for a version without precisions by layer.
        EngineError: for a name that no layer has.
    """
    trt = library.module
    if library.weakly_typed:
        types = {"int8": trt.DataType.INT8, "float16": trt.DataType.HALF, "float32": trt.DataType.FLOAT}
        layers = {layer.name: layer for layer in (network.get_layer(i) for i in range(network.num_layers))}
        unknown = sorted(set(precisions) - set(layers))
        if unknown:
            raise EngineError(f"the network has no layers called {', '.join(unknown)}; their precision cannot be set")
        for name, precision in precisions.items():
            layers[name].precision = types[precision]
        config.set_flag(trt.BuilderFlag.PREFER_PRECISION_CONSTRAINTS)
    else:
        raise UsageError(f"{library} takes no precision by layer; its graph holds the types")


def use_calibration_cache(library: Library, config: Any, cache: bytes) -> Any:
    """Give a graph without Q/DQ its ranges from a calibration cache.

    Args:
        library: whose build.
        config: of the build.
        cache: in TensorRT's format, "TRT-8503-EntropyCalibration2" and so on.

    Returns:
        The calibrator, which must live as long as the build.

    Raises:
        UsageError: from 11 on, where there is none.
    """
    trt = library.module
    if library.calibrates:

        class CachedRanges(trt.IInt8EntropyCalibrator2):  # type: ignore[misc, name-defined]
            def __init__(self) -> None:
                trt.IInt8EntropyCalibrator2.__init__(self)

            def get_batch_size(self) -> int:
                return 1

            def get_batch(self, names: Sequence[str]) -> None:
                return None

            def read_calibration_cache(self) -> bytes:
                return cache

            def write_calibration_cache(self, cache: Any) -> None:
                return None

        calibrator = CachedRanges()
        config.int8_calibrator = calibrator
        return calibrator
    raise UsageError(f"{library} reads no calibration cache (10 was the last that does); give it the Q/DQ graph")


def use_dla(library: Library, builder: Any, config: Any, core: int) -> None:
    """Run what a deep learning accelerator can run on one, and the rest on the GPU.

    Raises:
        UsageError: for a version or a board without that core.
    """
    trt = library.module
    if not library.supports_dla:
        raise UsageError(
            f"{library} has no DLA: up to 10.7 it has (JetPack 6), and from 11.4.1 on AGX Orin; leave --dla away"
        )
    if core >= builder.num_DLA_cores:
        cores = f"{builder.num_DLA_cores} DLA cores" if builder.num_DLA_cores else "no DLA"
        raise UsageError(f"DLA core {core} was asked for, but this board has {cores}; leave --dla away or take another")
    config.default_device_type = trt.DeviceType.DLA
    config.DLA_core = core
    config.set_flag(trt.BuilderFlag.GPU_FALLBACK)


def build_for_capabilities(library: Library, config: Any, capabilities: Sequence[str]) -> None:
    """Choose the GPUs that a plan of TensorRT-RTX is for.

    Args:
        library: TensorRT-RTX.
        config: of the build.
        capabilities: such as "SM86".

    Raises:
        UsageError: for a full TensorRT, which builds for the GPU at hand, or an unknown capability.
    """
    trt = library.module
    if library.builds_ahead:
        known = [name for name in dir(trt.ComputeCapability) if name.startswith("SM")]
        unknown = sorted(set(capabilities) - set(known))
        if unknown:
            raise UsageError(f"{library} does not build for {', '.join(unknown)}; it knows {', '.join(known)}")
        config.num_compute_capabilities = len(capabilities)
        for index, name in enumerate(capabilities):
            config.set_compute_capability(getattr(trt.ComputeCapability, name), index)
    else:
        raise UsageError(f"{library} builds for the GPU at hand; compute capabilities are TensorRT-RTX's")


def add_profile(library: Library, builder: Any, config: Any, shapes: Mapping[str, tuple[Shape, Shape, Shape]]) -> None:
    """Say which shapes a dynamic network takes: least, best and largest by input.

    Raises:
        EngineError: for shapes that the version refuses.
    """
    profile = builder.create_optimization_profile()
    for name, (least, best, largest) in shapes.items():
        profile.set_shape(name, least, best, largest)
    if config.add_optimization_profile(profile) < 0:
        raise EngineError(f"{library} refuses the shapes {dict(shapes)}; expected least <= best <= largest")


def use_timing_cache(library: Library, config: Any, content: bytes) -> bool:
    """Take the measurements of earlier builds.

    Args:
        library: whose build.
        config: of the build.
        content: of an earlier build's `read_timing_cache`; empty for a new cache.

    Returns:
        Whether they were taken; False for those of another device or version, in whose place an empty cache stands.
    """
    cache = config.create_timing_cache(content)
    if cache is not None and config.set_timing_cache(cache, False):
        return True
    config.set_timing_cache(config.create_timing_cache(b""), False)
    return False


def read_timing_cache(config: Any) -> bytes:
    """The measurements of this build and those that it started from."""
    return bytes(config.get_timing_cache().serialize())


def listen_to_progress(library: Library, config: Any, listener: ProgressListener) -> Any:
    """Tell a listener how far the build is, where the version can.

    Returns:
        The monitor, which must live as long as the build; None where the version has none.
    """
    trt = library.module
    if library.reports_progress:

        class Monitor(trt.IProgressMonitor):  # type: ignore[misc, name-defined]
            def __init__(self) -> None:
                trt.IProgressMonitor.__init__(self)

            def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
                listener.start(phase_name, parent_phase, num_steps)

            def step_complete(self, phase_name: str, step: int) -> bool:
                return listener.step(phase_name, step)

            def phase_finish(self, phase_name: str) -> None:
                listener.finish(phase_name)

        monitor = Monitor()
        config.progress_monitor = monitor
        return monitor
    return None


def build_plan(builder: Any, network: Any, config: Any) -> bytes | None:
    """Build; None where the builder failed, whose reason stands in its log."""
    plan = builder.build_serialized_network(network, config)
    return None if plan is None else bytes(plan)
