"""Network time on this CPU: the bundle's graph in each engine against ONNX Runtime FP32 on the network as given.

    python benchmarks/engines.py [--network espnet] [--rounds 7] [--profile]

One frame at a time on prepared arrays; in every round each engine in turn runs a few frames after a pause and one frame
to warm up; medians and ratios from the one run. With
--profile the time of the OpenVINO engines by kind of kernel.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from networks import NETWORKS, BenchmarkNetwork, add_shared_argument, options_for

from edgeseg.backends import Engine, Target, get_backend
from edgeseg.calibration.frames import frames_from
from edgeseg.converters.convert import convert
from edgeseg.converters.prepare import prepare
from edgeseg.frame import fit_frame
from edgeseg.libraries import require

BLOCK = 4
PAUSE = 0.15
BASELINE = "onnxruntime FP32, network as given"


def as_given(model: onnx.ModelProto, shape: tuple[int, int]) -> Callable[[], object]:
    """One run of the user's own graph in ONNX Runtime with its defaults."""
    runtime = require("onnxruntime", "run the baseline")
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    session = runtime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    image = np.random.default_rng(0).normal(0, 1, (1, 3, *shape)).astype(np.float32)
    return lambda: session.run(None, {name: image})


def engine(backend: str, model: bytes, target: Target) -> Engine:
    found = get_backend(backend)
    return found.load(found.compile(model, target), target)


def measure(name: str, network: BenchmarkNetwork, arguments: argparse.Namespace, folder: Path) -> None:
    """Print the table of one network."""
    options = options_for(network, arguments.shared, folder, 16)
    path = arguments.shared / "models" / network.file
    train = arguments.shared / "data" / "camvid" / "train" / "images"
    prepared = prepare(path, options)
    bundle = convert(path, str(train), options).bundle
    quantized, exact = bundle.read_model(), prepared.model.SerializeToString()
    spec = prepared.input
    frame = fit_frame(next(iter(frames_from(train))).image, spec.height, spec.width)
    target, float32 = Target(profiling=arguments.profile), Target(precision="float32", profiling=arguments.profile)
    engines = {
        "openvino float graph, FP32 forced": engine("openvino", exact, float32),
        "openvino float graph": engine("openvino", exact, target),
        "openvino Q/DQ graph, FP32 forced": engine("openvino", quantized, float32),
        "openvino Q/DQ graph": engine("openvino", quantized, target),
        "onnxruntime Q/DQ graph": engine("onnxruntime", quantized, Target()),
    }
    calls: dict[str, Callable[[], object]] = {BASELINE: as_given(prepared.loaded.model, (spec.height, spec.width))}
    for label, loaded in engines.items():
        calls[label] = lambda loaded=loaded: loaded.infer([frame])
    times: dict[str, list[float]] = {label: [] for label in calls}
    for _ in range(arguments.rounds):
        for label, call in calls.items():
            # An engine's waiting threads spin for a while after a run and would slow down the next engine.
            time.sleep(PAUSE)
            call()
            for _ in range(BLOCK):
                start = time.perf_counter()
                call()
                times[label].append(1e3 * (time.perf_counter() - start))
    base = statistics.median(times[BASELINE])
    for label, values in times.items():
        median = statistics.median(values)
        print(f"{name:14} {label:36} {median:8.1f} ms   {base / median:5.2f} x", flush=True)
    if arguments.profile:
        for label in ("openvino float graph", "openvino Q/DQ graph"):
            print_profile(name, label, engines[label])


def print_profile(name: str, label: str, loaded: Engine) -> None:
    """Time by kind of kernel of the last run."""
    kinds: dict[tuple[str, str], float] = defaultdict(float)
    for layer in loaded.profile():
        kinds[layer.kind, layer.kernel] += layer.milliseconds
    for (kind, kernel), milliseconds in sorted(kinds.items(), key=lambda item: -item[1])[:8]:
        print(f"{name:14} {label:36} {milliseconds:8.1f} ms   {kind} {kernel}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_shared_argument(parser)
    parser.add_argument("--rounds", type=int, default=7, help="default 7")
    parser.add_argument("--profile", action="store_true", help="time by kind of kernel; slows the engines a little")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for name in arguments.network or NETWORKS:
            measure(name, NETWORKS[name], arguments, Path(folder))
    return 0


if __name__ == "__main__":
    sys.exit(main())
