"""Compiled loops: numba on first use, with the machine code kept in the cache folder."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

from edgeseg.environment import read_environment
from edgeseg.libraries import require

__all__ = ["kernel"]

_log = logging.getLogger(__name__)
_lock = threading.Lock()
_compiled: dict[str, Callable[..., Any]] = {}


def kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """The compiled form of a plain function of arrays and numbers; it holds no lock of Python's while it runs.

    Raises:
        MissingDependencyError: without numba.
    """
    name = f"{function.__module__}.{function.__qualname__}"
    with _lock:
        if name not in _compiled:
            _compiled[name] = _compile(function)
        return _compiled[name]


def _compile(function: Callable[..., Any]) -> Callable[..., Any]:
    numba: Any = require("numba", "refine class maps")
    folder = read_environment().cache_dir / "kernels"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        kept = numba.config.CACHE_DIR
        numba.config.CACHE_DIR = kept or str(folder)
        try:
            compiled: Callable[..., Any] = numba.njit(nogil=True, cache=True)(function)
        finally:
            numba.config.CACHE_DIR = kept
    except (OSError, RuntimeError) as error:
        _log.warning("kernels are compiled at every start, since %s cannot be written: %s", folder, error)
        compiled = numba.njit(nogil=True)(function)
    return compiled
