"""What every sink of an application is told."""

from __future__ import annotations

from dataclasses import dataclass, field

from edgeseg.apps.camera.drawing import Painter

__all__ = ["SinkOptions"]


@dataclass(frozen=True)
class SinkOptions:
    """How results are shown and kept.

    Attributes:
        painter: draws a result; one for all sinks of a stream, which draws each result once.
        lossless: every result is kept and `put` waits for that; otherwise a sink that is slow leaves results out.
        force: whether files that exist are replaced.
        rate: frames per second of a recording, where the source announces none.
        bitrate: of encoded video, bits per second.
        several: whether the application has more than one stream.
    """

    painter: Painter = field(default_factory=Painter)
    lossless: bool = False
    force: bool = False
    rate: float = 25.0
    bitrate: int = 4_000_000
    several: bool = False
