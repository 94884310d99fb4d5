"""Loads the element `edgeseg` into gst-launch-1.0, gst-inspect-1.0 and any other program with GStreamer.

    GST_PLUGIN_PATH=$(edgeseg launch --plugin-path) gst-launch-1.0 videotestsrc ! edgeseg model=road.edgeseg ! ...

GStreamer's loader for Python runs the system's libpython: it needs gstreamer1.0-python3-plugin-loader, from GStreamer
1.24 on libpython3-dev, and edgeseg with its libraries importable there. `edgeseg launch` needs none of this.
"""

from __future__ import annotations

from edgeseg.apps.camera.element import NAME
from edgeseg.apps.camera.element.transform import element_class
from edgeseg.apps.camera.gst import gstreamer

__all__ = ["__gstelementfactory__"]

__gstelementfactory__ = (NAME, gstreamer().Gst.Rank.NONE, element_class())
