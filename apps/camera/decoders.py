"""Decoders and conversions of a launch string: the hardware's where it has one, software elsewhere."""

from __future__ import annotations

from dataclasses import dataclass

from edgeseg.apps.camera.gst import APT
from edgeseg.apps.camera.pixels import TAKEN
from edgeseg.apps.camera.platform import Platform
from edgeseg.errors import MissingDependencyError, UsageError

__all__ = ["CODECS", "FLIPS", "Codec", "decoder", "to_pixels"]

FLIPS: dict[str, tuple[int, str]] = {
    "none": (0, "identity"),
    "counterclockwise": (1, "90l"),
    "rotate-180": (2, "180"),
    "clockwise": (3, "90r"),
    "horizontal": (4, "horiz"),
    "upper-right-diagonal": (5, "ur-ll"),
    "vertical": (6, "vert"),
    "upper-left-diagonal": (7, "ul-lr"),
}
"""nvvidconv's flip-method and videoflip's video-direction by jetson-inference's name of a flip."""


@dataclass(frozen=True)
class Codec:
    """How a compressed stream is taken.

    Attributes:
        camera_caps: as a USB camera announces it.
        payload: element that takes it from RTP; None where RTSP does not carry it.
        parser: element before the decoder; None for none.
        hardware: Jetson's decoder with its options; None where there is none.
        software: decoders, the preferred first.
    """

    camera_caps: str
    payload: str | None
    parser: str | None
    hardware: str | None
    software: tuple[str, ...]


_V4L2_DECODER = "nvv4l2decoder enable-max-performance=1"
CODECS: dict[str, Codec] = {
    "h264": Codec("video/x-h264", "rtph264depay", "h264parse", _V4L2_DECODER, ("avdec_h264", "openh264dec")),
    "h265": Codec("video/x-h265", "rtph265depay", "h265parse", _V4L2_DECODER, ("avdec_h265",)),
    "vp8": Codec("video/x-vp8", "rtpvp8depay", None, _V4L2_DECODER, ("vp8dec",)),
    "vp9": Codec("video/x-vp9", "rtpvp9depay", None, _V4L2_DECODER, ("vp9dec",)),
    "mpeg2": Codec("video/mpeg,mpegversion=2", None, "mpegvideoparse", _V4L2_DECODER, ("avdec_mpeg2video",)),
    "mpeg4": Codec("video/mpeg,mpegversion=4", None, "mpeg4videoparse", _V4L2_DECODER, ("avdec_mpeg4",)),
    "mjpeg": Codec("image/jpeg", "rtpjpegdepay", "jpegparse", "nvv4l2decoder mjpeg=1", ("jpegdec",)),
}
"""Codecs by jetson-inference's names."""


def decoder(codec: str, asked: str | None, platform: Platform) -> list[str]:
    """Parser and decoder of a codec.

    Args:
        codec: a name of `CODECS`.
        asked: "hardware", "cpu", or None for hardware where it is.
        platform: what the machine has.

    Raises:
        UsageError: for hardware that is not there.
        MissingDependencyError: where no software decoder is installed.
    """
    entry = CODECS[codec]
    parser = [entry.parser] if entry.parser else []
    on_hardware = entry.hardware is not None and platform.has("nvv4l2decoder")
    if asked == "hardware" and not on_hardware:
        raise UsageError(f"there is no hardware decoder for {codec} on this machine; leave out --input-decoder")
    if entry.hardware is not None and on_hardware and asked != "cpu":
        return [*parser, entry.hardware]
    software = platform.first(*entry.software)
    if software is None:
        raise MissingDependencyError(" or ".join(entry.software), f"decode {codec}", APT)
    return [*parser, software]


def to_pixels(
    flip: str, size: tuple[int, int] | None, scale_to: tuple[int, int] | None, platform: Platform
) -> list[str]:
    """From what a camera or decoder gives to frames in memory in a format that `pixels` reads.

    Args:
        flip: one of `FLIPS`.
        size: (width, height) to scale to, or None.
        scale_to: (height, width) to scale to instead, or None.
        platform: what the machine has; nvvidconv is the Jetson's image compositor (VIC), which writes four bytes a
            pixel only, and takes frames from its own and from the system's memory.
    """
    wanted = (scale_to[1], scale_to[0]) if scale_to else size
    caps = "" if wanted is None else f",width={wanted[0]},height={wanted[1]}"
    if platform.has("nvvidconv"):
        return [f"nvvidconv flip-method={FLIPS[flip][0]}", f"video/x-raw,format=RGBA{caps}"]
    # Scaled before it is converted: a decoder's frames have half the bytes of RGB.
    scaled = [] if wanted is None else ["videoscale", f"video/x-raw{caps}"]
    turned = [] if flip == "none" else [f"videoflip video-direction={FLIPS[flip][1]}"]
    if turned and wanted is not None:
        scaled, turned = [], [*turned, "videoscale", f"video/x-raw{caps}"]
    return [*turned, *scaled, "videoconvert", TAKEN]
