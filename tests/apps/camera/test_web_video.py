"""The page's video over WebRTC, watched by GStreamer's own client."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import json
import logging
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.web_client import CountingPainter, Session, answer, with_client
from support.web_page import FACTS, LABELS, WAIT_S, camera_result, filled, page_of
from support.webrtc_client import watching

from edgeseg.apps.camera.drawing import Painter
from edgeseg.apps.camera.sinks import SinkOptions
from edgeseg.apps.camera.web import codecs, video
from edgeseg.apps.camera.web.address import WebAddress
from edgeseg.apps.camera.web.codecs import codec_of
from edgeseg.apps.camera.web.encoder import VideoEncoder
from edgeseg.apps.camera.web.newest import Newest
from edgeseg.apps.camera.web.server import WebServer
from edgeseg.apps.camera.web.video import Video, VideoOptions
from edgeseg.errors import MissingDependencyError, OutputError

pytest.importorskip("aiohttp")

GREY = 128
MISSING = "webrtcbin is needed to show video by WebRTC, but it is not installed; run: sudo apt-get install -y "


@pytest.fixture(autouse=True)
def _webrtc(gst: Any) -> None:
    try:
        codec_of("vp8", bitrate=1_000_000, rate=30)
    except MissingDependencyError as error:
        pytest.skip(str(error))


def still() -> Iterator[Any]:
    """A camera that sees nothing move."""
    for _ in itertools.count():
        yield camera_result(30)


def assert_overlay(picture: Any) -> None:
    """The frame under its classes, as the codec left it."""
    road, sky, other = (np.array(color) / 2 + GREY / 2 for color in LABELS.palette)
    for found, expected in ((picture[40, 8], road), (picture[8, 8], sky), (picture[8, 56], other)):
        assert abs(found - expected).max() <= 16, (found, expected)


class TestPicture:
    @pytest.mark.parametrize("codec", ["vp8", "h264"])
    def test_shows_the_overlay(self, codec: str) -> None:
        async def steps(session: Session) -> None:
            async with watching(session) as client:
                picture = await asyncio.to_thread(client.picture)
                assert picture is not None
                assert picture.shape == (48, 64, 3)
                assert_overlay(picture)
                # And more of them.
                for _ in range(5):
                    assert await asyncio.to_thread(client.picture) is not None

        with page_of(f"web://127.0.0.1:0?codec={codec}") as sink, filled(sink, still()):
            with_client(sink, steps)

    def test_is_as_wide_as_asked_for_and_keeps_its_size(self) -> None:
        async def steps(session: Session) -> None:
            async with watching(session) as client:
                for _ in range(8):
                    picture = await asyncio.to_thread(client.picture)
                    assert picture is not None
                    assert picture.shape == (48, 64, 3)

        sizes = itertools.cycle([(96, 128)] * 3 + [(48, 256)] * 3)
        results = (camera_result(number, *next(sizes)) for number in itertools.count())
        with page_of("web://127.0.0.1:0?width=64") as sink:
            sink.put(camera_result(0, 96, 128))
            with filled(sink, results):
                with_client(sink, steps)

    def test_who_joins_after_the_camera_was_lost_sees_its_last(self) -> None:
        async def steps(session: Session) -> None:
            for _ in range(2):
                async with watching(session) as client:
                    picture = await asyncio.to_thread(client.picture)
                    assert picture is not None
                    assert_overlay(picture)

        with page_of() as sink:
            sink.put(camera_result(30))
            with_client(sink, steps)


class TestSharing:
    def test_one_encoder_for_all(self, monkeypatch: pytest.MonkeyPatch) -> None:
        made = []

        class Counted(VideoEncoder):
            def __init__(self, *arguments: Any) -> None:
                made.append(self)
                super().__init__(*arguments)

        monkeypatch.setattr(video, "VideoEncoder", Counted)
        painter = CountingPainter()

        async def steps(session: Session) -> None:
            async with contextlib.AsyncExitStack() as stack:
                clients = [await stack.enter_async_context(watching(session)) for _ in range(5)]
                for client in clients:
                    assert await asyncio.to_thread(client.picture) is not None
                assert len(made) == 1
            # The last to leave ends it; the next one begins it anew.
            async with watching(session) as client:
                assert await asyncio.to_thread(client.picture) is not None

        with page_of(options=SinkOptions(painter)) as sink, filled(sink):
            with_client(sink, steps)
        assert len(made) == 2
        # Each time it begins it draws the newest result, which may be drawn already.
        assert len(painter.numbers) <= len(set(painter.numbers)) + len(made)

    def test_a_client_gets_key_frames_when_it_asks(self, monkeypatch: pytest.MonkeyPatch) -> None:
        keys: list[bool] = []

        class Listened(VideoEncoder):
            def __init__(self, *arguments: Any) -> None:
                super().__init__(*arguments)
                self.add(lambda frame, caps, is_key: keys.append(is_key))

        monkeypatch.setattr(video, "VideoEncoder", Listened)

        async def steps(session: Session) -> None:
            async with watching(session) as client:
                assert await asyncio.to_thread(client.picture) is not None
                await asyncio.sleep(1)
                before, end = sum(keys), time.monotonic() + WAIT_S
                assert before < len(keys) / 2
                client.ask_for_a_key_frame()
                while sum(keys) == before:
                    assert time.monotonic() < end
                    await asyncio.sleep(0.05)

        # By itself a key frame would come after 2400 others.
        facts = type(FACTS)("0", FACTS.source, LABELS, 240.0)
        server = WebServer(WebAddress(port=0), facts, Painter())
        server.start()
        try:
            with filled(server):
                with_client(server, steps)
        finally:
            server.stop()

    def test_no_more_than_so_many(self) -> None:
        async def steps() -> None:
            with ThreadPoolExecutor(1) as worker:
                options = VideoOptions(lambda: codec_of("vp8", bitrate=1_000_000, rate=30), most=1)
                shared = Video(Newest(), Painter(), options, worker)
                async with shared.peer():
                    with pytest.raises(OutputError, match="1 browsers watch the video already"):
                        async with shared.peer():
                            pass
                async with shared.peer():
                    pass
                await shared.close()

        asyncio.run(steps())


class TestLeaving:
    def test_nothing_is_drawn_for_those_who_left(self) -> None:
        painter = CountingPainter()

        async def steps() -> None:
            newest = Newest()
            newest.attach(asyncio.get_running_loop())
            with ThreadPoolExecutor(1) as worker:
                shared = Video(newest, painter, VideoOptions(lambda: codec_of("vp8", bitrate=1, rate=30)), worker)
                async with shared.peer():
                    pass
                newest.put(camera_result(0))  # for which the encoder waited meanwhile
                for _ in range(20):
                    await asyncio.sleep(0.01)
                await shared.close()

        asyncio.run(steps())
        assert painter.numbers == []

    def test_twenty_leave_nothing_behind(self) -> None:
        async def join(session: Session) -> None:
            async with watching(session) as client:
                assert await asyncio.to_thread(client.picture) is not None

        async def steps(session: Session) -> None:
            async def held() -> tuple[int, int, float]:
                """Threads, open files and MB once nobody watches."""
                end = time.monotonic() + WAIT_S
                while json.loads(await (await session.get("/stats.json")).text())["clients"]:
                    assert time.monotonic() < end
                    await asyncio.sleep(0.05)
                await asyncio.sleep(1)
                gc.collect()
                status = Path("/proc/self/status").read_text()
                resident = next(line for line in status.splitlines() if line.startswith("VmRSS"))
                counts = [len(os.listdir(f"/proc/self/{name}")) for name in ("task", "fd")]
                return counts[0], counts[1], int(resident.split()[1]) / 1e3

            for _ in range(3):
                await asyncio.gather(*(join(session) for _ in range(4)))
            threads, files, megabytes = await held()
            for _ in range(5):
                await asyncio.gather(*(join(session) for _ in range(4)))
            after = await held()
            # Python's pools and GStreamer's keep a thread or two, and twenty connections have more than a hundred.
            assert after[0] <= threads + 8
            assert after[1] <= files + 8
            assert after[2] <= megabytes + 20

        with page_of() as sink, filled(sink):
            with_client(sink, steps)
        assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("edgeseg-web")]

    def test_the_server_may_go_first(self) -> None:
        async def steps(session: Session) -> None:
            async with session.ws_connect("/video") as silent, watching(session) as client:
                assert (await silent.receive_json())["kind"] == "offer"
                assert await asyncio.to_thread(client.picture) is not None
                await asyncio.to_thread(sink.stop)

        with page_of() as sink, filled(sink):
            with_client(sink, steps)
        assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("edgeseg-web")]


class TestBadClients:
    def test_one_that_never_answers_is_dropped_and_stops_nobody(self, caplog: pytest.LogCaptureFixture) -> None:
        async def steps(session: Session) -> None:
            async with session.ws_connect("/video") as silent, watching(session) as client:
                assert (await silent.receive_json())["kind"] == "offer"
                end = time.monotonic() + WAIT_S
                while "took nothing for 2 s and was dropped" not in caplog.text:
                    assert time.monotonic() < end
                    assert await asyncio.to_thread(client.picture) is not None

        self.serve(steps, caplog)

    def test_one_without_a_way_is_told(self, caplog: pytest.LogCaptureFixture) -> None:
        async def steps(session: Session) -> None:
            async with session.ws_connect("/video") as socket:
                offer = (await socket.receive_json())["sdp"]
                # An answer like any other, to which nobody listens.
                lines = [line for line in offer.splitlines() if not line.startswith("a=candidate")]
                text = (
                    "\r\n".join([*lines, ""]).replace("setup:actpass", "setup:active").replace("sendonly", "recvonly")
                )
                await socket.send_json({"sdp": text})
                refused = await socket.receive_json(timeout=WAIT_S)
                assert refused["kind"] == "refused"
                assert refused["reason"].startswith("no way for video between the browser and the camera")

        self.serve(steps, caplog)

    @pytest.mark.parametrize("text", ["", "no JSON", "[]", '{"sdp": 1}', '{"sdp": "garbage"}', '{"sdp": "v=0\\r\\n"}'])
    def test_one_that_answers_anything_else_is_told(self, text: str, caplog: pytest.LogCaptureFixture) -> None:
        async def steps(session: Session) -> None:
            async with session.ws_connect("/video") as socket:
                await socket.receive_json()
                await socket.send_str(text)
                refused = await socket.receive_json(timeout=WAIT_S)
                assert refused == {
                    "kind": "refused",
                    "reason": "a WebRTC client has to answer with SDP of one video, but sent something else",
                }

        self.serve(steps, caplog)

    @staticmethod
    def serve(steps: Any, caplog: pytest.LogCaptureFixture) -> None:
        server = WebServer(WebAddress(port=0), FACTS, Painter(), patience=2)
        server.start()
        try:
            with caplog.at_level(logging.WARNING), filled(server, still()):
                with_client(server, steps)
        finally:
            server.stop()
        assert "Traceback" not in caplog.text


class TestWithout:
    def test_what_is_missing_is_said_with_its_package(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(codecs, "missing_of", lambda names: {"gstreamer1.0-plugins-bad": ("webrtcbin",)})

        async def steps(session: Session) -> None:
            async with session.ws_connect("/live") as live:
                assert (await live.receive_json())["video"] == {"missing": f"{MISSING}gstreamer1.0-plugins-bad"}
            async with session.ws_connect("/video") as socket:
                refused = {"kind": "refused", "reason": f"{MISSING}gstreamer1.0-plugins-bad"}
                assert await socket.receive_json() == refused

        with page_of() as sink, filled(sink):
            with_client(sink, steps)

    def test_an_encoder_that_fails_is_said_and_begins_anew(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        push, broken = VideoEncoder.push, [True]

        def pushed(self: VideoEncoder, picture: Any) -> None:
            if broken:
                raise OutputError("cannot encode video as vp8: no ink")
            push(self, picture)

        monkeypatch.setattr(VideoEncoder, "push", pushed)

        async def steps(session: Session) -> None:
            async with session.ws_connect("/video") as socket:
                await socket.receive_json()
                await socket.send_json({"sdp": ""})
                assert (await socket.receive_json())["kind"] == "refused"
            broken.clear()
            async with watching(session) as client:
                assert await asyncio.to_thread(client.picture) is not None

        with page_of() as sink, filled(sink), caplog.at_level(logging.WARNING):
            with_client(sink, steps)
            assert answer(sink, "/stats.json")[0] == 200
        assert caplog.text.count("the web page's video stopped: cannot encode video as vp8: no ink") == 1
