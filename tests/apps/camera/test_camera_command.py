from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import pytest
from support.bundles import quantized_bundle

from edgeseg.apps.camera import elements
from edgeseg.apps.camera.elements import missing_elements, package_of
from edgeseg.bundle import MANIFEST, MODEL, SMALLER, Bundle, write_bundle

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def network(tmp_path: Path, cache: Path) -> Path:
    return quantized_bundle(tmp_path / "toy.edgeseg").path


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


@pytest.mark.usefixtures("gst")
class TestCommand:
    def test_every_frame_to_several_sinks(
        self, run_edgeseg: Start, network: Path, clip: Path, tmp_path: Path, frames_in: Callable[[Path], int]
    ) -> None:
        stats = tmp_path / "stats.jsonl"
        sinks = [f"{tmp_path}/masks/%04d.png", tmp_path / "out.mkv", tmp_path / "out.mp4", "null://draw"]
        arguments = [word for sink in sinks for word in ("--sink", sink)]
        code, out, err = finish(
            run_edgeseg("camera", network, "--source", clip, *arguments, "--stats", stats, "--json", "--legend")
        )
        assert code == 0, err
        counts = json.loads(out)["streams"]["0"]
        assert (counts["captured"], counts["segmented"], counts["dropped"]) == (30, 30, 0)
        assert sorted(os.listdir(tmp_path / "masks")) == [f"{number:04d}.png" for number in range(30)]
        assert frames_in(tmp_path / "out.mkv") == frames_in(tmp_path / "out.mp4") == 30
        mask = cv2.imread(str(tmp_path / "masks" / "0003.png"), cv2.IMREAD_UNCHANGED)
        assert mask.shape == (48, 64)
        assert mask.max() < 4
        lines = [json.loads(line) for line in stats.read_text().splitlines()]
        assert sum(line["streams"]["0"]["segmented"] for line in lines) == 30
        assert re.search(r"edgeseg: stream 0: [\d.]+ frames/s", err)

    def test_two_cameras_have_files_of_their_own(
        self, run_edgeseg: Start, network: Path, clip: Path, tmp_path: Path, frames_in: Callable[[Path], int]
    ) -> None:
        sources = ("--source", clip, "--source", clip)
        sinks = ("--sink", tmp_path / "out.mkv", "--sink", f"{tmp_path}/m/%03d.png")
        code, out, err = finish(run_edgeseg("-q", "camera", network, *sources, *sinks))
        assert (code, err) == (0, "")
        assert len(re.findall(r"stream \d: 30 of 30 frames", out)) == 2
        assert frames_in(tmp_path / "out-0.mkv") == frames_in(tmp_path / "out-1.mkv") == 30
        assert len(list((tmp_path / "m" / "1").iterdir())) == 30

    @pytest.mark.parametrize("given", [True, False])
    def test_a_smaller_network_stands_by(self, run_edgeseg: Start, network: Path, tmp_path: Path, given: bool) -> None:
        small = quantized_bundle(tmp_path / "small.edgeseg", 16, 24)
        arguments: tuple[Any, ...] = ("--smaller", small.path)
        if not given:
            held = {f"{SMALLER}/{name}": (small.path / name).read_bytes() for name in (MANIFEST, MODEL)}
            whole = Bundle.open(network)
            files = {MODEL: whole.read_model(), **held}
            network, arguments = write_bundle(tmp_path / "whole.edgeseg", whole.manifest, files).path, ()
        stats = tmp_path / "stats.jsonl"
        source = ("--source", "test://ball", "--input-width", 64, "--input-height", 48, "--num-buffers", 20)
        code, out, err = finish(
            run_edgeseg(
                *("-q", "camera", network, *source, "--sink", "null", "--max-latency", 5000, *arguments),
                *("--stats", stats, "--json"),
            )
        )
        assert (code, err) == (0, "")
        summary = json.loads(out)
        found = summary["network"]
        assert (found["name"], found["level"], found["switches"]) == ("32x48", 0, 0)
        assert found["segmented"] == {"32x48": summary["streams"]["0"]["segmented"], "16x24": 0}
        assert json.loads(stats.read_text().splitlines()[-1])["network"] == found

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_ends_by_a_signal_with_its_files_closed(
        self, run_edgeseg: Start, network: Path, tmp_path: Path, frames_in: Callable[[Path], int], number: int
    ) -> None:
        path = tmp_path / "out.mp4"
        process = run_edgeseg(
            *("camera", network, "--source", "test://ball", "--input-width", 64, "--input-height", 48, "--sink", path)
        )
        deadline = time.monotonic() + 30
        while not (path.exists() and path.stat().st_size > 4000) and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(number)
        code, out, err = finish(process)
        assert (code, out) == (130, "")
        assert err.endswith("edgeseg: interrupted\n")
        assert "Traceback" not in err
        segmented = int(re.search(r"(\d+) of \d+ frames", err)[1])  # type: ignore[index]
        assert frames_in(path) >= segmented - 3, "what the sink itself left out is at most what waited for it"

    def test_a_full_disk_stops_that_sink_alone(
        self, run_edgeseg: Start, network: Path, small_disk: Path, tmp_path: Path
    ) -> None:
        source = "videotestsrc num-buffers=200 pattern=snow ! video/x-raw,width=320,height=240"
        process = run_edgeseg(
            *("camera", network, "--source", source, "--every-frame", "--sink", small_disk / "out.mkv"),
            *("--sink", f"{tmp_path}/m/%04d.png"),
        )
        code, out, err = finish(process)
        assert code == 1
        assert err.count("the disk is full; free some space") == 1
        assert "stream 0: 200 of 200 frames" in out
        assert len(list((tmp_path / "m").iterdir())) == 200

    @pytest.mark.parametrize(
        ("arguments", "code", "message"),
        [
            (("--source", "rstp://x", "--sink", "null"), 2, "unknown kind of source 'rstp'"),
            (("--source", "test://ball", "--sink", "out.avi"), 2, "out.avi is no sink"),
            (("--source", "test://ball", "--sink", "null", "--classes", "clas1"), 1, "did you mean class1"),
            (("--source", "none.mp4", "--sink", "null"), 1, "there is no file none.mp4"),
            (("--source", "test://ball", "--sink", "null", "--smaller", "x"), 2, "--smaller needs --max-latency"),
            (
                ("--source", "a.mp4", "--sink", "null", "--smaller", "x", "--max-latency", "9"),
                2,
                "--smaller needs --realtime: every frame of a file is segmented",
            ),
            (
                ("--source", "test://ball", "--sink", "null", "--smaller", "none", "--max-latency", "9"),
                1,
                "there is no bundle at none",
            ),
            (
                ("--source", "test://ball", "--sink", "null", "--backend", "openvino", "--plan", "x"),
                2,
                "plan is an engine of TensorRT's, but the backend is openvino; choose the backend tensorrt",
            ),
            (("--source", "test://ball", "--sink", "null", "--metrics", "x"), 2, "--metrics is :PORT"),
            (("--source", "rtsp://h/p", "--sink", "null", "--every-frame"), 2, "a camera does not wait"),
            (("--source", "test://ball", "--sink", "none/out.mkv"), 1, "the folder none does not exist"),
            (("--source", "nosrc ! videoconvert", "--sink", "null"), 2, "GStreamer has no element 'nosrc'"),
        ],
    )
    def test_one_clear_line(
        self, capfd: pytest.CaptureFixture[str], network: Path, arguments: tuple[str, ...], code: int, message: str
    ) -> None:
        from edgeseg.apps import cli

        assert cli.main(["-q", "camera", str(network), *arguments]) == code
        out, err = capfd.readouterr()
        assert out == ""
        assert message in err
        assert len(err.splitlines()) == 1


