"""Find a Python library for CUDA and open a GPU with it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from edgeseg.backends.cuda.cuda_bindings import CudaBindings, device_count, version_pair
from edgeseg.backends.cuda.device import Cuda
from edgeseg.backends.cuda.interface import CudaCallError, CudaLibrary
from edgeseg.backends.cuda.pycuda_driver import PyCuda, call_error
from edgeseg.errors import EngineError, MissingDependencyError, UsageError, unknown_name
from edgeseg.tools import library_version

__all__ = ["LIBRARIES", "open_cuda"]

_log = logging.getLogger(__name__)

_BINDINGS = (
    ("cuda.bindings.runtime", "cuda.bindings.driver", "cuda.bindings.nvrtc"),
    ("cuda.cudart", "cuda.cuda", "cuda.nvrtc"),
)
"""Modules of cuda-bindings, and their names up to cuda-python 12.5."""

_NO_DRIVER = (
    "on a Jetson flash JetPack, in a container start it with --runtime nvidia (--gpus all elsewhere), on a PC install "
    "NVIDIA's driver; without a GPU use --backend openvino"
)


def open_cuda(preferred: str | None = None, *, device: int = 0) -> Cuda:
    """Open a GPU with cuda-bindings or, where that is not installed, with pycuda.

    Args:
        preferred: name in LIBRARIES, to take that one only.
        device: number of the GPU.

    Raises:
        UsageError: for an unknown name.
        MissingDependencyError: when no library is installed, with the command for this machine.
        EngineError: without a driver or such a device, or when it does not answer.
    """
    if preferred is not None and preferred not in LIBRARIES:
        raise UsageError(unknown_name("library for CUDA", preferred, LIBRARIES))
    for name in LIBRARIES if preferred is None else (preferred,):
        library = LIBRARIES[name](device)
        if library is not None:
            cuda = Cuda(library)
            _log.debug("CUDA by %s on %s", library.name, cuda.facts)
            return cuda
    package = preferred or "cuda-bindings"
    module = "pycuda" if package == "pycuda" else "cuda.bindings"
    raise MissingDependencyError(module, "use the GPU from Python", install_command(package))


def _bindings(device: int) -> CudaLibrary | None:
    modules = next(filter(None, (_import_all(names) for names in _BINDINGS)), None)
    if modules is None:
        return None
    runtime, driver, nvrtc = modules
    version = library_version("cuda-bindings") or library_version("cuda-python") or ""
    try:
        _check_driver(runtime, version)
        _check_ordinal(device, device_count(runtime))
    except CudaCallError as error:
        raise _no_device(error) from error
    made_for = version_pair(runtime.cudaRuntimeGetVersion()[1])
    suffix = f"-cu{made_for[0]}" if made_for[0] < 13 else ""
    return CudaBindings(runtime, driver, nvrtc, ordinal=device, version=version, pip_suffix=suffix)


def _check_driver(runtime: Any, version: str) -> None:
    """The library's CUDA must be one that the driver serves, and not one before 12."""
    needed = version_pair(runtime.cudaRuntimeGetVersion()[1])
    if needed[0] < 12:
        raise EngineError(
            f"cuda-bindings {version} is for CUDA {needed[0]}, but 12 or later is needed; run: "
            f"{install_command('cuda-bindings')}"
        )
    try:
        code, number = runtime.cudaDriverGetVersion()
    except RuntimeError as error:
        raise CudaCallError("cudaErrorInsufficientDriver", str(error), "cudaDriverGetVersion") from error
    if code == runtime.cudaError_t.cudaSuccess and 0 < number // 1000 < needed[0]:
        served = version_pair(number)
        raise EngineError(
            f"cuda-bindings {version} needs a driver for CUDA {needed[0]}, but this one serves CUDA {served[0]}."
            f'{served[1]}; run: pip install "cuda-bindings=={served[0]}.*"'
        )


def _pycuda(device: int) -> CudaLibrary | None:
    try:
        modules = _import_all(("pycuda.driver", "pycuda.compiler"))
    except ImportError as error:  # linked to libcuda.so.1, which comes with the driver
        raise EngineError(f"pycuda does not load ({error}): there is no NVIDIA driver; {_NO_DRIVER}") from error
    if modules is None:
        return None
    driver, compiler = modules
    try:
        driver.init()
        _check_ordinal(device, driver.Device.count())
    except driver.Error as error:
        raise _no_device(call_error(str(error))) from error
    return PyCuda(driver, compiler, ordinal=device, version=library_version("pycuda") or "")


LIBRARIES: dict[str, Callable[[int], CudaLibrary | None]] = {"cuda-bindings": _bindings, "pycuda": _pycuda}
"""How each library is opened on a device, in the order in which they are tried; None where it is not installed."""


def _import_all(names: tuple[str, ...]) -> list[Any] | None:
    """The modules, or None when their package is not installed."""
    try:
        return [import_module(name) for name in names]
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if any(f"{name}.".startswith(f"{missing}.") for name in names):
            return None
        raise


def _check_ordinal(device: int, count: int) -> None:
    if not 0 <= device < count:
        raise EngineError(f"GPU {device} was asked for, but this machine has {count}, numbered from 0")


def _no_device(error: CudaCallError) -> EngineError:
    return EngineError(f"CUDA finds no usable GPU: {error}; {_NO_DRIVER}")


def install_command(package: str, root: Path = Path("/")) -> str:
    """The command that installs a library for CUDA on this machine.

    Args:
        package: "cuda-bindings" or "pycuda".
        root: of the file system; NVIDIA's Linux for Tegra names its release in /etc/nv_tegra_release.
    """
    if package == "pycuda":
        return "pip install pycuda"
    try:
        release = (root / "etc/nv_tegra_release").read_text("ascii", "replace")
        major = int(release.removeprefix("# R").split()[0])
    except (OSError, ValueError, IndexError):
        return "pip install cuda-bindings (13 for a driver of CUDA 13, otherwise cuda-bindings==12.*)"
    if major < 36:
        return "pip install pycuda (JetPack 5 and older have no cuda-bindings)"
    return f'pip install "cuda-bindings=={12 if major < 38 else 13}.*"'
