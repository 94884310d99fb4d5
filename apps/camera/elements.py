"""GStreamer's elements that the camera uses, which are missing, and the packages that bring them."""

from __future__ import annotations

from edgeseg.apps.camera.gst import gstreamer

__all__ = ["PACKAGES", "missing_elements", "package_of"]

PACKAGES: dict[str, tuple[str, ...]] = {
    "gstreamer1.0-plugins-base": (
        *("appsink", "appsrc", "decodebin", "overlaycomposition", "uridecodebin"),
        *("videoconvert", "videorate", "videoscale", "videotestsrc"),
    ),
    "gstreamer1.0-plugins-good": (
        *("autovideosink", "jpegdec", "jpegenc", "matroskademux", "matroskamux", "mp4mux", "qtdemux"),
        *("rtph264depay", "rtph264pay", "rtph265depay", "rtpjpegdepay", "rtspsrc", "v4l2src", "videoflip"),
        *("vp8dec", "vp8enc", "vp9dec"),
    ),
    "gstreamer1.0-plugins-bad": (*("h264parse", "h265parse", "jpegparse", "openh264dec", "openh264enc", "webrtcbin"),),
    "gstreamer1.0-plugins-ugly": ("x264enc",),
    "gstreamer1.0-libav": ("avdec_h264", "avdec_h265", "avdec_mpeg2video", "avdec_mpeg4"),
    "gstreamer1.0-nice": ("nicesrc",),
    "nvidia-l4t-gstreamer": ("nvarguscamerasrc", "nvv4l2decoder", "nvv4l2h264enc", "nvvidconv"),
}
"""Elements by the package of Debian, Ubuntu or Jetson Linux that brings them."""

_JETSON_ONLY = "nvidia-l4t-gstreamer"


def package_of(element: str) -> str | None:
    """The package that brings an element; None for one that is not known."""
    return next((package for package, elements in PACKAGES.items() if element in elements), None)


def missing_elements(*, jetson: bool) -> dict[str, tuple[str, ...]]:
    """Elements that are not installed, by the package that brings them; empty where nothing is missing.

    Args:
        jetson: whether NVIDIA's elements should be here.

    Raises:
        MissingDependencyError: without GStreamer and PyGObject.
    """
    gst = gstreamer().Gst
    missing = {
        package: tuple(name for name in elements if gst.ElementFactory.find(name) is None)
        for package, elements in PACKAGES.items()
        if jetson or package != _JETSON_ONLY
    }
    return {package: names for package, names in missing.items() if names}
