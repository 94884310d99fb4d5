"""One network at full width on its whole way: torch, ONNX, INT8 bundle, linter, TensorRT-RTX's builder; and its times.

Started by network_costs.py in a process of its own, which prints one JSON object. Weights are random and seeded, with
the BatchNorm statistics of one batch of real frames: what a network costs does not depend on what it learnt.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from edgeseg.backends import Engine, Target, get_backend
from edgeseg.bundle import Bundle
from edgeseg.errors import EdgesegError
from edgeseg.models.costs import Builder, MeasuredCost

# The builder's process gets this path too, and tests/ holds a folder named edgeseg: the real one stands before it.
REPOSITORY = Path(__file__).resolve().parent.parent
sys.path += [str(REPOSITORY), str(REPOSITORY / "tests")]

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
SIZES = ((360, 480), (352, 480))
"""CamVid's size, and the next smaller one for networks that halve the image five times."""

PAUSE = 0.1


def clock(cost: MeasuredCost, step: str, work: Callable[[], Any]) -> Any:
    """Do a step and note its processor time, which other work on the machine changes little."""
    start = os.times()
    result = work()
    # User and system time of this process, and of children that ended.
    cost.cpu_seconds[step] = round(sum(os.times()[:4]) - sum(start[:4]), 2)
    print(f"  {step}: {cost.cpu_seconds[step]} s", file=sys.stderr, flush=True)
    return result


def count(name: str, classes: int, options: dict[str, Any]) -> MeasuredCost:
    """Size that the network takes, GMACs there as published, and parameters as deployed; no weight is made."""
    from support.costs import count_macs, count_parameters, meta_network

    network = meta_network(name, classes=classes, **options)
    for size in SIZES:
        try:
            gmacs = round(count_macs(network, size) / 1e9, 4)
            break
        except (RuntimeError, ValueError, EdgesegError) as error:
            problem = error
    else:
        raise problem
    deployed = meta_network(name, classes=classes, deploy=True, **options)
    deployed.drop_undeployed()
    return MeasuredCost(name, options, size, count_parameters(deployed), gmacs)


def build_network(name: str, classes: int, options: dict[str, Any], batch: NDArray[np.float32]) -> Any:
    """With seeded weights and the statistics of a batch (N, 3, H, W)."""
    import torch
    from support.networks import calm_residuals
    from torch import nn

    from edgeseg.models import create

    torch.manual_seed(0)
    network = create(name, classes=classes, deploy=True, **options)
    calm_residuals(network)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        network.train()(torch.from_numpy(batch))
    return network.eval()


def measure(name: str, classes: int, options: dict[str, Any], frames: Sequence[str], folder: Path) -> MeasuredCost:
    """Everything but the times; the bundle stays in `folder`.

    Args:
        name, options: of the network.
        classes: logits per pixel.
        frames: image files, the last of which scores and the others calibrate.
        folder: to write into.
    """
    from edgeseg.calibration.frames import frames_from
    from edgeseg.frame import fit_frame

    cost = count(name, classes, options)
    images = [fit_frame(frame.image, *cost.size) for file in frames for frame in frames_from(file)]
    place = folder / "network.onnx"
    try:
        _export(cost, classes, images, place)
        return _convert(cost, place, frames, folder)
    except EdgesegError as error:
        return replace(cost, problem=str(error))
    finally:
        place.unlink(missing_ok=True)


def _export(cost: MeasuredCost, classes: int, images: Sequence[NDArray[np.uint8]], place: Path) -> None:
    """Write the network as ONNX."""
    from edgeseg.converters.export import export
    from edgeseg.converters.metadata import NetworkMetadata
    from edgeseg.labels import LabelSet

    normalised = (np.concatenate(images[:2]) - np.float32(MEAN)) / np.float32(STD)
    batch = np.ascontiguousarray(normalised.transpose(0, 3, 1, 2), np.float32)
    made = lambda: build_network(cost.network, classes, dict(cost.options), batch)  # noqa: E731
    network = clock(cost, "network", made)
    metadata = NetworkMetadata("RGB", MEAN, STD, LabelSet.numbered(classes))
    written = lambda: export(network, cost.size, place, metadata, frames=images[0], force=True)  # noqa: E731
    clock(cost, "export", written)


