"""Progress bars on stderr, one for each step."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from edgeseg.calibration.progress import Progress, SilentProgress

__all__ = ["RichProgress", "progress_for"]

logger = logging.getLogger(__name__)


class RichProgress:
    """Draws a bar, a count and the remaining time for the open step; leaves one line with the time that it took."""

    @contextmanager
    def step(self, title: str, total: int | None) -> Iterator[Callable[[int], None]]:
        """Open a step; the bar is taken away cleanly when the step fails or is interrupted."""
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        columns = [TextColumn("{task.description:<24}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()]
        if total is not None:
            columns.append(TimeRemainingColumn())
        # stdout stays untouched: it carries results, maybe into a pipe.
        with Bar(*columns, console=Console(stderr=True), redirect_stdout=False) as bar:
            task = bar.add_task(title, total=total)
            yield lambda units: bar.advance(task, units)
            if total is None:
                done = bar.tasks[0].completed
                bar.update(task, total=done, completed=done)


def progress_for(quiet: bool) -> Progress:
    """Bars where a person sees them: nothing with --quiet or where stderr is no terminal."""
    if quiet or not sys.stderr.isatty():
        return SilentProgress()
    try:
        import rich.progress  # noqa: F401  (asked here, so that no step fails in its middle)
    except ImportError:
        logger.warning("no progress is shown, because rich is not installed; run: pip install rich")
        return SilentProgress()
    return RichProgress()
