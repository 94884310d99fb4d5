"""Libraries that are installed with the package or beside it, but imported only where they are used."""

from __future__ import annotations

import os
from importlib import import_module
from typing import Any

from edgeseg.errors import MissingDependencyError

__all__ = ["require"]

_PACKAGES = {"cv2": "opencv-python-headless"}
_QUIET = {
    # ONNX Runtime >= 1.30 writes a device identifier to the user's cache folder and sends events unless told not to.
    "onnxruntime": ("ORT_DISABLE_TELEMETRY", "1"),
}


def require(library: str, purpose: str) -> Any:
    """Import a library on first use.

    Args:
        library: the module's name.
        purpose: what needs it, as the end of "... is needed to".

    Raises:
        MissingDependencyError: with the command that installs it.
    """
    if library in _QUIET:
        os.environ.setdefault(*_QUIET[library])
    try:
        return import_module(library)
    except ModuleNotFoundError as error:
        if error.name != library:
            raise
        cure = f"pip install {_PACKAGES.get(library, library)}"
        raise MissingDependencyError(library, purpose, cure) from error
