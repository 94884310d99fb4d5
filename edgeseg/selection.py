"""Which backend is the fastest here: measured once per machine, graph and library versions, then remembered."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from edgeseg import engine_cache
from edgeseg.backends import BACKENDS, Backend, BundleBackend, Target, get_backend
from edgeseg.environment import read_environment
from edgeseg.errors import EdgesegError, EngineError, MissingDependencyError
from edgeseg.machine import machine_key

__all__ = ["choose_backend"]

_log = logging.getLogger(__name__)
_WARM_UP = 2
_RUNS = 10
_SECONDS = 1.0


def choose_backend(model: bytes, digest: str, target: Target, *, backends: Iterable[Backend] | None = None) -> Backend:
    """The backend of a device that is here, and otherwise the installed one that runs the graph fastest.

    A GPU with its library is taken without a race: its engine takes minutes to build, and no processor comes near it.

    Args:
        model: the serialised graph.
        digest: SHA-256 of it, hexadecimal.
        target: what for.
        backends: candidates; None for all that are registered.

    Raises:
        MissingDependencyError: when none is installed.
        EngineError: when the graph runs on none.
    """
    candidates = [get_backend(name) for name in BACKENDS] if backends is None else list(backends)
    versions = _installed(candidates)
    installed = [b for b in candidates if b.name in versions]
    if not installed:
        raise MissingDependencyError("openvino", "run a bundle (or onnxruntime)", "pip install openvino")
    if len(installed) == 1 or isinstance(installed[0], BundleBackend):
        return installed[0]
    key = "|".join((digest, machine_key(), repr(target), *(f"{n} {v}" for n, v in sorted(versions.items()))))
    path = read_environment().cache_dir / "backends.json"
    choices = _read(path)
    remembered = choices.get(key)
    name = remembered.get("backend") if isinstance(remembered, dict) else None
    if name not in versions:
        milliseconds = _measure(installed, model, digest, target)
        name = min(milliseconds, key=lambda n: milliseconds[n])
        _log.info("backend %s chosen: %s", name, ", ".join(f"{n} {ms:.1f} ms" for n, ms in milliseconds.items()))
        _remember(path, {**choices, key: {"backend": name, "milliseconds": milliseconds}})
    return next(b for b in installed if b.name == name)


def _installed(candidates: Iterable[Backend]) -> dict[str, str]:
    """Version by name of the backends whose library, and whose device where they need one, is here."""
    versions: dict[str, str] = {}
    for backend in candidates:
        try:
            if isinstance(backend, BundleBackend):
                backend.check_device()
        except EngineError as error:
            _log.debug("%s is left out: %s", backend.name, error)
            continue
        try:
            versions[backend.name] = backend.version()
        except MissingDependencyError as error:
            _log.debug("%s", error)
        except EngineError as error:
            _log.warning("%s is left out: %s", backend.name, error)
    return versions


def _measure(installed: Iterable[Backend], model: bytes, digest: str, target: Target) -> dict[str, float]:
    """Fastest run in ms by backend; one that cannot run the graph is left out with a warning."""
    fastest: dict[str, float] = {}
    failures = []
    for backend in installed:
        try:
            fastest[backend.name] = _fastest_run(backend, model, digest, target)
        except EdgesegError as error:
            _log.warning("%s cannot run this graph: %s", backend.name, error)
            failures.append(f"{backend.name}: {error}")
    if not fastest:
        raise EngineError("no installed backend runs this graph; " + "; ".join(failures))
    return fastest


def _fastest_run(backend: Backend, model: bytes, digest: str, target: Target) -> float:
    engine = engine_cache.engine(backend, model, digest, target)
    try:
        arrays = [np.zeros(spec.shape, spec.dtype) for spec in engine.inputs]
        for _ in range(_WARM_UP):
            engine.infer(arrays)
        times: list[float] = []
        end = time.perf_counter() + _SECONDS
        while len(times) < 3 or (len(times) < _RUNS and time.perf_counter() < end):
            started = time.perf_counter()
            engine.infer(arrays)
            times.append(time.perf_counter() - started)
        return round(1e3 * min(times), 3)
    finally:
        engine.close()


def _read(path: Path) -> dict[str, Any]:
    try:
        choices = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        _log.warning("%s is not readable (%s); backends are timed again", path, error)
        return {}
    if not isinstance(choices, dict):
        _log.warning("%s does not hold choices; backends are timed again", path)
        return {}
    return choices


def _remember(path: Path, choices: dict[str, Any]) -> None:
    try:
        engine_cache.write_atomically(path, (json.dumps(choices, indent=1) + "\n").encode())
    except OSError as error:
        _log.warning("backends are timed again next time, since %s cannot be written: %s", path, error)
