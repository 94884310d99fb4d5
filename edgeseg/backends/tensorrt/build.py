"""Builds an engine in a child process, proves that it is INT8, and records what it is."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import IO

from edgeseg import errors
from edgeseg.backends.tensorrt.board import Board, default_workspace, memory_advice, read_board
from edgeseg.backends.tensorrt.child import Defect, Done, Failure, LogLine, Request
from edgeseg.backends.tensorrt.layers import EngineLayer, count_precisions
from edgeseg.backends.tensorrt.options import BuildOptions, BuildProgress, BuildRecord
from edgeseg.backends.tensorrt.proof import Proof, prove_int8
from edgeseg.backends.tensorrt.versions.library import LIBRARIES
from edgeseg.engine_cache import write_atomically
from edgeseg.errors import EngineError, InputError

__all__ = ["Build", "build"]

_log = logging.getLogger(__name__)

_START = (
    "import sys; sys.path[:] = sys.argv[2:]; from edgeseg.backends.tensorrt.child import main; main(int(sys.argv[1]))"
)
"""The child finds the modules that its parent has, and does not run the parent's program again, as `spawn` would."""

_LEVELS = {"error": logging.INFO, "warning": logging.WARNING, "info": logging.DEBUG}
"""Errors reach the user in the one line of the exception that follows them."""

_TAIL = 2000


@dataclass(frozen=True)
class Build:
    """An engine that was built.

    Attributes:
        plan: TensorRT's serialised engine, as trtexec writes it.
        record: what belongs beside it.
        layers: of the engine.
        proof: of INT8; None for a build without INT8.
    """

    plan: bytes
    record: BuildRecord
    layers: tuple[EngineLayer, ...]
    proof: Proof | None


def build(
    graph: bytes,
    options: BuildOptions | None = None,
    *,
    promised: Sequence[str] = (),
    on_progress: Callable[[BuildProgress], None] | None = None,
    board: Board | None = None,
) -> Build:
    """Build an engine; a crash of TensorRT ends the child process and not this one.

    Args:
        graph: a serialised ONNX model in the form that the library takes.
        options: how; None for the defaults.
        promised: names of the layers that must be INT8 (see `promised_layers`), where the options ask for INT8.
        on_progress: is told how far the build is; what it raises ends the build.
        board: this machine; None reads it.

    Raises:
        UsageError: for options that the version or the board does not have.
        MissingDependencyError: when the library is not installed.
        InputError: for a timing cache that cannot be read.
        EngineError: when the graph does not build or crashes the builder, or the engine is not INT8 as promised.
    """
    options = options or BuildOptions()
    board = board or read_board()
    if advice := memory_advice(board):
        _log.warning("%s", advice)
    workspace = default_workspace(board) if options.workspace_mb is None else options.workspace_mb
    started = time.perf_counter()
    request = Request(graph, options, workspace, _read_timings(options.timing_cache), os.getpid())
    done = _run(request, board, on_progress)
    seconds = time.perf_counter() - started
    construction = done.construction
    if options.timing_cache is not None and construction.timings is not None:
        _keep_timings(options.timing_cache, construction.timings)
    proof = prove_int8(construction.layers, promised) if options.int8 else None
    record = _record(request, done, board, proof, promised, seconds)
    return Build(construction.plan, record, construction.layers, proof)


def _run(request: Request, board: Board, on_progress: Callable[[BuildProgress], None] | None) -> Done:
    """Start the child, hand on what it says, and end it whatever happens, Ctrl-C too."""
    ours, theirs = Pipe()
    with tempfile.TemporaryFile() as output, ours:
        with theirs:
            process = _start(theirs, output)
        try:
            return _listen(ours, process, request, board, on_progress, output)
        finally:
            process.kill()
            process.wait()


