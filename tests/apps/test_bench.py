from __future__ import annotations

import itertools
import json
import re
import threading
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from support.colours import Run

from edgeseg import Bundle, power
from edgeseg.apps import benchmark
from edgeseg.apps.benchmark import Percentiles, SyntheticFrame, measure, synthetic_frames
from edgeseg.errors import EngineError
from edgeseg.segmentation import Segmentation, Timing


class FakeSegmenter:
    """Counts its frames; every stage has a time of its own."""

    def __init__(self, bundle: Path) -> None:
        self.bundle = Bundle.open(bundle)
        self.single: list[tuple[int, ...]] = []
        self.streamed = 0

    def __call__(self, image: NDArray[np.uint8]) -> Segmentation:
        self.single.append(image.shape)
        return Segmentation(image[:, :, 0], self.bundle.manifest.labels, Timing(0.0, 1.0, 20.0, 3.0, 24.0))

    def stream(self, frames: Any) -> Iterator[Segmentation]:
        for frame in frames:
            self.streamed += 1
            yield self(frame.image)


class FakeEngine:
    def __init__(self, fails: bool = False) -> None:
        self.calls = itertools.count()
        self.shapes: set[tuple[int, ...]] = set()
        self.threads: set[int] = set()
        self.fails = fails

    def infer(self, arrays: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        if self.fails:
            raise EngineError("the engine is closed")
        next(self.calls)
        self.shapes.add(arrays[0].shape)
        self.threads.add(threading.get_ident())
        return []


class TestMeasure:
    def test_both_sides_get_the_same_number_of_frames(self, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(benchmark, "ROUND_SECONDS", 1.0)
        segmenter, engine, told = FakeSegmenter(bundle), FakeEngine(), list[int]()
        measured = measure(segmenter, engine, synthetic_frames(48, 64), 0, threads=2, progress=told.append)  # type: ignore[arg-type]
        assert measured.rounds == 1
        assert measured.frames == measured.bare_frames == 41  # a second of frames of 24 ms
        assert engine.shapes == {(1, 24, 32, 3)}  # brought to the network's size beforehand
        assert set(segmenter.single) == {(48, 64, 3)}  # and not so end to end
        assert measured.fps > 0
        assert measured.bare_fps > 0
        assert sum(told) == 0

    def test_stages_of_single_frames(self, bundle: Path) -> None:
        measured = measure(FakeSegmenter(bundle), FakeEngine(), synthetic_frames(24, 32), 0)  # type: ignore[arg-type]
        assert set(measured.latency) == {24.0}
        assert [set(measured.stages[name]) for name in ("preprocess", "infer", "postprocess")] == [{1.0}, {20.0}, {3.0}]
        assert len(measured.stages["decode"]) == len(measured.latency) == 20

    def test_an_error_of_the_engine_is_raised(self, bundle: Path) -> None:
        with pytest.raises(EngineError, match="the engine is closed"):
            measure(FakeSegmenter(bundle), FakeEngine(fails=True), synthetic_frames(24, 32), 0)  # type: ignore[arg-type]


def test_percentiles() -> None:
    found = Percentiles.of([float(i) for i in range(101)])
    assert (found.p50, found.p95, found.p99, found.mean) == (50.0, 95.0, 99.0, 50.0)


def test_synthetic_frames() -> None:
    frames = list(synthetic_frames(4, 6)(5))
    assert len(frames) == 5
    assert all(isinstance(f, SyntheticFrame) and f.image.shape == (4, 6, 3) for f in frames)
    assert frames[0] is frames[4]


class TestCommand:
    def test_json(self, edgeseg: Run, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(benchmark, "ROUND_SECONDS", 0.02)
        code, out, err = edgeseg("bench", bundle, "--seconds", "1", "--json")
        assert (code, err) == (0, "")
        found = json.loads(out)
        assert found["engine"] == "onnxruntime"
        assert found["latency_ms"]["p50"] <= found["latency_ms"]["p95"] <= found["latency_ms"]["p99"]
        assert set(found["stages"]) == {"decode", "preprocess", "infer", "postprocess"}
        assert found["stages"]["infer"]["p50"] > 0
        assert found["ratio"] == pytest.approx(found["fps"] / found["bare_engine_fps"])
        assert found["frames"] == "synthetic"
        assert found["frame_size"] == found["network_size"] == [24, 32]
        assert found["samples"]["stream"] == found["samples"]["bare_engine"]

    def test_real_frames(self, edgeseg: Run, bundle: Path, frames: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(benchmark, "ROUND_SECONDS", 0.02)
        code, out, _ = edgeseg("bench", bundle, "--seconds", "1", "--frames", frames)
        assert code == 0
        assert f"frames of 24x32 ({frames})" in out
        assert "bare engine" in out
        assert "alternating rounds of the same run" in out

    def test_missing_frames(self, edgeseg: Run, bundle: Path, tmp_path: Path) -> None:
        code, _, err = edgeseg("bench", bundle, "--frames", tmp_path / "none")
        assert code == 1
        assert "there is no file or folder" in err


@pytest.fixture
def board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fake AGX Orin, whose three rails draw 10, 2 and 4 W."""
    rails = {"VDD_GPU_SOC": (20000, 500), "VDD_CPU_CV": (20000, 100), "VIN_SYS_5V0": (5000, 800)}
    monitor = tmp_path / "sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon3"
    monitor.mkdir(parents=True)
    for i, (name, (voltage, current)) in enumerate(rails.items(), start=1):
        for file, content in ((f"in{i}_label", name), (f"in{i}_input", voltage), (f"curr{i}_input", current)):
            (monitor / file).write_text(f"{content}\n")
    zone = tmp_path / "sys/class/thermal/thermal_zone0"
    zone.mkdir(parents=True)
    (zone / "type").write_text("tj-thermal\n")
    (zone / "temp").write_text("51250\n")
    monkeypatch.setattr(power, "find_sensors", partial(power.find_sensors, tmp_path))
    monkeypatch.setattr(benchmark, "ROUND_SECONDS", 0.02)
    return tmp_path


class TestPower:
    def test_json(self, edgeseg: Run, bundle: Path, board: Path) -> None:
        code, out, err = edgeseg("bench", bundle, "--seconds", "1", "--power", "--json")
        assert (code, err) == (0, "")
        found = json.loads(out)
        watts = {name: entry["mean_w"] for name, entry in found["power"]["rails"].items()}
        assert watts == pytest.approx({"VDD_GPU_SOC": 10, "VDD_CPU_CV": 2, "VIN_SYS_5V0": 4})
        total = found["power"]["total"]
        assert total["rails"] == ["VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"]
        assert total["mean_w"] == pytest.approx(16)
        # Constant power: the energy of a frame is the power over the stream's frames a second.
        assert total["mj_per_frame"] == pytest.approx(16e3 / found["fps"])
        assert found["power"]["degrees_c"] == {"tj-thermal": {"first": 51.25, "last": 51.25, "highest": 51.25}}
        assert found["power"]["samples"] >= 2

    def test_text(self, edgeseg: Run, bundle: Path, board: Path) -> None:
        code, out, _ = edgeseg("bench", bundle, "--seconds", "1", "--power")
        assert code == 0
        assert "power while streaming" in out
        assert re.search(r"^VDD_GPU_SOC +10\.000 +\d+\.\d\d$", out, re.MULTILINE)
        assert "total (VDD_GPU_SOC + VDD_CPU_CV + VIN_SYS_5V0)  16.000" in out
        assert "tj-thermal    51.2  51.2     51.2" in out

    def test_a_machine_without_rails(
        self, edgeseg: Run, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(power, "find_sensors", partial(power.find_sensors, tmp_path))
        code, out, err = edgeseg("bench", bundle, "--power")
        assert (code, out) == (1, "")
        assert err.count("\n") == 1
        assert "power is read from a Jetson's monitors (INA3221, INA238), but " in err
        assert "has none; measure without --power" in err

    def test_spans_are_the_streams(self, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        measured = measure(FakeSegmenter(bundle), FakeEngine(), synthetic_frames(24, 32), 0)  # type: ignore[arg-type]
        assert len(measured.spans) == measured.rounds == 1
        assert sum(end - begin for begin, end in measured.spans) == pytest.approx(measured.seconds)
