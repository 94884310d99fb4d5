"""From TensorRT's nested phases to one number that grows."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from edgeseg.backends.tensorrt.options import BuildProgress

__all__ = ["ProgressTree"]

_INTERVAL = 0.05


@dataclass
class _Phase:
    parent: str | None
    steps: int
    done: int = 0
    children: dict[str, float] = field(default_factory=dict)


class ProgressTree:
    """A listener of a build; the builder may call it from several threads, one after the other.

    A phase's share is its steps done, and within the step at hand the mean of the phases begun in it. The outermost
    phase's share never falls, though a phase may turn out longer than it looked.

    Args:
        report: gets the progress, at most twenty times a second; whether it raises decides whether the build goes on.
        clock: seconds, for tests.
    """

    def __init__(self, report: Callable[[BuildProgress], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._report = report
        self._clock = clock
        self._phases: dict[str, _Phase] = {}
        self._share = 0.0
        self._told = float("-inf")
        self._failed = False

    def start(self, phase: str, parent: str | None, steps: int) -> None:
        """A phase begins."""
        self._phases[phase] = _Phase(parent, max(1, steps))
        self._spread(phase)
        self._tell(phase)

    def step(self, phase: str, step: int) -> bool:
        """A step of a phase, from 0, is complete.

        Returns:
            Whether the build is to go on.
        """
        found = self._phases.get(phase)
        if found is not None:
            found.done = min(found.steps, step + 1)
            found.children.clear()
            self._spread(phase)
            self._tell(phase)
        return not self._failed

    def finish(self, phase: str) -> None:
        """A phase ends, complete or not."""
        found = self._phases.get(phase)
        if found is not None:
            found.done = found.steps
            found.children.clear()
            self._spread(phase)
            del self._phases[phase]
            self._tell(phase, at_once=found.parent is None)

    def _spread(self, phase: str) -> None:
        """Bring a phase's share to those around it."""
        found = self._phases[phase]
        inner = sum(found.children.values()) / len(found.children) if found.children else 0.0
        share = min(1.0, (found.done + inner) / found.steps)
        if found.parent is None:
            self._share = max(self._share, share)
        elif found.parent in self._phases:
            self._phases[found.parent].children[phase] = share
            self._spread(found.parent)

    def _tell(self, phase: str, *, at_once: bool = False) -> None:
        now = self._clock()
        if self._failed or (not at_once and now - self._told < _INTERVAL):
            return
        self._told = now
        try:
            self._report(BuildProgress(phase, self._share))
        except Exception:  # the caller is C++: `step` tells it to stop
            self._failed = True
