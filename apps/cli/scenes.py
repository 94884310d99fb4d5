"""`edgeseg scenes`: rendered street scenes with their labels as files, for a look or for other programs."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeseg.apps.cli.options import frame_size, positive_count
from edgeseg.apps.cli.progress import progress_for
from edgeseg.apps.cli.results import add_json_argument, only_results_on_stdout, print_json, table
from edgeseg.errors import OutputError
from edgeseg.labels import load_labels

if TYPE_CHECKING:
    from edgeseg.calibration.scenes import SceneFrames

__all__ = ["add_arguments", "run"]

_COUNT = 64
_SIZE = (360, 480)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `edgeseg scenes`."""
    parser.add_argument("output", type=Path, metavar="OUT", help="folder that gets images/, labels/ and labels.json")
    parser.add_argument("--count", type=positive_count, default=_COUNT, metavar="N", help=f"frames (default {_COUNT})")
    parser.add_argument("--seed", type=_seed, default=0, metavar="S", help="of the first street (default 0)")
    parser.add_argument(
        "--size", type=frame_size, default=_SIZE, metavar="HxW", help=f"of a frame (default {_SIZE[0]}x{_SIZE[1]})"
    )
    parser.add_argument(
        "--streets", type=positive_count, default=1, metavar="N", help="streets that are visited evenly (default 1)"
    )
    parser.add_argument(
        "--every", type=positive_count, default=1, metavar="N", help="write every Nth frame of a drive (default 1)"
    )
    parser.add_argument("--png", action="store_true", help="write images without loss, as PNG instead of JPEG")
    parser.add_argument("--force", action="store_true", help="write into a folder that is not empty")
    add_json_argument(parser)


def run(options: argparse.Namespace) -> int:
    """Render, write and print what was written."""
    from edgeseg.apps.writers import check_output
    from edgeseg.calibration.scenes import SceneFrames

    height, width = options.size
    source = SceneFrames(options.count, height, width, options.seed, options.streets, options.every)
    out: Path = options.output
    if out.is_dir() and any(out.iterdir()) and not options.force:
        raise OutputError(f"{out} exists and is not empty; name another folder or write into it with --force")
    if out.exists() and not out.is_dir():
        raise OutputError(f"{out} is a file, but scenes are written into a folder; name another place")
    check_output(out, force=True)
    with only_results_on_stdout():
        start = time.perf_counter()
        shares = _write(source, out, ".png" if options.png else ".jpg", options.quiet)
        seconds = time.perf_counter() - start
    done = {
        "output": str(out),
        "frames": len(source),
        "size": [height, width],
        "seed": options.seed,
        "streets": options.streets,
        "every": options.every,
        "areas": shares,
        "seconds": round(seconds, 3),
    }
    if options.json:
        print_json(done)
    else:
        print(_text(done))
    return 0


def _write(source: SceneFrames, out: Path, suffix: str, quiet: bool) -> dict[str, float]:
    """Write the frames, as `edgeseg.calibration.datasets` reads a plain folder.

    Returns:
        The share of all pixels by class name, 0..1; void is the rest.
    """
    from edgeseg.apps.writers import output_errors, replace_file, write_image

    images, labels = out / "images", out / "labels"
    for folder in (images, labels):
        with output_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
    classes = load_labels("camvid")
    pixels = np.zeros(256, np.int64)
    with progress_for(quiet).step("render", len(source)) as step:
        for frame in source:
            write_image(images / f"{frame.name}{suffix}", frame.image)
            write_image(labels / f"{frame.name}.png", frame.labels)
            pixels += np.bincount(frame.labels.ravel(), minlength=256)
            step(1)
    replace_file(out / "labels.json", json.dumps(classes.listing(), indent=1).encode())
    return {name: float(pixels[index] / pixels.sum()) for index, name in enumerate(classes.names)}


def _text(done: dict[str, Any]) -> str:
    rows = [("class", "area"), *((name, f"{100 * share:.1f} %") for name, share in done["areas"].items())]
    height, width = done["size"]
    return (
        f"{table(rows, right=(1,))}\n\n{done['output']}: {done['frames']} frames of {height}x{width} in "
        f"{done['seconds']:.1f} s; rendered, for tests only"
    )


def _seed(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and int(text) < 2**31):
        raise argparse.ArgumentTypeError(f"expected a whole number from 0, but got {text!r}")
    return int(text)
