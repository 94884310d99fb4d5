"""The page's server with real clients: many, slow ones, and those who may not look."""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import socket
import struct
import threading
import time
import tracemalloc
from collections.abc import Awaitable, Callable
from typing import Any

import cv2
import numpy as np
import pytest
from support.web_page import FACTS, HOSTILE, LABELS, WAIT_S, camera_result, filled, noisy_result, page_of

from edgeseg.apps.camera.drawing import Drawing, Painter
from edgeseg.apps.camera.results import Sink
from edgeseg.apps.camera.sinks import SinkOptions, open_sink
from edgeseg.apps.camera.web.address import WebAddress
from edgeseg.apps.camera.web.server import WebServer
from edgeseg.errors import LabelError, MissingDependencyError, OutputError

aiohttp = pytest.importorskip("aiohttp")

TOKEN = "a token of many characters"
Session = Any


def with_client(sink: Any, steps: Callable[[Session], Awaitable[Any]]) -> Any:
    """Steps of one HTTP client with any number of connections, whose paths begin at the page."""

    async def run() -> Any:
        base = sink.url.partition("?")[0]
        # As a browser does, but for addresses in numbers too.
        jar = aiohttp.CookieJar(unsafe=True)
        timeout = aiohttp.ClientTimeout(WAIT_S)
        async with aiohttp.ClientSession(
            base, cookie_jar=jar, timeout=timeout, connector=aiohttp.TCPConnector(limit=0)
        ) as session:
            return await steps(session)

    return asyncio.run(run())


def answer(sink: Any, path: str, **options: Any) -> tuple[int, str, bytes]:
    """Status, type and body of a GET that follows no redirect."""

    async def get(session: Session) -> tuple[int, str, bytes]:
        async with session.get(path, allow_redirects=False, **options) as response:
            return response.status, response.content_type, await response.read()

    found: tuple[int, str, bytes] = with_client(sink, get)
    return found


def decoded(content: bytes) -> Any:
    return cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)


async def parts(session: Session, count: int) -> list[bytes]:
    """The first pictures of the motion JPEG."""
    found = []
    async with session.get("/stream.mjpg") as response:
        assert response.headers["Content-Type"] == "multipart/x-mixed-replace; boundary=frame"
        assert await response.content.readline() == b"--frame\r\n"
        while len(found) < count:
            assert await response.content.readline() == b"Content-Type: image/jpeg\r\n"
            length = int((await response.content.readline()).split(b":")[1])
            assert await response.content.readline() == b"\r\n"
            found.append(await response.content.readexactly(length))
            assert await response.content.readexactly(11) == b"\r\n--frame\r\n"
    return found


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


