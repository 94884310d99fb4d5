"""Many clients of the page's server, and those that never read."""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import time
import tracemalloc
from typing import Any

import pytest
from support.web_client import CountingPainter, Session, SilentClient, answer, parts, with_client
from support.web_page import FACTS, WAIT_S, camera_result, filled, noisy_result, page_of

from edgeseg.apps.camera.drawing import Painter
from edgeseg.apps.camera.sinks import SinkOptions
from edgeseg.apps.camera.web.address import WebAddress
from edgeseg.apps.camera.web.server import WebServer

aiohttp = pytest.importorskip("aiohttp")


class TestManyClients:
    def test_one_encode_a_frame(self) -> None:
        painter = CountingPainter()

        async def steps(session: Session) -> list[list[bytes]]:
            return await asyncio.gather(*(parts(session, 12) for _ in range(20)))

        with page_of(options=SinkOptions(painter)) as sink, filled(sink):
            pictures = with_client(sink, steps)
        assert sum(len(found) for found in pictures) == 240
        assert len(painter.numbers) == len(set(painter.numbers)) < 240
        assert len({picture for found in pictures for picture in found}) <= len(painter.numbers)

    def test_nothing_is_drawn_while_nobody_looks(self) -> None:
        painter = CountingPainter()
        with page_of(options=SinkOptions(painter)) as sink:
            for number in range(50):
                sink.put(camera_result(number))
            answer(sink, "/stats.json")
            assert painter.numbers == []
            answer(sink, "/snapshot.jpg")
            answer(sink, "/snapshot.jpg")
            assert painter.numbers == [49]

    def test_refuses_too_many(self) -> None:
        async def steps(session: Session) -> None:
            streams = [await session.get("/stream.mjpg") for _ in range(100)]
            async with session.get("/stream.mjpg") as response:
                assert (response.status, await response.text()) == (503, "100 clients watch already\n")
            for stream in streams:
                stream.close()

        with page_of() as sink:
            with_client(sink, steps)

    @pytest.mark.parametrize("path", ["/stream.mjpg", "/live"])
    def test_those_who_leave_while_the_camera_is_lost_are_forgotten(self, path: str) -> None:
        def watching(count: int) -> None:
            end = time.monotonic() + WAIT_S
            while json.loads(answer(sink, "/stats.json")[2])["clients"] != count:
                assert time.monotonic() < end

        with page_of() as sink:
            sink.put(camera_result())
            with SilentClient(sink.url, path), SilentClient(sink.url, path):
                watching(2)
            watching(0)

    @pytest.mark.parametrize("path", ["/stream.mjpg", "/live"])
    def test_one_that_never_reads_is_dropped_and_stops_nobody(
        self, path: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        server = WebServer(WebAddress(port=0), FACTS, Painter(), patience=0.5)
        server.start()
        results = itertools.cycle([noisy_result(number) for number in range(3)])
        try:
            with caplog.at_level(logging.WARNING), filled(server, results), SilentClient(server.url, path):
                end = time.monotonic() + WAIT_S
                seen = 0
                while "took nothing for 0.5 s and was dropped" not in caplog.text:
                    assert time.monotonic() < end
                    seen += len(with_client(server, lambda session: parts(session, 3)))
                assert seen >= 3
                while json.loads(answer(server, "/stats.json")[2])["clients"]:
                    assert time.monotonic() < end
        finally:
            server.stop()

    @pytest.mark.parametrize("path", ["/stream.mjpg", "/live"])
    def test_memory_stays_while_one_does_not_read(self, path: str) -> None:
        server = WebServer(WebAddress(port=0, rate=240), FACTS, Painter(), patience=1000)
        server.start()
        results = [noisy_result(number) for number in range(3)]
        try:
            with SilentClient(server.url, path):
                while json.loads(answer(server, "/stats.json")[2])["clients"] < 1:
                    pass
                tracemalloc.start()
                before = self.held_after(10, server, results)
                after = self.held_after(100, server, results)
        finally:
            tracemalloc.stop()
            server.stop()
        assert after < before + 3e6, "100 pictures are 15 MB"

    @staticmethod
    def held_after(pictures: int, server: WebServer, results: list[Any]) -> int:
        """Bytes in use when nothing is under way any more, after so many pictures for another client."""
        sent = 0
        for number in range(pictures):
            server.put(results[number % 3])
            sent += len(with_client(server, lambda session: parts(session, 1))[0])
        assert sent > pictures * 150_000, "too little to see a queue"
        held = []
        for _ in range(10):
            time.sleep(0.05)
            held.append(tracemalloc.get_traced_memory()[0])
        return min(held)

    def test_one_that_never_asks_is_sent_no_picture(self) -> None:
        async def steps(session: Session) -> None:
            async with session.ws_connect("/live") as live:
                for _ in range(4):
                    assert (await live.receive()).type is aiohttp.WSMsgType.TEXT

        with page_of() as sink, filled(sink):
            with_client(sink, steps)
