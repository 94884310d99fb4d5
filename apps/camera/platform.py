"""What this machine captures, decodes and encodes with: JetPack's hardware elements, or software anywhere else."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgeseg.apps.camera.gst import gstreamer
from edgeseg.backends.tensorrt.board import read_board
from edgeseg.jetpack import version_numbers

__all__ = ["CHOICES", "HARDWARE", "Platform", "find_platform"]

HARDWARE = ("nvarguscamerasrc", "nvv4l2decoder", "nvv4l2h264enc", "nvvidconv", "nvjpegdec", "nv3dsink")
"""NVIDIA's elements for Jetson that launch strings may name."""

CHOICES = (
    *HARDWARE,
    *("avdec_h264", "openh264dec", "avdec_h265", "vp8dec", "vp9dec", "avdec_mpeg2video", "avdec_mpeg4", "jpegdec"),
    *("x264enc", "openh264enc"),
)
"""Every element that a launch string names only where it is installed."""

_JETPACKS = {35: 5, 36: 6, 38: 7, 39: 7}
"""JetPack's major version by that of Jetson Linux."""


@dataclass(frozen=True)
class Platform:
    """A machine, as launch strings know it.

    Attributes:
        jetpack: 5, 6 or 7 on a Jetson; None elsewhere.
        elements: those of `CHOICES` that are installed.
    """

    jetpack: int | None
    elements: frozenset[str]

    def has(self, element: str) -> bool:
        """Whether a launch string may name this element of `CHOICES`."""
        return element in self.elements

    def first(self, *elements: str) -> str | None:
        """The first of these elements that is installed."""
        return next((element for element in elements if element in self.elements), None)


def find_platform(root: Path = Path("/")) -> Platform:
    """This machine.

    Args:
        root: of the file system, for tests.

    Raises:
        MissingDependencyError: without GStreamer.
    """
    gst = gstreamer().Gst
    found = frozenset(name for name in CHOICES if gst.ElementFactory.find(name) is not None)
    release = version_numbers(read_board(root).l4t or "")
    jetpack = _JETPACKS.get(release[0]) if release else None
    # The elements of a Jetson also exist in containers and on NVIDIA's desktop GPUs, where the camera's do not work.
    return Platform(jetpack, found if jetpack else found - frozenset(HARDWARE))
