"""`edgeseg doctor`: versions, the machine, what is missing and the command that installs it."""

from __future__ import annotations

import argparse
import importlib.metadata
import platform
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeseg._version import __version__
from edgeseg.apps.camera.elements import missing_elements
from edgeseg.apps.camera.gst import APT, gstreamer
from edgeseg.apps.cli.jetson import board_text, examine_board
from edgeseg.apps.cli.results import add_json_argument, only_results_on_stdout, print_json, table
from edgeseg.backends.tensorrt.board import read_board
from edgeseg.errors import EdgesegError, MissingDependencyError
from edgeseg.libraries import require
from edgeseg.machine import usable_processors

__all__ = ["LIBRARIES", "Library", "add_arguments", "examine", "run"]

CPU_FLAGS = (
    "neon",
    "asimd",
    "asimddp",
    "i8mm",
    "bf16",
    "avx2",
    "avx512f",
    "avx512_vnni",
    "avx_vnni",
    "avx512_bf16",
    "amx_int8",
    "amx_bf16",
)
"""Instructions that decide how fast INT8 and 16 bit floats are, as /proc/cpuinfo spells them on x86-64 and aarch64."""


@dataclass(frozen=True)
class Library:
    """A library that edgeseg can use.

    Attributes:
        module: its import name.
        distributions: names on the package index, any of which brings it.
        purpose: what it is for.
        cure: the command that installs it.
        required: whether the base installation has it.
        jetson_cure: the command on a Jetson, where it is another.
        machine: the only machine (as `platform.machine`) that it exists for, or None.
    """

    module: str
    distributions: tuple[str, ...]
    purpose: str
    cure: str
    required: bool
    jetson_cure: str | None = None
    machine: str | None = None


