"""Compiled engines in the cache folder, found by what they depend on and never trusted blindly."""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
from pathlib import Path

from edgeseg.backends import Backend, Engine, Target
from edgeseg.environment import read_environment
from edgeseg.errors import EngineError
from edgeseg.machine import machine_key

__all__ = ["engine", "write_atomically"]

_log = logging.getLogger(__name__)
_DIGEST_BYTES = 32
_KEPT = 32


def engine(backend: Backend, model: bytes, digest: str, target: Target) -> Engine:
    """The engine of a graph: loaded from the cache, or compiled and remembered.

    Args:
        backend: compiles and loads.
        model: the serialised graph.
        digest: SHA-256 of it, hexadecimal.
        target: what for.

    Raises:
        EngineError: when the graph does not compile or load.
    """
    path = _path(backend, digest, target)
    known = _read(path)
    if known is not None:
        try:
            return backend.load(known, target)
        except EngineError as error:
            _log.warning("%s does not load and is compiled again: %s", path, error)
    compiled = backend.compile(model, target)
    # A backend without a compiled form gives the graph itself back: nothing to keep.
    if compiled != model:
        _keep(path, compiled)
    return backend.load(compiled, target)


def _path(backend: Backend, digest: str, target: Target) -> Path:
    parts = (digest, backend.name, backend.version(), machine_key(), repr(target))
    key = hashlib.sha256("|".join(parts).encode()).hexdigest()[:32]
    return read_environment().cache_dir / "engines" / f"{key}.engine"


def _read(path: Path) -> bytes | None:
    """The engine behind its own SHA-256; None where there is none or it does not match."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    compiled = content[_DIGEST_BYTES:]
    if hashlib.sha256(compiled).digest() != content[:_DIGEST_BYTES]:
        _log.warning("%s is damaged and is compiled again", path)
        return None
    return compiled


def _keep(path: Path, compiled: bytes) -> None:
    try:
        write_atomically(path, hashlib.sha256(compiled).digest() + compiled)
        stored = sorted(path.parent.glob("*.engine"), key=lambda p: p.stat().st_mtime, reverse=True)
        for old in stored[_KEPT:]:
            old.unlink(missing_ok=True)
    except OSError as error:
        _log.warning("the engine is compiled again next time, since %s cannot be written: %s", path, error)


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file of the cache beside its place and rename it, so that no reader sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise
