"""From the address of a source and the machine to the GStreamer launch string that gives its frames.

Addresses and option names are those of jetson-inference (dusty-nv/jetson-utils, cpp/video/videoOptions.*, and
jetson-inference, docs/aux-streaming.md), so that a command line written for it runs here. The strings on a Jetson
follow its gstCamera.cpp and gstDecoder.cpp.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import unquote

from edgeseg.apps.camera.decoders import CODECS, FLIPS, decoder, to_pixels
from edgeseg.apps.camera.pixels import TAKEN
from edgeseg.apps.camera.platform import Platform
from edgeseg.calibration.images import IMAGE_SUFFIXES
from edgeseg.errors import FrameError, UsageError, unknown_name

__all__ = [
    "ARRIVALS",
    "FRAMES",
    "KINDS",
    "PYTHON_FRAMES",
    "SourceKind",
    "SourceOptions",
    "launch_string",
    "public_address",
    "source_kind",
]

SourceKind = Literal["csi", "v4l2", "rtsp", "video", "frames", "test", "gstreamer"]
KINDS = ("csi", "v4l2", "rtsp", "file", "test", "scene", "appsrc")
"""Schemes of addresses."""

FRAMES, ARRIVALS, PYTHON_FRAMES = "frames", "arrivals", "python"
"""Names in launch strings: the appsink; the queue before it, where frames are counted; the appsrc of Python's."""

_PATTERNS = ("smpte", "ball", "snow", "black", "white", "circular", "checkers-8", "gradient", "pinwheel", "spokes")
_EXAMPLES = (
    "csi://0, v4l2:///dev/video0, rtsp://HOST/PATH, a video, image, folder or glob, test://smpte, scene://street"
)


@dataclass(frozen=True)
class SourceOptions:
    """How a source is captured.

    Attributes:
        width, height: in pixels; of a camera what it captures, of anything else what its frames are scaled to.
        rate: frames per second; of a camera what it captures, of a video the most that is taken.
        codec: one of `CODECS`; None finds out, or takes a camera's raw frames.
        decoder: "hardware" or "cpu"; None for hardware where it is.
        flip: one of `FLIPS`.
        loop: times that a file is played once more, -1 for ever.
        latency: of RTSP's jitter buffer, ms.
        protocol: "tcp" or "udp", of RTSP.
        count: frames that a test picture gives; None for no end.
        live: frames come at the source's pace and those that are too many are left out; otherwise every frame comes,
            as fast as they are taken.
        scale_to: (height, width) that frames are scaled to as early as that can be done, for results that need no
            frame of full size; None keeps their size.
    """

    width: int | None = None
    height: int | None = None
    rate: float | None = None
    codec: str | None = None
    decoder: Literal["cpu", "hardware"] | None = None
    flip: str = "none"
    loop: int = 0
    latency: int = 100
    protocol: Literal["tcp", "udp"] = "tcp"
    count: int | None = None
    live: bool = True
    scale_to: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if (self.width is None) != (self.height is None):
            raise UsageError("--input-width and --input-height go together; give both or none")
        if self.codec is not None and self.codec not in CODECS:
            raise UsageError(unknown_name("codec", self.codec, CODECS))
        if self.flip not in FLIPS:
            raise UsageError(unknown_name("flip", self.flip, FLIPS))
        if self.loop < -1:
            raise UsageError(f"--input-loop is -1 (for ever), 0 or a number of times, but is {self.loop}")

    @property
    def size(self) -> tuple[int, int] | None:
        """(width, height) that frames are captured in or scaled to."""
        return None if self.width is None or self.height is None else (self.width, self.height)


def source_kind(address: str) -> SourceKind:
    """What an address means.

    Raises:
        UsageError: for an address of no known kind.
    """
    if " ! " in address or address.startswith("gst://"):
        return "gstreamer"
    if re.fullmatch(r"\d+", address):
        return "csi"
    if address.startswith("/dev/video"):
        return "v4l2"
    scheme, mark, _ = address.partition("://")
    if not mark or scheme == "file":
        # A folder, glob, list or image is read by Python: GStreamer reads numbered files of one size and kind only.
        return "frames" if _is_images(_path(address)) else "video"
    if scheme not in KINDS and scheme not in ("rtsps", "rtspt"):
        raise UsageError(f"{unknown_name('kind of source', scheme, KINDS)}; a source is {_EXAMPLES}, or a pipeline")
    kinds: dict[str, SourceKind] = {"scene": "frames", "appsrc": "frames", "rtsps": "rtsp", "rtspt": "rtsp"}
    known: SourceKind = kinds.get(scheme, scheme)  # type: ignore[arg-type]
    return known


