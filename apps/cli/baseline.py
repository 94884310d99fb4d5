"""`edgeseg baseline`: images segmented without a network, as a baseline or as a start for labels."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeseg.apps.cli.options import add_skip_broken_argument
from edgeseg.apps.cli.progress import progress_for
from edgeseg.apps.cli.results import add_json_argument, only_results_on_stdout, print_json
from edgeseg.errors import OutputError, UsageError
from edgeseg.refine import Quadtree, otsu

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgeseg.calibration.frames import FrameSource

__all__ = ["METHODS", "add_arguments", "run"]

METHODS = ("otsu", "quadtree")

_QUADTREE = {"deviation": float, "difference": float, "smallest": int}
"""Options of the quadtree alone, each an attribute of `Quadtree`."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `edgeseg baseline`."""
    parser.add_argument("source", metavar="IMAGE|FOLDER", help="an image, folder, glob, text list or video")
    parser.add_argument(
        "--method",
        choices=METHODS,
        required=True,
        help="otsu: dark 0 and bright 1; quadtree: regions of like grey level by area, 0 the largest",
    )
    parser.add_argument("-o", dest="output", type=Path, required=True, metavar="DIR", help="folder of the class maps")
    quadtree = parser.add_argument_group("quadtree")
    default = Quadtree()
    quadtree.add_argument(
        "--deviation", type=float, metavar="G", help=f"grey levels above which a block is split ({default.deviation:g})"
    )
    quadtree.add_argument(
        "--difference", type=float, metavar="G", help=f"of means that are merged ({default.difference:g})"
    )
    quadtree.add_argument(
        "--smallest", type=int, metavar="N", help=f"side of a block that is not split ({default.smallest})"
    )
    add_skip_broken_argument(parser)
    parser.add_argument("--force", action="store_true", help="write into a folder that is not empty")
    add_json_argument(parser)


def run(options: argparse.Namespace) -> int:
    """Segment the images and print what was written."""
    given = {name: getattr(options, name) for name in _QUADTREE if getattr(options, name) is not None}
    if given and options.method != "quadtree":
        raise UsageError(f"{', '.join(f'--{name}' for name in given)} only go with --method quadtree")
    quadtree = Quadtree(**given)
    from edgeseg.apps.writers import check_output
    from edgeseg.calibration.frames import frames_from

    out: Path = options.output
    if out.is_file():
        raise OutputError(f"{out} is a file, but class maps are written into a folder; name another place with -o")
    with only_results_on_stdout():
        source = frames_from(options.source, skip_broken=options.skip_broken)
        check_output(out, force=options.force)
        start = time.perf_counter()
        images = _write(source, out, options.method, quadtree, options.quiet)
        seconds = time.perf_counter() - start
    done = {
        "output": str(out),
        "method": options.method,
        "frames": len(images),
        "skipped": source.skipped,
        "images": images,
        "seconds": round(seconds, 3),
    }
    if options.json:
        print_json(done)
    else:
        print(_text(done))
    return 0


def _write(source: FrameSource, out: Path, method: str, quadtree: Quadtree, quiet: bool) -> list[dict[str, Any]]:
    """Write a class map for every frame; gives what was found in each."""
    from edgeseg.apps.writers import file_stems, output_errors, write_image
    from edgeseg.calibration.frames import ImageFrames

    stems = dict(zip(source.names, file_stems(source.names), strict=True))
    if isinstance(source, ImageFrames):
        taken = {(out / f"{stem}.png").resolve() for stem in stems.values()} & {p.resolve() for p in source.paths}
        if taken:
            raise OutputError(
                f"a class map would replace {min(taken)}, one of the images; choose another place with -o"
            )
    with output_errors(out):
        out.mkdir(parents=True, exist_ok=True)
    images = []
    with progress_for(quiet).step("segment", len(source)) as step:
        for frame in source:
            class_map, found = _segment(frame.image, method, quadtree)
            write_image(out / f"{stems[frame.name]}.png", class_map)
            images.append({"name": frame.name, **found})
            step(1)
    return images


def _segment(
    image: NDArray[np.uint8], method: str, quadtree: Quadtree
) -> tuple[NDArray[np.uint8], dict[str, int | float]]:
    if method == "otsu":
        bright, level = otsu(image)
        return bright, {"threshold": level, "bright": float(np.mean(bright))}
    regions, count = quadtree(image)
    return regions, {"regions": count}


def _text(done: dict[str, Any]) -> str:
    skipped = f", {done['skipped']} skipped" if done["skipped"] else ""
    key, what = ("threshold", "grey level") if done["method"] == "otsu" else ("regions", "regions")
    values = [image[key] for image in done["images"]]
    found = f"; {what} {min(values)} to {max(values)}" if values else ""
    return (
        f"{done['output']}: {done['frames']} class maps{skipped} by {done['method']} in {done['seconds']:.1f} s{found}"
    )