def _start(theirs: Connection, output: IO[bytes]) -> subprocess.Popen[bytes]:
    python = sys.executable or shutil.which("python3") or "python3"
    try:
        # In a session of its own the child gets no Ctrl-C of the terminal's: its parent ends it.
        return subprocess.Popen(
            [python, "-c", _START, str(theirs.fileno()), *map(str, sys.path)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=(theirs.fileno(),),
            start_new_session=True,
        )
    except OSError as error:
        raise EngineError(f"cannot start {python} to build the engine in: {error.strerror}") from error


def _listen(
    ours: Connection,
    process: subprocess.Popen[bytes],
    request: Request,
    board: Board,
    on_progress: Callable[[BuildProgress], None] | None,
    output: IO[bytes],
) -> Done:
    phase = "starting"
    with contextlib.suppress(ConnectionError):  # of a child that ended already: its end is read below
        ours.send(request)
    while True:
        message = _receive(ours)
        if isinstance(message, BuildProgress):
            phase = message.phase
            if on_progress is not None:
                on_progress(message)
        elif isinstance(message, LogLine):
            _log.log(_LEVELS[message.level], "%s", message.text)
        elif isinstance(message, Done):
            return message
        elif message is None:
            raise _death(request.options, process.wait(), phase, output, board)
        else:
            raise _raised(message)


def _receive(ours: Connection) -> object:
    """The child's next message; None where it ended, be it in the middle of one."""
    try:
        return ours.recv()
    except (EOFError, OSError):
        return None


def _raised(message: object) -> Exception:
    """The child's error, as it was there."""
    if isinstance(message, Failure):
        kind: type[Exception] = getattr(errors, message.kind)
        error = kind.__new__(kind, message.message)
        vars(error).update(message.attributes)
        return error
    assert isinstance(message, Defect)
    return RuntimeError(f"the build process failed:\n{message.traceback}")


def _death(options: BuildOptions, code: int, phase: str, output: IO[bytes], board: Board) -> EngineError:
    """One line for a child that ended without an answer."""
    name = LIBRARIES[options.chosen_library]
    if code == -signal.SIGKILL:
        return EngineError(
            f"the system killed {name}'s builder in {phase!r}, most likely for want of memory ({board.free_mb} of "
            f"{board.memory_mb} MB were free); close other programs, lower --workspace and --optimization-level"
        )
    if code < 0:
        return EngineError(
            f"{name}'s builder crashed ({signal.Signals(-code).name}) in {phase!r}: some graphs do that, such as one "
            "whose Q/DQ scales are computed at run time; find the cause with: edgeseg lint"
        )
    output.seek(max(0, output.seek(0, os.SEEK_END) - _TAIL))
    lines = output.read().decode("utf-8", "replace").split("\n")
    last = next((line.strip() for line in reversed(lines) if line.strip()), "it says nothing")
    return EngineError(f"{name}'s builder ended with status {code} in {phase!r}: {last}")


def _read_timings(path: Path | None) -> bytes | None:
    if path is None:
        return None
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise InputError(f"cannot read the timing cache {path}: {error.strerror}; give another file") from error


def _keep_timings(path: Path, content: bytes) -> None:
    try:
        write_atomically(path, content)
    except OSError as error:
        _log.warning("the timing cache %s cannot be written: %s; the next build measures again", path, error)


def _record(
    request: Request, done: Done, board: Board, proof: Proof | None, promised: Sequence[str], seconds: float
) -> BuildRecord:
    options, construction, device = request.options, done.construction, done.device
    roles = [layer.role for layer in construction.layers]
    compute = [layer for layer in construction.layers if layer.role in ("convolution", "deconvolution", "matmul")]
    return BuildRecord(
        library=options.chosen_library,
        version=done.version,
        target=options.target,
        graph_digest=hashlib.sha256(request.graph).hexdigest(),
        plan_digest=hashlib.sha256(construction.plan).hexdigest(),
        plan_bytes=len(construction.plan),
        strongly_typed=construction.strongly_typed,
        int8=options.int8,
        fp16=options.fp16 and not construction.strongly_typed,
        batch=options.batch,
        workspace_mb=request.workspace_mb,
        dla_core=options.dla_core,
        device=device.name if device else None,
        compute_capability=device.capability_text if device else None,
        driver=device.driver if device else None,
        built_for=construction.built_for,
        board=board.model,
        l4t=board.l4t,
        power_mode=board.power_mode,
        precisions=count_precisions(construction.layers),
        convolutions=count_precisions(compute),
        reformats=roles.count("reformat"),
        requantizes=roles.count("requantize"),
        promised_int8=len(promised),
        proven_int8=len(proof.int8) + len(proof.on_dla) if proof else 0,
        seconds=round(seconds, 3),
        peak_memory_mb=done.peak_memory_mb,
    )