def public_address(address: str) -> str:
    """An address without the password in it, for logs and pages."""
    return re.sub(r"(\w+://[^\s:/@]*):[^\s/@]*@", r"\1:***@", address)


def launch_string(address: str, options: SourceOptions, platform: Platform) -> str:
    """The pipeline of a source, for `gst_parse_launch`: frames that `pixels` reads come out of its appsink `frames`.

    Args:
        address: of the source, see docs/camera.md; a string with " ! " in it is a pipeline of the user's own.
        options: how it is captured.
        platform: what the machine has.

    Raises:
        UsageError: for an unknown kind of source, or one that this machine cannot capture.
        FrameError: for a file that is not there.
        MissingDependencyError: where no decoder for the codec is installed.
    """
    kind = source_kind(address)
    if kind == "gstreamer":
        return _own_pipeline(address.removeprefix("gst://"), options)
    parts = {"csi": _csi, "v4l2": _v4l2, "rtsp": _rtsp, "video": _video, "frames": _python, "test": _test}[kind]
    return " ! ".join([*parts(address, options, platform), *_ending(options, paced=kind == "video")])


def _csi(address: str, options: SourceOptions, platform: Platform) -> list[str]:
    sensor = address.rpartition("/")[2]
    if not sensor.isdecimal():
        raise UsageError(f"a CSI camera is csi:// and its number, such as csi://0, but got {address}")
    if not platform.has("nvarguscamerasrc"):
        raise UsageError(
            f"{address} is a camera on a Jetson's CSI connector, and nvarguscamerasrc is not on this machine; take "
            "v4l2:///dev/video0, or give the pipeline of your board's camera, such as 'libcamerasrc ! videoconvert'"
        )
    width, height = options.size or (1280, 720)
    caps = f"video/x-raw(memory:NVMM),width={width},height={height},framerate={_rate(options, 30)},format=NV12"
    return [f"nvarguscamerasrc sensor-id={sensor}", caps, *to_pixels(options.flip, None, options.scale_to, platform)]


def _v4l2(address: str, options: SourceOptions, platform: Platform) -> list[str]:
    device = address.removeprefix("v4l2://")
    if not device.startswith("/"):
        device = f"/dev/video{device}"
    width, height = options.size or (640, 480)
    shape = f"width={width},height={height},framerate={_rate(options, 30)}"
    source = f"v4l2src device={_quoted(device)}"
    if options.codec is None:
        parts = [source, f"video/x-raw,{shape}"]
    else:
        codec = CODECS[options.codec]
        parts = [source, f"{codec.camera_caps},{shape}", *decoder(options.codec, options.decoder, platform)]
    return [*parts, *to_pixels(options.flip, None, options.scale_to, platform)]


def _rtsp(address: str, options: SourceOptions, platform: Platform) -> list[str]:
    # Its own timeouts do not see a server that hangs, which the frame watchdog does; they only free what hangs.
    source = (
        f"rtspsrc location={_quoted(address)} latency={options.latency} drop-on-latency=true "
        f"protocols={options.protocol} timeout=5000000 tcp-timeout=5000000"
    )
    if options.codec is None:
        parts = [source, "application/x-rtp,media=video", "decodebin"]
    else:
        payload = CODECS[options.codec].payload
        if payload is None:
            raise UsageError(f"RTSP does not carry {options.codec}; give --input-codec h264, h265, vp8, vp9 or mjpeg")
        parts = [source, payload, *decoder(options.codec, options.decoder, platform)]
    return [*parts, *_reduced(options), *to_pixels(options.flip, options.size, options.scale_to, platform)]


