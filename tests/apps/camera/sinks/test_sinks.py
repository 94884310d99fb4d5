from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from support.colours import COLOURS
from support.rtsp_server import free_port

from edgeseg.apps.camera.capture import Capture, Source
from edgeseg.apps.camera.drawing import Drawing, Painter
from edgeseg.apps.camera.element.pixels import FrameLayout
from edgeseg.apps.camera.results import CameraFrame, CameraResult, StreamFacts
from edgeseg.apps.camera.sinks import SINKS, SinkOptions, open_sink, scheme_of
from edgeseg.apps.camera.sinks.callback import CallbackSink
from edgeseg.apps.camera.sinks.encoding import fitted
from edgeseg.apps.camera.statistics import StreamStatistics
from edgeseg.apps.camera.yuv import yuv_of
from edgeseg.errors import OutputError, UsageError
from edgeseg.segmentation import Segmentation, Timing

FACTS = StreamFacts("0", "test://ball", COLOURS, 25.0)
ALL = SinkOptions(lossless=True)


def result(number: int, height: int = 48, width: int = 64, *, noise: bool = False) -> CameraResult:
    image = np.full((height, width, 3), 8 * number % 256, np.uint8)
    if noise:
        image = np.random.default_rng(number).integers(0, 256, (height, width, 3), np.uint8)
    class_map = np.full((height, width), number % 3, np.uint8)
    timing = Timing(0.0, 0.0, 0.0, 0.0, 0.0)
    frame = CameraFrame(image, number, 10.0 + 0.04 * number)
    return CameraResult(frame, Segmentation(class_map, COLOURS, timing), frame.captured + 0.01)


