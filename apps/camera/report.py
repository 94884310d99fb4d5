"""The statistics of an application as log lines, JSON lines, Prometheus metrics, and its summary at the end."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from edgeseg.apps.camera.live import Live
from edgeseg.apps.camera.metrics import MetricsServer
from edgeseg.apps.camera.statistics import Board, log_line
from edgeseg.apps.writers import output_errors
from edgeseg.errors import EdgesegError, OutputError

__all__ = ["Report"]


class Report:
    """Tells what happens, each second.

    Args:
        live: the application.
        stats: file for JSON lines, or None; it is appended to.
        metrics: address for Prometheus, or None.
        quiet: no line on stderr.

    Raises:
        OutputError: for a file or port that cannot be had.
        MissingDependencyError: for metrics without prometheus_client.
    """

    def __init__(self, live: Live, stats: Path | None, metrics: str | None, *, quiet: bool = False) -> None:
        self._live, self._stats, self._quiet = live, stats, quiet
        self._board = Board.find()
        self._began = time.monotonic()
        self._seconds = 0.0
        self._file: IO[str] | None = None
        if stats is not None:
            with output_errors(stats):
                self._file = stats.open("a", encoding="utf-8")
        # One network alone is no choice, and is not told about.
        self._network = live.network if len(live.network.names) > 1 else None
        self._server = None
        if metrics is not None:
            self._server = MetricsServer(metrics, live.statistics, self._board, self._network)

    def __enter__(self) -> Report:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.finish()

    def tick(self) -> None:
        """Tell about the time since the last call."""
        board = self._board.read()
        recent = {name: statistics.recent() for name, statistics in self._live.statistics.items()}
        if not self._quiet:
            for name, values in recent.items():
                _say(log_line(name, values, board))
        self._write({"time": time.time(), "streams": recent, **self._chosen(), **board})

    def finish(self) -> None:
        """Close file and port; a second call does nothing."""
        if self._file is not None:
            self._file.close()
            self._file = None
        if self._server is not None:
            self._server.close()
            self._server = None
        self._seconds = self._seconds or time.monotonic() - self._began

    def summary(self) -> dict[str, Any]:
        """Everything since the start."""
        streams = {name: statistics.snapshot() for name, statistics in self._live.statistics.items()}
        errors = [str(error) for error in self._live.sink_errors]
        seconds = self._seconds or time.monotonic() - self._began
        return {"seconds": seconds, "streams": streams, **self._chosen(), "sink_errors": errors}

    def text(self) -> str:
        """The summary for people, one line a stream, and one about the networks where there are several."""
        found = self.summary()
        lines = []
        for name, values in found["streams"].items():
            latency = values["latency_ms"]["total"]
            rest = ", ".join(
                f"{values[key]} {key}" for key in ("dropped", "skipped", "broken", "reconnects") if values[key]
            )
            times = f", latency p50 {latency['p50']:.0f} ms, p99 {latency['p99']:.0f} ms" if latency["p50"] else ""
            lines.append(
                f"stream {name}: {values['segmented']} of {values['captured']} frames in {found['seconds']:.1f} s, "
                f"{values['segmented'] / found['seconds']:.1f} frames/s{times}{', ' + rest if rest else ''}"
            )
        if self._network is not None:
            counts = self._network.snapshot()["segmented"]
            lines.append(f"networks: {', '.join(f'{name} {count} frames' for name, count in counts.items())}")
        return "\n".join(lines)

    def _chosen(self) -> dict[str, Any]:
        """Which network segments, where there are several."""
        return {} if self._network is None else {"network": self._network.snapshot()}

    def _write(self, line: dict[str, Any]) -> None:
        """Append a line; a disk that is full ends this file, not the application."""
        if self._file is None or self._stats is None:
            return
        try:
            with output_errors(self._stats):
                self._file.write(json.dumps(line) + "\n")
                self._file.flush()
        except EdgesegError as error:
            self._file = None
            failed = OutputError(f"{error} (--stats stops)")
            self._live.sink_errors.append(failed)
            _say(f"error: {failed}")


def _say(text: str) -> None:
    """A line on stderr, which a program that was started without one does not miss."""
    if sys.stderr is not None:
        sys.stderr.write(f"edgeseg: {text}\n")
        sys.stderr.flush()