def _convert(cost: MeasuredCost, place: Path, frames: Sequence[str], folder: Path) -> MeasuredCost:
    """Convert with the default recipe, lint, and ask the builder."""
    from edgeseg.converters.convert import convert
    from edgeseg.converters.lint import lint
    from edgeseg.converters.options import ConvertOptions

    listing, scored = folder / "frames.txt", folder / "scored.txt"
    listing.write_text("\n".join(frames[:-1]))
    scored.write_text(frames[-1])
    wanted = ConvertOptions(score_frames=str(scored), output=folder / "network.edgeseg", force=True)
    result = clock(cost, "convert", lambda: convert(place, str(listing), wanted))
    bundle, found = result.bundle, result.bundle.manifest.quantization
    findings = clock(cost, "lint", lambda: lint(onnx.load_from_string(bundle.read_model())))
    place.unlink()
    builder = clock(cost, "builder", lambda: ask_builder(bundle))
    return replace(
        cost,
        graph_gmacs=round(sum(layer.macs for layer in found.layers) / 1e9, 4),
        int8_share=round(found.int8_mac_share, 6),
        int8_layers=found.count("int8"),
        layers=len(found.layers),
        findings=len(findings),
        agreement=bundle.manifest.scores and round(bundle.manifest.scores.int8_score, 2),
        builder=builder,
    )


def ask_builder(bundle: Bundle) -> Builder | None:
    """What TensorRT-RTX makes of a bundle; None where it is not installed. The engine is not kept."""
    import importlib.util

    from edgeseg.apps.engine_build import EngineRequest, build_engine
    from edgeseg.backends.tensorrt.options import BuildOptions

    if importlib.util.find_spec("tensorrt_rtx") is None:
        return None
    promised = bundle.manifest.quantization.count("int8")
    try:
        plan = build_engine(bundle, EngineRequest(BuildOptions(target="rtx"))).plan
    except EdgesegError as error:
        return Builder(promised, 0, None, None, str(error))
    plan.path.unlink()
    record = plan.record.build
    peak = None if record.peak_memory_mb is None else round(record.peak_memory_mb)
    return Builder(record.promised_int8, record.proven_int8, round(record.seconds, 1), peak)


def time_bundle(bundle: Bundle, frame: NDArray[np.uint8], seconds: float) -> dict[str, float]:
    """Milliseconds of the float graph in FP32 and of the INT8 graph as a user runs it, in turns.

    Args:
        bundle: the quantized network.
        frame: (H, W, 3) uint8 of its size.
        seconds: to measure for, once both are warm; three rounds in any case, forty at most.
    """
    from edgeseg.converters.place import remove_qdq

    content = bundle.read_model()
    exact = remove_qdq(onnx.load_from_string(content)).SerializeToString()
    backend = get_backend("openvino")

    def engine(model: bytes, target: Target) -> Engine:
        return backend.load(backend.compile(model, target), target)

    engines = [engine(exact, Target(precision="float32")), engine(content, Target())]
    del exact, content
    times: tuple[list[float], list[float]] = ([], [])
    for each in engines:
        each.infer([frame])
    start = time.perf_counter()
    while len(times[0]) < 3 or (time.perf_counter() - start < seconds and len(times[0]) < 40):
        for each, taken in zip(engines, times, strict=True):
            # An engine's waiting threads spin for a while after a run and would slow down the next engine.
            time.sleep(PAUSE)
            begin = time.perf_counter()
            each.infer([frame])
            taken.append(1e3 * (time.perf_counter() - begin))
    for each in engines:
        each.close()
    ratios = [before / after for before, after in zip(*times, strict=True)]
    return {
        "float_ms": round(statistics.median(times[0]), 2),
        "int8_ms": round(statistics.median(times[1]), 2),
        "ratio": round(statistics.median(ratios), 2),
        "rounds": len(ratios),
    }


def main(request: dict[str, Any]) -> Any:
    """What the request's task gives, as plain values."""
    if request["task"] == "count":
        return [asdict(count(name, request["classes"], options)) for name, options in request["networks"]]
    folder = Path(request["folder"])
    if request["task"] == "times":
        from edgeseg.calibration.frames import frames_from
        from edgeseg.frame import fit_frame

        bundle = Bundle.open(folder / "network.edgeseg", verify=False)
        spec = bundle.manifest.input
        frame = fit_frame(next(iter(frames_from(request["frames"][0]))).image, spec.height, spec.width)
        return time_bundle(bundle, frame, request["seconds"])
    name, classes, options = request["network"], request["classes"], request["options"]
    return asdict(measure(name, classes, options, request["frames"], folder))


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))