def decoded(number: int, height: int = 48, width: int = 64, matrix: str = "bt709") -> CameraResult:
    """The same in a decoder's format; its frames are of one strong colour."""
    found = result(number, height, width)
    luma, half = height * width, width // 2
    layout = FrameLayout("I420", height, width, (0, luma, luma + luma // 4), (width, half, half), matrix)
    image = np.full((height, width, 3), (200, 40, 90), np.uint8)
    return dataclasses.replace(found, frame=dataclasses.replace(found.frame, pixels=yuv_of(image, layout)))


def pass_through(sink: Any, results: Iterator[CameraResult] | list[CameraResult]) -> None:
    sink.start(FACTS)
    try:
        for item in results:
            sink.put(item)
    finally:
        sink.stop()


class TestAddresses:
    @pytest.mark.parametrize(
        ("address", "scheme"),
        [
            *(("null", "null"), ("null://draw", "null"), ("display://0", "display"), ("a.mkv", "video")),
            *(("file://b.mp4", "video"), ("m/%06d.png", "masks"), ("rtsp://@:1/x", "rtsp"), ("web://:1", "web")),
            ("zenoh://key", "zenoh"),
        ],
    )
    def test_scheme(self, address: str, scheme: str) -> None:
        assert scheme_of(address) == scheme

    def test_unknown(self) -> None:
        with pytest.raises(UsageError, match="unknown kind of sink 'wep'; did you mean web"):
            scheme_of("wep://x")
        with pytest.raises(UsageError, match=r"out.avi is no sink; a sink is null"):
            scheme_of("out.avi")

    def test_registry_names_modules_that_are_found_when_asked_for(self) -> None:
        for scheme in ("null", "masks", "video", "display", "rtsp"):
            module, _, name = SINKS[scheme].partition(":")
            assert hasattr(__import__(module, fromlist=[name]), name)

    @pytest.mark.parametrize(
        ("address", "message"),
        [
            ("null://paint", "null or null://draw"),
            ("display://a b", "display://0 or display://ELEMENT"),
            ("rtsp://host/x", "rtsp://@:PORT/NAME"),
            ("masks/x.png", "masks/%06d.png"),
            ("masks/%s.png", "masks/%06d.png"),
        ],
    )
    def test_refused(self, address: str, message: str) -> None:
        with pytest.raises(UsageError, match=message):
            open_sink(address, ALL)


class TestWorker:
    def test_an_exception_ends_the_sink_with_one_line(self) -> None:
        def failing(item: CameraResult) -> None:
            raise ZeroDivisionError("by zero")

        with pytest.raises(OutputError, match="failing failed: ZeroDivisionError: by zero"):
            pass_through(CallbackSink(failing, lossless=True), [result(i) for i in range(9)])

    def test_gets_every_result_where_it_is_asked_for(self) -> None:
        got: list[int] = []
        pass_through(CallbackSink(lambda r: got.append(r.frame.number), lossless=True), map(result, range(50)))
        assert got == list(range(50))


class TestMasks:
    def test_are_indices_under_the_frames_numbers(self, tmp_path: Path) -> None:
        pass_through(open_sink(f"{tmp_path}/m/%04d.png", ALL), [result(0), result(5)])
        assert sorted(os.listdir(tmp_path / "m")) == ["0000.png", "0005.png"]
        read = cv2.imread(str(tmp_path / "m" / "0005.png"), cv2.IMREAD_UNCHANGED)
        assert read.shape == (48, 64)
        assert (read == 2).all()

    def test_are_not_replaced_unasked(self, tmp_path: Path) -> None:
        address = f"{tmp_path}/%06d.png"
        pass_through(open_sink(address, ALL), [result(1)])
        with pytest.raises(OutputError, match=r"holds class maps already; .*--force"):
            open_sink(address, ALL).start(FACTS)
        pass_through(open_sink(address, SinkOptions(lossless=True, force=True)), [result(1)])

    def test_disk_full(self, small_disk: Path) -> None:
        def noisy() -> Iterator[CameraResult]:
            for number in range(40):
                item = result(number, 200, 300)
                item.segmentation.class_map[:] = np.random.default_rng(number).integers(0, 200, (200, 300))
                yield item

        with pytest.raises(OutputError, match=r"cannot write .*\.png: the disk is full; free some space"):
            pass_through(open_sink(f"{small_disk}/%06d.png", ALL), noisy())


@pytest.mark.usefixtures("gst")
class TestRecording:
    @pytest.mark.parametrize("ending", [".mkv", ".mp4"])
    def test_holds_every_result(self, tmp_path: Path, ending: str, frames_in: Callable[[Path], int]) -> None:
        path = tmp_path / f"a 'b'{ending}"
        painter = Painter(Drawing("mask"))
        pass_through(open_sink(str(path), SinkOptions(painter, lossless=True)), map(result, range(40)))
        assert frames_in(path) == 40
        capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
        colours = []
        for _ in range(3):
            colours.append(capture.read()[1][24, 32, ::-1].astype(int))
        assert capture.get(cv2.CAP_PROP_FPS) == pytest.approx(25, abs=0.5)
        capture.release()
        for colour, expected in zip(colours, COLOURS.palette, strict=True):
            assert np.abs(colour - expected).max() < 40

    def test_fits_frames_of_another_size(self, tmp_path: Path, frames_in: Callable[[Path], int]) -> None:
        path = tmp_path / "a.mkv"
        sizes = [(48, 64)] * 5 + [(21, 33)] * 5
        pass_through(open_sink(str(path), ALL), [result(i, *size) for i, size in enumerate(sizes)])
        assert frames_in(path) == 10

    @pytest.mark.parametrize("ending", [".mkv", ".mp4"])
    def test_takes_a_decoders_frames_and_what_comes_after_them(
        self, tmp_path: Path, ending: str, frames_in: Callable[[Path], int]
    ) -> None:
        """Another size or matrix, and RGB, are brought to the form of the first: the stream stays one."""
        path = tmp_path / f"a{ending}"
        given = [*(decoded(i) for i in range(6)), *(decoded(i, 24, 32) for i in range(6, 12))]
        given += [*(decoded(i, matrix="bt601") for i in range(12, 18)), *(result(i) for i in range(18, 24))]
        pass_through(open_sink(str(path), ALL), given)
        assert frames_in(path) == 24
        capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
        colours = [capture.read()[1][24, 32, ::-1].astype(int) for _ in given]
        capture.release()
        for number, colour in enumerate(colours):
            frame = np.full(3, 8 * number) if number >= 18 else np.array((200, 40, 90))
            expected = (frame + COLOURS.palette[number % 3]) / 2
            assert np.abs(colour - expected).max() < 40

    @pytest.mark.parametrize("ending", [".mkv", ".mp4"])
    def test_plays_after_a_kill(self, tmp_path: Path, ending: str, frames_in: Callable[[Path], int]) -> None:
        """A process that records 25 frames a second is killed; all but the last second plays."""
        path, count = tmp_path / f"a{ending}", tmp_path / "count"
        tests = Path(__file__).parents[3]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tests.parent), str(tests)])}
        process = subprocess.Popen([sys.executable, __file__, str(path), str(count)], env=environment)
        deadline = time.monotonic() + 30
        while not (count.exists() and count.stat().st_size >= 60) and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert count.stat().st_size >= 60
        assert frames_in(path) >= count.stat().st_size - 25

    def test_exists_already(self, tmp_path: Path) -> None:
        (tmp_path / "a.mkv").write_text("mine")
        with pytest.raises(OutputError, match=r"a.mkv exists; .*--force"):
            open_sink(str(tmp_path / "a.mkv"), ALL).start(FACTS)
        assert (tmp_path / "a.mkv").read_text() == "mine"

    def test_without_results_is_no_file(self, tmp_path: Path) -> None:
        pass_through(open_sink(str(tmp_path / "a.mp4"), ALL), [])
        assert not (tmp_path / "a.mp4").exists()

    @pytest.mark.parametrize("ending", [".mkv", ".mp4"])
    def test_disk_full(self, small_disk: Path, ending: str) -> None:
        noisy = (result(number, 240, 320, noise=True) for number in range(400))
        with pytest.raises(OutputError, match="the disk is full; free some space"):
            pass_through(open_sink(f"{small_disk}/a{ending}", ALL), noisy)


