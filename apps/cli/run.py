"""`edgeseg run`: images or a video in, overlays, class maps or an overlay video out."""

from __future__ import annotations

import argparse
import contextlib
import time
from collections import deque
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeseg.apps.cli.areas import add_area_arguments, asked_areas, volume_text
from edgeseg.apps.cli.options import (
    add_backend_arguments,
    add_skip_broken_argument,
    engine_options,
    positive_count,
    share,
)
from edgeseg.apps.cli.outputs import Outputs, asked_outputs, keep_sources, result_sinks, video_rate
from edgeseg.apps.cli.progress import progress_for
from edgeseg.apps.cli.refining import add_refine_arguments, asked_refinement
from edgeseg.apps.cli.results import add_json_argument, only_results_on_stdout, print_json
from edgeseg.apps.cli.tiling import add_tile_arguments, asked_tiling, check_tile_arguments, tiled_results
from edgeseg.errors import UsageError

if TYPE_CHECKING:
    from edgeseg.calibration.frames import Frame, FrameSource
    from edgeseg.calibration.progress import Progress
    from edgeseg.refine import Refinement
    from edgeseg.segmentation import Segmentation
    from edgeseg.segmenter import Segmenter

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `edgeseg run`."""
    parser.add_argument("bundle", type=Path, metavar="BUNDLE")
    parser.add_argument("source", metavar="SOURCE", help="an image, folder, glob, text list, video or scene://street")
    parser.add_argument(
        "-o",
        dest="output",
        type=Path,
        required=True,
        metavar="OUT",
        help="a folder for images, a file for one image, or a file that ends in .mp4, .mkv, .mov, .avi or .webm for an "
        "overlay video",
    )
    parser.add_argument("--overlay", action="store_true", help="write overlays (the default without --class-map)")
    parser.add_argument("--class-map", action="store_true", help="write class maps: PNG, one channel of class indices")
    parser.add_argument(
        "--video", type=Path, metavar="FILE", help="write an overlay video too, beside a folder of images"
    )
    parser.add_argument(
        "--alpha", type=share, default=0.5, metavar="A", help="weight of the colours, 0..1 (default 0.5)"
    )
    parser.add_argument("--every", type=positive_count, default=1, metavar="N", help="take every Nth frame")
    parser.add_argument(
        "--fps", type=_rate, metavar="F", help="rate of the video written; default: the source's, or 25"
    )
    add_skip_broken_argument(parser)
    add_tile_arguments(parser)
    add_refine_arguments(parser)
    add_area_arguments(parser)
    parser.add_argument("--force", action="store_true", help="write into a folder or over a file that exists")
    add_backend_arguments(parser)
    add_json_argument(parser)


def run(options: argparse.Namespace) -> int:
    """Segment the source and print what was written."""
    outputs = asked_outputs(options, asked_areas(options))
    check_tile_arguments(options)
    refine = asked_refinement(options)
    import edgeseg
    from edgeseg.apps.writers import check_output
    from edgeseg.calibration.frames import frames_from

    with only_results_on_stdout():
        source = frames_from(options.source, skip_broken=options.skip_broken)
        source = source.exclude({name for i, name in enumerate(source.names) if i % options.every})
        for place in outputs.places:
            check_output(place, force=options.force)
        with edgeseg.load(options.bundle, **engine_options(options)) as segmenter:
            done = _segment(segmenter, source, outputs, options, refine)
            done["backend"] = segmenter.backend_name
    if options.json:
        print_json(done)
    else:
        print(("" if outputs.areas is None else volume_text(outputs.areas)) + _text(done))
    return 0


def _segment(
    segmenter: Segmenter, source: FrameSource, outputs: Outputs, options: argparse.Namespace, refine: Refinement | None
) -> dict[str, Any]:
    if outputs.single and len(source) != 1:
        raise UsageError(f"-o {options.output} is one file, but the source has {len(source)} frames; give a folder")
    from edgeseg.apps.writers import file_stems, replace_file

    tiling = asked_tiling(options, segmenter)
    stems = dict(zip(source.names, file_stems(source.names), strict=True))
    keep_sources(source, outputs, stems.values())
    rate = options.fps or video_rate(source, options.every)
    progress = progress_for(options.quiet)
    start = time.perf_counter()
    count, infer, tiles = 0, 0.0, 0
    with contextlib.ExitStack() as stack:
        sinks = list(result_sinks(outputs, options.alpha, rate, stack))
        if tiling is None:
            results = _results(segmenter, source, refine, progress)
        else:
            results = tiled_results(segmenter, source, tiling, refine, progress)
        # Closed at once when a result cannot be written, so that its bar does not stand beside the error.
        for frame, result, parts in stack.enter_context(contextlib.closing(results)):
            for sink in sinks:
                sink(frame, result, stems[frame.name])
            count, infer, tiles = count + 1, infer + result.timing.infer, tiles + parts
            # Otherwise a large image would still be there while the next is read.
            del frame, result
    areas = outputs.areas
    if areas is not None and areas.file is not None:
        replace_file(areas.file, areas.content())
    seconds = time.perf_counter() - start
    return {
        "output": [str(place) for place in outputs.places],
        "frames": count,
        "skipped": source.skipped,
        "seconds": round(seconds, 3),
        "fps": count / seconds if seconds else None,
        "refine": options.refine,
        "tile": None if tiling is None else [tiling.height, tiling.width],
        "overlap": None if tiling is None else tiling.overlap,
        "tiles": None if tiling is None else tiles,
        "spacing": None if areas is None else areas.spacing,
        "slice_distance": None if areas is None else areas.slice_distance,
        "volumes": None if areas is None else areas.volumes(),
        "infer_ms": infer / count if count else None,
    }


def _results(
    segmenter: Segmenter, source: FrameSource, refine: Refinement | None, progress: Progress
) -> Generator[tuple[Frame, Segmentation, int], None, None]:
    """The frames with their results, in order, several at once; each is one tile."""
    from edgeseg.refine import stream_refined

    waiting: deque[Frame] = deque()
    frames = _remember(source, waiting)
    with progress.step("segment", len(source)) as step:
        for result in segmenter.stream(frames) if refine is None else stream_refined(segmenter, refine, frames):
            yield waiting.popleft(), result, 1
            step(1)


def _remember(source: FrameSource, waiting: deque[Frame]) -> Iterator[Frame]:
    """The frames, each kept until its result has come: `stream` keeps their order."""
    for frame in source:
        waiting.append(frame)
        yield frame


def _text(done: dict[str, Any]) -> str:
    skipped = f", {done['skipped']} skipped" if done["skipped"] else ""
    tiles = f" as {done['tiles']} tiles of {done['tile'][0]}x{done['tile'][1]}" if done["tile"] else ""
    return (
        f"{', '.join(done['output'])}: {done['frames']} frames{skipped}{tiles} in {done['seconds']:.1f} s, "
        f"{done['fps']:.3g} frames/s end to end on {done['backend']}"
    )


def _rate(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 1000:
        raise argparse.ArgumentTypeError(f"expected frames per second, such as 25, but got {text!r}")
    return value
