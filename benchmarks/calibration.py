"""Time and memory of calibration, against the bare forward passes of the same graph over the same frames.

    python benchmarks/calibration.py MODEL.onnx FRAMES --mean 123.7 116.3 103.5 --std 58.4 57.1 57.4

Every measurement runs in a process of its own, in turn with what it is compared with; both times hold the compilation
of the graph and the reading of the frames. A further process measures memory with four times as many frames.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

from numpy.typing import NDArray


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("frames")
    parser.add_argument("--mean", type=float, nargs=3, required=True, help="in units of 0..255")
    parser.add_argument("--std", type=float, nargs=3, required=True, help="in units of 0..255")
    parser.add_argument("--color", choices=("RGB", "BGR"), default="RGB")
    parser.add_argument("--count", type=int, default=64, help="frames (default: 64)")
    parser.add_argument("--rounds", type=int, default=3, help="repetitions, of which the median counts (default: 3)")
    parser.add_argument("--method", default="mse")
    parser.add_argument("--child", choices=("bare", "calibrate"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(measure(arguments)))
        return
    rounds = [(child("bare"), child("calibrate")) for _ in range(arguments.rounds)]
    ratios = [calibrated["seconds"] / bare["seconds"] for bare, calibrated in rounds]
    print(f"{arguments.model}, {arguments.count} frames, {rounds[0][1]['tensors']} tensors, {arguments.method}")
    print(f"bare passes {statistics.median(bare['seconds'] for bare, _ in rounds):.2f} s")
    print(f"calibration {statistics.median(calibrated['seconds'] for _, calibrated in rounds):.2f} s")
    print(f"ratio       {statistics.median(ratios):.2f} ({', '.join(f'{ratio:.2f}' for ratio in ratios)})")
    cpu = [calibrated["cpu_seconds"] / bare["cpu_seconds"] for bare, calibrated in rounds]
    print(f"CPU ratio   {statistics.median(cpu):.2f} ({', '.join(f'{ratio:.2f}' for ratio in cpu)})")
    few = statistics.median(calibrated["peak_rss_mb"] for _, calibrated in rounds)
    many = child("calibrate", "--count", str(4 * arguments.count))
    print(f"peak memory {few:.0f} MB with {arguments.count} frames, {many['peak_rss_mb']:.0f} MB with {many['frames']}")


def child(kind: str, *further: str) -> dict[str, Any]:
    """Run this file again with the same arguments and read what it measured."""
    command = [sys.executable, __file__, *sys.argv[1:], "--child", kind, *further]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Seconds, CPU seconds and peak memory (MB of 10^6 bytes) of one pass over the frames."""
    from edgeseg.calibration.frames import frames_from
    from edgeseg.calibration.measure import measure_ranges
    from edgeseg.calibration.table import choose_ranges
    from edgeseg.converters.options import ConvertOptions
    from edgeseg.converters.place import plan_placement
    from edgeseg.converters.prepare import prepare
    from edgeseg.frame import fit_frame

    options = ConvertOptions(tuple(arguments.mean), tuple(arguments.std), arguments.color)
    prepared = prepare(arguments.model, options)
    frames = frames_from(arguments.frames).select(arguments.count)
    tensors = plan_placement(prepared.model).tensors

    def feeds() -> Iterator[dict[str, NDArray[Any]]]:
        for frame in frames:
            yield {prepared.input.tensor: fit_frame(frame.image, prepared.input.height, prepared.input.width)}

    start, cpu = time.perf_counter(), time.process_time()
    if arguments.child == "bare":
        measure_ranges(prepared.model, (), feeds())
    else:
        histograms = measure_ranges(prepared.model, tensors, feeds(), extremes=arguments.method == "minmax")
        choose_ranges(histograms, arguments.method)
    return {
        "seconds": time.perf_counter() - start,
        "cpu_seconds": time.process_time() - cpu,
        "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6,
        "tensors": len(tensors),
        "frames": len(frames),
    }


if __name__ == "__main__":
    main()