class TestWithoutGStreamer:
    def test_says_what_to_install(self, network: Path, tmp_path: Path) -> None:
        (tmp_path / "gi.py").write_text("raise ImportError('cannot import name _gi')")
        environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
        command = [sys.executable, "-m", "edgeseg", "camera", str(network), "--source", "test://ball", "--sink", "null"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 1
        assert "sudo apt-get install -y python3-gst-1.0" in done.stderr
        assert "--system-site-packages" in done.stderr
        assert f"this one is {sys.executable}" in done.stderr
        assert len(done.stderr.splitlines()) == 1

    def test_help_needs_none(self, tmp_path: Path) -> None:
        (tmp_path / "gi.py").write_text("raise ImportError")
        environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
        done = subprocess.run(
            [sys.executable, "-m", "edgeseg", "camera", "--help"], env=environment, capture_output=True, check=False
        )
        assert done.returncode == 0
        assert b"--max-latency" in done.stdout


@pytest.mark.usefixtures("gst")
class TestElements:
    def test_names_what_is_missing_and_its_package(self, monkeypatch: pytest.MonkeyPatch) -> None:
        packages = {"gstreamer1.0-plugins-base": ("appsink", "nosuchelement"), "nvidia-l4t-gstreamer": ("nvnothing",)}
        monkeypatch.setattr(elements, "PACKAGES", packages)
        monkeypatch.setattr(elements, "TYPELIBS", {})
        assert missing_elements(jetson=False) == {"gstreamer1.0-plugins-base": ("nosuchelement",)}
        assert missing_elements(jetson=True)["nvidia-l4t-gstreamer"] == ("nvnothing",)

    def test_package_of_an_element(self) -> None:
        assert package_of("x264enc") == "gstreamer1.0-plugins-ugly"
        assert package_of("nosuchelement") is None


def test_metrics_while_it_runs(gst: Any, run_edgeseg: Start, network: Path) -> None:
    pytest.importorskip("prometheus_client")
    import urllib.request

    from support.rtsp_server import free_port

    port = free_port()
    process = run_edgeseg(
        *("camera", network, "--source", "test://ball", "--input-width", 64, "--input-height", 48),
        *("--sink", "null", "--metrics", f":{port}"),
    )
    try:
        text, deadline = "", time.monotonic() + 30
        while not re.search(r'segmented_total\{stream="0"\} [1-9]', text) and time.monotonic() < deadline:
            time.sleep(0.1)
            try:
                text = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics").read().decode()
            except OSError:
                continue
        assert re.search(r'segmented_total\{stream="0"\} [1-9]', text)
    finally:
        process.send_signal(signal.SIGINT)
        assert finish(process)[0] == 130
