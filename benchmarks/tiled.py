"""Large images tile by tile: peak memory and time of `edgeseg run --tile`, and what overlaps are worth.

    python benchmarks/tiled.py BUNDLE [--side 10000] [--tile network] [--overlap N] [--format png] [--json]
    python benchmarks/tiled.py BUNDLE --seams camvid:CamVid [--split val] [--tile network] [--json]

The first way draws a mosaic of rendered streets, saves it, and starts `edgeseg run` in a process of its own, once for
class maps and twice for overlays; memory is that of the whole process, 20 looks a second.

The second way scores mosaics of labelled frames, whose outlines lie anywhere in a tile. For each overlap it takes every
pixel from the tile in which it lies furthest from an edge, as edgeseg does, and for comparison from the mean of
all logits under a Hann window. "Moved" is the share of pixels, in percent, that keep their class when the tiles start
half a tile further right and down: what the place of the seams decides.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from peers.limited_process import Limits, run_limited

import edgeseg
from edgeseg.calibration.datasets import labelled_from
from edgeseg.calibration.scoring import check_classes, resize_nearest
from edgeseg.metrics import ConfusionMatrix
from edgeseg.scenes import Street, render
from edgeseg.segmenter import Segmenter
from edgeseg.tiles import Tiling, segment_tiled, tiling_for

STREETS = 24
FRAME = (480, 640)
MOSAIC = (5, 5)
SHARES = (0.0, 1 / 16, 1 / 8, 1 / 4)
"""Overlaps that are compared, as shares of a tile's smaller side."""
LIMITS = Limits(3600, 8)


