from __future__ import annotations

import sys
import urllib.request
from pathlib import Path

import numpy as np
import pytest

from edgeseg.apps.camera.metrics import LIMITS_MS, MetricsServer, parse_address
from edgeseg.apps.camera.pace import NetworkChoice
from edgeseg.apps.camera.results import CameraFrame, CameraResult
from edgeseg.apps.camera.statistics import Board, Histogram, StreamStatistics, log_line
from edgeseg.errors import MissingDependencyError, OutputError, UsageError
from edgeseg.labels import LabelSet
from edgeseg.power import Rail, Sensors, Zone
from edgeseg.segmentation import Segmentation, Timing


def result(latency: float, infer: float = 10.0) -> CameraResult:
    frame = CameraFrame(np.zeros((2, 2, 3), np.uint8), 0, 100.0)
    timing = Timing(0.0, 1.0, infer, 2.0, infer + 3.0)
    class_map = np.zeros((2, 2), np.uint8)
    return CameraResult(frame, Segmentation(class_map, LabelSet.numbered(2), timing), 100.0 + latency / 1e3)


@pytest.fixture
def board(tmp_path: Path) -> Board:
    (tmp_path / "watts").write_text("4200000")
    (tmp_path / "degrees").write_text("51500")
    return Board(Sensors((Rail("VDD_IN", (tmp_path / "watts",), 1e-6),), (Zone("CPU", tmp_path / "degrees"),)))


class TestHistogram:
    def test_quantiles_against_numpy(self) -> None:
        values = np.random.default_rng(0).lognormal(3.0, 0.8, 5000)
        histogram = Histogram()
        for value in values:
            histogram.add(float(value))
        for share in (0.01, 0.5, 0.95, 0.99):
            assert histogram.quantile(share) == pytest.approx(np.quantile(values, share), rel=0.03)
        assert histogram.summary()["mean"] == pytest.approx(values.mean())
        assert histogram.most == values.max()
        assert histogram.below(50.0) == pytest.approx((values <= 50).sum(), rel=0.05)

    def test_of_nothing(self) -> None:
        assert Histogram().summary() == {"mean": None, "p50": None, "p95": None, "p99": None, "max": None}

    def test_of_extremes(self) -> None:
        histogram = Histogram()
        for value in (0.0, 1e-9, 1e9):
            histogram.add(value)
        assert histogram.quantile(0.5) is not None
        assert histogram.below(1e12) == 3


class TestStream:
    def test_counts_and_stages(self) -> None:
        statistics = StreamStatistics("0")
        statistics.arrived(1, 2, 1)
        statistics.dropped()
        statistics.skipped()
        statistics.reconnected()
        statistics.segmented(result(40.0))
        found = statistics.snapshot()
        counts = {key: found[key] for key in ("captured", "segmented", "dropped", "skipped", "broken", "reconnects")}
        assert list(counts.values()) == [4, 1, 3, 1, 1, 1]
        stages = {stage: values["max"] for stage, values in found["latency_ms"].items()}
        assert stages == pytest.approx({"wait": 27, "preprocess": 1, "infer": 10, "postprocess": 2, "total": 40})

    def test_recent_begins_anew(self) -> None:
        statistics = StreamStatistics("0")
        statistics.segmented(result(40.0))
        assert statistics.recent()["segmented"] == 1
        again = statistics.recent()
        assert (again["segmented"], again["latency_ms"]["p50"]) == (0, None)

    def test_log_line(self, board: Board) -> None:
        statistics = StreamStatistics("0")
        statistics.arrived(1, 2, 0)
        statistics.segmented(result(40.0))
        recent = {**statistics.recent(), "fps": 12.34}
        assert log_line("0", recent, board.read()) == (
            "stream 0: 12.3 frames/s, latency 39 ms, p99 39, 2 dropped, 4.2 W, 52 C"
        )


