"""What an engine is built for and how, and the record that stays beside it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgeseg.backends.tensorrt.versions.library import LIBRARIES, LibraryName
from edgeseg.errors import UsageError, unknown_name

__all__ = ["TARGETS", "BuildOptions", "BuildProgress", "BuildRecord", "BuildTarget"]


@dataclass(frozen=True)
class BuildTarget:
    """A kind of device.

    Attributes:
        description: for people.
        library: what builds for it.
        compute_capabilities: that a GPU of this kind has; empty for any.
        dla_cores: deep learning accelerators of its largest board.
        ahead: compute capabilities that TensorRT-RTX builds for, by its names.
    """

    description: str
    library: LibraryName
    compute_capabilities: tuple[tuple[int, int], ...] = ()
    dla_cores: int = 2
    ahead: tuple[str, ...] = ()


TARGETS: dict[str, BuildTarget] = {
    "auto": BuildTarget("the GPU of this machine", "tensorrt"),
    "orin": BuildTarget("Jetson AGX Orin, Orin NX", "tensorrt", ((8, 7),)),
    "orin-nano": BuildTarget("Jetson Orin Nano", "tensorrt", ((8, 7),), 0),
    "thor": BuildTarget("Jetson Thor", "tensorrt", ((11, 0), (10, 1)), 0),
    "xavier": BuildTarget("Jetson AGX Xavier, Xavier NX", "tensorrt", ((7, 2),)),
    "xavier-dla": BuildTarget("DLA of Jetson AGX Xavier, Xavier NX", "tensorrt", ((7, 2),)),
    # Without SM75: a list that contains it builds, with every convolution in float.
    "rtx": BuildTarget("NVIDIA RTX GPUs from Ampere on", "tensorrt_rtx", (), 0, ("SM80", "SM86", "SM89", "SM120")),
    "rtx-ampere": BuildTarget("NVIDIA RTX 30 (SM86)", "tensorrt_rtx", ((8, 6),), 0, ("SM86",)),
    "rtx-ada": BuildTarget("NVIDIA RTX 40 (SM89)", "tensorrt_rtx", ((8, 9),), 0, ("SM89",)),
    "rtx-blackwell": BuildTarget("NVIDIA RTX 50 (SM120)", "tensorrt_rtx", ((12, 0),), 0, ("SM120",)),
}
"""Targets by name. Compute capabilities and DLA cores: NVIDIA's support matrix and the Jetson data sheets; Thor is 10.1
in CUDA 12.8 and 11.0 in CUDA 13."""


@dataclass(frozen=True)
class BuildOptions:
    """How to build. Defaults are those of an INT8 network on the GPU at hand.

    Attributes:
        target: a name of TARGETS.
        library: None for the target's.
        int8: whether the graph is INT8, and the engine must be.
        fp16: whether a weakly typed network may compute the rest in FP16; a strongly typed one has that from the graph.
        strongly_typed: None for the library's rule: weak where flags choose precisions (up to 10), strong elsewhere.
        workspace_mb: most memory for a layer's kernel beside its tensors; None for the board's default.
        optimization_level: 0 (fast build) to 5 (fast engine); None for TensorRT's default, 3.
        timing_cache: file of measurements to start from and to write; None for none.
        dla_core: deep learning accelerator to use; None for the GPU alone.
        calibration_cache: ranges for a graph without Q/DQ, in TensorRT's format; None for a Q/DQ graph.
        layer_precisions: (layer name, "int8", "float16" or "float32") for such a graph.
        batch: least, best and largest number of frames at once; three numbers need a graph with a dynamic batch.
    """

    target: str = "auto"
    library: LibraryName | None = None
    int8: bool = True
    fp16: bool = True
    strongly_typed: bool | None = None
    workspace_mb: int | None = None
    optimization_level: int | None = None
    timing_cache: Path | None = None
    dla_core: int | None = None
    calibration_cache: bytes | None = None
    layer_precisions: tuple[tuple[str, str], ...] = ()
    batch: tuple[int, int, int] = (1, 1, 1)

    def __post_init__(self) -> None:
        if self.target not in TARGETS:
            raise UsageError(unknown_name("target", self.target, TARGETS))
        if self.library is not None and self.library not in LIBRARIES:
            raise UsageError(unknown_name("TensorRT library", self.library, LIBRARIES))
        if self.workspace_mb is not None and self.workspace_mb < 1:
            raise UsageError(f"--workspace must be at least 1 MB, but is {self.workspace_mb}")
        if self.optimization_level is not None and not 0 <= self.optimization_level <= 5:
            raise UsageError(f"--optimization-level must be 0 to 5, but is {self.optimization_level}")
        least, best, largest = self.batch
        if not 1 <= least <= best <= largest:
            raise UsageError(f"--batch must be 1 <= least <= best <= largest, but is {least}, {best}, {largest}")
        wrong = sorted({kind for _, kind in self.layer_precisions} - {"int8", "float16", "float32"})
        if wrong:
            raise UsageError(f"a layer's precision is int8, float16 or float32, but is {', '.join(wrong)}")
        self._check_library()

    def _check_library(self) -> None:
        target = TARGETS[self.target]
        if target.ahead and self.chosen_library != "tensorrt_rtx":
            raise UsageError(f"target {self.target} is built by TensorRT-RTX; take the library tensorrt_rtx")
        if target.compute_capabilities and not target.ahead and self.chosen_library != "tensorrt":
            raise UsageError(f"target {self.target} is built by TensorRT on the board; take the library tensorrt")
        if self.dla_core is not None and not 0 <= self.dla_core < target.dla_cores:
            raise UsageError(
                f"target {self.target} has "
                + (f"DLA cores 0 to {target.dla_cores - 1}" if target.dla_cores else "no DLA")
                + f", but --dla {self.dla_core} was asked for"
            )
        if self.chosen_library == "tensorrt_rtx" and self.timing_cache is not None:
            raise UsageError("TensorRT-RTX keeps no timing cache; leave --timing-cache away")

    @property
    def chosen_library(self) -> LibraryName:
        """The library asked for, or the target's."""
        return self.library or TARGETS[self.target].library


