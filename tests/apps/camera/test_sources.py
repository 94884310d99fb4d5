from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edgeseg.apps.camera.decoders import CODECS, FLIPS
from edgeseg.apps.camera.platform import CHOICES, HARDWARE, Platform, find_platform
from edgeseg.apps.camera.sources import SourceOptions, launch_string, public_address, source_kind
from edgeseg.errors import EdgesegError, FrameError, MissingDependencyError, UsageError

JETSONS = {number: Platform(number, frozenset(CHOICES)) for number in (5, 6, 7)}
LINUX = Platform(None, frozenset(CHOICES) - frozenset(HARDWARE))
LIVE = (
    " ! queue name=arrivals leaky=downstream max-size-buffers=1 max-size-bytes=0 max-size-time=0"
    " ! appsink name=frames sync=false max-buffers=1 drop=true"
)
RGBA = " ! nvvidconv flip-method=0 ! video/x-raw,format=RGBA"
PIXELS = " ! videoconvert ! video/x-raw,format={I420,NV12},interlace-mode=progressive;video/x-raw,format=RGB"


class TestKind:
    @pytest.mark.parametrize(
        ("address", "kind"),
        [
            ("csi://0", "csi"),
            ("0", "csi"),
            ("/dev/video1", "v4l2"),
            ("v4l2:///dev/video1", "v4l2"),
            ("rtsp://host/path", "rtsp"),
            ("rtsps://host/path", "rtsp"),
            ("file:///tmp/a.mp4", "video"),
            ("a.mkv", "video"),
            ("a.jpg", "frames"),
            ("frames/*.png", "frames"),
            ("list.txt", "frames"),
            ("scene://street", "frames"),
            ("appsrc://", "frames"),
            ("test://ball", "test"),
            ("videotestsrc ! videoconvert", "gstreamer"),
            ("gst://videotestsrc", "gstreamer"),
        ],
    )
    def test_of_an_address(self, address: str, kind: str) -> None:
        assert source_kind(address) == kind

    def test_of_a_folder(self, tmp_path: Path) -> None:
        assert source_kind(str(tmp_path)) == "frames"

    def test_unknown(self) -> None:
        with pytest.raises(UsageError, match="unknown kind of source 'rstp'; did you mean rtsp"):
            source_kind("rstp://host/path")

    def test_password_is_hidden(self) -> None:
        assert public_address("rtsp://me:secret@host/path") == "rtsp://me:***@host/path"
        assert (
            public_address("rtspsrc location=rtsp://me:secret@host/x ! y")
            == "rtspsrc location=rtsp://me:***@host/x ! y"
        )


class TestJetson:
    @pytest.mark.parametrize("jetpack", [5, 6, 7])
    def test_csi(self, jetpack: int) -> None:
        assert launch_string("csi://1", SourceOptions(), JETSONS[jetpack]) == (
            "nvarguscamerasrc sensor-id=1 ! video/x-raw(memory:NVMM),width=1280,height=720,framerate=30/1,format=NV12"
            + RGBA
            + LIVE
        )

    @pytest.mark.parametrize("jetpack", [5, 6, 7])
    def test_rtsp(self, jetpack: int) -> None:
        assert launch_string("rtsp://h/p", SourceOptions(codec="h265"), JETSONS[jetpack]) == (
            'rtspsrc location="rtsp://h/p" latency=100 drop-on-latency=true protocols=tcp timeout=5000000 '
            "tcp-timeout=5000000 ! rtph265depay ! h265parse ! nvv4l2decoder enable-max-performance=1" + RGBA + LIVE
        )

    def test_usb_of_motion_jpeg(self) -> None:
        options = SourceOptions(width=1280, height=720, rate=29.97, codec="mjpeg")
        assert launch_string("/dev/video0", options, JETSONS[6]) == (
            'v4l2src device="/dev/video0" ! image/jpeg,width=1280,height=720,framerate=30000/1001 ! jpegparse ! '
            "nvv4l2decoder mjpeg=1" + RGBA + LIVE
        )

    def test_scales_and_flips_on_the_image_compositor(self) -> None:
        options = SourceOptions(flip="clockwise", scale_to=(360, 480))
        string = launch_string("csi://0", options, JETSONS[7])
        assert "nvvidconv flip-method=3 ! video/x-raw,format=RGBA,width=480,height=360" in string

    def test_software_where_it_is_asked_for(self) -> None:
        string = launch_string("rtsp://h/p", SourceOptions(codec="h264", decoder="cpu"), JETSONS[6])
        assert "h264parse ! avdec_h264 ! nvvidconv" in string


