"""The page's server begins and ends."""

from __future__ import annotations

import itertools
import json
import socket

import pytest
from support.web_client import SilentClient, answer, parts, server_threads, with_client
from support.web_page import FACTS, LABELS, camera_result, filled, noisy_result

from edgeseg.apps.camera.drawing import Drawing, Painter
from edgeseg.apps.camera.results import Sink
from edgeseg.apps.camera.sinks import SinkOptions, open_sink
from edgeseg.apps.camera.web.address import WebAddress
from edgeseg.apps.camera.web.server import WebServer
from edgeseg.errors import LabelError, MissingDependencyError, OutputError


def is_free(port: int) -> bool:
    """Whether nobody listens there on the loopback."""
    try:
        with socket.create_server(("127.0.0.1", port)):
            return True
    except OSError:
        return False


aiohttp = pytest.importorskip("aiohttp")


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
        port = next(port for port in range(18000, 19000, 2) if all(is_free(port + more) for more in (0, 1)))
        sink = open_sink(f"web://127.0.0.1:{port}", SinkOptions(several=True))
        sink.start(type(FACTS)("1", FACTS.source, LABELS))
        assert sink.url == f"http://127.0.0.1:{port + 1}/"  # type: ignore[attr-defined]
        sink.stop()
