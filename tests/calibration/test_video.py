"""Videos as frame sources."""

from __future__ import annotations

import logging
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgeseg.calibration.frames import frames_from
from edgeseg.calibration.video import VideoFrames
from edgeseg.errors import FrameError

CODECS = {".avi": "MJPG", ".mp4": "mp4v", ".mkv": "mp4v", ".mov": "mp4v", ".webm": "VP80"}


def write_video(path: Path, frames: int = 20) -> Path:
    """A 64x48 video: a red bar at the left, the rest 10 levels brighter with each frame."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*CODECS[path.suffix]), 10, (64, 48))
    assert writer.isOpened()
    for i in range(frames):
        image = np.full((48, 64, 3), i * 10, np.uint8)
        image[:, :8] = (0, 0, 255)
        writer.write(image)
    writer.release()
    return path


def brightness(source: object) -> list[int]:
    return [round(int(frame.image[24, 40, 0]) / 10) for frame in source]  # type: ignore[attr-defined]


@pytest.mark.parametrize("suffix", sorted(CODECS))
def test_every_container_gives_all_frames_in_rgb(tmp_path: Path, suffix: str) -> None:
    source = frames_from(write_video(tmp_path / f"clip{suffix}"))
    frames = list(source)
    assert len(source) == len(frames) == 20
    assert [f.name for f in frames] == list(source.names)
    assert source.names[12] == "clip_000012"
    red, green, blue = frames[3].image[24, 2].tolist()
    assert red > 200
    assert max(green, blue) < 60
    assert brightness(source) == list(range(20))


def test_select_gives_the_frames_that_it_names(tmp_path: Path) -> None:
    source = frames_from(write_video(tmp_path / "clip.avi"))
    chosen = source.select(4)
    assert chosen.names == ("clip_000000", "clip_000006", "clip_000013", "clip_000019")
    assert brightness(chosen) == [0, 6, 13, 19]
    assert chosen.select(2).names == ("clip_000000", "clip_000019")
    assert 6 not in brightness(source.exclude(set(chosen.names)))
    assert len(source.exclude(set(chosen.names))) == 16


def test_decoding_stops_after_the_last_frame_wanted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = frames_from(write_video(tmp_path / "clip.avi"))
    grabbed = []

    class Counting:
        def __init__(self, *arguments: object) -> None:
            self.capture = capture(*arguments)

        def __getattr__(self, name: str) -> object:
            if name == "grab":
                grabbed.append(1)
            return getattr(self.capture, name)

    capture = cv2.VideoCapture
    monkeypatch.setattr(cv2, "VideoCapture", Counting)
    assert isinstance(source, VideoFrames)
    assert brightness(VideoFrames(source.path, (2, 5), source.total)) == [2, 5]
    assert len(grabbed) == 6


def test_a_truncated_video_is_refused(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.mkv")
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * 0.7)])
    with pytest.raises(
        FrameError, match=r"clip\.mkv announces 20 frames, but only \d+ can be decoded: it is truncated"
    ):
        list(frames_from(path))


def test_what_is_there_of_a_truncated_video_is_taken_when_asked(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write_video(tmp_path / "clip.mkv")
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * 0.7)])
    source = frames_from(path, skip_broken=True)
    with caplog.at_level(logging.WARNING):
        frames = list(source)
    assert 0 < len(frames) < 20
    assert source.skipped == 20 - len(frames)
    assert f"only {len(frames)} can be decoded; {source.skipped} of the chosen frames are left out" in caplog.text


def test_an_mp4_without_its_index_cannot_be_opened(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.mp4")
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(FrameError, match=r"cannot open the video .*clip\.mp4: it is truncated, or not a format"):
        frames_from(path)


def test_no_video_at_all(tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("this is text" * 50)
    with pytest.raises(FrameError, match=r"cannot open the video .*text\.mp4"):
        frames_from(tmp_path / "text.mp4")


def test_a_video_that_vanished(tmp_path: Path) -> None:
    source = frames_from(write_video(tmp_path / "clip.avi"))
    (tmp_path / "clip.avi").unlink()
    with pytest.raises(FrameError, match=r"there is no video .*clip\.avi"):
        list(source)


def test_real_video(shared: Path) -> None:
    source = frames_from(shared / "data" / "video" / "road_960x540_25fps.mp4")
    assert len(source) == 221
    frame = next(iter(source.select(1)))
    assert frame.name == "road_960x540_25fps_000110"
    assert frame.image.shape == (540, 960, 3)
