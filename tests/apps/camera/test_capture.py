from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from support.frames import frame_folder
from support.rtsp_server import RtspCamera

from edgeseg.apps.camera.capture import Capture, Patience, Source
from edgeseg.apps.camera.pipeline import Pipeline
from edgeseg.apps.camera.results import CameraFrame
from edgeseg.apps.camera.sources import SourceOptions
from edgeseg.apps.camera.statistics import StreamStatistics
from edgeseg.errors import EdgesegError, FrameError, UsageError

pytestmark = pytest.mark.usefixtures("gst")

EVERY = SourceOptions(live=False)
IMPATIENT = Patience(frame=1.0, start=1.0)


class Received:
    """Captures a source and keeps its frames."""

    def __init__(self, source: Source, patience: Patience = IMPATIENT) -> None:
        self.frames: list[CameraFrame] = []
        self.statistics = StreamStatistics("0")
        self.ended = threading.Event()
        self._came = threading.Condition()
        self.capture = Capture(source, "0", self._take, self.statistics, self.ended.set, patience=patience)

    def _take(self, frame: CameraFrame) -> None:
        with self._came:
            self.frames.append(frame)
            self._came.notify_all()

    def all(self) -> list[CameraFrame]:
        """Until the source ends."""
        self.capture.start()
        assert self.ended.wait(30)
        self.capture.join()
        return self.frames

    def wait_for(self, count: int) -> None:
        """Until there are so many frames."""
        with self._came:
            assert self._came.wait_for(lambda: len(self.frames) >= count, 20), "no frames"

    def stop(self) -> None:
        self.capture.stop()
        self.capture.join()
        assert self.ended.is_set()

    def counts(self) -> dict[str, int]:
        return {key: value for key, value in self.statistics.snapshot().items() if isinstance(value, int)}


class TestVideo:
    def test_every_frame_comes_once_and_in_order(self, clip: Path) -> None:
        received = Received(Source(str(clip), EVERY))
        frames = received.all()
        assert [frame.number for frame in frames] == list(range(30))
        assert {frame.image.shape for frame in frames} == {(48, 64, 3)}
        assert received.capture.error is None
        assert len({frame.image.tobytes() for frame in frames}) > 20, "the ball moves"

    def test_loops_without_losing_a_frame(self, clip: Path) -> None:
        received = Received(Source(str(clip), SourceOptions(live=False, loop=2)))
        assert len(received.all()) == 90
        images = [frame.image.tobytes() for frame in received.frames]
        assert images[:30] == images[30:60] == images[60:]

    def test_plays_at_its_own_pace_as_a_camera_does(self, clip: Path) -> None:
        received = Received(Source(str(clip), SourceOptions(loop=1)))
        frames = received.all()
        counts = received.counts()
        assert counts["captured"] == 60
        assert counts["captured"] == len(frames) + counts["dropped"]
        times = [frame.captured for frame in frames if frame.number < 30]
        assert times == sorted(times)
        # The time stamps are the clip's, whatever this machine is doing: 25 a second.
        span = 0.04 * (max(frame.number for frame in frames if frame.number < 30) - frames[0].number)
        assert times[-1] - times[0] == pytest.approx(span, abs=0.005)
        assert all(frame.captured <= time.monotonic() for frame in frames)

    def test_the_real_clip(self, shared: Path) -> None:
        path = shared / "data" / "video" / "road_960x540_25fps.mp4"
        received = Received(Source(str(path), SourceOptions(live=False, scale_to=(54, 96))))
        assert len(received.all()) == 221
        assert received.frames[0].image.shape == (54, 96, 3)

    def test_a_damaged_file_gives_what_can_be_read(self, clip: Path, tmp_path: Path) -> None:
        content = bytearray(clip.read_bytes())
        start = content.find(b"mdat") + 200
        for place in range(start, start + 300, 30):
            content[place] ^= 0xFF
        (tmp_path / "damaged.mp4").write_bytes(content)
        received = Received(Source(str(tmp_path / "damaged.mp4"), EVERY))
        assert len(received.all()) >= 15
        assert received.capture.error is None

    def test_a_file_that_is_no_video(self, tmp_path: Path) -> None:
        path = tmp_path / "text.mp4"
        path.write_text("no video at all " * 100)
        received = Received(Source(str(path), EVERY))
        assert received.all() == []
        assert isinstance(received.capture.error, FrameError)
        assert f"cannot capture {path}: " in str(received.capture.error)


