"""Who may see the page: a token on addresses that others reach, and only pages of this server on its own machine."""

from __future__ import annotations

import hashlib
import hmac
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, urlsplit

from edgeseg.apps.camera.web.address import WebAddress, is_loopback

if TYPE_CHECKING:
    from aiohttp import web
    from aiohttp.typedefs import Middleware

    Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

__all__ = ["HEADERS", "Access"]

_LOGGER = logging.getLogger(__name__)

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
"""On every answer: nothing from elsewhere runs on the page, and no other page shows or reads what is served here."""

_WITHOUT_TOKEN = ("/icon.svg", "/page.css", "/token")
"""What the page that asks for the token needs."""


class Access:
    """Decides on requests."""

    def __init__(self, address: WebAddress) -> None:
        """Take the token and the address to guard."""
        self._local = is_loopback(address.host)
        self._token = address.token
        # Browsers send cookies to every port of a host: the cookie proves the token and does not hold it.
        key = _bytes(address.token or "")
        self._cookie = hmac.new(key, b"edgeseg web page", hashlib.sha256).hexdigest()

    def knows(self, token: str | None) -> bool:
        """Whether this is the token, found in a time that tells nothing of it."""
        if self._token is None:
            return True
        return token is not None and hmac.compare_digest(_bytes(token), _bytes(self._token))

    def remember(self, response: web.StreamResponse, request: web.Request) -> None:
        """Let the browser in from now on."""
        response.set_cookie(_cookie_name(request), self._cookie, httponly=True, samesite="Strict", path="/")

    def refusal(self, request: web.Request) -> tuple[int, str] | None:
        """Status and reason for a request that gets nothing; None for one that is welcome."""
        host = _split(f"//{request.headers.get('Host', '')}")
        # A foreign name that was made to lead to this machine (DNS rebinding) stands in the request.
        if self._local and not is_loopback(host.hostname or ""):
            return 421, "this page answers under 127.0.0.1 and localhost only"
        origin = request.headers.get("Origin")
        if origin is not None and _split(origin).netloc != host.netloc:
            return 403, "pages of other servers get nothing here"
        if self._token is None or request.path in _WITHOUT_TOKEN or self._shown(request):
            return None
        return 401, "the token is missing or wrong; open the address that edgeseg printed when it started"

    def _shown(self, request: web.Request) -> bool:
        cookie = request.cookies.get(_cookie_name(request), "")
        kind, _, bearer = request.headers.get("Authorization", "").partition(" ")
        shown = request.query.get("token", bearer if kind == "Bearer" else None)
        return self.knows(shown) or hmac.compare_digest(_bytes(cookie), _bytes(self._cookie))

    def middleware(self, ask: Handler) -> Middleware:
        """What stands before every handler.

        Args:
            ask: answers a browser that opens the page without the token.
        """
        from aiohttp import web

        @web.middleware
        async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
            refused = self.refusal(request)
            if refused is None:
                return await handler(request)
            status, reason = refused
            _LOGGER.info("refused %s %s from %s: %s", request.method, request.path, request.remote, reason)
            if status == 401 and request.path == "/":
                return await ask(request)
            return web.Response(status=status, text=f"{reason}\n")

        return guard


def _split(url: str) -> SplitResult:
    """The parts of an address; nothing of one that is none."""
    try:
        parts = urlsplit(url)
        return parts if parts.hostname else urlsplit("")
    except ValueError:
        return urlsplit("")


def _bytes(text: str) -> bytes:
    """UTF-8, also of what a client sent in no known encoding."""
    return text.encode("utf-8", "surrogateescape")


def _cookie_name(request: web.Request) -> str:
    """Each server on a machine has a cookie of its own, since browsers do not tell ports apart."""
    name = request.get_extra_info("sockname")
    return f"edgeseg_{name[1] if name else 0}"