class TestToken:
    URI = f"web://127.0.0.1:0?token={TOKEN.replace(' ', '%20')}"

    def test_nothing_without_it(self) -> None:
        with page_of(self.URI) as sink:
            sink.put(camera_result())
            for path in ("/stats.json", "/stream.mjpg", "/live", "/mask.png", "/page.js", "/none"):
                status, _, body = answer(sink, path)
                assert status == 401
                assert body.startswith(b"the token is missing or wrong")
            status, kind, page = answer(sink, "/")
            assert (status, kind) == (401, "text/html")
            assert b"asks for its token" in page

    @pytest.mark.parametrize("token", ["", "wrong", TOKEN[:-1], TOKEN + "x", "\N{GRINNING FACE}"])
    def test_nothing_with_a_wrong_one(self, token: str) -> None:
        with page_of(self.URI) as sink:
            assert answer(sink, "/stats.json", params={"token": token})[0] == 401
            assert answer(sink, "/stats.json", headers={"Authorization": "Bearer wrong"})[0] == 401
            assert answer(sink, "/stats.json", headers={"Authorization": f"Basic {TOKEN}"})[0] == 401
            assert answer(sink, "/stats.json", headers={"Cookie": f"edgeseg_{sink.url.split(':')[2][:5]}=x"})[0] == 401

    def test_opens_with_it(self) -> None:
        with page_of(self.URI) as sink:
            assert sink.url.endswith("/?token=a%20token%20of%20many%20characters")
            assert answer(sink, "/stats.json", params={"token": TOKEN})[0] == 200
            assert answer(sink, "/stats.json", headers={"Authorization": f"Bearer {TOKEN}"})[0] == 200

    def test_the_page_keeps_a_cookie_that_does_not_hold_it(self) -> None:
        async def steps(session: Session) -> None:
            async with session.get("/", params={"token": TOKEN}, allow_redirects=False) as response:
                assert (response.status, response.headers["Location"]) == (303, "/")
                cookie = response.headers["Set-Cookie"]
            assert "HttpOnly" in cookie
            assert "SameSite=Strict" in cookie
            assert TOKEN not in cookie
            async with session.get("/stats.json") as response:
                assert response.status == 200

        with page_of(self.URI) as sink:
            with_client(sink, steps)

    def test_can_be_typed_in(self) -> None:
        async def steps(session: Session) -> None:
            async with session.post("/token", data={"token": "wrong"}) as response:
                assert response.status == 401
            async with session.post("/token", data={"token": TOKEN}) as response:
                assert response.status == 200
                assert 'id="picture"' in await response.text()

        with page_of(self.URI) as sink:
            with_client(sink, steps)

    def test_is_made_and_told_where_others_reach_the_page(self, capsys: pytest.CaptureFixture[str]) -> None:
        with page_of("web://0.0.0.0:0") as sink:
            assert f"edgeseg: stream 0 is shown at {sink.url}\n" == capsys.readouterr().err
            token = sink.url.partition("?token=")[2]
            assert len(token) == 22
            port = sink.url.split(":")[2].split("/")[0]

            async def steps(session: Session) -> tuple[int, int]:
                # Under a name that is not this machine's own: the token guards, so any name will do.
                for headers in (
                    {"Host": "robot.example"},
                    {"Host": "robot.example", "Authorization": f"Bearer {token}"},
                ):
                    async with session.get(f"http://127.0.0.1:{port}/stats.json", headers=headers) as response:
                        found.append(response.status)
                return found[0], found[1]

            found: list[int] = []
            assert with_client(sink, steps) == (401, 200)


class TestHost:
    @pytest.mark.parametrize(
        "host", ["evil.example", "evil.example:8080", "127.0.0.1.evil.example", "192.168.1.5", "", "[::1", "a]b"]
    )
    def test_other_names_get_nothing(self, host: str) -> None:
        with page_of() as sink:
            status, _, body = answer(sink, "/stats.json", headers={"Host": host})
            assert (status, body) == (421, b"this page answers under 127.0.0.1 and localhost only\n")

    @pytest.mark.parametrize("host", ["127.0.0.1", "localhost:9000", "[::1]:8080"])
    def test_own_names(self, host: str) -> None:
        with page_of() as sink:
            assert answer(sink, "/stats.json", headers={"Host": host})[0] == 200

    def test_pages_of_other_servers_get_nothing(self) -> None:
        with page_of() as sink:
            for origin in ("http://evil.example", "null", "", "http://[", "//"):
                assert answer(sink, "/stats.json", headers={"Origin": origin})[0] == 403
            own = sink.url.rstrip("/")
            assert answer(sink, "/stats.json", headers={"Origin": own})[0] == 200