class TestPythonFrames:
    def test_a_folder_of_images_of_odd_width(self, tmp_path: Path) -> None:
        from edgeseg.calibration.frames import frames_from

        folder = frame_folder(tmp_path / "frames", 3, height=21, width=31)
        frames = Received(Source(str(folder), EVERY)).all()
        for mine, original in zip(frames, frames_from(folder), strict=True):
            np.testing.assert_array_equal(mine.image, original.image)

    def test_a_scene(self) -> None:
        frames = Received(Source("scene://street?count=2&size=48x64", EVERY)).all()
        assert [frame.image.shape for frame in frames] == [(48, 64, 3)] * 2

    def test_resolution_changes_mid_stream(self, caplog: pytest.LogCaptureFixture) -> None:
        def frames() -> Iterator[NDArray[np.uint8]]:
            yield np.full((16, 24, 3), 7, np.uint8)
            yield np.full((20, 30, 3), 9, np.uint8)

        received = Received(Source("appsrc://", EVERY, frames))
        assert [frame.image.shape for frame in received.all()] == [(16, 24, 3), (20, 30, 3)]
        assert received.frames[1].image.min() == 9
        assert "frames are now 30x20 instead of 24x16" in caplog.text

    def test_an_error_of_the_program_reaches_it(self) -> None:
        def frames() -> Iterator[NDArray[np.uint8]]:
            yield np.zeros((8, 8, 3), np.uint8)
            yield np.zeros((8, 8), np.uint8)

        received = Received(Source("appsrc://", EVERY, frames))
        assert len(received.all()) == 1
        assert "must be (H, W, 3) uint8 RGB, but got (8, 8) uint8" in str(received.capture.error)

    def test_appsrc_needs_frames(self) -> None:
        with pytest.raises(FrameError, match=r"give them as Source.frames"):
            Received(Source("appsrc://"))


class TestPipelines:
    @pytest.mark.parametrize("pixels", ["RGB", "RGBA", "BGRx", "BGR", "I420", "NV12"])
    def test_formats_with_padded_rows(self, pixels: str) -> None:
        own = (
            "videotestsrc num-buffers=1 pattern=red ! video/x-raw,width=31,height=8 ! videoconvert ! "
            f"video/x-raw,format={pixels} ! appsink name=frames sync=false"
        )
        (frame,) = Received(Source(own, EVERY)).all()
        assert frame.image.shape == (8, 31, 3)
        # Red in eight bits of YUV is not quite red any more.
        assert np.abs(frame.image.astype(int) - (255, 0, 0)).max() <= (1 if pixels in ("I420", "NV12") else 0)

    @pytest.mark.parametrize(
        ("launch", "message"),
        [
            ("foosrc ! fakesink", "GStreamer has no element 'foosrc'"),
            ("videotestsrc ! nonsense=1 ! fakesink", "does not understand the pipeline"),
            ("videotestsrc ! fakesink", "needs one appsink for its frames, but this has 0"),
        ],
    )
    def test_refused(self, launch: str, message: str) -> None:
        with pytest.raises(UsageError, match=message):
            Pipeline(launch, live=True)

    def test_frames_of_another_kind_are_counted_as_broken(self) -> None:
        own = "videotestsrc num-buffers=3 ! video/x-raw,format=GRAY8 ! appsink name=frames sync=false"
        received = Received(Source(own, EVERY))
        assert received.all() == []
        assert received.counts()["broken"] == 3


class TestLoss:
    def test_camera_that_never_comes(self) -> None:
        received = Received(Source("v4l2:///dev/video987"))
        assert received.all() == []
        assert "v4l2:///dev/video987 gives no frame: Cannot identify device" in str(received.capture.error)
        assert "ls /dev/video*" in str(received.capture.error)

    @pytest.mark.parametrize("loss", ["kill", "hang"])
    def test_comes_back(self, loss: str, caplog: pytest.LogCaptureFixture) -> None:
        with RtspCamera() as camera:
            received = Received(Source(camera.address), Patience(frame=1.0, start=15.0))
            received.capture.start()
            received.wait_for(3)
            getattr(camera, loss)()
            wait_until(lambda: "is lost" in caplog.text)
            before = len(received.frames)
            camera.start() if loss == "kill" else camera.resume()
            received.wait_for(before + 3)
            received.stop()
        assert received.counts()["reconnects"] == 1
        assert "is back after" in caplog.text
        numbers = [frame.number for frame in received.frames]
        assert numbers == sorted(set(numbers)), "numbers go on over the loss"

    @pytest.mark.slow
    @pytest.mark.parametrize("loss", ["kill", "hang"])
    def test_comes_back_ten_times_without_growing(self, loss: str) -> None:
        with RtspCamera() as camera:
            received = Received(Source(camera.address), Patience(frame=1.0, start=15.0))
            received.capture.start()
            received.wait_for(3)
            sizes = []
            for _ in range(12):
                getattr(camera, loss)()
                time.sleep(2)
                camera.start() if loss == "kill" else camera.resume()
                received.frames.clear()
                received.wait_for(10)
                sizes.append(int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6)
            received.stop()
        assert received.counts()["reconnects"] == 12
        assert sizes[-1] - sizes[1] <= 5, "MB over ten losses, after the first two"


def wait_until(true: Callable[[], bool], seconds: float = 15) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


def test_errors_of_the_source_are_of_the_tree() -> None:
    with pytest.raises(EdgesegError):
        Received(Source("csi://nothing"))


def test_a_stopped_camera_ends(gst: Any) -> None:
    received = Received(Source("test://ball", SourceOptions(width=64, height=48)))
    received.capture.start()
    received.wait_for(2)
    received.stop()
    assert received.capture.error is None
