"""What refinements bring on real predictions and what they cost: mean IoU, boundary IoU and ms a frame.

    python benchmarks/refinement.py BUNDLE camvid:CamVid [--split val] [--every 5] [--json]

Gain is the 95 % interval of the mean IoU's difference to the network alone, by bootstrap over the frames. The dense CRF
is timed against the same steps in plain NumPy, lattice included. The last line is the time of the same mean field over
all pairs of pixels in plain NumPy. It is computed, not run, since it would take hours: a block of rows is timed and
multiplied.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np

import edgeseg
from edgeseg.boundary import BoundaryScore
from edgeseg.calibration.bootstrap import class_counts, score_intervals
from edgeseg.calibration.datasets import labelled_from
from edgeseg.calibration.scoring import check_classes, resize_nearest
from edgeseg.metrics import ConfusionMatrix
from edgeseg.refine import PRESETS, DenseCRF, GridCRF, Refinement
from edgeseg.refine.gaussian import appearance_features

NARROW = 0.005
"""A second width of the boundary, 3 pixels of a CamVid frame of 360x480, where the paper's is 12."""
ROWS = 64


def refinements() -> dict[str, Refinement | None]:
    """What is measured, by name; None for the network alone."""
    dense = {f"densecrf, {name}": preset for name, preset in PRESETS.items()}
    grid = {f"gridcrf, weight {weight:g}": GridCRF(weight=weight) for weight in (1.0, 2.0, 4.0)}
    return {"network alone": None, **dense, **grid, "gridcrf, weight 2, ICM": GridCRF(weight=2.0, method="icm")}


def brute_force_ms(frame: np.ndarray, channels: int) -> float:
    """Time of DeepLab's appearance kernel over all pairs, ms for all of its iterations and the normalization."""
    preset = PRESETS["deeplab"]
    features = appearance_features(frame, preset.position_deviation, preset.colour_deviation)
    values, squares = np.ones((len(features), channels), np.float32), (features**2).sum(axis=1)
    start = time.perf_counter()
    np.exp(features[:ROWS] @ features.T - 0.5 * squares - 0.5 * squares[:ROWS, None]) @ values
    seconds = time.perf_counter() - start
    return 1e3 * seconds * len(features) / ROWS * (preset.iterations + 1)


class PlainLattice:
    """The permutohedral lattice in plain NumPy, without a loop over points: what the compiled one is timed against."""

    def __init__(self, features: np.ndarray) -> None:
        points, d = features.shape
        scaled = features * (np.sqrt(2 / 3) * (d + 1) / np.sqrt(np.arange(1, d + 1) * np.arange(2, d + 2)))
        elevated = np.zeros((points, d + 1))
        elevated[:, :d] = scaled[:, ::-1].cumsum(axis=1)[:, ::-1]
        elevated[:, 1:] -= scaled * np.arange(1, d + 1)
        remainder = np.rint(elevated / (d + 1)).astype(np.int64) * (d + 1)
        rank = np.argsort(np.argsort(remainder - elevated, axis=1, kind="stable"), axis=1)
        rank += remainder.sum(axis=1, keepdims=True) // (d + 1)
        remainder += (d + 1) * ((rank < 0).astype(np.int64) - (rank > d))
        rank %= d + 1
        rest = np.sort((elevated - remainder) / (d + 1), axis=1)
        self.weights = np.empty((points, d + 1))
        self.weights[:, 1:] = np.diff(rest, axis=1)
        self.weights[:, 0] = 1 - self.weights[:, 1:].sum(axis=1)
        steps = np.arange(d + 1)
        moved = steps[:, None] - (d + 1) * (steps > d - steps[:, None])
        keys = remainder[:, None, :d] + moved.T[rank[:, :d]].transpose(0, 2, 1)
        low = keys.min(axis=(0, 1)) - d - 1
        radix = np.concatenate([[1], np.cumprod(keys.max(axis=(0, 1)) + d + 2 - low)[:-1]])
        codes, corners = np.unique(((keys - low) * radix).sum(axis=2), return_inverse=True)
        self.corners = corners.reshape(points, d + 1) + 1
        self.neighbours = np.zeros((d + 1, len(codes), 2), np.int64)
        for axis in range(d + 1):
            step = np.where(np.arange(d) == axis, -d, 1) @ radix
            for side, moved_codes in enumerate((codes - step, codes + step)):
                place = np.minimum(np.searchsorted(codes, moved_codes), len(codes) - 1)
                self.neighbours[axis, :, side] = np.where(codes[place] == moved_codes, place + 1, 0)

    def filter(self, values: np.ndarray) -> np.ndarray:
        grid = np.zeros((self.neighbours.shape[1] + 1, values.shape[1]))
        np.add.at(grid, self.corners, self.weights[..., None] * values[:, None])
        for neighbours in self.neighbours:
            grid[1:] += 0.5 * (grid[neighbours[:, 0]] + grid[neighbours[:, 1]])
        read = (self.weights[..., None] * grid[self.corners]).sum(axis=1)
        return read / (1 + 2.0 ** (1 - len(self.neighbours)))