class TestLinux:
    def test_usb(self) -> None:
        options = SourceOptions(width=640, height=480, rate=15)
        assert launch_string("v4l2:///dev/video2", options, LINUX) == (
            'v4l2src device="/dev/video2" ! video/x-raw,width=640,height=480,framerate=15/1' + PIXELS + LIVE
        )

    def test_rtsp_finds_the_codec_out(self) -> None:
        string = launch_string("rtsp://h/p", SourceOptions(latency=20, protocol="udp"), LINUX)
        assert string == (
            'rtspsrc location="rtsp://h/p" latency=20 drop-on-latency=true protocols=udp timeout=5000000 '
            "tcp-timeout=5000000 ! application/x-rtp,media=video ! decodebin" + PIXELS + LIVE
        )

    def test_second_decoder_where_the_first_is_missing(self) -> None:
        platform = Platform(None, frozenset({"openh264dec"}))
        assert "h264parse ! openh264dec !" in launch_string("rtsp://h/p", SourceOptions(codec="h264"), platform)

    def test_file_plays_at_its_pace_or_as_fast_as_it_goes(self, tmp_path: Path) -> None:
        path = tmp_path / "a b.mp4"
        path.touch()
        pictures = 'caps="video/x-raw(ANY)" expose-all-streams=false'
        start = f'uridecodebin uri="{path.as_uri()}" {pictures}' + PIXELS
        assert launch_string(str(path), SourceOptions(), LINUX) == f"{start} ! identity sync=true{LIVE}"
        assert launch_string(f"file://{path}", SourceOptions(live=False), LINUX) == (
            f"{start} ! queue name=arrivals max-size-buffers=2 max-size-bytes=0 max-size-time=0"
            " ! appsink name=frames sync=false max-buffers=2 drop=false"
        )

    def test_own_pipeline(self) -> None:
        own = "gst://mysrc name=x"
        assert launch_string(own, SourceOptions(), LINUX) == "mysrc name=x" + PIXELS + LIVE
        whole = "mysrc ! videoconvert ! video/x-raw,format=RGB ! appsink name=mine"
        assert launch_string(whole, SourceOptions(), LINUX) == whole


class TestEveryStringParses:
    """What runs on this machine is understood by GStreamer itself."""

    @pytest.mark.parametrize("flip", FLIPS)
    def test_flips(self, gst: Any, flip: str) -> None:
        gst.Gst.parse_launch(launch_string("test://ball", SourceOptions(flip=flip), find_platform()))

    @pytest.mark.parametrize("codec", CODECS)
    def test_codecs(self, gst: Any, codec: str) -> None:
        try:
            string = launch_string("/dev/video0", SourceOptions(codec=codec), find_platform())
        except MissingDependencyError as error:
            pytest.skip(str(error))
        gst.Gst.parse_launch(string)

    @pytest.mark.parametrize("address", ["rtsp://h/p", "test://smpte", "scene://street", "/dev/video0", "a.png"])
    @pytest.mark.parametrize("live", [True, False])
    def test_kinds(self, gst: Any, address: str, live: bool) -> None:
        options = SourceOptions(live=live, scale_to=(36, 48), rate=10.0)
        gst.Gst.parse_launch(launch_string(address, options, find_platform()))


class TestRefused:
    @pytest.mark.parametrize(
        ("address", "options", "kind", "message"),
        [
            ("csi://0", {}, UsageError, "nvarguscamerasrc is not on this machine; take v4l2:///dev/video0"),
            ("csi://front", {}, UsageError, "csi:// and its number, such as csi://0, but got csi://front"),
            ("missing.mp4", {}, FrameError, "there is no file missing.mp4"),
            ("test://smtpe", {}, UsageError, "unknown test picture 'smtpe'; did you mean smpte"),
            ("rtsp://h/p", {"codec": "mpeg2"}, UsageError, "RTSP does not carry mpeg2"),
            ("rtsp://h/p", {"codec": "h264", "decoder": "hardware"}, UsageError, "no hardware decoder for h264"),
        ],
    )
    def test_sources(self, address: str, options: dict[str, Any], kind: type[EdgesegError], message: str) -> None:
        with pytest.raises(kind, match=message):
            launch_string(address, SourceOptions(**options), LINUX)

    def test_no_decoder(self) -> None:
        with pytest.raises(MissingDependencyError, match=r"avdec_h264 or openh264dec is needed to decode h264.*libav"):
            launch_string("rtsp://h/p", SourceOptions(codec="h264"), Platform(None, frozenset()))

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"width": 640}, "--input-width and --input-height go together"),
            ({"codec": "hevc"}, "unknown codec 'hevc'"),
            ({"flip": "up"}, "unknown flip 'up'"),
            ({"loop": -2}, "--input-loop is -1"),
        ],
    )
    def test_options(self, options: dict[str, Any], message: str) -> None:
        with pytest.raises(UsageError, match=message):
            SourceOptions(**options)


class TestPlatform:
    @pytest.mark.parametrize(("release", "jetpack"), [("R35", 5), ("R36", 6), ("R38", 7), ("R32", None)])
    def test_of_a_release(self, gst: Any, tmp_path: Path, release: str, jetpack: int | None) -> None:
        (tmp_path / "etc").mkdir()
        (tmp_path / "etc" / "nv_tegra_release").write_text(f"# {release} (release), REVISION: 4.3, GCID: 1\n")
        assert find_platform(tmp_path).jetpack == jetpack

    def test_elsewhere_has_no_hardware(self, gst: Any, tmp_path: Path) -> None:
        platform = find_platform(tmp_path)
        assert platform.jetpack is None
        assert platform.first(*HARDWARE) is None
