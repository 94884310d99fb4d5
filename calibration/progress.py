"""How a long step tells what it has done: a protocol that the command line draws as bars and a library user ignores."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

__all__ = ["Progress", "SilentProgress"]


class Progress(Protocol):
    """Watches the steps of a long task."""

    def step(self, title: str, total: int | None) -> AbstractContextManager[Callable[[int], None]]:
        """Open a step; inside, call the value with the number of units just done.

        Args:
            title: what is done, in a few words ("calibrate").
            total: number of units, or None where it is not known before the end.
        """
        ...


class SilentProgress:
    """Progress that shows nothing."""

    @contextmanager
    def step(self, title: str, total: int | None) -> Iterator[Callable[[int], None]]:
        """Open a step that nobody watches."""
        yield lambda units: None
