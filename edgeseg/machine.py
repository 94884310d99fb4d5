"""What this machine is, as far as an engine compiled or timed on it depends on it."""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
from functools import lru_cache
from pathlib import Path
from typing import Literal

__all__ = ["machine_key", "return_freed_memory", "split_threads", "usable_processors"]

_MOST_RUNS = 8

_PROCESSOR_FIELDS = ("model name", "flags", "Features", "CPU implementer", "CPU part")


def return_freed_memory() -> None:
    """Hand what this process has freed back to the system, where its C library (glibc) keeps it for later.

    For the step before one that takes much in a few large pieces, such as another engine.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if os.name == "posix" else None
    if trim is not None:
        trim(0)


def usable_processors() -> int:
    """Processors that this process may use: its affinity and its container's quota, where the system tells."""
    try:
        count = len(os.sched_getaffinity(0))
    except AttributeError:
        count = os.cpu_count() or 1
    return max(1, min(count, _quota(Path("/sys/fs/cgroup/cpu.max"))))


def _quota(path: Path) -> int:
    """Whole processors of a control group, version 2; a large number where there is no limit."""
    try:
        quota, period = path.read_text("ascii").split()
        return max(1, int(quota) // int(period))
    except (OSError, ValueError):
        return 1 << 20


@lru_cache(maxsize=1)
def machine_key() -> str:
    """A short digest of the processor's kind, its instructions and the number usable."""
    parts = [platform.machine(), platform.system(), str(usable_processors())]
    try:
        text = Path("/proc/cpuinfo").read_text("utf-8", "replace")
        lines = text.partition("\n\n")[0].splitlines()
        parts += [line for line in lines if line.startswith(_PROCESSOR_FIELDS)]
    except OSError:
        parts.append(platform.processor())
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def split_threads(threads: int | None, goal: Literal["latency", "throughput"]) -> tuple[int, int]:
    """Divide CPU threads over runs at once.

    One run after the other uses all threads. For throughput, one thread a run is the best division of few processors,
    since no layer then waits for its slowest part; beyond eight runs their memory costs more than they bring.

    Args:
        threads: threads to use; None for all usable processors.
        goal: "latency" or "throughput".

    Returns:
        The number of runs at once, and the threads of each.
    """
    count = threads or usable_processors()
    runs = 1 if goal == "latency" else min(count, _MOST_RUNS)
    return runs, count // runs
