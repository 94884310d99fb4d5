"""What the page's server answers, and what it sends to a page."""

from __future__ import annotations

import itertools
import json
import logging
import struct
from typing import Any

import numpy as np
import pytest
from support.web_client import CountingPainter, Session, answer, decoded, parts, with_client
from support.web_page import HOSTILE, LABELS, camera_result, filled, page_of

from edgeseg.apps.camera.sinks import SinkOptions

aiohttp = pytest.importorskip("aiohttp")


class TestPaths:
    def test_page_and_its_files(self) -> None:
        with page_of() as sink:
            status, kind, page = answer(sink, "/")
            assert (status, kind) == (200, "text/html")
            assert b'<script type="module" src="page.js">' in page
            for name, kind in (("page.js", "text/javascript"), ("page.css", "text/css"), ("icon.svg", "image/svg+xml")):
                assert answer(sink, f"/{name}")[:2] == (200, kind)
            assert answer(sink, "/token.html")[0] == answer(sink, "/../setup.cfg")[0] == 404

    def test_nothing_is_there_before_the_first_result(self) -> None:
        with page_of() as sink:
            for path in ("/mask.png", "/mask_color.png", "/snapshot.jpg"):
                assert answer(sink, path) == (503, "text/plain", b"there is no picture yet\n")
            numbers = json.loads(answer(sink, "/stats.json")[2])
            assert (numbers["frames"], numbers["age_s"], numbers["latency_ms"], numbers["areas"]) == (0, None, None, {})

    def test_pictures_of_the_newest_result(self) -> None:
        with page_of() as sink:
            for number in range(3):
                sink.put(camera_result(number))
            expected = camera_result(2).segmentation.class_map
            np.testing.assert_array_equal(decoded(answer(sink, "/mask.png")[2]), expected)
            colored = decoded(answer(sink, "/mask_color.png")[2])
            np.testing.assert_array_equal(colored[:, :, ::-1], LABELS.colors()[expected])
            snapshot = decoded(answer(sink, "/snapshot.jpg")[2])
            assert abs(snapshot[40, 8, ::-1].astype(int) - (128, 96, 128)).max() <= 4

    def test_only_what_reads_is_answered(self) -> None:
        async def steps(session: Session) -> list[int]:
            found = []
            for method, path in (("HEAD", "/stream.mjpg"), ("POST", "/live"), ("PUT", "/"), ("GET", "/token")):
                async with session.request(method, path) as response:
                    found.append(response.status)
            return found

        with page_of() as sink:
            assert with_client(sink, steps) == [405] * 4

    def test_statistics(self) -> None:
        with page_of() as sink:
            for number in (0, 1, 4):
                sink.put(camera_result(number, latency_ms=30))
            numbers = json.loads(answer(sink, "/stats.json")[2])
        assert numbers["stream"] == "0"
        assert numbers["source"] == "test://smpte"
        assert (numbers["frames"], numbers["missed"], numbers["number"]) == (3, 2, 4)
        assert numbers["fps"] > 0
        assert numbers["latency_ms"]["p50"] == pytest.approx(30, abs=0.5)
        assert list(numbers["areas"]) == ["road", "sky", HOSTILE]
        assert numbers["areas"]["road"] == 0.5
        assert sum(numbers["areas"].values()) == pytest.approx(1)

    def test_every_answer_has_the_policy(self) -> None:
        async def headers(session: Session) -> list[str]:
            found = []
            for path in ("/", "/none", "/stats.json", "/mask.png"):
                async with session.get(path) as response:
                    found.append(response.headers["Content-Security-Policy"])
                    assert response.headers["X-Content-Type-Options"] == "nosniff"
                    assert response.headers["Cross-Origin-Resource-Policy"] == "same-origin"
            return found

        with page_of() as sink:
            policies = with_client(sink, headers)
        assert all("default-src 'none'" in policy and "unsafe" not in policy for policy in policies)


class TestLive:
    def test_hello_pictures_and_statistics(self) -> None:
        async def steps(session: Session) -> None:
            async with session.ws_connect("/live") as live:
                hello = await live.receive_json()
                assert hello["kind"] == "hello"
                assert hello["classes"][2] == {"name": HOSTILE, "color": [220, 20, 60]}
                assert (hello["alpha"], hello["hidden"]) == (0.5, [])
                assert (await live.receive_json())["kind"] == "statistics"
                # Nothing that was not asked for: the next message is again statistics.
                assert (await live.receive_json())["kind"] == "statistics"
                numbers = []
                for _ in range(3):
                    await live.send_str("next")
                    message = await live.receive()
                    while message.type is aiohttp.WSMsgType.TEXT:
                        message = await live.receive()
                    numbers.append(check_message(message.data))
                assert numbers == sorted(set(numbers))

        def check_message(content: bytes) -> int:
            length = struct.unpack(">I", content[:4])[0]
            facts = json.loads(content[4 : 4 + length])
            assert decoded(content[4 + length :][: facts["jpeg"]]).shape == (48, 64, 3)
            assert (facts["width"], facts["height"]) == (64, 48)
            return int(facts["number"])

        with page_of() as sink, filled(sink):
            with_client(sink, steps)

    @pytest.mark.parametrize("message", ["again", "next" * 1000, b"next"])
    def test_ends_with_a_client_that_says_anything_else(self, message: Any) -> None:
        async def steps(session: Session) -> None:
            async with session.ws_connect("/live") as live:
                await (live.send_bytes(message) if isinstance(message, bytes) else live.send_str(message))
                while (await live.receive()).type is aiohttp.WSMsgType.TEXT:
                    pass
                assert live.close_code in (1008, 1009)

        with page_of() as sink:
            with_client(sink, steps)
            assert answer(sink, "/")[0] == 200

    def test_is_for_pages_of_this_server_only(self) -> None:
        async def steps(session: Session) -> None:
            for origin in ("http://evil.example", "null", "http://127.0.0.1:1"):
                with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                    await session.ws_connect("/live", origin=origin)
                assert refused.value.status == 403

        with page_of() as sink:
            with_client(sink, steps)


class TestBroken:
    def test_a_result_that_cannot_be_drawn_is_left_out(self, caplog: pytest.LogCaptureFixture) -> None:
        painter = CountingPainter(broken=2)

        with page_of(options=SinkOptions(painter)) as sink, filled(sink), caplog.at_level(logging.WARNING):
            assert len(with_client(sink, lambda session: parts(session, 3))) == 3
        assert "the web page leaves out frame" in caplog.text
        assert "no ink" in caplog.text

    def test_size_may_change(self) -> None:
        sizes = itertools.cycle([(48, 64)] * 3 + [(24, 32)] * 3)
        results = (camera_result(number, *next(sizes)) for number in itertools.count())
        with page_of() as sink, filled(sink, results):
            pictures = with_client(sink, lambda session: parts(session, 12))
        assert {decoded(picture).shape for picture in pictures} == {(48, 64, 3), (24, 32, 3)}
