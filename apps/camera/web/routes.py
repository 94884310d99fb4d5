"""What is served under which path."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Any

from edgeseg.apps.camera.drawing import Painter
from edgeseg.apps.camera.results import CameraResult, StreamFacts
from edgeseg.apps.camera.web.access import HEADERS, Access
from edgeseg.apps.camera.web.address import WebAddress
from edgeseg.apps.camera.web.figures import Figures, class_areas
from edgeseg.apps.camera.web.live import Clients, send_live, send_mjpeg
from edgeseg.apps.camera.web.newest import Newest, SharedEncoding
from edgeseg.apps.camera.web.pictures import class_map_png, jpeg, live_message
from edgeseg.apps.camera.web.video import Video, send_video

if TYPE_CHECKING:
    from aiohttp import web

    Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

__all__ = ["Routes", "Shown"]

_TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
_STATISTICS_AGE_S = 0.4


@dataclass(frozen=True)
class Shown:
    """What the page shows.

    Attributes:
        stream: its name and classes.
        painter: draws the motion JPEG and the snapshot; its alpha and classes are those with which the page begins.
        newest: the results.
        figures: their statistics.
    """

    stream: StreamFacts
    painter: Painter
    newest: Newest
    figures: Figures


class Routes:
    """The handlers, and what they share: one encode a picture and one count of statistics for all clients."""

    def __init__(self, address: WebAddress, shown: Shown, clients: Clients, video: Video, worker: Executor) -> None:
        """Nothing is encoded before somebody looks.

        Args:
            address: for its token and the fineness of pictures.
            shown: what is served.
            clients: counts who watches.
            video: what WebRTC shows.
            worker: encodes.
        """
        self._shown = shown
        self._clients = clients
        self._video, self._view = video, address.view
        self._access = Access(address)
        self._worker = worker
        labels, width, quality = shown.stream.labels, address.width, address.quality
        pace = 0.9 / address.rate  # A camera of just that rate keeps every frame, for all its jitter.

        def shared(encode: Callable[[CameraResult], bytes], interval: float = pace) -> SharedEncoding:
            return SharedEncoding(shown.newest, encode, worker, interval)

        self._overlay = shared(lambda result: jpeg(shown.painter.paint(result), width, quality))
        self._pictures = shared(lambda result: live_message(result, width, quality))
        self._mask = shared(lambda result: class_map_png(result.segmentation.class_map), 0)
        self._mask_color = shared(lambda result: class_map_png(result.segmentation.class_map, labels), 0)
        self._statistics = (0.0, "")
        self._counting = asyncio.Lock()

    def application(self) -> web.Application:
        """The application, with its guard before every path."""
        from aiohttp import web

        files = {file.name: file.read_bytes() for file in resources.files(__package__).joinpath("static").iterdir()}
        ask = _served("token.html", files.pop("token.html"), status=401)
        index = _served("index.html", files.pop("index.html"))

        async def page(request: web.Request) -> web.StreamResponse:
            return self._let_in(request) if "token" in request.query else await index(request)

        async def enter(request: web.Request) -> web.StreamResponse:
            token = (await request.post()).get("token")
            known = isinstance(token, str) and self._access.knows(token)
            return self._let_in(request) if known else await ask(request)

        async def add_headers(_: web.Request, response: web.StreamResponse) -> None:
            response.headers.update(HEADERS)

        application = web.Application(middlewares=[self._access.middleware(ask)], client_max_size=4096)
        application.on_response_prepare.append(add_headers)
        application.router.add_post("/token", enter)
        handlers: dict[str, Handler] = {
            "/": page,
            "/live": self._live,
            "/video": self._webrtc,
            "/stream.mjpg": self._mjpeg,
            "/stats.json": self._stats,
            "/snapshot.jpg": self._still(self._overlay, "image/jpeg"),
            "/mask.png": self._still(self._mask, "image/png"),
            "/mask_color.png": self._still(self._mask_color, "image/png"),
            **{f"/{name}": _served(name, content) for name, content in files.items()},
        }
        for path, handler in handlers.items():
            application.router.add_get(path, handler, allow_head=False)
        return application

    def _let_in(self, request: web.Request) -> web.StreamResponse:
        """To the page, with a cookie in the token's place: an address with a token would stay in the history."""
        from aiohttp import web

        response = web.Response(status=303, headers={"Location": "/"})
        self._access.remember(response, request)
        return response

    async def _live(self, request: web.Request) -> web.StreamResponse:
        hello, statistics = {**self._hello(), "video": await self._video.facts()}, self._statistics_text
        return await self._clients.serve(
            request, lambda: send_live(request, self._clients, self._pictures, hello, statistics)
        )

    async def _mjpeg(self, request: web.Request) -> web.StreamResponse:
        return await self._clients.serve(request, lambda: send_mjpeg(request, self._clients, self._overlay))

    async def _webrtc(self, request: web.Request) -> web.StreamResponse:
        return await self._clients.serve(request, lambda: send_video(request, self._clients, self._video))

    def _still(self, pictures: SharedEncoding, kind: str) -> Handler:
        async def still(_: web.Request) -> web.StreamResponse:
            from aiohttp import web

            version, _result = self._shown.newest.item
            content = (await pictures.after(version - 1)).content if version else b""
            if not content:
                raise web.HTTPServiceUnavailable(text="there is no picture yet\n", headers={"Retry-After": "1"})
            return web.Response(body=content, content_type=kind)

        return still

    async def _stats(self, _: web.Request) -> web.StreamResponse:
        from aiohttp import web

        numbers = json.loads(await self._statistics_text())
        del numbers["kind"]
        stream = self._shown.stream
        numbers["areas"] = dict(zip(stream.labels.names, numbers["areas"], strict=False))
        return web.json_response({"stream": stream.name, "source": stream.source, **numbers})

    def _hello(self) -> dict[str, Any]:
        stream = self._shown.stream
        drawing = self._shown.painter.drawing
        drawn = drawing.shown(stream.labels)
        named = zip(stream.labels.names, stream.labels.palette, strict=True)
        return {
            "stream": stream.name,
            "source": stream.source,
            "view": self._view,
            "alpha": 1.0 if drawing.style == "mask" else drawing.alpha,
            "hidden": [index for index in range(len(stream.labels)) if not drawn[index]],
            "classes": [{"name": name, "color": list(color)} for name, color in named],
        }

    async def _statistics_text(self) -> str:
        """The statistics as JSON, counted once for all clients."""
        loop = asyncio.get_running_loop()
        async with self._counting:
            if not self._statistics[1] or loop.time() - self._statistics[0] >= _STATISTICS_AGE_S:
                numbers = {"kind": "statistics", **self._shown.figures.numbers(), "clients": len(self._clients)}
                numbers["areas"] = await loop.run_in_executor(self._worker, self._areas)
                self._statistics = (loop.time(), json.dumps(numbers))
        return self._statistics[1]

    def _areas(self) -> list[float]:
        """Share of each class in the newest class map; empty before the first."""
        _, result = self._shown.newest.item
        return [] if result is None else class_areas(result.segmentation.class_map, len(self._shown.stream.labels))


def _served(name: str, content: bytes, status: int = 200) -> Handler:
    async def serve(_: web.Request) -> web.StreamResponse:
        from aiohttp import web

        kind = _TYPES[name.rpartition(".")[2]]
        return web.Response(body=content, status=status, content_type=kind, charset="utf-8")

    return serve
