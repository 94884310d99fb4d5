"""What a `web://` URI says: where the page is served, who may see it, and how fine its pictures are."""

from __future__ import annotations

import ipaddress
import re
import secrets
import socket
from dataclasses import dataclass
from urllib.parse import parse_qsl, quote, urlsplit

from edgeseg.errors import UsageError, unknown_name

__all__ = ["CODECS", "WebAddress", "is_loopback"]

_DEFAULT_PORT = 8080
_SHORTEST_TOKEN = 8
_EXPECTED = "expected web://127.0.0.1:8080"
_OPTIONS = ("codec", "quality", "rate", "token", "view", "width")

CODECS = ("auto", "vp8", "h264")
"""What `codec` of a web page may be."""

_CHOICES = {"codec": CODECS, "view": ("pictures", "video")}


@dataclass(frozen=True)
class WebAddress:
    """Where and how the page is served.

    Attributes:
        host: address or name to bind to; "0.0.0.0" and "::" are every address of this machine.
        port: TCP port; 0 takes a free one.
        token: what a client has to show; None where the page is for this machine only and none was asked for.
        quality: of the JPEG pictures, 1..100.
        width: pictures wider than this many pixels are made smaller; class maps never are.
        rate: most pictures a second that are encoded.
        codec: of the video by WebRTC: "vp8", "h264", or "auto" for what suits the machine.
        view: how the page begins: "pictures" (frames and class maps) or "video".
    """

    host: str = "127.0.0.1"
    port: int = _DEFAULT_PORT
    token: str | None = None
    quality: int = 80
    width: int = 1280
    rate: int = 30
    codec: str = "auto"
    view: str = "pictures"

    @classmethod
    def parse(cls, uri: str) -> WebAddress:
        """From `web://HOST:PORT?token=...&quality=80&width=1280&rate=30`; every part but `web://` may be missing.

        `web` alone is `web://127.0.0.1:8080`. `web://@:8080` stands for every address, as in jetson-inference. On any
        address that other machines reach, a token that the URI does not give is made at random.

        Raises:
            UsageError: names the part that does not fit.
        """
        if uri == "web":
            return cls()
        try:
            parts = urlsplit(uri)
            port = parts.port
        except ValueError as error:
            raise UsageError(f"{_EXPECTED}, but got {_public(uri)}: {error}") from error
        if parts.scheme != "web" or parts.fragment or parts.path not in ("", "/") or not uri.startswith("web://"):
            raise UsageError(f"{_EXPECTED}, perhaps with ?token=..., but got {_public(uri)}")
        if parts.username or parts.password is not None:
            raise UsageError(f"{_EXPECTED}; a web page has no user but a token: {_public(uri)} and ?token=...")
        host = parts.hostname or ("0.0.0.0" if parts.username is not None else "127.0.0.1")
        given = _options(parts.query)
        token = given.get("token")
        if token is not None and len(token) < _SHORTEST_TOKEN:
            raise UsageError(f"the token of a web page has {_SHORTEST_TOKEN} or more characters, but got {len(token)}")
        if token is None and not is_loopback(host):
            token = secrets.token_urlsafe(16)
        return cls(
            host,
            _DEFAULT_PORT if port is None else port,
            token,
            quality=_number(given, "quality", cls.quality, 1, 100),
            width=_number(given, "width", cls.width, 64, 8192),
            rate=_number(given, "rate", cls.rate, 1, 240),
            codec=_choice(given, "codec"),
            view=_choice(given, "view"),
        )

    def url(self, port: int) -> str:
        """What is typed into a browser.

        Args:
            port: the one that is served, where the URI left it open.
        """
        host = f"[{self._reached}]" if ":" in self._reached else self._reached
        token = "" if self.token is None else f"?token={quote(self.token, safe='')}"
        return f"http://{host}:{port}/{token}"

    @property
    def _reached(self) -> str:
        return _own_address() if self.host in ("0.0.0.0", "::") else self.host


def is_loopback(host: str) -> bool:
    """Whether a host name or address is this machine's own and reached from no other."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _own_address() -> str:
    """The address under which other machines most likely reach this one; nothing is sent to find it."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect(("192.0.2.1", 9))
            return str(probe.getsockname()[0])
    except OSError:
        return socket.gethostname()


def _public(uri: str) -> str:
    """The URI without what may hold a secret."""
    return repr(re.sub("//[^/]*@", "//", uri.partition("?")[0]))


def _options(query: str) -> dict[str, str]:
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query))
    except ValueError as error:
        raise UsageError("the options of a web page are ?name=value&name=value; one of them has no =") from error
    for name, _ in pairs:
        if name not in _OPTIONS:
            raise UsageError(unknown_name("option of a web page", name, _OPTIONS))
    return dict(pairs)


def _number(given: dict[str, str], name: str, default: int, least: int, most: int) -> int:
    text = given.get(name, str(default))
    if not (text.isascii() and text.isdigit() and least <= int(text) <= most):
        raise UsageError(f"{name} of a web page is a whole number from {least} to {most}, but got {text!r}")
    return int(text)


def _choice(given: dict[str, str], name: str) -> str:
    known = _CHOICES[name]
    chosen = given.get(name, known[0])
    if chosen not in known:
        raise UsageError(f"{name} of a web page is one of {', '.join(known)}, but got {chosen!r}")
    return chosen