def _video(address: str, options: SourceOptions, platform: Platform) -> list[str]:
    path = _path(address)
    if not path.is_file():
        raise FrameError(f"there is no file {path}; a source is {_EXAMPLES}, or a pipeline with ' ! ' in it")
    demuxers = {".mp4": "qtdemux", ".mov": "qtdemux", ".m4v": "qtdemux", ".mkv": "matroskademux"}
    demuxer = demuxers.get(path.suffix.lower())
    if options.codec is None or demuxer is None:
        # Sound would be decoded too, for nobody.
        pictures = 'caps="video/x-raw(ANY)" expose-all-streams=false'
        parts = [f"uridecodebin uri={_quoted(path.resolve().as_uri())} {pictures}"]
    else:
        opened = f"filesrc location={_quoted(str(path))}"
        parts = [opened, demuxer, *decoder(options.codec, options.decoder, platform)]
    return [*parts, *_reduced(options), *to_pixels(options.flip, options.size, options.scale_to, platform)]


def _python(address: str, options: SourceOptions, platform: Platform) -> list[str]:
    source = f"appsrc name={PYTHON_FRAMES} format=time block=true max-bytes=1"
    if options.flip == "none" and options.size is None and options.scale_to is None:
        return [source, *_reduced(options)]
    return [source, *_reduced(options), *to_pixels(options.flip, options.size, options.scale_to, platform)]


def _test(address: str, options: SourceOptions, platform: Platform) -> list[str]:
    pattern = address.removeprefix("test://") or "smpte"
    if pattern not in _PATTERNS:
        raise UsageError(unknown_name("test picture", pattern, _PATTERNS))
    width, height = options.size or (640, 480)
    source = f"videotestsrc pattern={pattern} is-live={str(options.live).lower()}"
    if options.count is not None:
        source += f" num-buffers={options.count}"
    caps = f"video/x-raw,format=RGB,width={width},height={height},framerate={_rate(options, 30)}"
    shaped = options.flip != "none" or options.scale_to is not None
    return [source, caps, *(to_pixels(options.flip, None, options.scale_to, platform) if shaped else [])]


def _own_pipeline(text: str, options: SourceOptions) -> str:
    """A user's pipeline: whole where it has an appsink of its own, else its frames are converted and taken."""
    text = text.strip().rstrip("!").rstrip()
    if re.search(r"\bappsink\b", text):
        return text
    return " ! ".join([text, "videoconvert", TAKEN, *_ending(options, paced=False)])


def _ending(options: SourceOptions, *, paced: bool) -> list[str]:
    if not options.live:
        return [
            f"queue name={ARRIVALS} max-size-buffers=2 max-size-bytes=0 max-size-time=0",
            f"appsink name={FRAMES} sync=false max-buffers=2 drop=false",
        ]
    # A file is let through at its own pace before the queue, and is from there on as a camera is; sync=true in the
    # appsink instead would cost 55 ms.
    return [
        *(["identity sync=true"] if paced else []),
        f"queue name={ARRIVALS} leaky=downstream max-size-buffers=1 max-size-bytes=0 max-size-time=0",
        f"appsink name={FRAMES} sync=false max-buffers=1 drop=true",
    ]


def _reduced(options: SourceOptions) -> list[str]:
    if options.rate is None:
        return []
    return ["videorate drop-only=true", f"video/x-raw(ANY),framerate={_rate(options, 30)}"]


def _rate(options: SourceOptions, default: float) -> str:
    """Frames per second as GStreamer's fraction; rates of television (29.97) are multiples of 1/1001."""
    rate = options.rate or default
    if rate == int(rate):
        return f"{int(rate)}/1"
    near = round(rate * 1.001)
    return f"{near * 1000}/1001" if abs(near / 1.001 - rate) < 0.006 else f"{round(rate * 1000)}/1000"


def _path(address: str) -> Path:
    return Path(unquote(address.removeprefix("file://")) if address.startswith("file://") else address).expanduser()


def _is_images(path: Path) -> bool:
    suffix = path.suffix.lower()
    globbed = any(mark in str(path) for mark in "*?[") and not path.exists()
    return path.is_dir() or globbed or suffix in IMAGE_SUFFIXES or suffix == ".txt"


def _quoted(text: str) -> str:
    """A value inside a launch string."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
