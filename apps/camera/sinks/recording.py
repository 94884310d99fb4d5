"""`out.mkv` and `out.mp4`: recordings that play to the last second even where the process was killed.

Matroska's clusters and MP4's fragments are whole as soon as they are on the disk; an ordinary MP4 has its index at the
end, and without that not one frame can be read. So this file grows in its place, under its own name.
"""

from __future__ import annotations

from pathlib import Path

from edgeseg.apps.camera.gst import gstreamer
from edgeseg.apps.camera.platform import find_platform
from edgeseg.apps.camera.results import CameraResult, StreamFacts
from edgeseg.apps.camera.sinks.encoding import PICTURES, Encoding, h264
from edgeseg.apps.camera.sinks.options import SinkOptions
from edgeseg.apps.camera.sinks.worker import WorkerSink
from edgeseg.apps.writers import check_output, output_errors
from edgeseg.errors import OutputError, UsageError

__all__ = ["Recording"]

_PIECE = 250
"""Milliseconds after which what was encoded is whole in the file."""


class Recording(WorkerSink):
    """Writes the drawn results as H.264, with the times at which the frames were captured."""

    def __init__(self, address: str, options: SinkOptions) -> None:
        super().__init__(address, lossless=options.lossless)
        self.path = Path(address.removeprefix("video://").removeprefix("file://"))
        if self.path.suffix.lower() not in (".mkv", ".mp4"):
            raise UsageError(f"a recording ends in .mkv or .mp4, but got {address}")
        self._options = options
        self._encoding: Encoding | None = None
        self._rate = options.rate
        self._first: float | None = None
        self._last = -1.0

    def open(self, stream: StreamFacts) -> None:
        """Begin the file.

        Raises:
            OutputError: when it exists or cannot be written.
            MissingDependencyError: without GStreamer or an encoder.
        """
        check_output(self.path, force=self._options.force)
        self._rate = stream.frame_rate or self._options.rate
        with output_errors(self.path):
            self.path.touch()
        self._encoding = Encoding(self._launch(), self.address)

    def work(self, result: CameraResult) -> None:
        """Append a result."""
        if self._encoding is None:
            return
        if self._first is None:
            self._first = result.frame.captured
        # A file that is read as fast as it goes keeps its own pace; a camera's frames keep theirs.
        seconds = result.frame.number / self._rate if self._lossless else result.frame.captured - self._first
        self._last = max(seconds, self._last + 0.001)
        self._encoding.push(self._options.painter.paint_for_video(result), self._last, self._rate)

    def close(self) -> None:
        """Finish the file; a recording without a single frame is no file."""
        encoding, self._encoding = self._encoding, None
        if encoding is None:
            return
        encoding.finish()
        if self._first is None:
            self.path.unlink(missing_ok=True)

    def _launch(self) -> str:
        encoder = h264(find_platform(), bitrate=self._options.bitrate, rate=self._rate)
        name = str(self.path).replace("\\", "\\\\").replace('"', '\\"')
        # Whole pieces at once and nothing held back: what was encoded a moment ago survives a kill.
        return (
            f"appsrc name={PICTURES} format=time ! {encoder} ! {_muxer(self.path)} ! "
            f'filesink location="{name}" buffer-mode=unbuffered sync=false'
        )


def _muxer(path: Path) -> str:
    if path.suffix.lower() == ".mkv":
        limit = _PIECE * 1_000_000
        return f"matroskamux max-cluster-duration={limit} min-cluster-duration={limit}"
    muxer = f"mp4mux fragment-duration={_PIECE}"
    # From 1.20 a file that is finished gets its ordinary index too, for players that want one.
    element = gstreamer().Gst.ElementFactory.make("mp4mux", None)
    if element is None:
        raise OutputError(f"cannot write {path}: GStreamer has no mp4mux; install gstreamer1.0-plugins-good")
    if element.find_property("fragment-mode") is not None:
        muxer += " fragment-mode=first-moov-then-finalise"
    return muxer
