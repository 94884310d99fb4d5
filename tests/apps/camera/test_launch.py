"""`edgeseg launch`: pipelines played to their end, and one line for each that cannot be."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import pytest
from support.bundles import quantized_bundle
from support.colours import Run
from support.pipelines import need_gstreamer

from edgeseg.apps import cli
from edgeseg.apps.camera import launch
from edgeseg.apps.camera.gst import gstreamer
from edgeseg.errors import EngineError

SOURCE = "videotestsrc num-buffers=5 ! video/x-raw,format=RGB,width=64,height=48"
LONGEST = 120

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture(autouse=True)
def _gstreamer(monkeypatch: pytest.MonkeyPatch) -> None:
    need_gstreamer()
    monkeypatch.setenv("EDGESEG_BACKEND", "onnxruntime")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return quantized_bundle(tmp_path_factory.mktemp("toy") / "toy.edgeseg").path


@pytest.fixture
def edgeseg(capfd: pytest.CaptureFixture[str]) -> Run:
    """Runs a command line in this process; gives exit code, stdout and stderr."""

    def run(*arguments: object) -> tuple[int, str, str]:
        capfd.readouterr()
        code = cli.main([str(argument) for argument in arguments])
        return code, *capfd.readouterr()

    return run


class TestRun:
    def test_plays_to_the_end(self, edgeseg: Run, model: Path) -> None:
        code, out, err = edgeseg("launch", f"{SOURCE} ! edgeseg name=road model={model} every-n=2 ! fakesink")
        assert code == 0
        assert out.startswith("road: 5 frames, 3 segmented, ")
        assert err == ""

    def test_takes_words_as_gst_launch_does(self, edgeseg: Run, model: Path) -> None:
        words = f"{SOURCE} ! edgeseg model={model} ! fakesink".split()
        code, out, _ = edgeseg("launch", *words)
        assert (code, out.split(":")[1][:9]) == (0, " 5 frames")

    def test_json(self, edgeseg: Run, model: Path) -> None:
        code, out, _ = edgeseg(
            "launch", "--json", f"{SOURCE} ! edgeseg name=a model={model} ! edgeseg name=b enabled=false ! fakesink"
        )
        found = json.loads(out)
        assert code == 0
        assert found["ended"] == "eos"
        assert list(found["elements"]) == ["a", "b"]
        assert set(found["elements"]["a"]) == {"frames", "segmented", "late", "inference_ms", "frame_ms", "fps"}
        assert [found["elements"][name]["segmented"] for name in "ab"] == [5, 0]
        assert found["elements"]["a"]["fps"] > 0

    def test_stats_in_the_log(self, edgeseg: Run, model: Path) -> None:
        _, _, err = edgeseg("launch", "-v", f"{SOURCE} ! edgeseg name=it model={model} ! fakesink")
        assert "edgeseg: info: it: edgeseg-stats, frames=(guint64)5, segmented=(guint64)5" in err

    def test_a_single_element(self, edgeseg: Run) -> None:
        """That GStreamer parses to no pipeline."""
        code, _, err = edgeseg("launch", "edgeseg name=it")
        assert (code, err) == (1, "edgeseg: error: it: edgeseg needs a bundle; set model=NAME.edgeseg\n")

    def test_plugin_path(self, edgeseg: Run) -> None:
        code, out, _ = edgeseg("launch", "--plugin-path")
        assert code == 0
        assert (Path(out.strip()) / "python" / "edgeseg_element.py").is_file()


class TestErrors:
    @pytest.mark.parametrize(
        ("pipeline", "code", "message"),
        [
            ("", 2, 'give a pipeline, such as "videotestsrc ! edgeseg model=road.edgeseg ! fakesink"'),
            ("videotestsrc !", 2, "the pipeline cannot be understood: syntax error"),
            (f"{SOURCE} ! edgseg ! fakesink", 2, "unknown GStreamer element 'edgseg'; did you mean edgeseg? gst-insp"),
            ("nothinglikeit ! fakesink", 2, "unknown GStreamer element 'nothinglikeit'; gst-inspect-1.0 lists those"),
            (f"{SOURCE} ! edgeseg modl=x ! fakesink", 2, 'the pipeline cannot be understood: no property "modl" in el'),
            (
                "videotestsrc ! video/x-raw,format=GRAY8 ! edgeseg ! fakesink",
                2,
                "the pipeline cannot be understood: co",
            ),
            (f"{SOURCE} ! edgeseg name=it model=/none ! fakesink", 1, "it: there is no bundle at /none; make one with"),
            (f"{SOURCE} ! edgeseg name=it model=MODEL classes=x ! fakesink", 1, "it: unknown class 'x'; known: class0"),
            (
                "fakesrc ! edgeseg name=it enabled=false ! fakesink",
                1,
                "it: a frame came before its caps; the element be",
            ),
            ("filesrc location=/none ! fakesink", 1, "Resource not found (filesrc0)"),
            (
                f"{SOURCE} ! edgeseg enabled=false ! identity error-after=2 ! fakesink",
                1,
                "Failed after iterations as r",
            ),
        ],
    )
    def test_are_one_line(self, edgeseg: Run, model: Path, pipeline: str, code: int, message: str) -> None:
        words = [pipeline.replace("MODEL", str(model))] if pipeline else []
        found, out, err = edgeseg("launch", *words)
        assert found == code
        assert out == ""
        assert err.startswith(f"edgeseg: error: {message}")
        assert err.count("\n") == 1

    def test_missing_elements_name_their_package(self, edgeseg: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        gst = gstreamer().Gst
        if gst.ElementFactory.find("nvarguscamerasrc") is not None:
            pytest.skip("this is a Jetson")
        code, _, err = edgeseg("launch", "nvarguscamerasrc ! fakesink")
        assert code == 1
        assert err == (
            "edgeseg: error: the GStreamer element nvarguscamerasrc is needed to play this, but it is not installed; "
            "run: sudo apt-get install nvidia-l4t-gstreamer\n"
        )

    def test_silent_errors_get_their_reason(self, edgeseg: Run) -> None:
        """GStreamer's text says nothing here; the end of its debug text does."""
        code, _, err = edgeseg("launch", "videotestsrc name=it ! identity")
        assert code == 1
        assert (
            err == "edgeseg: error: it: streaming stopped, reason not-linked (-1); an element has no sink behind it\n"
        )


