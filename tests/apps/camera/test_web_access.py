"""Who may look at the page: its token, its host, its origin."""

from __future__ import annotations

import pytest
from support.web_client import TOKEN, Session, answer, with_client
from support.web_page import camera_result, page_of


class TestToken:
    URI = f"web://127.0.0.1:0?token={TOKEN.replace(' ', '%20')}"

    def test_nothing_without_it(self) -> None:
        with page_of(self.URI) as sink:
            sink.put(camera_result())
            for path in ("/stats.json", "/stream.mjpg", "/live", "/video", "/mask.png", "/page.js", "/none"):
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
