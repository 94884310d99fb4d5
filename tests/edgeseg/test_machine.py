"""What the process may use, and what it gives back."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest

from edgeseg.machine import return_freed_memory


def resident() -> int:
    """Pages in memory."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1])


def test_freed_memory_goes_back() -> None:
    if not hasattr(ctypes.CDLL(None), "malloc_trim"):
        pytest.skip("this C library gives memory back by itself")
    return_freed_memory()
    before = resident()
    # Pieces too small to be mapped each by itself; every hundredth keeps the rest from going back alone.
    pieces = [np.ones(1000) for _ in range(20_000)]
    kept = pieces[::100]
    pieces.clear()
    held = resident()
    return_freed_memory()
    assert len(kept) == 200
    assert resident() - before < (held - before) / 4