LIBRARIES: tuple[Library, ...] = (
    Library("numpy", ("numpy",), "arrays", "pip install numpy", True),
    Library("onnx", ("onnx",), "reading and writing networks", "pip install onnx", True),
    Library("onnxsim", ("onnxsim",), "simplifying graphs in convert", "pip install onnxsim", True),
    Library(
        "onnxruntime",
        ("onnxruntime", "onnxruntime-gpu"),
        "the reference engine; checking networks in convert",
        "pip install onnxruntime",
        True,
    ),
    Library("openvino", ("openvino",), "the fast engine on a CPU; calibration", "pip install openvino", True),
    Library(
        "cv2",
        ("opencv-python-headless", "opencv-python", "opencv-contrib-python"),
        "images and video files",
        "pip install opencv-python-headless",
        True,
    ),
    Library("numba", ("numba",), "the fused upsampling and argmax kernel", "pip install numba", True),
    Library("rich", ("rich",), "progress bars", "pip install rich", True),
    Library(
        "tensorrt",
        ("tensorrt", "tensorrt-cu13", "tensorrt-cu12"),
        "INT8 engines on an NVIDIA GPU",
        "pip install tensorrt",
        False,
        "sudo apt-get install python3-libnvinfer",
    ),
    Library(
        "tensorrt_rtx",
        ("tensorrt-rtx",),
        "checking each layer's type with TensorRT's own builder, without a GPU",
        "pip install 'edgeseg[rtx]'",
        False,
        machine="x86_64",
    ),
    Library(
        "cuda.bindings",
        ("cuda-bindings",),
        "the GPU's memory, beside TensorRT",
        "pip install 'edgeseg[tensorrt]'",
        False,
    ),
    Library("torch", ("torch",), "training and export of networks", "pip install torch", False),
    Library("gi", ("PyGObject",), "cameras through GStreamer", APT, False),
    Library("aiohttp", ("aiohttp",), "the camera's web page", "pip install 'edgeseg[camera]'", False),
    Library(
        "prometheus_client", ("prometheus-client",), "the camera's metrics", "pip install 'edgeseg[camera]'", False
    ),
    Library("rosbags", ("rosbags",), "recordings of ROS 2", "pip install 'edgeseg[ros]'", False),
    Library("zenoh", ("eclipse-zenoh",), "class maps over Zenoh", "pip install 'edgeseg[ros]'", False),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `edgeseg doctor`."""
    add_json_argument(parser)


def run(options: argparse.Namespace) -> int:
    """Print what was found; exit code 1 when the base installation lacks something."""
    with only_results_on_stdout():
        found = examine()
    if options.json:
        print_json(found)
    else:
        print(_text(found))
    return 0 if found["complete"] else 1


def examine() -> dict[str, Any]:
    """Versions and state of this machine, as `edgeseg doctor --json` prints them."""
    jetson = _jetson_release()
    here = [library for library in LIBRARIES if library.machine in (None, platform.machine())]
    libraries = [_examine_library(library, jetson is not None) for library in here]
    return {
        "edgeseg": __version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        "machine": platform.machine(),
        "cpu": {**_cpu(), "int8_exact": _int8_exact(libraries)},
        "gpu": shutil.which("nvidia-smi") is not None or Path("/dev/nvidia0").exists(),
        "jetson": jetson,
        "board": examine_board(read_board(), libraries),
        "libraries": libraries,
        "gstreamer": _examine_gstreamer(jetson is not None),
        "complete": all(entry["state"] == "ok" for entry in libraries if entry["required"]),
    }


def _examine_gstreamer(jetson: bool) -> dict[str, Any] | None:
    """Version, and the elements and typelibs missing, by package; None where the camera's side of it does not work."""
    try:
        gst = gstreamer().Gst
        missing = missing_elements(jetson=jetson)
    except EdgesegError:
        return None
    return {
        "version": ".".join(map(str, gst.version()[:3])),
        "missing": {package: list(names) for package, names in missing.items()},
    }


def _examine_library(library: Library, jetson: bool) -> dict[str, Any]:
    state, detail = _state(library.module)
    cure = library.jetson_cure if jetson and library.jetson_cure else library.cure
    if state == "missing" and "apt-get" in cure and sys.prefix != sys.base_prefix:
        detail = "a virtual environment sees it only when made with --system-site-packages"
    return {
        "module": library.module,
        "version": _version(library),
        "state": state,
        "required": library.required,
        "purpose": library.purpose,
        "detail": detail,
        "cure": None if state == "ok" else cure,
    }


def _state(module: str) -> tuple[str, str]:
    """("ok" | "missing" | "broken", why); a library that fails on import must not take the doctor with it."""
    try:
        require(module, "be examined")
    except MissingDependencyError:
        return "missing", ""
    except (Exception, SystemExit) as error:
        if isinstance(error, ModuleNotFoundError) and error.name and module.startswith(f"{error.name}."):
            return "missing", ""  # not even the package that it would stand in
        return "broken", " ".join(f"{type(error).__name__}: {error}".split())[:300]
    return "ok", ""


def _version(library: Library) -> str | None:
    for name in library.distributions:
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    version = getattr(sys.modules.get(library.module), "__version__", None)
    return str(version) if version is not None else None


def _cpu() -> dict[str, Any]:
    text = _read("/proc/cpuinfo") or ""
    fields: dict[str, str] = {}
    for line in text.splitlines():
        key, _, value = line.partition(":")
        fields.setdefault(key.strip().lower(), value.strip())
    flags = set((fields.get("flags") or fields.get("features") or "").split())
    return {
        "name": fields.get("model name") or platform.processor() or platform.machine(),
        "cores": usable_processors(),
        "flags": [flag for flag in CPU_FLAGS if flag in flags],
    }


def _int8_exact(libraries: list[dict[str, Any]]) -> bool | None:
    """Whether OpenVINO's INT8 sums are exact on this processor; None where OpenVINO does not work."""
    if any(entry["module"] == "openvino" and entry["state"] != "ok" for entry in libraries):
        return None
    from edgeseg.backends.openvino import adds_exactly

    return adds_exactly()


def _jetson_release() -> str | None:
    text = _read("/etc/nv_tegra_release")
    return text.splitlines()[0].lstrip("# ") if text else None


def _read(path: str) -> str | None:
    try:
        return Path(path).read_text("utf-8", errors="replace")
    except OSError:
        return None


def _text(found: dict[str, Any]) -> str:
    cpu = found["cpu"]
    flags = ", ".join(cpu["flags"]) or "no INT8 or BF16 instructions"
    lines = [
        f"edgeseg {found['edgeseg']}, Python {found['python']}, {found['system']}",
        f"CPU     {cpu['name']}, {cpu['cores']} usable cores; {flags}",
        *(["INT8    computed in float32: sums overflow without VNNI"] if cpu["int8_exact"] is False else []),
        f"Jetson  {found['jetson'] or 'no'}",
        *board_text(found["board"]),
        f"GPU     {'an NVIDIA driver is here' if found['gpu'] else 'no NVIDIA driver'}",
        "",
    ]
    rows = [("library", "state", "version", "for")]
    for entry in found["libraries"]:
        state = entry["state"] if entry["required"] or entry["state"] != "missing" else "not installed"
        rows.append((entry["module"], state, entry["version"] or "-", entry["purpose"]))
    lines.append(table(rows))
    absent = [entry for entry in found["libraries"] if entry["state"] != "ok"]
    if absent:
        lines.append("")
    for entry in absent:
        why = f" ({entry['detail']})" if entry["detail"] else ""
        need = "needed for" if entry["required"] else "optional, for"
        lines.append(f"{entry['module']}: {need} {entry['purpose']}{why}; run: {entry['cure']}")
    for package, names in (found["gstreamer"] or {"missing": {}})["missing"].items():
        lines.append(f"GStreamer: the camera may need {', '.join(names)}; run: sudo apt-get install {package}")
    lines.append("")
    lines.append(
        "The base installation is complete." if found["complete"] else "The base installation is not complete."
    )
    return "\n".join(lines)
