"""The statistics where Prometheus collects them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from edgeseg.apps.camera.pace import NetworkChoice
from edgeseg.apps.camera.statistics import Board, StreamStatistics
from edgeseg.errors import MissingDependencyError, OutputError, UsageError

__all__ = ["MetricsServer", "parse_address"]

_LOOPBACK = "127.0.0.1"
LIMITS_MS = (5.0, 10.0, 20.0, 33.0, 50.0, 67.0, 100.0, 150.0, 200.0, 300.0, 500.0, 1000.0, 2000.0, 5000.0)
"""Bounds of the exported histograms' buckets."""

_COUNTERS = {
    "captured": "frames that the source gave",
    "segmented": "frames that have a class map",
    "dropped": "frames that gave way to a newer one",
    "skipped": "frames left out by --max-latency or --every-n",
    "broken": "frames that could not be read",
}


def parse_address(text: str) -> tuple[str, int]:
    """Host and port of ":9090" (this machine only), "9090" or "0.0.0.0:9090".

    Raises:
        UsageError: for anything else.
    """
    found = re.fullmatch(r"(?:([\w.\-]*|\[[0-9a-fA-F:]+\]):)?(\d{1,5})", text)
    if found is None or not 0 <= int(found[2]) < 65536:
        raise UsageError(f"--metrics is :PORT for this machine only or HOST:PORT, such as :9090, but is {text!r}")
    return (found[1] or _LOOPBACK).strip("[]"), int(found[2])


class _Collector:
    """Makes Prometheus' metrics of the statistics when they are asked for."""

    def __init__(self, statistics: Mapping[str, StreamStatistics], board: Board, network: NetworkChoice | None) -> None:
        self._statistics, self._board, self._network = statistics, board, network

    def collect(self) -> Iterator[Any]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

        snapshots = {name: statistics.snapshot() for name, statistics in self._statistics.items()}
        for key, words in _COUNTERS.items():
            counter = CounterMetricFamily(f"edgeseg_frames_{key}", words, labels=["stream"])
            for name, snapshot in snapshots.items():
                counter.add_metric([name], snapshot[key])
            yield counter
        reconnects = CounterMetricFamily("edgeseg_reconnects", "times that the source came back", labels=["stream"])
        for name, snapshot in snapshots.items():
            reconnects.add_metric([name], snapshot["reconnects"])
        yield reconnects
        latency = HistogramMetricFamily(
            "edgeseg_latency_seconds", "time by stage; total is from capture to class map", labels=["stream", "stage"]
        )
        for name, statistics in self._statistics.items():
            for stage, (counts, total) in statistics.histograms(LIMITS_MS).items():
                bounds = [*(f"{limit / 1000:g}" for limit in LIMITS_MS), "+Inf"]
                latency.add_metric([name, stage], list(zip(bounds, counts, strict=True)), total / 1000)
        yield latency
        if self._network is not None:
            found = self._network.snapshot()
            words = "which network segments; 0 is the first, larger numbers are smaller networks"
            yield GaugeMetricFamily("edgeseg_network_level", words, value=found["level"])
            words = "times that another network took over"
            yield CounterMetricFamily("edgeseg_network_switches", words, value=found["switches"])
        values = self._board.read()
        if values.get("watts") is not None:
            yield GaugeMetricFamily("edgeseg_power_watts", "what the board draws", value=values["watts"])
        if values.get("celsius"):
            degrees = GaugeMetricFamily("edgeseg_temperature_celsius", "by thermal zone", labels=["zone"])
            for zone, value in values["celsius"].items():
                degrees.add_metric([zone], value)
            yield degrees


class MetricsServer:
    """Serves /metrics until `close`.

    Args:
        address: see `parse_address`; port 0 takes a free one.
        statistics: by stream.
        board: temperature and power.
        network: which of several networks segments; None where there is one.

    Raises:
        MissingDependencyError: without prometheus_client.
        OutputError: when the port cannot be had.
    """

    def __init__(
        self,
        address: str,
        statistics: Mapping[str, StreamStatistics],
        board: Board,
        network: NetworkChoice | None = None,
    ) -> None:
        host, port = parse_address(address)
        try:
            from prometheus_client import CollectorRegistry, start_http_server
        except ModuleNotFoundError as error:
            cure = "pip install 'edgeseg[camera]'"
            raise MissingDependencyError("prometheus_client", "serve --metrics", cure) from error
        # A registry of its own: the library's global one would mix in another program's metrics.
        registry = CollectorRegistry()
        registry.register(_Collector(statistics, board, network))
        try:
            self._server, self._thread = start_http_server(port, host, registry)
        except OSError as error:
            raise OutputError(
                f"cannot serve --metrics at {host}:{port}: {error.strerror or error}; choose another port"
            ) from error
        self.port = int(self._server.server_port)

    def close(self) -> None:
        """Free the port."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)