@dataclass(frozen=True)
class BuildProgress:
    """How far a build is: the phase in TensorRT's words, and the share done, 0..1, or None where it does not tell."""

    phase: str
    share: float | None


@dataclass(frozen=True)
class BuildRecord:
    """Where an engine came from and what it is, as plain values for JSON.

    Attributes:
        library, version: what built it, such as "tensorrt" and "10.3.0".
        target: a name of TARGETS.
        graph_digest, plan_digest: SHA-256, hexadecimal, of the ONNX graph and of the plan.
        plan_bytes: size of the plan.
        strongly_typed: whether the graph alone chose the precisions.
        int8: whether the engine had to be INT8.
        fp16: whether a flag allowed FP16; a strongly typed network has that from its graph.
        batch: least, best and largest number of frames at once.
        workspace_mb: limit in MB; None for TensorRT's default.
        dla_core: deep learning accelerator; None for the GPU alone.
        device, compute_capability, driver: GPU of this machine, and its driver's CUDA version; None without one.
        built_for: compute capabilities of an engine of TensorRT-RTX.
        board, l4t, power_mode: of a Jetson; None elsewhere.
        precisions: number of layers by the data type that they compute on.
        convolutions: number of convolutions, deconvolutions and matrix products by data type.
        reformats, requantizes: number of layers that only change layout or type, and that only scale and round.
        promised_int8, proven_int8: compute layers that the bundle promises in INT8, and that are.
        seconds: of the build, parsing included.
        peak_memory_mb: most memory of the process that built it; on a Jetson the GPU's is not all in it.
    """

    library: str
    version: str
    target: str
    graph_digest: str
    plan_digest: str
    plan_bytes: int
    strongly_typed: bool
    int8: bool
    fp16: bool
    batch: tuple[int, int, int]
    workspace_mb: int | None
    dla_core: int | None
    device: str | None
    compute_capability: str | None
    driver: str | None
    built_for: tuple[str, ...]
    board: str | None
    l4t: str | None
    power_mode: str | None
    precisions: dict[str, int]
    convolutions: dict[str, int]
    reformats: int
    requantizes: int
    promised_int8: int
    proven_int8: int
    seconds: float
    peak_memory_mb: int
