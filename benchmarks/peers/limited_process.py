"""A program in a child process, within limits of time and memory, and what it took."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Limits", "Outcome", "run_limited"]

_INTERVAL = 0.05  # seconds between two looks at the memory; a process fills less than 1 GB in that time


@dataclass(frozen=True)
class Limits:
    """What a child process may take: wall time in seconds, memory in GB of 10^9 bytes."""

    seconds: float
    gigabytes: float


@dataclass(frozen=True)
class Outcome:
    """What a child process did.

    Attributes:
        problem: empty when it ended well; otherwise what ended it, for a person.
        seconds: wall time, start and imports included.
        cpu_seconds: processor time of it and its children.
        peak_mb: largest resident memory of it and its children together, in MB of 10^6 bytes, by looking 20 times a
            second; that of each process alone is exact up to the last look.
        stdout, stderr: what it printed.
    """

    problem: str
    seconds: float
    cpu_seconds: float
    peak_mb: float
    stdout: str
    stderr: str


def run_limited(command: Sequence[str], limits: Limits, environment: Mapping[str, str] | None = None) -> Outcome:
    """Run a program to its end or to its limit.

    Args:
        command: the program and its arguments.
        limits: beyond them the program and its children are killed.
        environment: variables to set besides those of this process.
    """
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        start = time.perf_counter()
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            env={**os.environ, **(environment or {})},
            start_new_session=True,
        )
        peak, problem = 0.0, ""
        while True:
            done, status, usage = os.wait4(child.pid, os.WNOHANG)
            if done:
                break
            # Not ru_maxrss: Linux counts in it what the process had of its parent's memory before it became itself.
            members = list(_tree(child.pid))
            peak = max(peak, sum(_memory(p, "VmRSS") for p in members), *(_memory(p, "VmHWM") for p in members))
            problem = problem or _beyond(limits, time.perf_counter() - start, peak)
            if problem:
                os.killpg(child.pid, signal.SIGKILL)
            time.sleep(_INTERVAL)
        seconds = time.perf_counter() - start
        child.returncode = os.waitstatus_to_exitcode(status)
        texts = []
        for stream in (out, err):
            stream.seek(0)
            texts.append(stream.read().decode("utf-8", "replace"))
    if child.returncode and not problem:
        problem = f"failed: {_last_line(texts[1]) or f'exit status {child.returncode}'}"
    cpu = usage.ru_utime + usage.ru_stime
    return Outcome(problem, round(seconds, 3), round(cpu, 3), round(peak / 1e6, 1), *texts)


def _beyond(limits: Limits, seconds: float, resident: float) -> str:
    if resident > limits.gigabytes * 1e9:
        return f"more than {limits.gigabytes:g} GB of memory"
    return f"not done after {limits.seconds:g} s" if seconds > limits.seconds else ""


def _tree(process: int) -> Iterator[int]:
    """A process and all that it started, as Linux tells it."""
    yield process
    for children in Path(f"/proc/{process}/task").glob("*/children"):
        try:
            found = children.read_text("ascii").split()
        except OSError:  # it has just ended
            continue
        for child in found:
            yield from _tree(int(child))


def _memory(process: int, key: str) -> int:
    """Resident memory in bytes, now (VmRSS) or at its largest (VmHWM); 0 for a process that has just ended."""
    try:
        lines = Path(f"/proc/{process}/status").read_text("ascii", "replace").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{key}:")), 0)


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:200] if lines else ""
