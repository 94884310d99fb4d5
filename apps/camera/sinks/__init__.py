"""Where results go: one module a kind of sink, found by the scheme of its address.

A factory is called as `factory(address, options)` with the `SinkOptions` of the application, and gives a
`results.Sink` of one stream. Its module is imported when its scheme is asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from edgeseg.apps.camera.results import Sink
from edgeseg.apps.camera.sinks.options import SinkOptions
from edgeseg.errors import UsageError, unknown_name

__all__ = ["SINKS", "SinkOptions", "open_sink", "scheme_of"]

SINKS: dict[str, str] = {
    "null": "edgeseg.apps.camera.sinks.null:NullSink",
    "masks": "edgeseg.apps.camera.sinks.masks:MaskFiles",
    "video": "edgeseg.apps.camera.sinks.recording:Recording",
    "display": "edgeseg.apps.camera.sinks.display:Display",
    "rtsp": "edgeseg.apps.camera.sinks.rtsp:RtspStream",
    "web": "edgeseg.apps.camera.sinks.web:WebSink",
    "zenoh": "edgeseg.apps.camera.sinks.zenoh:ZenohSink",
}
"""Module and factory by scheme; a program adds its own here."""

_VIDEOS = (".mkv", ".mp4")
_EXAMPLES = "null, display://0, out.mkv, out.mp4, masks/%06d.png, rtsp://@:8554/name, web://127.0.0.1:8080, zenoh://"


def scheme_of(address: str) -> str:
    """The kind of sink that an address means: a name of `SINKS`.

    Raises:
        UsageError: for an address of no known kind.
    """
    scheme, mark, _ = address.partition("://")
    if mark and scheme != "file":
        if scheme not in SINKS:
            raise UsageError(f"{unknown_name('kind of sink', scheme, SINKS)}; a sink is {_EXAMPLES}")
        return scheme
    if address in ("null", "display", "web", "zenoh"):
        return address
    suffix = Path(address).suffix.lower()
    if suffix in _VIDEOS:
        return "video"
    if suffix == ".png":
        return "masks"
    raise UsageError(f"{address} is no sink; a sink is {_EXAMPLES}")


def open_sink(address: str, options: SinkOptions) -> Sink:
    """A sink of one stream by its address.

    Args:
        address: see docs/camera.md.
        options: of the application.

    Raises:
        UsageError: for an address of no known kind.
        MissingDependencyError: where what it needs is not installed.
    """
    module, _, name = SINKS[scheme_of(address)].partition(":")
    factory: Callable[[str, SinkOptions], Sink] = getattr(import_module(module), name)
    return factory(address, options)
