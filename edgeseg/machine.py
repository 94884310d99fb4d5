"""What this machine is, as far as an engine compiled or timed on it depends on it."""

from __future__ import annotations

import hashlib
import os
import platform
from functools import lru_cache
from pathlib import Path

__all__ = ["machine_key", "usable_processors"]

_PROCESSOR_FIELDS = ("model name", "flags", "Features", "CPU implementer", "CPU part")


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
