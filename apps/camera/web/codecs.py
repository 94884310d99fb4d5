"""The video that WebRTC carries: which codec this machine encodes, and what it lacks where it cannot."""

from __future__ import annotations

from dataclasses import dataclass

from edgeseg.apps.camera.elements import missing_of
from edgeseg.apps.camera.gst import gstreamer
from edgeseg.apps.camera.platform import find_platform
from edgeseg.apps.camera.sinks.encoding import h264
from edgeseg.errors import MissingDependencyError

__all__ = ["Codec", "codec_of"]

_TRANSPORT = ("GstWebRTC", "GstSdp", "webrtcbin", "nicesrc", "nicesink", "dtlssrtpenc", "srtpenc", "rtpbin")
"""What WebRTC needs for any codec."""

_PAYLOAD_TYPE = 96  # The first of those that a session gives out, RFC 3551 section 6.
_PURPOSE = "show video by WebRTC"


@dataclass(frozen=True)
class Codec:
    """How pictures become video for browsers.

    Attributes:
        name: "vp8" or "h264".
        encode: launch string from raw RGB to encoded frames.
        pay: launch string from those to RTP packets with their caps.
        parameters: line of the offer that tells a browser what the packets hold; empty where it needs none.
    """

    name: str
    encode: str
    pay: str
    parameters: str = ""


def codec_of(asked: str, *, bitrate: int, rate: float) -> Codec:
    """The codec for a page.

    Args:
        asked: one of `address.CODECS`; "auto" takes a Jetson's H.264 hardware, elsewhere VP8; every browser has both.
        bitrate: bits per second.
        rate: frames per second.

    Raises:
        MissingDependencyError: where GStreamer or a part of it is not here; names the packages.
    """
    gstreamer()
    _need(*_TRANSPORT)
    if asked == "auto":
        asked = "h264" if find_platform().has("nvv4l2h264enc") else "vp8"
    return _vp8(bitrate, rate) if asked == "vp8" else _h264(bitrate, rate)


def _vp8(bitrate: int, rate: float) -> Codec:
    _need("vp8enc", "rtpvp8pay")
    # The settings of libvpx for calls: no picture waits for a later one, and none costs more than its share.
    encode = (
        "videoconvert ! video/x-raw,format=I420 ! "
        f"vp8enc deadline=1 cpu-used=8 lag-in-frames=0 end-usage=cbr target-bitrate={bitrate} undershoot=95 "
        f"buffer-size=1000 buffer-initial-size=500 buffer-optimal-size=600 keyframe-max-dist={_key_distance(rate)}"
    )
    return Codec("vp8", encode, f"rtpvp8pay pt={_PAYLOAD_TYPE} picture-id-mode=15-bit ! {_rtp('VP8')}")


def _h264(bitrate: int, rate: float) -> Codec:
    _need("h264parse", "rtph264pay")
    encoder = h264(find_platform(), bitrate=bitrate, rate=rate)
    encode = f"{encoder} ! video/x-h264,stream-format=byte-stream,alignment=au"
    if "x264enc" in encode:
        # Browsers decode this profile in any case; another one they may refuse.
        encode += ",profile=constrained-baseline"
    return Codec(
        "h264",
        encode,
        f"rtph264pay pt={_PAYLOAD_TYPE} config-interval=-1 aggregate-mode=zero-latency ! {_rtp('H264')}",
        # RFC 6184 section 8.1: constrained baseline, pictures larger than a packet are sent in fragments.
        f"a=fmtp:{_PAYLOAD_TYPE} level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f",
    )


def _rtp(encoding: str) -> str:
    return f"application/x-rtp,media=video,encoding-name={encoding},clock-rate=90000,payload={_PAYLOAD_TYPE}"


def _key_distance(rate: float) -> int:
    # Who joins or loses a packet asks for a key frame; beyond that few are needed.
    return max(round(10 * rate), 1)


def _need(*names: str) -> None:
    missing = missing_of(names)
    if missing:
        lacking = ", ".join(name for found in missing.values() for name in found)
        raise MissingDependencyError(lacking, _PURPOSE, f"sudo apt-get install -y {' '.join(missing)}")
