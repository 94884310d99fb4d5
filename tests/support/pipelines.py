"""GStreamer pipelines that run to their end, and their frames as arrays."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edgeseg.apps.camera.element import register
from edgeseg.apps.camera.gst import gstreamer, mapped
from edgeseg.errors import MissingDependencyError

SECOND = 10**9
LONGEST = 60 * SECOND
"""No pipeline of a test runs longer; a busy machine needs a part of it."""


def need_gstreamer() -> Any:
    """GStreamer with the element registered; skips the test where it is not installed."""
    try:
        register()
    except MissingDependencyError as error:
        pytest.skip(str(error))
    return gstreamer()


@dataclass
class Ran:
    """What a pipeline said until its end.

    Attributes:
        errors: (element, text, debug text) of its error messages.
        stats: of the edgeseg elements' messages, in order.
        ended: whether EOS came.
    """

    errors: list[tuple[str, str, str]] = field(default_factory=list)
    stats: list[dict[str, Any]] = field(default_factory=list)
    ended: bool = False


def structure_values(structure: Any) -> dict[str, Any]:
    """The fields of a Gst.Structure."""
    names = [structure.nth_field_name(index) for index in range(structure.n_fields())]
    return {name: structure.get_value(name) for name in names}


@contextmanager
def parsed(description: str) -> Iterator[Any]:
    """A pipeline; stopped at the end."""
    gst = need_gstreamer()
    pipeline = gst.Gst.parse_launch(description)
    try:
        yield pipeline
    finally:
        pipeline.set_state(gst.Gst.State.NULL)


def wait(pipeline: Any, *, play: bool = True) -> Ran:
    """Play until EOS or an error."""
    gst, ran = gstreamer().Gst, Ran()
    if play:
        pipeline.set_state(gst.State.PLAYING)
    bus, kinds = pipeline.get_bus(), gst.MessageType
    while (message := bus.timed_pop_filtered(LONGEST, kinds.EOS | kinds.ERROR | kinds.ELEMENT)) is not None:
        if message.type == kinds.EOS:
            ran.ended = True
            break
        if message.type == kinds.ERROR:
            problem, debug = message.parse_error()
            ran.errors.append((message.src.get_name(), problem.message, debug))
            break
        if message.get_structure().get_name() == "edgeseg-stats":
            ran.stats.append(structure_values(message.get_structure()))
    return ran


def pulled(sink: Any) -> list[Any]:
    """The samples that wait in an appsink of a pipeline that came to its end."""
    samples = []
    while (sample := sink.emit("try-pull-sample", SECOND // 2)) is not None:
        samples.append(sample)
    return samples


def planes(sample: Any) -> list[NDArray[np.uint8]]:
    """Copies of a sample's planes as (H, W, C) arrays, read by GStreamer's own description of them."""
    gst = gstreamer()
    info = gst.GstVideo.VideoInfo.new_from_caps(sample.get_caps())
    buffer = sample.get_buffer()
    meta = gst.GstVideo.buffer_get_video_meta(buffer) or info
    found = []
    with mapped(buffer) as data:
        shapes = [(info.height, info.width, {"RGB": 3, "BGR": 3}.get(info.finfo.name, 4))]
        half = ((info.height + 1) // 2, (info.width + 1) // 2)
        if info.finfo.name == "NV12":
            shapes = [(info.height, info.width, 1), (*half, 2)]
        if info.finfo.name == "I420":
            shapes = [(info.height, info.width, 1), (*half, 1), (*half, 1)]
        for index, (height, width, channels) in enumerate(shapes):
            start, stride = meta.offset[index], meta.stride[index]
            rows = [data[start + y * stride :][: width * channels] for y in range(height)]
            found.append(np.stack(rows).reshape(height, width, channels).copy())
    return found