class Recording:
    """Stands for a pipeline: its bus holds the messages, and what it is told is kept by name."""

    def __init__(self, *messages: Any, result: str = "SUCCESS") -> None:
        self.gst = gstreamer().Gst
        self.bus = self.gst.Bus.new()
        self.told: list[str] = []
        self.result = getattr(self.gst.StateChangeReturn, result)
        for message in messages:
            self.bus.post(message)

    def get_bus(self) -> Any:
        return self.bus

    def set_state(self, state: Any) -> Any:
        self.told.append(state.value_nick)
        return self.result

    def recalculate_latency(self) -> None:
        self.told.append("latency")


class TestMessages:
    """What the pipeline is told, by messages that a real one seldom sends."""

    def played(self, *messages: Any, result: str = "SUCCESS") -> list[str]:
        gst = gstreamer().Gst
        pipeline = Recording(*messages, gst.Message.new_eos(None), result=result)
        launch._Player(gst, pipeline, False).play()
        return pipeline.told[1:]

    def test_answers(self) -> None:
        gst = gstreamer().Gst
        assert self.played(gst.Message.new_latency(None)) == ["latency"]
        assert self.played(gst.Message.new_clock_lost(None, gst.SystemClock.obtain())) == ["paused", "playing"]
        assert self.played(gst.Message.new_request_state(None, gst.State.PAUSED)) == ["paused"]

    @pytest.mark.parametrize(("result", "told"), [("SUCCESS", ["paused", "playing"]), ("NO_PREROLL", [])])
    def test_waits_for_buffers_unless_it_is_live(self, result: str, told: list[str]) -> None:
        levels = [gstreamer().Gst.Message.new_buffering(None, percent) for percent in (0, 50, 100)]
        assert self.played(*levels, result=result) == told

    def test_warnings_are_logged(self, caplog: pytest.LogCaptureFixture) -> None:
        gst = gstreamer()
        problem = gst.GLib.Error.new_literal(gst.Gst.StreamError.quark(), "not so good", 1)
        assert self.played(gst.Gst.Message.new_warning(None, problem, "why")) == []
        assert [record.getMessage() for record in caplog.records] == ["pipeline: not so good"]

    def test_a_start_that_fails_without_a_word(self) -> None:
        with pytest.raises(EngineError, match="does not start, and no element says why; run it with GST_DEBUG=3"):
            launch._Player(gstreamer().Gst, Recording(result="FAILURE"), False).play()


