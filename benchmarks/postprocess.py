"""From a 640x480 frame to its class map, beyond the network: edgeseg against the usual NumPy/OpenCV way, in one run.

    python benchmarks/postprocess.py [--json]

Around a network of 512x1024 pixels and 19 classes whose logits are 64x128. Logits are those of a real network where
../shared holds one (sampled to that size), otherwise smooth made-up ones.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeseg import fused
from edgeseg.upsample import reference_class_map, upsampling

SHARED = Path(__file__).resolve().parent.parent.parent / "shared"
FRAME, NETWORK, LOGITS, CLASSES = (480, 640), (512, 1024), (64, 128), 19
RUNS = 40


def made_up_logits() -> NDArray[np.float32]:
    """Smooth regions of CLASSES classes."""
    random = np.random.default_rng(0)
    planes = [cv2.GaussianBlur(random.normal(size=LOGITS), (0, 0), 4) * 30 for _ in range(CLASSES)]
    return np.stack(planes).astype(np.float32)


def real_logits() -> NDArray[np.float32] | None:
    """Logits of ESPNetv2 for a street, every eighth pixel; None where there is no such network."""
    network = SHARED / "models/espnetv2_s2.0_cityscapes_512x1024.onnx"
    images = sorted((SHARED / "data/camvid/val/images").glob("*"))
    if not network.is_file() or not images:
        return None
    from edgeseg.libraries import require

    runtime = require("onnxruntime", "compute logits")
    frame = cv2.resize(cv2.imread(str(images[0])), NETWORK[::-1])[:, :, ::-1].astype(np.float32)
    frame = (frame / 255 - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)
    session = runtime.InferenceSession(str(network), providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {"image": frame.transpose(2, 0, 1)[None].astype(np.float32)})
    return np.ascontiguousarray(logits[0, :CLASSES, 4::8, 4::8])


def usual_before(frame: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Resize, float, normalise, planes."""
    resized = cv2.resize(frame, NETWORK[::-1]).astype(np.float32) / 255
    normalised = (resized - np.float32((0.485, 0.456, 0.406))) / np.float32((0.229, 0.224, 0.225))
    return np.ascontiguousarray(normalised.transpose(2, 0, 1)[None])


def usual_after(logits: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Upsample all logits to the frame, then argmax."""
    large = cv2.resize(logits.transpose(1, 2, 0), FRAME[::-1], interpolation=cv2.INTER_LINEAR)
    return large.argmax(axis=2).astype(np.uint8)


def milliseconds(step: Callable[[], object]) -> float:
    """Median over RUNS runs, after three."""
    times = []
    for run in range(RUNS + 3):
        started = time.perf_counter()
        step()
        if run >= 3:
            times.append(time.perf_counter() - started)
    return 1e3 * float(np.median(times))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    as_json = parser.parse_args().json
    real = real_logits()
    logits = made_up_logits() if real is None else real
    frame = np.random.default_rng(0).integers(0, 256, (*FRAME, 3), np.uint8)
    axes = upsampling(FRAME, NETWORK, LOGITS, "half_pixel")
    fused.warm_up()
    equal = np.array_equal(fused.class_map(logits, axes), reference_class_map(logits, axes.rows, axes.columns))
    result = {
        "logits": "real" if real is not None else "made up",
        "equal_to_reference": equal,
        "before_ms": milliseconds(lambda: cv2.resize(frame, NETWORK[::-1], interpolation=cv2.INTER_LINEAR)),
        "after_ms": milliseconds(lambda: fused.class_map(logits, axes)),
        "usual_before_ms": milliseconds(lambda: usual_before(frame)),
        "usual_after_ms": milliseconds(lambda: usual_after(logits)),
    }
    result["sum_ms"] = result["before_ms"] + result["after_ms"]
    result["usual_sum_ms"] = result["usual_before_ms"] + result["usual_after_ms"]
    result["ratio"] = result["sum_ms"] / result["usual_sum_ms"]
    if as_json:
        print(json.dumps(result))
        return
    for name, value in result.items():
        print(f"{name:20} {value:.3f}" if isinstance(value, float) else f"{name:20} {value}")


if __name__ == "__main__":
    main()
