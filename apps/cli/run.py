"""`edgeseg run`: images or a video in, overlays, class maps or an overlay video out."""

from __future__ import annotations

import argparse
import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeseg.apps.cli.options import add_backend_arguments, add_skip_broken_argument, positive_count, share
from edgeseg.apps.cli.progress import progress_for
from edgeseg.apps.cli.refining import add_refine_arguments, asked_refinement
from edgeseg.apps.cli.results import add_json_argument, only_results_on_stdout, print_json
from edgeseg.errors import OutputError, UsageError

if TYPE_CHECKING:
    from edgeseg.calibration.frames import Frame, FrameSource
    from edgeseg.refine import Refinement
    from edgeseg.segmentation import Segmentation

__all__ = ["add_arguments", "run"]

DEFAULT_RATE = 25.0

Sink = Callable[["Frame", "Segmentation", str], None]
"""Takes a frame, its result and the file name without ending that its results get."""


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
    add_refine_arguments(parser)
    parser.add_argument("--force", action="store_true", help="write into a folder or over a file that exists")
    add_backend_arguments(parser)
    add_json_argument(parser)


def run(options: argparse.Namespace) -> int:
    """Segment the source and print what was written."""
    plan = _plan(options)
    refine = asked_refinement(options)
    import edgeseg
    from edgeseg.apps.writers import check_output
    from edgeseg.calibration.frames import frames_from

    with only_results_on_stdout():
        source = frames_from(options.source, skip_broken=options.skip_broken)
        source = source.exclude({name for i, name in enumerate(source.names) if i % options.every})
        for place in plan.places:
            check_output(place, force=options.force)
        with edgeseg.load(options.bundle, backend=options.backend, threads=options.threads) as segmenter:
            done = _segment(segmenter, source, plan, options, refine)
            done["backend"] = segmenter.backend_name
    if options.json:
        print_json(done)
    else:
        print(_text(done))
    return 0


@dataclass(frozen=True)
class _Plan:
    """Where each kind of result goes; None where it is not wanted."""

    overlays: Path | None
    class_maps: Path | None
    video: Path | None
    single: bool
    places: tuple[Path, ...] = field(default=())


def _plan(options: argparse.Namespace) -> _Plan:
    from edgeseg.apps.writers import VIDEO_CODECS

    out: Path = options.output
    is_video = out.suffix.lower() in VIDEO_CODECS
    if options.video is not None and options.video.suffix.lower() not in VIDEO_CODECS:
        raise UsageError(f"--video must end in {', '.join(VIDEO_CODECS)}, but is {options.video}")
    if is_video:
        if options.class_map or options.overlay or options.video:
            raise UsageError(f"-o {out} is a video: for images too, give -o a folder and --video {out}")
        return _Plan(None, None, out, False, (out,))
    overlays = options.overlay or not options.class_map
    both = overlays and options.class_map
    single = out.suffix.lower() in (".png", ".jpg", ".jpeg", ".bmp", ".webp")
    if single and both:
        raise UsageError(f"-o {out} is one file: for overlay and class map together, give -o a folder")
    if single and options.class_map and out.suffix.lower() != ".png":
        raise UsageError(f"a class map is written as PNG, since other formats change its values, but -o is {out}")
    places = (out,) if options.video is None else (out, options.video)
    return _Plan(
        overlays=(out / "overlays" if both else out) if overlays else None,
        class_maps=(out / "class_maps" if both else out) if options.class_map else None,
        video=options.video,
        single=single,
        places=places,
    )


