"""GStreamer through PyGObject, imported on first use, and its buffers as arrays without a copy."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib
import sys
import warnings
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeseg.errors import EngineError, MissingDependencyError

__all__ = ["APT", "first_structure", "gstreamer", "introspected", "mapped", "missing_gstreamer"]

APT = (
    "sudo apt-get install -y python3-gst-1.0 gir1.2-gst-plugins-base-1.0 gstreamer1.0-plugins-base "
    "gstreamer1.0-plugins-good gstreamer1.0-plugins-bad gstreamer1.0-plugins-ugly gstreamer1.0-libav"
)
"""What brings GStreamer and its Python side on Debian 12, Ubuntu 22.04 (JetPack 6) and later."""

_VENV = "/usr/bin/python3 -m venv --system-site-packages VENV && VENV/bin/pip install 'edgeseg[camera]'"


@functools.cache
def gstreamer() -> Any:
    """GStreamer's modules by name: `Gst`, `GstApp`, `GstBase`, `GstVideo`, `GLib`, `GObject`; initialised.

    Raises:
        MissingDependencyError: where `gi` or GStreamer's side of it is not installed, or belongs to another Python.
    """
    _prefer_compilers_unwinder()
    try:
        import gi

        for name in ("Gst", "GstApp", "GstBase", "GstVideo"):
            gi.require_version(name, "1.0")
        with warnings.catch_warnings():
            # PyGObject 3.42 imports in a way that Python 3.10 and later warn of.
            warnings.simplefilter("ignore", ImportWarning)
            from gi.repository import GLib, GObject, Gst, GstApp, GstBase, GstVideo
    except (ImportError, ValueError) as error:
        raise missing_gstreamer() from error
    if not Gst.is_initialized() and not Gst.init_check(None)[0]:
        raise EngineError("GStreamer does not start; try: gst-inspect-1.0 --version")
    return SimpleNamespace(Gst=Gst, GstApp=GstApp, GstBase=GstBase, GstVideo=GstVideo, GLib=GLib, GObject=GObject)


def _prefer_compilers_unwinder() -> None:
    """Have C++ exceptions unwound by the compiler's own library.

    GStreamer is linked with libunwind, which PyGObject makes visible to all: where it is the first with the unwinder's
    names, an exception that OpenVINO throws and catches inside ends the process.
    """
    with contextlib.suppress(OSError):  # a system with another C library has another unwinder
        ctypes.CDLL("libgcc_s.so.1", ctypes.RTLD_GLOBAL)


def missing_gstreamer() -> MissingDependencyError:
    """The error for an interpreter that has no PyGObject with GStreamer, with what cures it."""
    # PyGObject is compiled for the distribution's own interpreter; pip cannot bring GStreamer's overrides.
    here = f"this one is {sys.executable}, Python {sys.version_info[0]}.{sys.version_info[1]}"
    cure = f"{APT}; then use an environment of the system's Python ({here}): {_VENV}"
    return MissingDependencyError("gi (PyGObject with GStreamer)", "use GStreamer", cure)


def introspected(namespace: str, package: str) -> Any:
    """Another of GStreamer's modules, such as "GstRtspServer".

    Args:
        namespace: as `gi.repository` has it.
        package: of Debian's and Ubuntu's that brings it.

    Raises:
        MissingDependencyError: where it, or GStreamer as a whole, is not installed.
    """
    gstreamer()
    import gi

    try:
        gi.require_version(namespace, "1.0")
    except ValueError as error:
        cure = f"sudo apt-get install -y {package}"
        raise MissingDependencyError(namespace, "use this part of GStreamer", cure) from error
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ImportWarning)
        return importlib.import_module(f"gi.repository.{namespace}")


@contextlib.contextmanager
def first_structure(caps: Any) -> Iterator[Any]:
    """The first Gst.Structure of caps, valid inside the block only.

    GStreamer 1.22 gives Python the structure itself, 1.26 a guard that hands it out.

    Args:
        caps: a Gst.Caps that is not empty.
    """
    found = caps.get_structure(0)
    with found if hasattr(found, "__enter__") else contextlib.nullcontext(found) as structure:
        yield structure


class _MapInfo(ctypes.Structure):
    """GstMapInfo of gstmemory.h."""

    _fields_ = (
        ("memory", ctypes.c_void_p),
        ("flags", ctypes.c_int),
        ("data", ctypes.c_void_p),
        ("size", ctypes.c_size_t),
        ("maxsize", ctypes.c_size_t),
        ("user_data", ctypes.c_void_p * 4),
        ("_reserved", ctypes.c_void_p * 4),
    )


_READ, _WRITE = 1, 2  # GstMapFlags
_PY_READ, _PY_WRITE = 0x100, 0x200  # PyBUF_READ, PyBUF_WRITE of CPython's buffer protocol

_memory = ctypes.pythonapi.PyMemoryView_FromMemory
_memory.argtypes = [ctypes.c_void_p, ctypes.c_ssize_t, ctypes.c_int]
_memory.restype = ctypes.py_object


@functools.cache
def _library() -> ctypes.CDLL:
    library = ctypes.CDLL("libgstreamer-1.0.so.0")
    library.gst_buffer_map.argtypes = [ctypes.c_void_p, ctypes.POINTER(_MapInfo), ctypes.c_int]
    library.gst_buffer_map.restype = ctypes.c_int
    library.gst_buffer_unmap.argtypes = [ctypes.c_void_p, ctypes.POINTER(_MapInfo)]
    library.gst_buffer_unmap.restype = None
    return library


@contextlib.contextmanager
def mapped(buffer: Any, *, write: bool = False) -> Iterator[NDArray[np.uint8]]:
    """The bytes of a Gst.Buffer as a flat uint8 array, without a copy; valid inside the block only.

    PyGObject's own maps copy on GStreamer 1.16 and without its overrides; C's work the same everywhere.

    Args:
        buffer: the buffer; PyGObject's hash of a boxed value is its address.
        write: whether the array may be written, which the buffer must allow.

    Raises:
        EngineError: when the buffer is empty or cannot be mapped so.
    """
    library, info, address = _library(), _MapInfo(), hash(buffer)
    if not library.gst_buffer_map(address, ctypes.byref(info), _READ | (_WRITE if write else 0)):
        raise EngineError(f"GStreamer cannot map the buffer for {'writing' if write else 'reading'}")
    try:
        if not info.size:
            raise EngineError("the buffer is empty")
        # A tenth of the time that numpy.ctypeslib.as_array takes; the array is read-only where the memory is.
        yield np.frombuffer(_memory(info.data, info.size, _PY_WRITE if write else _PY_READ), np.uint8)
    finally:
        library.gst_buffer_unmap(address, ctypes.byref(info))
