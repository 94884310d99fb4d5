"""Frames from Python into a pipeline."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edgeseg.apps.camera.feed import Feed

PIPELINE = "appsrc name=frames format=time block=true max-buffers=1 ! fakesink sync=false"


@pytest.fixture
def source(gst: Any) -> Iterator[Any]:
    pipeline = gst.Gst.parse_launch(PIPELINE)
    pipeline.set_state(gst.Gst.State.PLAYING)
    yield pipeline.get_by_name("frames")
    pipeline.set_state(gst.Gst.State.NULL)


def feeding() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "edgeseg-feed"]


@pytest.mark.parametrize("live", [True, False])
def test_no_thread_outlives_its_feed(source: Any, live: bool) -> None:
    """Also one that is just making a frame: OpenCV's threads abort a process that ends under them."""
    making, made = threading.Event(), threading.Event()

    def frames() -> Iterator[NDArray[np.uint8]]:
        yield np.zeros((8, 8, 3), np.uint8)
        making.set()
        made.wait(10)
        yield np.zeros((8, 8, 3), np.uint8)

    feed = Feed(source, frames, 25.0, live=live, loop=-1)
    assert making.wait(10)
    feed.stop(seconds=0.05)
    assert feeding(), "the frame that is being made cannot be interrupted"
    made.set()
    feed.stop()
    assert feeding() == []
    assert feed.error is None


def test_a_rate_of_one_in_an_hour_does_not_hold_the_end_up(source: Any) -> None:
    feed = Feed(source, lambda: iter([np.zeros((8, 8, 3), np.uint8)] * 3), 1 / 3600, live=True)
    feed.stop(seconds=5)
    assert feeding() == []


def test_frames_that_are_none(source: Any) -> None:
    feed = Feed(source, lambda: iter([np.zeros((8, 8), np.uint8)]), None, live=False)
    feed._thread.join(10)
    assert "must be (H, W, 3) uint8 RGB, but got (8, 8) uint8" in str(feed.error)