@pytest.fixture
def started(model: Path) -> Iterator[Start]:
    """Starts a live pipeline in a process of its own, and waits for its first statistics."""
    processes: list[subprocess.Popen[str]] = []

    def start(*options: str, sink: str = "fakesink") -> subprocess.Popen[str]:
        pipeline = (
            "videotestsrc is-live=true ! video/x-raw,format=RGB,width=64,height=48,framerate=25/1 ! "
            f"edgeseg model={model} ! {sink}"
        )
        command = [sys.executable, "-m", "edgeseg", "launch", "--json", "-v", *options, pipeline]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        processes.append(process)
        read_until(process, "edgeseg-stats")
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def read_until(process: subprocess.Popen[str], words: str) -> None:
    assert process.stderr is not None
    seen = ""
    while words not in seen:
        line = process.stderr.readline()
        assert line, seen
        seen += line


class TestSignals:
    def test_stops(self, started: Start) -> None:
        process = started()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=LONGEST)
        assert process.returncode == 130
        assert json.loads(out)["ended"] == "interrupted"
        assert "Traceback" not in err

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_finishes_files(self, number: signal.Signals, started: Start, tmp_path: Path) -> None:
        if gstreamer().Gst.ElementFactory.find("qtmux") is None:
            pytest.skip("qtmux is not installed; run: sudo apt-get install gstreamer1.0-plugins-good")
        recorded = tmp_path / "recorded.mov"
        sink = f"videoconvert ! jpegenc ! qtmux ! filesink location={recorded}"
        process = started("-e", sink=sink)
        process.send_signal(number)
        out, _ = process.communicate(timeout=LONGEST)
        found = json.loads(out)
        assert process.returncode == 0
        assert found["ended"] == "eos"
        video = cv2.VideoCapture(str(recorded), cv2.CAP_FFMPEG)
        count = 0
        while video.read()[0]:
            count += 1
        assert count == found["elements"]["edgeseg0"]["frames"]

    def test_a_second_one_stops_at_once(self, started: Start) -> None:
        """An element after the end of the stream that lets nothing through, the end neither."""
        process = started("-e", sink="valve drop=true drop-mode=drop-all ! fakesink async=false")
        process.send_signal(signal.SIGINT)
        read_until(process, "ending the stream")
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=LONGEST)
        assert process.returncode == 130
        assert "Traceback" not in err


class TestPluginPath:
    def test_gst_inspect_finds_the_element(self, tmp_path: Path, model: Path) -> None:
        """The system's loader, with this checkout and this interpreter's libraries where it can import them."""
        if subprocess.run(["gst-inspect-1.0", "python"], capture_output=True, check=False).returncode:
            pytest.skip("the loader is not installed; run: sudo apt-get install gstreamer1.0-python3-plugin-loader")
        repository = Path(__file__).resolve().parents[3]
        package = tmp_path / "edgeseg"
        package.mkdir()
        folders = [repository / name for name in ("calibration", "converters", "apps")]
        for source in [*(repository / "edgeseg").iterdir(), *folders]:
            if source.name != "__pycache__":
                (package / source.name).symlink_to(source)
        libraries = [path for path in sys.path if path.endswith("site-packages")]
        environment = os.environ | {
            "GST_PLUGIN_PATH": str(repository / "apps" / "camera" / "plugin"),
            "GST_REGISTRY": str(tmp_path / "registry.bin"),
            "PYTHONPATH": os.pathsep.join([str(tmp_path), *libraries]),
        }
        numpy = subprocess.run(
            ["/usr/bin/python3", "-c", "import numpy, cv2, onnxruntime"],
            env=environment,
            capture_output=True,
            check=False,
        )
        if numpy.returncode:
            pytest.skip("the system's Python cannot import this interpreter's libraries: another version")
        shown = subprocess.run(
            ["gst-inspect-1.0", "edgeseg"],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=LONGEST,
        )
        assert "Folder of the bundle, NAME.edgeseg" in shown.stdout, shown.stderr
        words = f"gst-launch-1.0 -m {SOURCE} ! edgeseg model={model} ! fakesink".split()
        played = subprocess.run(words, env=environment, capture_output=True, text=True, check=False, timeout=LONGEST)
        assert played.returncode == 0, played.stderr
        assert "edgeseg-stats, frames=(guint64)5, segmented=(guint64)5" in played.stdout
