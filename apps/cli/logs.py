"""Log records on stderr while a command runs."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from edgeseg.environment import read_environment

__all__ = ["logs_on_stderr"]


class _StderrHandler(logging.Handler):
    """Writes to what `sys.stderr` is at that moment: a live progress bar puts itself in its place."""

    def emit(self, record: logging.LogRecord) -> None:
        stream: TextIO = sys.stderr
        stream.write(f"edgeseg: {record.levelname.lower()}: {self.format(record)}\n")
        stream.flush()


@contextmanager
def logs_on_stderr(verbose: int, quiet: bool) -> Iterator[None]:
    """Show the package's log records, of a level that the options decide, then EDGESEG_LOG_LEVEL, then WARNING."""
    logger = logging.getLogger("edgeseg")
    before = logger.level
    handler = _StderrHandler()
    logger.addHandler(handler)
    logger.setLevel(_level(verbose, quiet))
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)


def _level(verbose: int, quiet: bool) -> int | str:
    if quiet:
        return logging.ERROR
    if verbose:
        return logging.INFO if verbose == 1 else logging.DEBUG
    return read_environment().log_level.upper()
