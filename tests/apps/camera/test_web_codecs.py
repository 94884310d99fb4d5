"""Which codec the page's video has, and what its encoder makes."""

from __future__ import annotations

import itertools
import threading
from typing import Any

import numpy as np
import pytest
from support.web_page import WAIT_S

from edgeseg.apps.camera.platform import Platform
from edgeseg.apps.camera.web import codecs
from edgeseg.apps.camera.web.codecs import Codec, codec_of
from edgeseg.apps.camera.web.encoder import VideoEncoder
from edgeseg.errors import MissingDependencyError, OutputError


@pytest.fixture
def complete(gst: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that has everything."""
    monkeypatch.setattr(codecs, "missing_of", lambda names: {})


@pytest.mark.usefixtures("complete")
class TestCodecOf:
    def test_vp8_where_nothing_else_is_asked_for(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(codecs, "find_platform", lambda: Platform(None, frozenset({"x264enc"})))
        codec = codec_of("auto", bitrate=1_500_000, rate=12)
        assert codec.name == "vp8"
        assert "target-bitrate=1500000" in codec.encode
        assert "keyframe-max-dist=120" in codec.encode

    def test_a_jetson_encodes_with_its_hardware(self, monkeypatch: pytest.MonkeyPatch) -> None:
        jetson = Platform(6, frozenset({"nvv4l2h264enc", "nvvidconv", "x264enc"}))
        monkeypatch.setattr(codecs, "find_platform", lambda: jetson)
        codec = codec_of("auto", bitrate=4_000_000, rate=30)
        assert codec.name == "h264"
        assert "nvv4l2h264enc bitrate=4000000" in codec.encode
        assert "profile=" not in codec.encode
        assert codec_of("vp8", bitrate=4_000_000, rate=30).name == "vp8"

    def test_h264_is_of_the_profile_that_every_browser_decodes(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(codecs, "find_platform", lambda: Platform(None, frozenset({"x264enc"})))
        assert codec_of("h264", bitrate=1, rate=30).encode.endswith("profile=constrained-baseline")

    def test_h264_without_an_encoder(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(codecs, "find_platform", lambda: Platform(None, frozenset()))
        with pytest.raises(MissingDependencyError, match="x264enc or openh264enc is needed to encode video"):
            codec_of("h264", bitrate=1, rate=30)


class TestMissing:
    def test_names_every_part_and_package(self, gst: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        absent = {"GstWebRTC": "gir1.2-gst-plugins-bad-1.0", "nicesrc": "gstreamer1.0-nice"}
        monkeypatch.setattr(
            codecs, "missing_of", lambda names: {absent[name]: (name,) for name in names if name in absent}
        )
        with pytest.raises(MissingDependencyError) as raised:
            codec_of("auto", bitrate=1, rate=30)
        assert str(raised.value) == (
            "GstWebRTC, nicesrc is needed to show video by WebRTC, but it is not installed; "
            "run: sudo apt-get install -y gir1.2-gst-plugins-bad-1.0 gstreamer1.0-nice"
        )


class TestEncoder:
    def test_makes_key_frames_when_asked(self, gst: Any) -> None:
        if gst.Gst.ElementFactory.find("vp8enc") is None:
            pytest.skip("there is no vp8enc on this machine")
        encode = "videoconvert ! video/x-raw,format=I420 ! vp8enc deadline=1 cpu-used=8 lag-in-frames=0"
        encoder = VideoEncoder(Codec("vp8", f"{encode} keyframe-max-dist=1000", ""))
        keys: list[bool] = []
        arrived = threading.Semaphore(0)
        encoder.add(lambda frame, caps, is_key: (keys.append(is_key), arrived.release()))
        try:
            for number in itertools.count():
                if number == 6:
                    encoder.want_key_frame()
                encoder.push(np.full((49, 65, 3), 9 * number, np.uint8))
                assert arrived.acquire(timeout=WAIT_S)
                if number == 9:
                    break
        finally:
            encoder.stop()
        assert keys == [True, *[False] * 5, True, *[False] * 3]
        assert encoder.left_out == 0

    def test_one_that_cannot_be_made(self, gst: Any) -> None:
        with pytest.raises(OutputError, match="cannot encode video: no element"):
            VideoEncoder(Codec("none", "nosuchelement", ""))

    def test_one_that_fails_says_so(self, gst: Any) -> None:
        encoder = VideoEncoder(Codec("odd", "identity error-after=1 ! fakesink videotestsrc", ""))

        def push_all() -> None:
            for _ in range(1000):
                encoder.push(np.zeros((48, 64, 3), np.uint8))
                threading.Event().wait(0.01)

        try:
            with pytest.raises(OutputError, match="cannot encode video as odd: "):
                push_all()
        finally:
            encoder.stop()
