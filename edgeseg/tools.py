"""Versions of the libraries that a result depends on."""

from __future__ import annotations

import platform
from importlib import metadata

__all__ = ["LIBRARIES", "library_version", "tool_versions"]

LIBRARIES = (
    "numpy",
    "onnx",
    "onnxsim",
    "onnxruntime",
    "openvino",
    "opencv-python-headless",
    "numba",
    "tensorrt",
    "tensorrt-rtx",
)
"""Distribution names, as a package index knows them."""


def library_version(name: str) -> str | None:
    """Version of an installed distribution; None where it is not installed. Nothing is imported."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def tool_versions() -> dict[str, str]:
    """Version by name of edgeseg, Python and every library of LIBRARIES that is installed."""
    found = {name: library_version(name) for name in ("edgeseg", *LIBRARIES)}
    versions = {name: version for name, version in found.items() if version is not None}
    return {**versions, "python": platform.python_version(), "machine": platform.machine()}
