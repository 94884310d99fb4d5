"""CUDA memory, streams, events, graphs and kernels behind one small interface, whichever Python library is there."""

from __future__ import annotations

from edgeseg.backends.cuda.device import Cuda
from edgeseg.backends.cuda.interface import Argument, DeviceFacts, Grid
from edgeseg.backends.cuda.opening import LIBRARIES, open_cuda
from edgeseg.backends.cuda.resources import Event, Graph, HostBuffer, Kernel, Memory, Module, Stream

__all__ = [
    "LIBRARIES",
    "Argument",
    "Cuda",
    "DeviceFacts",
    "Event",
    "Graph",
    "Grid",
    "HostBuffer",
    "Kernel",
    "Memory",
    "Module",
    "Stream",
    "open_cuda",
]