@pytest.mark.usefixtures("gst")
class TestDisplay:
    def test_shows_on_an_element(self) -> None:
        pass_through(open_sink("display://fakesink", ALL), map(result, range(5)))

    def test_no_screen(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("DISPLAY", raising=False)
        monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
        with pytest.raises(OutputError, match="needs a screen, but neither DISPLAY nor WAYLAND_DISPLAY is set"):
            open_sink("display://0", ALL).start(FACTS)

    def test_no_such_element(self) -> None:
        with pytest.raises(OutputError, match="nosuchsink"):
            open_sink("display://nosuchsink", ALL).start(FACTS)


@pytest.mark.usefixtures("gst")
class TestRtsp:
    def test_serves_what_is_drawn(self) -> None:
        port = free_port()
        sink = open_sink(f"rtsp://@:{port}/masks", SinkOptions(Painter(Drawing("mask"))))
        sink.start(FACTS)
        images: list[NDArray[np.uint8]] = []
        capture = Capture(
            Source(f"rtsp://127.0.0.1:{port}/masks"),
            "0",
            lambda frame: images.append(frame.image),
            StreamStatistics("0"),
            lambda: None,
        )
        capture.start()
        try:
            deadline, number = time.monotonic() + 20, 0
            while len(images) < 5 and time.monotonic() < deadline:
                sink.put(result(1, 96, 128))
                number += 1
                time.sleep(0.03)
        finally:
            capture.stop()
            capture.join()
            sink.stop()
        assert len(images) >= 5
        assert images[-1].shape == (96, 128, 3)
        assert np.abs(images[-1][48, 64].astype(int) - COLOURS.palette[1]).max() < 40

    def test_port_that_is_taken(self) -> None:
        port = free_port()
        first = open_sink(f"rtsp://@:{port}/a", ALL)
        first.start(FACTS)
        try:
            with pytest.raises(OutputError, match=f"port {port} of 127.0.0.1 is taken"):
                open_sink(f"rtsp://@:{port}/b", ALL).start(FACTS)
        finally:
            first.stop()


class TestFitted:
    def test_keeps_the_shape_of_what_is_seen(self) -> None:
        picture = np.full((10, 40, 3), 200, np.uint8)
        found = fitted(picture, (40, 40))
        assert (found[15:25] == 200).all()
        assert not found[:15].any()
        assert not found[25:].any()

    def test_cuts_an_odd_line(self) -> None:
        assert fitted(np.zeros((11, 21, 3), np.uint8), (10, 20)).shape == (10, 20, 3)


def _record(path: str, count: str) -> None:
    """Record until killed; the size of `count` is the number of frames given."""
    sink = open_sink(path, SinkOptions())
    sink.start(FACTS)
    began = time.monotonic()
    with open(count, "ab", buffering=0) as file:
        for number in range(10_000):
            time.sleep(max(began + 0.04 * number - time.monotonic(), 0))
            sink.put(result(number, 120, 160))
            file.write(b".")


if __name__ == "__main__":
    _record(*sys.argv[1:])
