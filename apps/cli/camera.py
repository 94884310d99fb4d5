"""`edgeseg camera`: masks from cameras, live, to any number of sinks."""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeseg.apps.cli.options import add_backend_arguments, engine_options, positive_count, share
from edgeseg.apps.cli.results import add_json_argument, only_results_on_stdout, print_json
from edgeseg.errors import UsageError

if TYPE_CHECKING:
    from edgeseg import Segmenter
    from edgeseg.apps.camera.live import Stream
    from edgeseg.apps.camera.sources import SourceOptions

__all__ = ["add_arguments", "run"]

_WATCHED = ("display", "rtsp", "web")
"""Sinks that somebody looks at: before them a file plays at its own pace."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `edgeseg camera`."""
    parser.add_argument("bundle", type=Path, metavar="BUNDLE")
    parser.add_argument(
        "--source",
        action="append",
        required=True,
        metavar="URI",
        help="csi://0, v4l2:///dev/video0, rtsp://HOST/PATH, a video, image, folder or glob, test://smpte, "
        "scene://street, or a GStreamer pipeline; several are segmented in turn",
    )
    parser.add_argument(
        "--sink",
        action="append",
        metavar="URI",
        help="display://0, out.mkv, out.mp4, masks/%%06d.png, rtsp://@:8554/name, web://127.0.0.1:8080, zenoh://KEY "
        "or null; several at once; {stream} stands for the number of the source (default: display://0)",
    )
    _add_source_arguments(parser)
    _add_drawing_arguments(parser)
    _add_pace_arguments(parser)
    parser.add_argument("--force", action="store_true", help="replace files that exist")
    add_backend_arguments(parser)
    add_json_argument(parser)


def _add_source_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("sources, in jetson-inference's words")
    group.add_argument("--input-width", type=positive_count, metavar="W", help="pixels that a camera captures")
    group.add_argument("--input-height", type=positive_count, metavar="H", help="pixels that a camera captures")
    group.add_argument("--input-rate", type=_positive, metavar="F", help="frames per second")
    group.add_argument(
        "--input-codec", metavar="C", help="h264, h265, vp8, vp9, mpeg2, mpeg4 or mjpeg; default: found out"
    )
    group.add_argument("--input-decoder", choices=("cpu", "hardware"), help="default: hardware where it is")
    group.add_argument(
        "--input-flip",
        default="none",
        metavar="F",
        help="none, counterclockwise, rotate-180, clockwise, horizontal, vertical, upper-right-diagonal or "
        "upper-left-diagonal",
    )
    group.add_argument(
        "--input-loop", type=int, default=0, metavar="N", help="play files N times more; -1 for ever (default 0)"
    )
    group.add_argument(
        "--input-latency", "--input-rtsp-latency", type=int, default=100, metavar="MS", help="of RTSP's jitter buffer"
    )
    group.add_argument("--input-protocol", choices=("tcp", "udp"), default="tcp", help="of RTSP (default tcp)")
    group.add_argument("--num-buffers", type=positive_count, metavar="N", help="frames of a test picture")
    group.add_argument(
        "--small", action="store_true", help="scale frames to the network's size before anything else sees them"
    )


def _add_drawing_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("what is drawn")
    group.add_argument("--draw", choices=("overlay", "mask", "side-by-side"), default="overlay")
    group.add_argument("--alpha", type=share, default=0.5, metavar="A", help="share of the colours, 0..1 (default 0.5)")
    group.add_argument("--classes", metavar="NAME,...", help="classes that are drawn; default: all")
    group.add_argument("--legend", action="store_true", help="write names and areas of the classes")
    group.add_argument("--show-rate", action="store_true", help="write frames per second and latency")
    group.add_argument("--bitrate", type=positive_count, default=4_000_000, metavar="B", help="of video, bits a second")


def _add_pace_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("pace")
    pace = group.add_mutually_exclusive_group()
    pace.add_argument(
        "--realtime",
        action="store_true",
        default=None,
        help="play files at their own pace and leave out what is too much, as with a camera (default where a sink is "
        "looked at)",
    )
    pace.add_argument(
        "--every-frame",
        dest="realtime",
        action="store_false",
        help="segment every frame of files, as fast as it goes (default otherwise)",
    )
    group.add_argument("--queue", type=positive_count, default=1, metavar="N", help="frames that may wait (default 1)")
    group.add_argument("--every-n", type=positive_count, default=1, metavar="N", help="segment each Nth frame")
    group.add_argument(
        "--max-latency",
        type=_positive,
        metavar="MS",
        help="skip frames whose class map would come later than this; where that is not enough, change to the smaller "
        "network that the bundle holds, or to --smaller",
    )
    group.add_argument(
        "--smaller",
        action="append",
        type=Path,
        default=[],
        metavar="BUNDLE",
        help="a faster network of the same classes for --max-latency; several, the largest first",
    )
    group.add_argument(
        "--watchdog", type=_positive, default=3.0, metavar="S", help="seconds without a frame: camera lost (default 3)"
    )
    group.add_argument("--stats", type=Path, metavar="FILE", help="write statistics each second as JSON lines")
    group.add_argument(
        "--metrics", metavar="[HOST]:PORT", help="serve statistics to Prometheus, on this machine only without HOST"
    )


