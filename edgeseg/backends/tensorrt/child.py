"""The child process of a build: everything that can crash, behind one pipe."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import resource
import signal
import sys
import threading
import traceback
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from edgeseg.backends.tensorrt.board import Device, find_device
from edgeseg.backends.tensorrt.construct import Construction, construct
from edgeseg.backends.tensorrt.logger import BuildLog
from edgeseg.backends.tensorrt.options import BuildOptions, BuildProgress
from edgeseg.backends.tensorrt.versions.library import load_library
from edgeseg.errors import EdgesegError

__all__ = ["Defect", "Done", "Failure", "LogLine", "Request", "main"]

_DIE_WITH_PARENT = 1
"""PR_SET_PDEATHSIG of prctl(2)."""


@dataclass(frozen=True)
class Request:
    """What to build; see `construct`. `parent` is the process that asks."""

    graph: bytes
    options: BuildOptions
    workspace_mb: int | None
    timings: bytes | None
    parent: int


@dataclass(frozen=True)
class LogLine:
    """One message of TensorRT's: level as logging spells it, text."""

    level: str
    text: str


@dataclass(frozen=True)
class Failure:
    """An error of edgeseg's tree: its class, its message, its attributes."""

    kind: str
    message: str
    attributes: dict[str, Any]


@dataclass(frozen=True)
class Defect:
    """An error outside the tree, which is a bug: its traceback."""

    traceback: str


@dataclass(frozen=True)
class Done:
    """A build: what was made, the library's version, the GPU, and the most memory that this process had, in MB."""

    construction: Construction
    version: str
    device: Device | None
    peak_memory_mb: int


class _Pipe:
    """Sends messages from any thread: TensorRT calls back from those of its builder."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._lock = threading.Lock()

    def send(self, message: object) -> None:
        with self._lock:
            self._connection.send(message)


def main(descriptor: int) -> None:
    """Take a Request from a pipe, answer with BuildProgress and LogLine, and end with Done, Failure or Defect."""
    connection = Connection(descriptor)
    request: Request = connection.recv()
    _die_with(request.parent)
    pipe = _Pipe(connection)
    try:
        answer: object = _answer(request, pipe)
    except EdgesegError as error:
        answer = Failure(type(error).__name__, str(error), dict(vars(error)))
    except MemoryError:
        answer = Failure(
            "EngineError",
            "there is not enough memory to build the engine; close other programs, or lower --workspace",
            {},
        )
    except Exception:  # a bug: the parent raises it
        answer = Defect(traceback.format_exc())
    pipe.send(answer)
    sys.stdout.flush()
    sys.stderr.flush()
    # Libraries of CUDA crash now and then while a process ends; the answer is sent, so nothing is left to end.
    os._exit(0)


def _answer(request: Request, pipe: _Pipe) -> Done:
    library = load_library(request.options.chosen_library)
    device = find_device()

    def forward(level: str, text: str) -> None:
        pipe.send(LogLine(level, text))

    def report(progress: BuildProgress) -> None:
        pipe.send(progress)

    construction = construct(
        library,
        request.graph,
        request.options,
        workspace_mb=request.workspace_mb,
        timings=request.timings,
        device=device,
        log=BuildLog(forward, keep_noise=library.name == "tensorrt"),
        on_progress=report,
    )
    return Done(construction, library.version_text, device, _peak_memory())


def _peak_memory() -> int:
    """Most memory of this process so far, in MB.

    On Linux from its status: what getrusage says starts at the memory of the parent, which exec does not forget.
    """
    with contextlib.suppress(OSError):
        found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text("ascii"))
        if found:
            return int(found.group(1)) // 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def _die_with(parent: int) -> None:
    """End when the parent ends, however it does: a build of many minutes must not go on for nobody."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