def plain_smoothing(values: np.ndarray, size: tuple[int, ...], deviation: float) -> np.ndarray:
    """The smoothness kernel in plain NumPy."""
    planes = values.reshape(*size, -1)
    radius = int(np.ceil(6 * deviation))
    for axis in (0, 1):
        padded = np.pad(planes, [(radius, radius) if i == axis else (0, 0) for i in range(3)])
        planes = sum(
            np.exp(-0.5 * ((k - radius) / deviation) ** 2) * padded.take(range(k, k + size[axis]), axis)
            for k in range(2 * radius + 1)
        )
    return planes.reshape(values.shape)


def plain_mean_field(crf: DenseCRF, logits: np.ndarray, frame: np.ndarray) -> np.ndarray:
    """All of the dense CRF in plain NumPy, (C, H, W) probabilities."""
    lattice = PlainLattice(appearance_features(frame, crf.position_deviation, crf.colour_deviation).astype(np.float64))
    kernels = (
        (crf.appearance_weight, lattice.filter),
        (crf.smoothness_weight, lambda v: plain_smoothing(v, frame.shape[:2], crf.smoothness_deviation)),
    )
    scores = logits.reshape(len(logits), -1).T.astype(np.float64)
    ones = np.ones((len(scores), 1))
    roots = [np.sqrt(kernel(ones)) for _, kernel in kernels]
    unary = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
    belief = np.exp(unary)
    for _ in range(crf.iterations):
        total = unary.copy()
        for (weight, kernel), root in zip(kernels, roots, strict=True):
            total += weight * kernel(belief / root) / root
        belief = np.exp(total - total.max(axis=1, keepdims=True))
        belief /= belief.sum(axis=1, keepdims=True)
    return belief.T.reshape(logits.shape)


def against_numpy(logits: np.ndarray, frame: np.ndarray) -> dict[str, float]:
    """Median times of the compiled dense CRF, the time of the plain one, in ms, and where they agree."""
    crf = PRESETS["deeplab"]
    times = []
    for _ in range(5):
        start = time.perf_counter()
        compiled = crf(logits, frame)
        times.append(1e3 * (time.perf_counter() - start))
    start = time.perf_counter()
    plain = plain_mean_field(crf, logits, frame)
    numpy_ms = 1e3 * (time.perf_counter() - start)
    same = float(100 * (compiled.argmax(axis=0) == plain.argmax(axis=0)).mean())
    return {"ms": float(np.median(times)), "numpy_ms": numpy_ms, "agreement": same}


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Scores and times by name of the refinement."""
    data = labelled_from(options.data, options.split)
    data = data.exclude({name for i, name in enumerate(data.names) if i % options.every})
    with edgeseg.load(options.bundle, backend=options.backend) as segmenter:
        frames = [(item.frame.image, item.labels, segmenter.logits(item.frame.image)) for item in data]
        scored = check_classes(segmenter.labels, None, data.label_set)
    results: dict[str, Any] = {}
    alone: list[np.ndarray] = []
    for name, refine in refinements().items():
        if refine is not None:
            refine(frames[0][2], frames[0][0])
        confusion = ConfusionMatrix(len(scored))
        wide, narrow = BoundaryScore(len(scored)), BoundaryScore(len(scored), NARROW)
        times, counts = [], []
        for image, labels, logits in frames:
            before = confusion.matrix
            start = time.perf_counter()
            class_map = (logits if refine is None else refine(logits, image)).argmax(axis=0).astype(np.uint8)
            times.append(1e3 * (time.perf_counter() - start))
            found = resize_nearest(class_map, *labels.shape)
            for score in (confusion, wide, narrow):
                score.add(labels, found, scored.ignore_index)
            counts.append(class_counts(confusion.matrix - before, scored.ignore_index))
        alone = alone or counts
        intervals = score_intervals(counts, alone)
        results[name] = {
            "miou": 100 * confusion.mean_iou(),
            "gain_interval": None if intervals is None else intervals.drop,
            "boundary_iou": 100 * wide.mean_iou(),
            "narrow_boundary_iou": 100 * narrow.mean_iou(),
            "ms": 0.0 if refine is None else float(np.median(times)),
        }
    image, _, logits = frames[0]
    return {
        "frames": len(frames),
        "results": results,
        "against_numpy": against_numpy(logits, image),
        "brute_force_ms": brute_force_ms(image, len(logits)),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("data")
    parser.add_argument("--split", default="val")
    parser.add_argument("--every", type=int, default=5)
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    done = measure(options)
    if options.json:
        print(json.dumps(done, indent=1))
        return
    print(f"| {done['frames']} frames | mIoU | gain | boundary IoU | at {NARROW:g} | ms |\n|---|---|---|---|---|---|")
    for name, row in done["results"].items():
        low, high = row["gain_interval"] or (float("nan"), float("nan"))
        boundaries = " | ".join(f"{row[key]:.2f}" for key in ("boundary_iou", "narrow_boundary_iou"))
        print(f"| {name} | {row['miou']:.2f} | {low:.2f} to {high:.2f} | {boundaries} | {row['ms']:.0f} |")
    plain = done["against_numpy"]
    print(
        f"\ndensecrf, deeplab: {plain['ms']:.0f} ms, in plain NumPy {plain['numpy_ms']:.0f} ms, "
        f"{plain['agreement']:.2f} % of the pixels the same"
    )
    print(f"all pairs in NumPy, computed from {ROWS} rows: {done['brute_force_ms'] / 1e3:.0f} s a frame")


if __name__ == "__main__":
    main()
