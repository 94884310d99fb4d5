"""Frames per second of `Segmenter.stream` on a folder of frames at network size, against the bare engine.

    python benchmarks/stream.py BUNDLE FRAMES [--backend NAME] [--seconds 20] [--json]

FRAMES is a folder of images; they are first written at network size to a temporary folder, so that the stream reads,
decodes, infers and post-processes, and resizes nothing. It is compared with two bare engines on prepared arrays, on the
same processors: one that is called frame after frame with all threads, as a plain loop does, and one that is kept
saturated by several callers, where any work around the network shows. All run in turns, so that a busy machine disturbs
them alike.
"""

from __future__ import annotations

import argparse
import itertools
import json
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

import edgeseg
from edgeseg.backends import Engine
from edgeseg.machine import split_threads

Frame = NDArray[np.uint8]
MOST_FRAMES = 60
ROUNDS = 4


def written_at_size(source: Path, folder: Path, height: int, width: int) -> list[Path]:
    """The source's images at network size, as JPEG files."""
    written = []
    images = sorted(p for p in source.iterdir() if p.suffix.lower() in (".png", ".jpg", ".jpeg"))
    for path in images[:MOST_FRAMES]:
        written.append(folder / f"{path.stem}.jpg")
        cv2.imwrite(str(written[-1]), cv2.resize(cv2.imread(str(path)), (width, height)))
    if not written:
        raise SystemExit(f"no images in {source}")
    return written


def decoded(paths: list[Path]) -> Iterator[Frame]:
    """Frames of the files, without end."""
    for path in itertools.cycle(paths):
        yield cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)


def stream_fps(segmenter: edgeseg.Segmenter, paths: list[Path], seconds: float) -> float:
    """Results per second of a stream that runs that long."""
    results = segmenter.stream(decoded(paths))
    next(results)
    started, count = time.perf_counter(), 0
    for _ in results:
        count += 1
        if time.perf_counter() - started >= seconds:
            break
    return count / (time.perf_counter() - started)


def engine_fps(engine: Engine, arrays: list[Frame], callers: int, seconds: float) -> float:
    """Runs per second of the engine alone, called by that many threads."""
    end = time.perf_counter() + seconds

    def call(first: int) -> int:
        count = 0
        while time.perf_counter() < end:
            engine.infer([arrays[(first + count) % len(arrays)]])
            count += 1
        return count

    started = time.perf_counter()
    with ThreadPoolExecutor(callers) as pool:
        count = sum(pool.map(call, range(callers)))
    return count / (time.perf_counter() - started)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("frames", type=Path)
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--seconds", type=float, default=20.0, help="for each of the two, over all rounds")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    with edgeseg.load(options.bundle, backend=options.backend) as segmenter, tempfile.TemporaryDirectory() as folder:
        spec = segmenter.bundle.manifest.input
        paths = written_at_size(options.frames, Path(folder), spec.height, spec.width)
        arrays = [frame[None] for frame in itertools.islice(decoded(paths), 8)]
        engine, single = segmenter.make_engine("throughput"), segmenter.make_engine("latency")
        callers = split_threads(None, "throughput")[0] + 1
        part = options.seconds / ROUNDS
        stream_fps(segmenter, paths, 1)
        engine_fps(engine, arrays, callers, 1)
        engine_fps(single, arrays, 1, 1)
        streams, bare, saturated = [], [], []
        for _ in range(ROUNDS):
            bare.append(engine_fps(single, arrays, 1, part))
            streams.append(stream_fps(segmenter, paths, part))
            saturated.append(engine_fps(engine, arrays, callers, part))
        engine.close()
        single.close()
    result = {
        "backend": segmenter.backend_name,
        "stream_fps": float(np.median(streams)),
        "bare_engine_fps": float(np.median(bare)),
        "ratio": float(np.median(np.divide(streams, bare))),
        "saturated_engine_fps": float(np.median(saturated)),
        "ratio_to_saturated": float(np.median(np.divide(streams, saturated))),
    }
    print(json.dumps(result) if options.json else "\n".join(f"{name:16} {value}" for name, value in result.items()))


if __name__ == "__main__":
    main()