def draw_mosaic(path: Path, side: int) -> None:
    """Save an image of side x side pixels of rendered streets, which with their noise compress like photographs."""
    frames = [render(Street(seed), 10, *FRAME).image for seed in range(STREETS)]
    rows, columns = -(-side // FRAME[0]), -(-side // FRAME[1])
    image = np.empty((rows * FRAME[0], columns * FRAME[1], 3), np.uint8)
    for row in range(rows):
        for column in range(columns):
            place = np.s_[row * FRAME[0] : (row + 1) * FRAME[0], column * FRAME[1] : (column + 1) * FRAME[1]]
            image[place] = frames[(row * 7 + column) % STREETS]
    cv2.imwrite(str(path), image[:side, :side, ::-1])


def run_in_child(options: argparse.Namespace, image: Path, folder: Path) -> list[dict[str, Any]]:
    """Peak memory and time of both kinds of result."""
    rows = []
    for kind, result in (("class map", "map.png"), ("overlay, JPEG", "overlay.jpg"), ("overlay, PNG", "overlay.png")):
        command = [
            *(sys.executable, "-m", "edgeseg", "run", str(options.bundle), str(image), "-o", str(folder / result)),
            *("--tile", options.tile, "--backend", options.backend, "--json", "--quiet"),
            *(["--class-map"] if kind == "class map" else []),
            *(["--overlap", str(options.overlap)] if options.overlap is not None else []),
        ]
        outcome = run_limited(command, LIMITS)
        if outcome.problem:
            raise SystemExit(f"edgeseg run: {outcome.problem}")
        done = json.loads(outcome.stdout)
        rows.append(
            {
                "kind": kind,
                "peak_mb": outcome.peak_mb,
                "seconds": outcome.seconds,
                "cpu_seconds": outcome.cpu_seconds,
                "segment_seconds": done["seconds"],
                **{key: done[key] for key in ("tile", "overlap", "tiles", "backend")},
            }
        )
    return rows


def measure_memory(options: argparse.Namespace) -> dict[str, Any]:
    """Draw the mosaic in a child, too, so that nothing of it is in this process, and run."""
    with tempfile.TemporaryDirectory() as name:
        image = Path(name) / f"mosaic.{options.format}"
        program = (
            f"import sys; sys.path[:0] = {[str(Path(__file__).parent)]!r}; import tiled; from pathlib import Path; "
        )
        drawn = run_limited(
            [sys.executable, "-c", f"{program}tiled.draw_mosaic(Path({str(image)!r}), {options.side})"], LIMITS
        )
        if drawn.problem:
            raise SystemExit(f"drawing the mosaic: {drawn.problem}")
        size = image.stat().st_size
        return {"side": options.side, "file_mb": size / 1e6, "rows": run_in_child(options, image, Path(name))}


def averaged(segmenter: Segmenter, image: np.ndarray, tiling: Tiling) -> np.ndarray:
    """The class map from all tiles' logits, weighted by a Hann window of the tile."""
    height, width, _ = image.shape
    window = np.outer(*(np.hanning(side + 2)[1:-1] for side in (tiling.height, tiling.width))).astype(np.float32)
    total = np.zeros((segmenter.bundle.manifest.output.channels, height, width), np.float32)
    rows, columns = tiling.axes(height, width)
    for row in rows:
        for column in columns:
            place = np.s_[row.start : row.start + tiling.height, column.start : column.start + tiling.width]
            total[:, place[0], place[1]] += window * segmenter.logits(image[place])
    return total.argmax(axis=0).astype(np.uint8)


def mosaics(options: argparse.Namespace) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Images of 5 x 5 frames with their labels, `--mosaics` of them."""
    data = labelled_from(options.data, options.split)
    pairs: list[tuple[np.ndarray, np.ndarray]] = []
    for item in data.select(options.mosaics * MOSAIC[0] * MOSAIC[1]):
        labels = resize_nearest(item.labels, *item.frame.image.shape[:2])
        pairs.append((item.frame.image, labels))
        if len(pairs) == MOSAIC[0] * MOSAIC[1]:
            rows = [pairs[i : i + MOSAIC[1]] for i in range(0, len(pairs), MOSAIC[1])]
            yield tuple(np.vstack([np.hstack([pair[k] for pair in row]) for row in rows]) for k in (0, 1))
            pairs = []


def measure_seams(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Scores by overlap and rule."""
    data = labelled_from(options.data, options.split)
    tile = None if options.tile == "network" else tuple(int(n) for n in options.tile.split("x"))
    rows = []
    with edgeseg.load(options.bundle, backend=options.backend) as segmenter:
        scored = check_classes(segmenter.labels, None, data.label_set)

        def crop(image: np.ndarray, tiling: Tiling) -> np.ndarray:
            size = tiling.height, tiling.width
            return segment_tiled(segmenter, image, tile=size, overlap=tiling.overlap).class_map

        rules: dict[str, Callable[[np.ndarray, Tiling], np.ndarray]] = {
            "inner part": crop,
            "mean of logits": lambda image, tiling: averaged(segmenter, image, tiling),
        }
        base = tiling_for(segmenter, tile, 0)
        for share in SHARES:
            tiling = Tiling(
                base.height, base.width, min(int(share * min(base.height, base.width)), base.height // 2 - 1)
            )
            for name, rule in rules.items():
                confusion, kept, seconds = ConfusionMatrix(len(scored)), [], 0.0
                for image, labels in mosaics(options):
                    start = time.perf_counter()
                    found = rule(image, tiling)
                    seconds += time.perf_counter() - start
                    confusion.add(labels, found, scored.ignore_index)
                    down, right = tiling.height // 2, tiling.width // 2
                    kept.append(float((rule(image[down:, right:], tiling) == found[down:, right:]).mean()))
                rows.append(
                    {
                        "rule": name,
                        "tile": [tiling.height, tiling.width],
                        "overlap": tiling.overlap,
                        "miou": 100 * confusion.mean_iou(),
                        "moved": 100 * float(np.mean(kept)),
                        "seconds": seconds / len(kept),
                    }
                )
    return rows


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--side", type=int, default=10_000, help="of the mosaic, pixels")
    parser.add_argument("--tile", default="network", help="network, N or HxW; of --seams network or HxW")
    parser.add_argument("--overlap", type=int)
    parser.add_argument("--format", default="png", choices=("jpg", "png", "tif"))
    parser.add_argument("--seams", dest="data", metavar="DATA", help="score overlaps on mosaics of labelled frames")
    parser.add_argument("--split", default="val")
    parser.add_argument("--mosaics", type=int, default=4, help="number of mosaics (default 4)")
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    done: Any = measure_memory(options) if options.data is None else measure_seams(options)
    if options.json:
        print(json.dumps(done, indent=1))
    elif options.data is None:
        side = f"{done['side']} x {done['side']} {options.format}, {done['file_mb']:.0f} MB"
        print(f"| {side} | tiles | peak MB | s | CPU s |\n|---|---|---|---|---|")
        for row in done["rows"]:
            tile = f"{row['tiles']} of {row['tile'][0]}x{row['tile'][1]}, overlap {row['overlap']}, {row['backend']}"
            print(
                f"| {row['kind']} | {tile} | {row['peak_mb']:.0f} | {row['seconds']:.0f} | {row['cpu_seconds']:.0f} |"
            )
    else:
        print("| tile, overlap | rule | mIoU | moved | s a mosaic |\n|---|---|---|---|---|")
        for row in done:
            tile = f"{row['tile'][0]}x{row['tile'][1]}, {row['overlap']}"
            print(f"| {tile} | {row['rule']} | {row['miou']:.2f} | {row['moved']:.2f} | {row['seconds']:.1f} |")


if __name__ == "__main__":
    main()
