"""Which TensorRT is installed, and what its version can do."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

from edgeseg.errors import EngineError, MissingDependencyError, UsageError, unknown_name

__all__ = ["LIBRARIES", "Library", "LibraryName", "library_of", "load_library"]

LibraryName = Literal["tensorrt", "tensorrt_rtx"]

LIBRARIES: dict[str, str] = {"tensorrt": "TensorRT", "tensorrt_rtx": "TensorRT-RTX"}
"""What NVIDIA calls a library, by its module's name."""

_OLDEST = (8, 5)
_STRONG_TYPING_ADVISED = (10, 12)
_LAST_DLA_OF_10 = (10, 7)
_DLA_AGAIN = (11, 4, 1)


@dataclass(frozen=True)
class Library:
    """An imported TensorRT.

    What a version can do is read from the names that it has wherever a name tells it; only what no name tells is read
    from the number: DLA, which stands in every version's enumerations, and advice.

    Attributes:
        name: its module's name.
        module: the imported module.
        version: its version as numbers, such as (10, 3, 0).
    """

    name: LibraryName
    module: Any
    version: tuple[int, ...]

    def __str__(self) -> str:
        return f"{LIBRARIES[self.name]} {self.version_text}"

    @property
    def version_text(self) -> str:
        """The version as text, such as "10.3.0"."""
        return ".".join(map(str, self.version))

    def has(self, dotted: str) -> bool:
        """Whether this version has a name, such as "BuilderFlag.INT8"."""
        found = self.module
        for part in dotted.split("."):
            if not hasattr(found, part):
                return False
            found = getattr(found, part)
        return True

    @property
    def wants_explicit_batch(self) -> bool:
        """Whether a network needs the EXPLICIT_BATCH flag: up to 10, where the ONNX parser takes no other."""
        return self.has("NetworkDefinitionCreationFlag.EXPLICIT_BATCH")

    @property
    def weakly_typed(self) -> bool:
        """Whether flags choose precisions (up to 10) rather than the graph alone (11 and TensorRT-RTX)."""
        return self.has("BuilderFlag.INT8")

    @property
    def strong_typing(self) -> bool:
        """Whether a network can be strongly typed: from 10.

        NVIDIA's migration guide advises it from 10.12 on ("10.11 or earlier: upgrade before migrating").
        """
        return self.has("NetworkDefinitionCreationFlag.STRONGLY_TYPED") and (
            not self.weakly_typed or self.version >= _STRONG_TYPING_ADVISED
        )

    @property
    def calibrates(self) -> bool:
        """Whether a calibration cache can give a graph without Q/DQ its INT8 ranges: up to 10."""
        return self.has("IInt8EntropyCalibrator2")

    @property
    def has_optimization_levels(self) -> bool:
        """Whether the effort of the builder can be chosen: from 8.6."""
        return self.has("IBuilderConfig.builder_optimization_level")

    @property
    def reports_progress(self) -> bool:
        """Whether a build tells how far it is: from 10."""
        return self.has("IProgressMonitor")

    @property
    def names_refused_nodes(self) -> bool:
        """Whether a parser's error names the node and the operator: from 10; before that it has the node's number."""
        return self.has("ParserError.node_name")

    @property
    def builds_ahead(self) -> bool:
        """Whether a plan is built for chosen compute capabilities, without a GPU: TensorRT-RTX."""
        return self.has("ComputeCapability")

    @property
    def keeps_timings(self) -> bool:
        """Whether a timing cache saves work: TensorRT-RTX has the names, but they do nothing (from RTX 1.2)."""
        return self.name == "tensorrt"

    @property
    def has_wide_memory_size(self) -> bool:
        """Whether an engine's device memory is told in 64 bits: from 10; 11 has no other."""
        return self.has("ICudaEngine.device_memory_size_v2")

    @property
    def supports_dla(self) -> bool:
        """Whether a deep learning accelerator can be used: up to 10.7, and from 11.4.1 on AGX Orin."""
        return self.name == "tensorrt" and (self.version[:2] <= _LAST_DLA_OF_10 or self.version >= _DLA_AGAIN)

    @property
    def dla_reads_qdq(self) -> bool:
        """Whether a DLA takes its ranges from Q/DQ; up to 10.7 only from a calibration cache (TensorRT#2222)."""
        return self.supports_dla and self.version >= _DLA_AGAIN


def load_library(name: str, *, root: Path = Path("/")) -> Library:
    """Import TensorRT or TensorRT-RTX.

    Args:
        name: "tensorrt" or "tensorrt_rtx".
        root: of the system's files, where JetPack's bindings are looked for.

    Raises:
        UsageError: for another name.
        MissingDependencyError: when it is not installed, with what to install and why it is not seen.
        EngineError: when it is installed but does not load, or is too old.
    """
    if name not in LIBRARIES:
        raise UsageError(unknown_name("TensorRT library", name, LIBRARIES))
    try:
        module = import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in (name, f"{name}_bindings", f"{name}_libs"):
            raise
        raise MissingDependencyError(name, "build and run its engines", _cure(name, root)) from error
    except (ImportError, OSError, RuntimeError) as error:
        raise EngineError(
            f"{LIBRARIES[name]} is installed but does not load: {error}; its Python bindings and its libraries must be "
            "of one version and of this machine's CUDA: install both again"
        ) from error
    return library_of(module)


def library_of(module: Any) -> Library:
    """What an imported module is.

    Raises:
        EngineError: for a module that is no TensorRT, or one older than 8.5.
    """
    name: LibraryName = "tensorrt_rtx" if "tensorrt_rtx" in module.__name__ else "tensorrt"
    text = str(getattr(module, "__version__", ""))
    version = tuple(int(number) for number in re.findall(r"\d+", text.partition("+")[0])[:4])
    if not version or not hasattr(module, "Builder"):
        where = getattr(module, "__file__", None) or ", ".join(getattr(module, "__path__", ())) or module.__name__
        raise EngineError(f"the module {name} at {where} is not NVIDIA's; remove it from Python's path")
    if name == "tensorrt" and version < _OLDEST:
        raise EngineError(f"TensorRT {text} is too old: edgeseg needs 8.5 or newer, as JetPack 6 and 7 have it")
    return Library(name, module, version)


def _cure(name: str, root: Path) -> str:
    """The command that brings a library that this Python does not see."""
    if name == "tensorrt_rtx":
        return "pip install 'edgeseg[rtx]'"
    found = sorted(root.glob("usr/lib/python3*/dist-packages/tensorrt"))
    if found:
        folder = found[-1].parent
        return (
            f"{folder.parent.name} -m venv --system-site-packages VENV, and install edgeseg in it: JetPack's TensorRT "
            f"stands in /{folder.relative_to(root)}, which this Python does not see"
        )
    if (root / "etc/nv_tegra_release").exists():
        return (
            "sudo apt install python3-libnvinfer python3-libnvinfer-dev; a virtual environment sees it only when made "
            "with: python3 -m venv --system-site-packages VENV"
        )
    return "pip install tensorrt; to build without a GPU, use TensorRT-RTX instead: pip install 'edgeseg[rtx]'"
