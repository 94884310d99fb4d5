"""Segmentation metadata of GStreamer's own analytics library on a buffer, where the version has it (1.26)."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from edgeseg.apps.camera.gst import gstreamer, introspected
from edgeseg.errors import MissingDependencyError
from edgeseg.segmentation import Segmentation

__all__ = ["analytics", "attach"]

_UNKNOWN = -1.0
"""GstAnalytics' confidence of a class where none is known."""


@functools.cache
def analytics() -> Any | None:
    """The module GstAnalytics; None where it is missing (up to 1.22) or has no segmentation from Python (1.24)."""
    try:
        library = introspected("GstAnalytics", "gir1.2-gst-plugins-bad-1.0")
    except MissingDependencyError:
        return None
    return library if hasattr(library.RelationMeta, "add_segmentation_mtd") else None


def attach(library: Any, buffer: Any, result: Segmentation) -> bool:
    """Attach a class map: one semantic entry for the whole frame, GRAY8, with the indices of the classes that occur.

    To GStreamer these are numbers without a meaning: a classification with the names, in the same order, goes with
    them. DL Streamer writes the same layout (open-edge-platform/dlstreamer,
    docs/user-guide/dev_guide/metadata_analytics.md), and GStreamer's segmentationoverlay reads the names so.

    Args:
        library: what `analytics` gave.
        buffer: a writable Gst.Buffer.
        result: class map of the frame's size.

    Returns:
        Whether GStreamer took it.
    """
    gst = gstreamer()
    video, (height, width) = gst.GstVideo, result.class_map.shape
    mask = gst.Gst.Buffer.new_wrapped(result.class_map.tobytes())
    # Without a video meta GStreamer refuses the mask; offsets and strides have four entries, one a possible plane.
    flags, gray = video.VideoFrameFlags.NONE, video.VideoFormat.GRAY8
    video.buffer_add_video_meta_full(mask, flags, gray, width, height, 1, [0, 0, 0, 0], [width, 0, 0, 0])
    relation = library.buffer_add_analytics_relation_meta(buffer)
    found = [int(index) for index in np.unique(result.class_map)]
    kind = library.SegmentationType.SEMANTIC
    taken, regions = relation.add_segmentation_mtd(mask, kind, found, 0, 0, width, height)
    if not taken:
        return False
    quarks = [gst.GLib.quark_from_string(result.labels.names[index]) for index in found]
    named, names = relation.add_cls_mtd([_UNKNOWN] * len(found), quarks)
    return bool(named and relation.set_relation(library.RelTypes.N_TO_N, regions.id, names.id))
