"""GStreamer's elements and typelibs that the camera uses, which are missing, and the packages that bring them."""

from __future__ import annotations

from collections.abc import Iterable

from edgeseg.apps.camera.gst import gstreamer

__all__ = ["PACKAGES", "TYPELIBS", "missing_elements", "missing_of", "package_of"]

PACKAGES: dict[str, tuple[str, ...]] = {
    "gstreamer1.0-plugins-base": (
        *("appsink", "appsrc", "decodebin", "overlaycomposition", "uridecodebin"),
        *("videoconvert", "videorate", "videoscale", "videotestsrc"),
    ),
    "gstreamer1.0-plugins-good": (
        *("autovideosink", "jpegdec", "jpegenc", "matroskademux", "matroskamux", "mp4mux", "qtdemux", "rtpbin"),
        *("rtph264depay", "rtph264pay", "rtph265depay", "rtpjpegdepay", "rtpvp8pay", "rtspsrc", "v4l2src"),
        *("videoflip", "vp8dec", "vp8enc", "vp9dec"),
    ),
    "gstreamer1.0-plugins-bad": (
        *("dtlssrtpenc", "h264parse", "h265parse", "jpegparse", "openh264dec", "openh264enc", "srtpenc", "webrtcbin"),
    ),
    "gstreamer1.0-plugins-ugly": ("x264enc",),
    "gstreamer1.0-libav": ("avdec_h264", "avdec_h265", "avdec_mpeg2video", "avdec_mpeg4"),
    "gstreamer1.0-nice": ("nicesink", "nicesrc"),
    "nvidia-l4t-gstreamer": ("nvarguscamerasrc", "nvv4l2decoder", "nvv4l2h264enc", "nvvidconv"),
}
"""Elements by the package of Debian, Ubuntu or Jetson Linux that brings them."""

TYPELIBS: dict[str, tuple[str, ...]] = {
    "gir1.2-gst-plugins-base-1.0": ("GstSdp",),
    "gir1.2-gst-plugins-bad-1.0": ("GstWebRTC",),
    "gir1.2-gst-rtsp-server-1.0": ("GstRtspServer",),
}
"""Names below `gi.repository` by the package that brings them: without one, Python does not see that part."""

_JETSON_ONLY = "nvidia-l4t-gstreamer"


def package_of(element: str) -> str | None:
    """The package that brings an element or a typelib; None for one that is not known."""
    brought = (*PACKAGES.items(), *TYPELIBS.items())
    return next((package for package, names in brought if element in names), None)


def missing_elements(*, jetson: bool) -> dict[str, tuple[str, ...]]:
    """Elements and typelibs that are not installed, by the package that brings them; empty where nothing is missing.

    Args:
        jetson: whether NVIDIA's elements should be here.

    Raises:
        MissingDependencyError: without GStreamer and PyGObject.
    """
    brought = (*PACKAGES.items(), *TYPELIBS.items())
    return missing_of(name for package, names in brought if jetson or package != _JETSON_ONLY for name in names)


def missing_of(names: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Which of these elements and typelibs are not installed, by the package that brings them.

    Args:
        names: some of `PACKAGES` and `TYPELIBS`.

    Raises:
        MissingDependencyError: without GStreamer and PyGObject.
    """
    gst = gstreamer().Gst
    typelibs = {name for known in TYPELIBS.values() for name in known}
    missing: dict[str, tuple[str, ...]] = {}
    for name in names:
        here = _has_typelib(name) if name in typelibs else gst.ElementFactory.find(name) is not None
        if not here:
            package = package_of(name) or name
            missing[package] = (*missing.get(package, ()), name)
    return missing


def _has_typelib(name: str) -> bool:
    import gi

    try:
        gi.require_version(name, "1.0")
    except ValueError:
        return False
    return True