def run(options: argparse.Namespace) -> int:
    """Capture, segment and show until the sources end or Ctrl-C."""
    import edgeseg
    from edgeseg.apps.camera.capture import Patience
    from edgeseg.apps.camera.live import Live, LiveOptions
    from edgeseg.apps.camera.report import Report

    sinks = options.sink or ["display://0"]
    lossless = _lossless(options, sinks)
    choices = LiveOptions(
        queue=max(options.queue, 2) if lossless else options.queue,
        lossless=lossless,
        every=options.every_n,
        max_latency=options.max_latency,
        patience=Patience(frame=options.watchdog),
    )
    with only_results_on_stdout(), contextlib.ExitStack() as stack:
        segmenter = stack.enter_context(edgeseg.load(options.bundle, **engine_options(options)))
        streams = _streams(options, sinks, segmenter, lossless)
        smaller = [stack.enter_context(each) for each in _smaller(options, segmenter, lossless)]
        live = Live(segmenter, segmenter.labels, streams, choices, smaller=smaller)
        report = stack.enter_context(Report(live, options.stats, options.metrics, quiet=options.quiet))
        stack.enter_context(_ended_by_signals())
        try:
            live.run(report.tick)
        except KeyboardInterrupt:
            print(report.text(), file=sys.stderr)
            raise
        finally:
            report.finish()
        summary = report.summary()
    if options.json:
        print_json(summary)
    else:
        print(report.text())
    return 1 if live.sink_errors else 0


def _smaller(options: argparse.Namespace, segmenter: Segmenter, lossless: bool) -> Iterator[Segmenter]:
    """The networks that take over where --max-latency is not kept: those given, else the one in the bundle."""
    import edgeseg

    if options.smaller and (options.max_latency is None or lossless):
        need = "--realtime: every frame of a file is segmented" if options.max_latency else "--max-latency"
        raise UsageError(f"--smaller needs {need}")
    bundles = options.smaller
    if not bundles and options.max_latency is not None and not lossless:
        held = segmenter.bundle.smaller
        bundles = [] if held is None else [held.path]
    for path in bundles:
        yield edgeseg.load(path, backend=segmenter.backend_name, threads=options.threads)


def _lossless(options: argparse.Namespace, sinks: list[str]) -> bool:
    """Whether every frame is wanted: sources that are files, and no sink that somebody looks at."""
    from edgeseg.apps.camera.sinks import scheme_of
    from edgeseg.apps.camera.sources import source_kind

    finite = all(source_kind(source) in ("video", "frames") for source in options.source)
    if options.realtime is not None:
        if options.realtime is False and not all(
            source_kind(source) in ("video", "frames", "test", "gstreamer") for source in options.source
        ):
            raise UsageError("--every-frame is for files: a camera does not wait; leave it out")
        return not options.realtime
    return finite and not any(scheme_of(sink) in _WATCHED for sink in sinks)


def _streams(options: argparse.Namespace, sinks: list[str], segmenter: Any, lossless: bool) -> list[Stream]:
    from edgeseg.apps.camera.capture import Source
    from edgeseg.apps.camera.drawing import Drawing, Painter
    from edgeseg.apps.camera.live import Stream
    from edgeseg.apps.camera.sinks import SinkOptions, open_sink

    names = None if options.classes is None else tuple(name.strip() for name in options.classes.split(","))
    drawing = Drawing(options.draw, options.alpha, names, options.legend, options.show_rate)
    drawing.shown(segmenter.labels)  # refuses unknown classes before anything starts
    entry = segmenter.bundle.manifest.input
    chosen = _source_options(options, lossless, (entry.height, entry.width) if options.small else None)
    several = len(options.source) > 1
    streams = []
    for number, address in enumerate(options.source):
        shared = SinkOptions(
            Painter(drawing),
            lossless=lossless,
            force=options.force,
            rate=options.input_rate or 25.0,
            bitrate=options.bitrate,
            several=several,
        )
        places = [open_sink(_own(sink, number, several), shared) for sink in sinks]
        streams.append(Stream(Source(address, chosen), tuple(places)))
    return streams


def _source_options(options: argparse.Namespace, lossless: bool, scale_to: tuple[int, int] | None) -> SourceOptions:
    from edgeseg.apps.camera.sources import SourceOptions

    return SourceOptions(
        width=options.input_width,
        height=options.input_height,
        rate=options.input_rate,
        codec=options.input_codec,
        decoder=options.input_decoder,
        flip=options.input_flip,
        loop=options.input_loop,
        latency=options.input_latency,
        protocol=options.input_protocol,
        count=options.num_buffers,
        live=not lossless,
        scale_to=scale_to,
    )


def _own(sink: str, number: int, several: bool) -> str:
    """The address of a sink of one of several streams: files and RTSP streams have names of their own."""
    from edgeseg.apps.camera.sinks import scheme_of

    if "{stream}" in sink or not several:
        return sink.replace("{stream}", str(number))
    kind = scheme_of(sink)
    if kind == "rtsp":
        return f"{sink}-{number}"
    if kind == "video":
        return str(Path(sink).with_stem(f"{Path(sink).stem}-{number}"))
    if kind == "masks":
        return str(Path(sink).parent / str(number) / Path(sink).name)
    return sink


@contextlib.contextmanager
def _ended_by_signals() -> Iterator[None]:
    """SIGTERM ends the application as Ctrl-C does, with its files closed."""

    def end(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1e6:
        raise argparse.ArgumentTypeError(f"expected a number above 0, but got {text!r}")
    return value
