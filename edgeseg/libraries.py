"""Libraries that are installed with the package or beside it, but imported only where they are used."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from importlib import import_module
from typing import Any

from edgeseg.errors import MissingDependencyError

__all__ = ["missing_dependency", "require"]

_PACKAGES = {
    "cv2": "opencv-python-headless",
    "google": "protobuf",
    "numba": "numba",
    "onnx": "onnx",
    "onnxruntime": "onnxruntime",
    "onnxsim": "onnxsim",
    "openvino": "openvino",
    "rich": "rich",
    "threadpoolctl": "threadpoolctl",
}
"""Distribution by module of what `pip install edgeseg` brings."""

_EXTRAS = {
    "onnxscript": "edgeseg[train]",
    "rosbags": "edgeseg[ros]",
    "torch": "edgeseg[train]",
    "zenoh": "edgeseg[ros]",
}
"""What an extra brings, by module."""


_HIDDEN = {"onnxsim": "torch", "openvino": "openvino_telemetry"}
"""What a library would import with it, by library, and does without.

OpenVINO's other module sends events and has no switch; onnxsim's takes a second and 200 MB for nothing.
"""


@contextlib.contextmanager
def _alone(library: str) -> Iterator[None]:
    """Import a library without what it would load for nothing, or would send events and mark the user's home with."""
    if library == "onnxruntime":
        os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    other = _HIDDEN.get(library)
    if other is None or other in sys.modules or library in sys.modules:
        yield
        return
    sys.modules[other] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[other]


def require(library: str, purpose: str) -> Any:
    """Import a library on first use.

    Args:
        library: the module's name.
        purpose: what needs it, as the end of "... is needed to".

    Raises:
        MissingDependencyError: with the command that installs it.
    """
    try:
        with _alone(library):
            return import_module(library)
    except ModuleNotFoundError as error:
        if error.name != library:
            raise
        cure = f"pip install {(_PACKAGES | _EXTRAS).get(library, library)}"
        raise MissingDependencyError(library, purpose, cure) from error


def missing_dependency(error: ModuleNotFoundError) -> MissingDependencyError | None:
    """The error that names the cure, for a module of the base installation; None for any other module.

    For programs that import the converters, whose files import onnx as they are read.
    """
    name = (error.name or "").partition(".")[0]
    if name not in _PACKAGES:
        return None
    return MissingDependencyError(name, "run this command", f"pip install {_PACKAGES[name]}")
