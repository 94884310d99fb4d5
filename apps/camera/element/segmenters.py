"""One segmenter for all elements of a process that have the same bundle, backend and threads."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path

import edgeseg

__all__ = ["SegmenterKey", "SharedSegmenters", "shared"]


@dataclass(frozen=True)
class SegmenterKey:
    """What two elements must have in common to share an engine.

    Attributes:
        bundle: the folder, resolved.
        backend: as `edgeseg.load` takes it.
        threads: None for all.
    """

    bundle: Path
    backend: str
    threads: int | None


class SharedSegmenters:
    """Loads on first use and closes after the last; safe to call from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: dict[SegmenterKey, tuple[edgeseg.Segmenter, int]] = {}

    def __len__(self) -> int:
        return len(self._open)

    def acquire(self, key: SegmenterKey) -> edgeseg.Segmenter:
        """The segmenter of a key; each call wants one `release`.

        Raises:
            EdgesegError: as `edgeseg.load` does.
        """
        with self._lock:
            found = self._open.get(key)
            segmenter = (
                edgeseg.load(key.bundle, backend=key.backend, threads=key.threads) if found is None else found[0]
            )
            self._open[key] = (segmenter, 1 if found is None else found[1] + 1)
            return segmenter

    def release(self, key: SegmenterKey) -> None:
        """Give back what `acquire` gave."""
        with self._lock:
            segmenter, users = self._open.pop(key)
            if users > 1:
                self._open[key] = (segmenter, users - 1)
                return
        segmenter.close()


shared = SharedSegmenters()
"""Those of this process."""
