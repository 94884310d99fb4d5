"""The GStreamer element `edgeseg`: segments the frames of a pipeline and draws on them, in place.

    register()
    Gst.parse_launch("v4l2src ! videoconvert ! edgeseg model=road.edgeseg ! videoconvert ! autovideosink")

settings     the properties                     pixels     formats as planes of arrays, without a copy
stage        which frames, what is counted      painter    class maps drawn on planes
segmenters   one engine for equal elements      messages   errors and statistics on the bus
analytics    GStreamer's own metadata           transform  the class that GStreamer sees
"""

from __future__ import annotations

import functools

from edgeseg.apps.camera.gst import gstreamer
from edgeseg.errors import EngineError

__all__ = ["NAME", "register"]

NAME = "edgeseg"
"""What it is called in a pipeline."""


@functools.cache
def register() -> None:
    """Make the element known to this process, so that `Gst.parse_launch` and `Gst.ElementFactory.make` find it.

    Raises:
        MissingDependencyError: where GStreamer or its Python side is not installed.
        EngineError: where GStreamer refuses the element, which it does without its overrides for Python.
    """
    gst = gstreamer()
    from edgeseg.apps.camera.element.transform import element_class

    if not gst.Gst.Element.register(None, NAME, gst.Gst.Rank.NONE, element_class()):
        raise EngineError(
            "GStreamer does not take the element edgeseg; it needs python3-gst-1.0 of the system, not pip's PyGObject"
        )
