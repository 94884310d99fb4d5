"""What `web://` URIs say."""

from __future__ import annotations

import pytest

from edgeseg.apps.camera.web.address import WebAddress, is_loopback
from edgeseg.errors import UsageError


class TestParse:
    @pytest.mark.parametrize(
        ("uri", "expected"),
        [
            ("web", WebAddress("127.0.0.1", 8080)),
            ("web://", WebAddress("127.0.0.1", 8080)),
            ("web://127.0.0.1:9000/", WebAddress("127.0.0.1", 9000)),
            ("web://:9000", WebAddress("127.0.0.1", 9000)),
            ("web://localhost", WebAddress("localhost", 8080)),
            ("web://[::1]:8081", WebAddress("::1", 8081)),
            ("web://127.0.0.1:0?token=12%2B45678", WebAddress("127.0.0.1", 0, "12+45678")),
            ("web://@:8080?token=12345678", WebAddress("0.0.0.0", 8080, "12345678")),
            ("web://?quality=60&width=640&rate=10", WebAddress(quality=60, width=640, rate=10)),
        ],
    )
    def test_reads(self, uri: str, expected: WebAddress) -> None:
        assert WebAddress.parse(uri) == expected

    @pytest.mark.parametrize("host", ["0.0.0.0", "@", "192.168.1.5", "robot.local", "[::]", "[fe80::1]"])
    def test_makes_a_token_where_others_reach_it(self, host: str) -> None:
        first, second = (WebAddress.parse(f"web://{host}:8080").token for _ in range(2))
        assert first is not None
        assert second is not None
        assert first != second
        assert len(first) == 22

    @pytest.mark.parametrize(
        ("uri", "message"),
        [
            ("http://127.0.0.1", "expected web://127.0.0.1:8080, perhaps with ?token=..., but got 'http://127.0.0.1'"),
            ("web:8080", "but got 'web:8080'"),
            ("web://127.0.0.1/page?token=secret12", "but got 'web://127.0.0.1/page'"),
            ("web://127.0.0.1#top", "but got 'web://127.0.0.1#top'"),
            ("web://127.0.0.1:http", "Port could not be cast"),
            ("web://127.0.0.1:70000", "Port out of range"),
            ("web://[::1", "Invalid IPv6 URL"),
            ("web://me:secret12@127.0.0.1", "has no user but a token: 'web://127.0.0.1' and ?token=..."),
            ("web://127.0.0.1?token=short", "has 8 or more characters, but got 5"),
            ("web://127.0.0.1?tokn=12345678", "unknown option of a web page 'tokn'; did you mean token?"),
            ("web://127.0.0.1?codec=av1", "codec of a web page is one of auto, vp8, h264, but got 'av1'"),
            ("web://127.0.0.1?view=", "view of a web page is one of pictures, video, but got ''"),
            ("web://127.0.0.1?token", "the options of a web page are ?name=value&name=value"),
            ("web://127.0.0.1?quality=101", "quality of a web page is a whole number from 1 to 100, but got '101'"),
            ("web://127.0.0.1?width=1e3", "width of a web page is a whole number from 64 to 8192, but got '1e3'"),
            ("web://127.0.0.1?rate=0", "rate of a web page is a whole number from 1 to 240, but got '0'"),
        ],
    )
    def test_refuses(self, uri: str, message: str) -> None:
        with pytest.raises(UsageError) as raised:
            WebAddress.parse(uri)
        assert message in str(raised.value)
        assert "secret12" not in str(raised.value)


class TestUrl:
    @pytest.mark.parametrize(
        ("address", "url"),
        [
            (WebAddress(), "http://127.0.0.1:9000/"),
            (WebAddress("::1"), "http://[::1]:9000/"),
            (WebAddress("robot.local", token="a/b c&d"), "http://robot.local:9000/?token=a%2Fb%20c%26d"),
        ],
    )
    def test_opens_in_a_browser(self, address: WebAddress, url: str) -> None:
        assert address.url(9000) == url

    def test_names_a_host_that_others_reach(self) -> None:
        assert "0.0.0.0" not in WebAddress.parse("web://@:8080").url(8080)


@pytest.mark.parametrize(
    ("host", "own"),
    [
        ("127.0.0.1", True), ("127.8.8.8", True), ("::1", True), ("[::1]", True), ("LocalHost", True),
        ("0.0.0.0", False), ("::", False), ("10.0.0.1", False), ("localhost.example", False), ("", False),
    ],
)  # fmt: skip
def test_loopback(host: str, own: bool) -> None:
    assert is_loopback(host) is own
