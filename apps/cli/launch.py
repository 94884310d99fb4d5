"""`edgeseg launch`: a GStreamer pipeline in gst-launch-1.0's words, in which the element `edgeseg` is known."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeseg.apps.cli.results import add_json_argument, only_results_on_stdout, print_json
from edgeseg.errors import UsageError

if TYPE_CHECKING:
    from edgeseg.apps.camera.launch import Launched

__all__ = ["add_arguments", "run"]

_INTERRUPTED = 130


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `edgeseg launch`."""
    parser.add_argument(
        "pipeline",
        nargs="*",
        metavar="PIPELINE",
        help='as gst-launch-1.0 takes it, such as "v4l2src ! videoconvert ! edgeseg model=road.edgeseg ! '
        'videoconvert ! autovideosink"; quote it',
    )
    parser.add_argument(
        "-e",
        "--eos-on-shutdown",
        action="store_true",
        help="on Ctrl-C or SIGTERM, end the stream and wait until files are finished",
    )
    parser.add_argument(
        "--plugin-path",
        action="store_true",
        help="print the folder that GST_PLUGIN_PATH needs for gst-launch-1.0 to find the element, and do nothing else",
    )
    add_json_argument(parser)


def run(options: argparse.Namespace) -> int:
    """Play the pipeline to its end and print what its edgeseg elements did."""
    if options.plugin_path:
        print(Path(__file__).resolve().parent.parent / "camera" / "plugin")
        return 0
    if not options.pipeline:
        raise UsageError('give a pipeline, such as "videotestsrc ! edgeseg model=road.edgeseg ! fakesink"')
    from edgeseg.apps.camera.launch import launch

    with only_results_on_stdout():
        done = launch(" ".join(options.pipeline), eos_on_shutdown=options.eos_on_shutdown)
    if options.json:
        print_json(_values(done))
    else:
        for name, stats in done.elements.items():
            print(f"{name}: {_text(stats)}")
    return _INTERRUPTED if done.interrupted else 0


def _values(done: Launched) -> dict[str, Any]:
    return {
        "ended": "interrupted" if done.interrupted else "eos",
        "seconds": round(done.seconds, 3),
        "elements": {
            name: {key.replace("-", "_"): value for key, value in stats.items()}
            for name, stats in done.elements.items()
        },
    }


def _text(stats: dict[str, Any]) -> str:
    late = f", {stats['late']} late" if stats["late"] else ""
    means = f", {stats['inference-ms']:.1f} ms inference, {stats['frame-ms']:.1f} ms a frame in all"
    return f"{stats['frames']} frames, {stats['segmented']} segmented{late}{means if stats['segmented'] else ''}"