class TestStartAndStop:
    def test_is_the_sink_of_its_scheme(self) -> None:
        sink: Sink = open_sink("web://127.0.0.1:0", SinkOptions())
        sink.start(FACTS)
        sink.put(camera_result())
        sink.stop()

    def test_a_taken_port(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as other:
            port = other.getsockname()[1]
            sink = open_sink(f"web://127.0.0.1:{port}", SinkOptions())
            with pytest.raises(OutputError) as raised:
                sink.start(FACTS)
            assert str(raised.value) == (
                f"cannot serve the web page at 127.0.0.1:{port}: another program has this port; stop it or give "
                "another port"
            )
            sink.stop()
        assert not server_threads()

    @pytest.mark.parametrize(
        ("host", "reason"),
        [("192.0.2.1", "this machine has no such address"), ("no-such-host.invalid", "web page at no")],
    )
    def test_an_address_that_cannot_be_had(self, host: str, reason: str) -> None:
        with pytest.raises(OutputError, match=reason):
            open_sink(f"web://{host}:0", SinkOptions()).start(FACTS)

    def test_a_class_that_the_network_lacks(self) -> None:
        sink = open_sink("web://127.0.0.1:0", SinkOptions(Painter(Drawing(classes=("raod",)))))
        with pytest.raises(LabelError, match="did you mean road"):
            sink.start(FACTS)
        sink.stop()

    def test_without_aiohttp(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(__import__("sys").modules, "aiohttp", None)
        with pytest.raises(MissingDependencyError, match=r"aiohttp is needed .* run: pip install 'edgeseg\[camera\]'"):
            open_sink("web://", SinkOptions()).start(FACTS)

    def test_stop_ends_threads_and_connections(self, caplog: pytest.LogCaptureFixture) -> None:
        server = WebServer(WebAddress(port=0), FACTS, Painter())
        server.start()
        results = itertools.cycle([noisy_result(number) for number in range(3)])
        with filled(server, results), SilentClient(server.url, "/stream.mjpg"), SilentClient(server.url, "/live"):
            while json.loads(answer(server, "/stats.json")[2])["clients"] < 2:
                pass
            with_client(server, lambda session: parts(session, 10))
            server.stop()
            server.stop()
        assert "did not end" not in caplog.text
        assert not server_threads()
        with pytest.raises(OSError):
            socket.create_connection(("127.0.0.1", int(server.url.split(":")[2].strip("/"))), 1)

    def test_each_stream_has_a_port_of_its_own(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        sink = open_sink(f"web://127.0.0.1:{port}", SinkOptions(several=True))
        sink.start(type(FACTS)("1", FACTS.source, LABELS))
        assert sink.url == f"http://127.0.0.1:{port + 1}/"  # type: ignore[attr-defined]
        sink.stop()


class CountingPainter(Painter):
    """Remembers which frames it drew, and fails at every `broken`th."""

    def __init__(self, broken: int = 0) -> None:
        super().__init__()
        self.numbers: list[int] = []
        self.broken = broken

    def paint(self, result: Any) -> Any:
        self.numbers.append(result.frame.number)
        if self.broken and len(self.numbers) % self.broken == 0:
            raise ValueError("no ink")
        return super().paint(result)


class SilentClient:
    """Asks, and never reads the answer."""

    def __init__(self, url: str, path: str) -> None:
        port = int(url.split(":")[2].strip("/"))
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self._socket.connect(("127.0.0.1", port))
        upgrade = (
            "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
        )
        lines = upgrade if path == "/live" else ""
        self._socket.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{lines}\r\n".encode())
        if path == "/live":
            # "next" as a masked text frame, again and again: it asks for pictures that it does not read.
            self._socket.sendall(b"\x81\x84\x00\x00\x00\x00next" * 2)
            self._ending = threading.Event()
            threading.Thread(target=self._ask, daemon=True).start()

    def _ask(self) -> None:
        try:
            while not self._ending.wait(0.01):
                self._socket.sendall(b"\x81\x84\x00\x00\x00\x00next")
        except OSError:
            pass

    def __enter__(self) -> SilentClient:
        return self

    def __exit__(self, *_: object) -> None:
        if hasattr(self, "_ending"):
            self._ending.set()
        self._socket.close()


def server_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("edgeseg-web")]
