"""`edgeseg bench`: latency and throughput by stage, against the bare engine in the same run."""

from __future__ import annotations

import argparse
import contextlib
import itertools
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeseg.apps.cli.options import add_backend_arguments, add_skip_broken_argument, engine_options, positive_count
from edgeseg.apps.cli.progress import progress_for
from edgeseg.apps.cli.results import add_json_argument, only_results_on_stdout, print_json, table

if TYPE_CHECKING:
    from edgeseg.apps.benchmark import FrameMaker, Measurement
    from edgeseg.power import PowerMeter
    from edgeseg.segmenter import Segmenter

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `edgeseg bench`."""
    parser.add_argument("bundle", type=Path, metavar="BUNDLE")
    parser.add_argument(
        "--frames",
        metavar="SOURCE",
        help="real frames, decoded while they are measured; default: synthetic ones of the network's size, in memory",
    )
    parser.add_argument("--seconds", type=positive_count, default=10, metavar="S", help="time to measure (default 10)")
    parser.add_argument(
        "--power", action="store_true", help="also the board's power by rail, mJ a frame and temperatures (on a Jetson)"
    )
    add_skip_broken_argument(parser)
    add_backend_arguments(parser)
    add_json_argument(parser)


def run(options: argparse.Namespace) -> int:
    """Measure and print."""
    import edgeseg
    from edgeseg import power
    from edgeseg.apps.benchmark import measure
    from edgeseg.backends import get_backend

    meter = power.PowerMeter(power.find_sensors()) if options.power else None
    with (
        only_results_on_stdout(),
        edgeseg.load(options.bundle, **engine_options(options)) as segmenter,
    ):
        frames = _frames(options, segmenter)
        backend = get_backend(segmenter.backend_name)
        engine = segmenter.make_engine("throughput")
        try:
            with (
                progress_for(options.quiet).step("measure (seconds)", options.seconds) as step,
                meter or contextlib.nullcontext(),
            ):
                measured = measure(segmenter, engine, frames, options.seconds, threads=options.threads, progress=step)
        finally:
            engine.close()
        result = _summary(measured, segmenter, options)
        result["engine"], result["engine_version"] = backend.name, backend.version()
        if meter is not None:
            result["power"] = _power(meter, measured)
        first = next(iter(frames(1))).image
        result["frame_size"] = list(first.shape[:2])
    if options.json:
        print_json(result)
    else:
        print(_text(result))
    return 0


def _frames(options: argparse.Namespace, segmenter: Segmenter) -> FrameMaker:
    if options.frames is None:
        from edgeseg.apps.benchmark import synthetic_frames

        entry = segmenter.bundle.manifest.input
        return synthetic_frames(entry.height, entry.width)
    from edgeseg.calibration.frames import frames_from

    source = frames_from(options.frames, skip_broken=options.skip_broken)
    return lambda count: itertools.islice(itertools.chain.from_iterable(itertools.repeat(source)), count)


def _summary(measured: Measurement, segmenter: Segmenter, options: argparse.Namespace) -> dict[str, Any]:
    from edgeseg.apps.benchmark import Percentiles

    stages = {}
    for name, samples in measured.stages.items():
        entry = Percentiles.of(samples)
        stages[name] = {**asdict(entry), "fps": 1e3 / entry.mean if entry.mean else None}
    return {
        "engine": segmenter.backend_name,
        "latency_ms": asdict(Percentiles.of(measured.latency)),
        "fps": measured.fps,
        "stages": stages,
        "bare_engine_fps": measured.bare_fps,
        "ratio": measured.fps / measured.bare_fps,
        "frames": options.frames or "synthetic",
        "samples": {"latency": len(measured.latency), "stream": measured.frames, "bare_engine": measured.bare_frames},
        "rounds": measured.rounds,
        "network_size": [segmenter.bundle.manifest.input.height, segmenter.bundle.manifest.input.width],
        "threads": options.threads,
    }


def _power(meter: PowerMeter, measured: Measurement) -> dict[str, Any]:
    """Power while the stream ran, by rail and, where the board is known, in all."""
    from edgeseg.power import total_rails

    record = meter.record()

    def of(rails: tuple[str, ...]) -> dict[str, Any]:
        joules = record.joules(rails, measured.spans)
        return {"mean_w": joules / measured.seconds, "mj_per_frame": 1e3 * joules / measured.frames}

    total = total_rails(record.watts)
    return {
        "rails": {name: of((name,)) for name in record.watts},
        "total": None if total is None else {"rails": list(total), **of(total)},
        "degrees_c": record.temperatures(),
        "samples": len(record.times),
    }


def _power_text(power: dict[str, Any]) -> str:
    rows = [("power while streaming", "mean W", "mJ a frame")]
    entries = dict(power["rails"])
    if power["total"] is not None and len(power["total"]["rails"]) > 1:
        entries[f"total ({' + '.join(power['total']['rails'])})"] = power["total"]
    for name, entry in entries.items():
        rows.append((name, f"{entry['mean_w']:.3f}", f"{entry['mj_per_frame']:.2f}"))
    text = f"\n\n{table(rows, right=(1, 2))}"
    zones = power["degrees_c"]
    if zones:
        degrees = [("temperature", "first", "last", "highest")]
        degrees += [
            (name, *(f"{zone[key]:.1f}" for key in ("first", "last", "highest"))) for name, zone in zones.items()
        ]
        text += f"\n\n{table(degrees, right=(1, 2, 3))}"
    return text


def _text(result: dict[str, Any]) -> str:
    rows = [("one frame at a time", "p50 ms", "p95 ms", "p99 ms", "frames/s")]
    latency = result["latency_ms"]
    for name, entry in [*result["stages"].items(), ("frame to class map", latency)]:
        fps = 1e3 / entry["mean"] if entry["mean"] else float("inf")
        rows.append((name, *(f"{entry[key]:.2f}" for key in ("p50", "p95", "p99")), f"{fps:.1f}"))
    size = "x".join(map(str, result["frame_size"]))
    return (
        f"{result['engine']} {result['engine_version']}, frames of {size} ({result['frames']}), "
        f"network {'x'.join(map(str, result['network_size']))}\n\n{table(rows, right=(1, 2, 3, 4))}\n\n"
        f"stream, end to end  {result['fps']:.1f} frames/s\n"
        f"bare engine         {result['bare_engine_fps']:.1f} frames/s\n"
        f"ratio               {result['ratio']:.3f} (alternating rounds of the same run: {result['rounds']})"
    ) + (_power_text(result["power"]) if "power" in result else "")
