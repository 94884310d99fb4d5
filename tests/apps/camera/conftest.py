"""GStreamer, where it is installed; toy networks; clips that it makes."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from support.colours import COLOURS

from edgeseg.apps.camera.gst import gstreamer
from edgeseg.errors import MissingDependencyError
from edgeseg.segmentation import Segmentation, Timing


@pytest.fixture(scope="session")
def gst() -> Any:
    """GStreamer's modules."""
    try:
        return gstreamer()
    except MissingDependencyError as error:
        pytest.skip(f"GStreamer is not on this machine: {error}")


@pytest.fixture(scope="session")
def clip(gst: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty frames of H.264, 64x48 pixels at 25 a second: the real clip's format in small."""
    if gst.Gst.ElementFactory.find("x264enc") is None:
        pytest.skip("there is no x264enc on this machine")
    path = tmp_path_factory.mktemp("clip") / "clip with 'quotes'.mp4"
    pipeline = gst.Gst.parse_launch(
        "videotestsrc num-buffers=30 pattern=ball ! video/x-raw,width=64,height=48,framerate=25/1 ! videoconvert ! "
        "x264enc tune=zerolatency key-int-max=10 ! h264parse ! mp4mux ! filesink name=file"
    )
    pipeline.get_by_name("file").set_property("location", str(path))
    pipeline.set_state(gst.Gst.State.PLAYING)
    kinds = gst.Gst.MessageType
    message = pipeline.get_bus().timed_pop_filtered(20 * gst.Gst.SECOND, kinds.EOS | kinds.ERROR)
    pipeline.set_state(gst.Gst.State.NULL)
    assert message is not None
    assert message.type == kinds.EOS
    return path


@pytest.fixture
def segment() -> Callable[[NDArray[Any]], Segmentation]:
    """A network without a network: the class of a pixel is its brightest channel."""

    def brightest(image: NDArray[Any]) -> Segmentation:
        return Segmentation(image.argmax(axis=2).astype(np.uint8), COLOURS, Timing(0.0, 0.1, 0.2, 0.3, 0.6))

    return brightest


@pytest.fixture
def frames_in() -> Callable[[Path], int]:
    """How many frames of a video decode."""

    def count(path: Path) -> int:
        import cv2

        capture, found = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG), 0
        while capture.isOpened() and capture.grab():
            found += 1
        capture.release()
        return found

    return count


@pytest.fixture
def run_edgeseg(cache: Path) -> Callable[..., subprocess.Popen[str]]:
    """Starts a command line in a process of its own."""
    import sys

    def start(*arguments: object) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "edgeseg", *map(str, arguments)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    return start
