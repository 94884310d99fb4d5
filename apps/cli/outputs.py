"""Where the results of `edgeseg run` go: what the options ask for, checked before any work, and what writes it."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgeseg.apps.cli.areas import AreaTable
from edgeseg.errors import OutputError, UsageError

if TYPE_CHECKING:
    from edgeseg.calibration.frames import Frame, FrameSource
    from edgeseg.segmentation import Segmentation

__all__ = ["Outputs", "Sink", "asked_outputs", "keep_sources", "result_sinks", "video_rate"]

_DEFAULT_RATE = 25.0

Sink = Callable[["Frame", "Segmentation", str], None]
"""Takes a frame, its result and the file name without ending that its results get."""


@dataclass(frozen=True)
class Outputs:
    """Where each kind of result goes; None where it is not wanted.

    Attributes:
        overlays, class_maps: folders, or with `single` files.
        video: overlay video.
        areas: what is measured; its file may be None.
        single: whether the only image goes to the file of -o.
        places: all that was named by the user, to be checked and reported.
    """

    overlays: Path | None
    class_maps: Path | None
    video: Path | None
    areas: AreaTable | None
    single: bool
    places: tuple[Path, ...]


def asked_outputs(options: argparse.Namespace, areas: AreaTable | None) -> Outputs:
    """Where the options want what.

    Raises:
        UsageError: for options that do not go together.
    """
    from edgeseg.apps.writers import VIDEO_CODECS

    out: Path = options.output
    is_video = out.suffix.lower() in VIDEO_CODECS
    if options.video is not None and options.video.suffix.lower() not in VIDEO_CODECS:
        raise UsageError(f"--video must end in {', '.join(VIDEO_CODECS)}, but is {options.video}")
    places = tuple(place for place in (out, options.video, options.areas) if place is not None)
    if is_video:
        if options.class_map or options.overlay or options.video:
            raise UsageError(f"-o {out} is a video: for images too, give -o a folder and --video {out}")
        return Outputs(None, None, out, areas, False, places)
    overlays = options.overlay or not options.class_map
    both = overlays and options.class_map
    single = out.suffix.lower() in (".png", ".jpg", ".jpeg", ".bmp", ".webp")
    if single and both:
        raise UsageError(f"-o {out} is one file: for overlay and class map together, give -o a folder")
    if single and options.class_map and out.suffix.lower() != ".png":
        raise UsageError(f"a class map is written as PNG, since other formats change its values, but -o is {out}")
    return Outputs(
        overlays=(out / "overlays" if both else out) if overlays else None,
        class_maps=(out / "class_maps" if both else out) if options.class_map else None,
        video=options.video,
        areas=areas,
        single=single,
        places=places,
    )


def keep_sources(source: FrameSource, outputs: Outputs, stems: Iterable[str]) -> None:
    """Refuse results that would take the place of the frames, which --force does not mean.

    Raises:
        OutputError: names the file.
    """
    from edgeseg.calibration.frames import ImageFrames
    from edgeseg.calibration.video import VideoFrames

    results = {place for place in (*outputs.places, outputs.overlays, outputs.class_maps) if place is not None}
    if not outputs.single:
        folders = ((outputs.overlays, ".jpg"), (outputs.class_maps, ".png"))
        results |= {folder / f"{stem}{end}" for folder, end in folders if folder is not None for stem in stems}
    given: tuple[Path, ...] = ()
    if isinstance(source, ImageFrames):
        given = source.paths
    elif isinstance(source, VideoFrames):
        given = (source.path,)
    lost = {path.resolve() for path in results} & {path.resolve() for path in given}
    if lost:
        raise OutputError(f"the results would replace {min(lost)}, one of the frames; choose another place with -o")


def video_rate(source: FrameSource, every: int) -> float:
    """Frames a second that keep the pace of a video of which every Nth frame is taken."""
    from edgeseg.calibration.images import import_cv2
    from edgeseg.calibration.scenes import RATE, SceneFrames
    from edgeseg.calibration.video import VideoFrames

    if isinstance(source, SceneFrames):
        return RATE / (source.every * every)
    if not isinstance(source, VideoFrames):
        return _DEFAULT_RATE
    cv2 = import_cv2()
    capture = cv2.VideoCapture(str(source.path), cv2.CAP_FFMPEG)
    rate = float(capture.get(cv2.CAP_PROP_FPS))
    capture.release()
    return rate / every if rate > 0 else _DEFAULT_RATE


def result_sinks(outputs: Outputs, alpha: float, rate: float, stack: contextlib.ExitStack) -> Iterator[Sink]:
    """What takes every result; a video is finished when `stack` closes, and the caller writes the file of areas.

    Args:
        outputs: where to.
        alpha: weight of the colours in overlays, 0..1.
        rate: frames a second of the video.
        stack: the life of the sinks.
    """
    from edgeseg.apps.writers import VideoWriter, output_errors, write_image

    for folder in {outputs.overlays, outputs.class_maps} - {None}:
        if folder is not None and not outputs.single:
            with output_errors(folder):
                folder.mkdir(parents=True, exist_ok=True)
    overlays, class_maps, areas = outputs.overlays, outputs.class_maps, outputs.areas
    if class_maps is not None:
        yield lambda frame, result, stem: write_image(
            class_maps if outputs.single else class_maps / f"{stem}.png", result.class_map
        )
    if overlays is not None:
        yield lambda frame, result, stem: write_image(
            overlays if outputs.single else overlays / f"{stem}.jpg", result.overlay(frame.image, alpha), spent=True
        )
    if outputs.video is not None:
        video = stack.enter_context(VideoWriter(outputs.video, rate))
        yield lambda frame, result, stem: video.write(result.overlay(frame.image, alpha))
    if areas is not None:
        yield lambda frame, result, stem: areas.add(frame.name, result)