def _segment(
    segmenter: Any, source: FrameSource, plan: _Plan, options: argparse.Namespace, refine: Refinement | None
) -> dict[str, Any]:
    if plan.single and len(source) != 1:
        raise UsageError(f"-o {options.output} is one file, but the source has {len(source)} frames; give a folder")
    from edgeseg.apps.writers import file_stems
    from edgeseg.refine import stream_refined

    stems = dict(zip(source.names, file_stems(source.names), strict=True))
    _keep_sources(source, plan, stems.values())
    waiting: deque[Frame] = deque()
    rate = options.fps or _rate_of(source, options.every)
    start = time.perf_counter()
    count, infer = 0, 0.0
    with contextlib.ExitStack() as stack:
        sinks = list(_sinks(plan, options, rate, stack))
        step = stack.enter_context(progress_for(options.quiet).step("segment", len(source)))
        frames = _remember(source, waiting)
        for result in segmenter.stream(frames) if refine is None else stream_refined(segmenter, refine, frames):
            frame = waiting.popleft()
            for sink in sinks:
                sink(frame, result, stems[frame.name])
            count, infer = count + 1, infer + result.timing.infer
            step(1)
    seconds = time.perf_counter() - start
    return {
        "output": [str(place) for place in plan.places],
        "frames": count,
        "skipped": source.skipped,
        "seconds": round(seconds, 3),
        "fps": count / seconds if seconds else None,
        "refine": options.refine,
        "infer_ms": infer / count if count else None,
    }


def _keep_sources(source: FrameSource, plan: _Plan, stems: Iterable[str]) -> None:
    """Refuse results that would take the place of the frames, which --force does not mean.

    Raises:
        OutputError: names the file.
    """
    from edgeseg.calibration.frames import ImageFrames
    from edgeseg.calibration.video import VideoFrames

    results = {place for place in (plan.video, plan.overlays, plan.class_maps) if place is not None}
    if not plan.single:
        folders = ((plan.overlays, ".jpg"), (plan.class_maps, ".png"))
        results |= {folder / f"{stem}{end}" for folder, end in folders if folder is not None for stem in stems}
    given: tuple[Path, ...] = ()
    if isinstance(source, ImageFrames):
        given = source.paths
    elif isinstance(source, VideoFrames):
        given = (source.path,)
    lost = {path.resolve() for path in results} & {path.resolve() for path in given}
    if lost:
        raise OutputError(f"the results would replace {min(lost)}, one of the frames; choose another place with -o")


def _rate_of(source: FrameSource, every: int) -> float:
    """Frames a second that keep the pace of a video of which every Nth frame is taken."""
    from edgeseg.calibration.images import import_cv2
    from edgeseg.calibration.scenes import RATE, SceneFrames
    from edgeseg.calibration.video import VideoFrames

    if isinstance(source, SceneFrames):
        return RATE / (source.every * every)
    if not isinstance(source, VideoFrames):
        return DEFAULT_RATE
    cv2 = import_cv2()
    capture = cv2.VideoCapture(str(source.path), cv2.CAP_FFMPEG)
    rate = float(capture.get(cv2.CAP_PROP_FPS))
    capture.release()
    return rate / every if rate > 0 else DEFAULT_RATE


def _remember(source: FrameSource, waiting: deque[Frame]) -> Iterator[Frame]:
    """The frames, each kept until its result has come: `stream` keeps their order."""
    for frame in source:
        waiting.append(frame)
        yield frame


def _sinks(plan: _Plan, options: argparse.Namespace, rate: float, stack: contextlib.ExitStack) -> Iterator[Sink]:
    from edgeseg.apps.writers import VideoWriter, output_errors, write_image

    for folder in {plan.overlays, plan.class_maps} - {None}:
        if folder is not None and not plan.single:
            with output_errors(folder):
                folder.mkdir(parents=True, exist_ok=True)
    overlays, class_maps = plan.overlays, plan.class_maps
    if class_maps is not None:
        yield lambda frame, result, stem: write_image(
            class_maps if plan.single else class_maps / f"{stem}.png", result.class_map
        )
    if overlays is not None:
        yield lambda frame, result, stem: write_image(
            overlays if plan.single else overlays / f"{stem}.jpg", result.overlay(frame.image, options.alpha)
        )
    if plan.video is not None:
        video = stack.enter_context(VideoWriter(plan.video, rate))
        yield lambda frame, result, stem: video.write(result.overlay(frame.image, options.alpha))


def _text(done: dict[str, Any]) -> str:
    skipped = f", {done['skipped']} skipped" if done["skipped"] else ""
    return (
        f"{', '.join(done['output'])}: {done['frames']} frames{skipped} in {done['seconds']:.1f} s, "
        f"{done['fps']:.1f} frames/s end to end on {done['backend']}"
    )


def _rate(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 1000:
        raise argparse.ArgumentTypeError(f"expected frames per second, such as 25, but got {text!r}")
    return value