class TestBoard:
    def test_without_sensors(self) -> None:
        assert Board(None).read() == {}

    def test_leaves_out_what_cannot_be_read(self, board: Board, tmp_path: Path) -> None:
        (tmp_path / "degrees").unlink()
        assert board.read() == {"watts": pytest.approx(4.2), "celsius": {}}


class TestMetrics:
    def test_serves_prometheus_text(self, board: Board) -> None:
        pytest.importorskip("prometheus_client")
        statistics = StreamStatistics("0")
        statistics.arrived(3, 2, 0)
        for latency in (8.0, 40.0, 400.0):
            statistics.segmented(result(latency, infer=4.0))
        server = MetricsServer("127.0.0.1:0", {"0": statistics}, board)
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/metrics") as answer:
                text = answer.read().decode()
        finally:
            server.close()
        lines = text.splitlines()
        assert 'edgeseg_frames_captured_total{stream="0"} 5.0' in lines
        assert 'edgeseg_frames_dropped_total{stream="0"} 2.0' in lines
        assert 'edgeseg_latency_seconds_bucket{le="0.05",stage="total",stream="0"} 2.0' in lines
        assert 'edgeseg_latency_seconds_bucket{le="+Inf",stage="total",stream="0"} 3.0' in lines
        assert 'edgeseg_temperature_celsius{zone="CPU"} 51.5' in lines
        assert "edgeseg_power_watts 4.2" in lines
        assert text.count('stage="infer"') == len(LIMITS_MS) + 3
        assert "edgeseg_network" not in text, "one network is no choice"
        assert "python_gc" not in text, "its registry holds nothing else"

    def test_each_stream_has_its_own_and_the_networks_are_told(self) -> None:
        pytest.importorskip("prometheus_client")
        streams = {name: StreamStatistics(name) for name in "01"}
        for name, count in (("0", 3), ("1", 5)):
            streams[name].arrived(count, 0, 0)
            streams[name].segmented(result(40.0 if name == "0" else 400.0))
        choice = NetworkChoice(["32x48", "16x24"], 10.0)
        for _ in range(10):
            choice.done(result(40.0))
        server = MetricsServer("127.0.0.1:0", streams, Board(None), choice)
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/metrics") as answer:
                lines = answer.read().decode().splitlines()
        finally:
            server.close()
        for name, count, below in (("0", 3, 1), ("1", 5, 0)):
            assert f'edgeseg_frames_captured_total{{stream="{name}"}} {count}.0' in lines
            assert f'edgeseg_latency_seconds_bucket{{le="0.1",stage="total",stream="{name}"}} {below}.0' in lines
        assert "edgeseg_network_level 1.0" in lines
        assert "edgeseg_network_switches_total 1.0" in lines

    def test_port_that_is_taken(self) -> None:
        pytest.importorskip("prometheus_client")
        first = MetricsServer(":0", {}, Board(None))
        try:
            with pytest.raises(OutputError, match=rf"cannot serve --metrics at 127.0.0.1:{first.port}: .*in use"):
                MetricsServer(f":{first.port}", {}, Board(None))
        finally:
            first.close()

    def test_missing_library(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "prometheus_client", None)
        with pytest.raises(MissingDependencyError, match=r"run: pip install 'edgeseg\[camera\]'"):
            MetricsServer(":0", {}, Board(None))

    @pytest.mark.parametrize(
        ("text", "address"),
        [(":9090", ("127.0.0.1", 9090)), ("9090", ("127.0.0.1", 9090)), ("0.0.0.0:80", ("0.0.0.0", 80))],
    )
    def test_address(self, text: str, address: tuple[str, int]) -> None:
        assert parse_address(text) == address

    @pytest.mark.parametrize("text", ["", "x", ":99999", "a:b"])
    def test_no_address(self, text: str) -> None:
        with pytest.raises(UsageError, match="--metrics is :PORT"):
            parse_address(text)
