"""Compiled loops: numba on first use, with the machine code kept in the cache folder."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

from edgeseg.environment import read_environment
from edgeseg.libraries import require

__all__ = ["run_compiled"]

_log = logging.getLogger(__name__)
_lock = threading.Lock()
_compiled: dict[Callable[..., Any], Callable[..., Any]] = {}


def run_compiled(purpose: str, function: Callable[..., Any], *arguments: Any) -> Any:
    """Call the compiled form of a plain function of arrays and numbers; it holds no lock of Python's while it runs.

    Args:
        purpose: what needs numba, for the message where it is missing.
        function: compiled without fast-math, so that its rounding is the one that is written there.
        arguments: for the function.

    Raises:
        MissingDependencyError: without numba.
    """
    try:
        return _kernel(purpose, function)(*arguments)
    except OSError as error:
        # Machine code is saved at the first call, which is when a full disk shows.
        _log.warning("kernels are compiled at every start, since they cannot be saved: %s", error)
        numba = require("numba", purpose)
        with _lock:
            _compiled[function] = _jit(numba, function, cache=False)
        return _kernel(purpose, function)(*arguments)


def _kernel(purpose: str, function: Callable[..., Any]) -> Callable[..., Any]:
    compiled = _compiled.get(function)
    if compiled is None:
        with _lock:
            compiled = _compiled.setdefault(function, _compile(purpose, function))
    return compiled


def _compile(purpose: str, function: Callable[..., Any]) -> Callable[..., Any]:
    numba = require("numba", purpose)
    folder = read_environment().cache_dir / "kernels"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        kept: Any = numba.config.CACHE_DIR
        numba.config.CACHE_DIR = kept or str(folder)
        try:
            return _jit(numba, function, cache=True)
        finally:
            numba.config.CACHE_DIR = kept
    except (OSError, RuntimeError) as error:
        _log.warning("kernels are compiled at every start, since %s cannot be written: %s", folder, error)
        return _jit(numba, function, cache=False)


def _jit(numba: Any, function: Callable[..., Any], *, cache: bool) -> Callable[..., Any]:
    compiled: Callable[..., Any] = numba.njit(nogil=True, fastmath=False, cache=cache)(function)
    return compiled
