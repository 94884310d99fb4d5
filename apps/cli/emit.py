"""`edgeseg emit`: a bundle in, the files that trtexec, DeepStream, Triton or jetson-inference read out."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from edgeseg.apps.cli.options import add_skip_broken_argument, positive_count
from edgeseg.apps.cli.results import add_json_argument, only_results_on_stdout, print_json

if TYPE_CHECKING:
    from edgeseg.converters.emit import Emitted

__all__ = ["add_arguments", "run"]

_COUNT = 64


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `edgeseg emit`."""
    parser.add_argument("bundle", type=Path, metavar="BUNDLE")
    parser.add_argument(
        "--for",
        dest="program",
        required=True,
        metavar="PROGRAM",
        help="trtexec, deepstream, triton or jetson-inference",
    )
    parser.add_argument("-o", dest="output", type=Path, required=True, metavar="DIR", help="folder to write")
    engine = parser.add_argument_group("engine")
    engine.add_argument(
        "--tensorrt", default="10.3", metavar="VERSION", help="that builds the engine: 8.5 to 11.4 (default 10.3)"
    )
    engine.add_argument("--fp16-only", action="store_true", help="no INT8: for boards without it")
    engine.add_argument(
        "--implicit", action="store_true", help="INT8 from a calibration cache instead of Q/DQ (TensorRT up to 10)"
    )
    engine.add_argument("--dla", type=int, metavar="CORE", help="run on this deep learning accelerator what it can")
    engine.add_argument("--batch", type=positive_count, default=1, metavar="N", help="frames at once (default 1)")
    engine.add_argument(
        "--logits-size", action="store_true", help="deepstream: scores as small as the network's logits, coarser edges"
    )
    frames = parser.add_argument_group("ranges that the bundle lacks (calibration cache)")
    frames.add_argument("--frames", metavar="SOURCE", help="real frames: a folder, glob, text list or video")
    frames.add_argument(
        "--count",
        type=positive_count,
        default=_COUNT,
        metavar="N",
        help=f"of --frames, evenly spaced (default {_COUNT})",
    )
    add_skip_broken_argument(frames)
    parser.add_argument("--force", action="store_true", help="replace a folder that an earlier emit wrote")
    add_json_argument(parser)


def run(options: argparse.Namespace) -> int:
    """Write the folder and print what to do with it."""
    from edgeseg.apps.cli.progress import progress_for
    from edgeseg.bundle import Bundle
    from edgeseg.calibration.frames import frames_from
    from edgeseg.converters.emit import EmitOptions, emit, parse_version

    wanted = EmitOptions(
        parse_version(options.tensorrt),
        options.fp16_only,
        options.implicit,
        options.dla,
        options.batch,
        options.logits_size,
    )
    with only_results_on_stdout():
        bundle = Bundle.open(options.bundle)
        source = None
        if options.frames is not None:
            source = frames_from(options.frames, skip_broken=options.skip_broken).select(options.count)
        step = progress_for(options.quiet).step
        done = emit(bundle, options.program, options.output, wanted, frames=source, step=step, force=options.force)
    if options.json:
        print_json(asdict(done))
    else:
        print(_text(done))
    return 0


def _text(done: Emitted) -> str:
    ranges = f", {done.measured} ranges measured" if done.measured else ""
    return "\n".join(
        [
            f"{done.folder}: {done.program}, TensorRT {done.tensorrt}, graph {done.form}{ranges}",
            *(f"  {name}" for name in done.files),
            "In that folder:",
            *(f"  {command}" for command in done.commands),
            *(f"note: {note}" for note in done.notes),
        ]
    )
