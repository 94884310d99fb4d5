"""`edgeseg build`: a bundle's engine for TensorRT or TensorRT-RTX, proven to be INT8."""

from __future__ import annotations

import argparse
import re
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeseg.apps.cli.options import positive_count
from edgeseg.apps.cli.progress import progress_for
from edgeseg.apps.cli.results import add_json_argument, only_results_on_stdout, print_json, table
from edgeseg.bundle import Bundle
from edgeseg.errors import UsageError

if TYPE_CHECKING:
    from edgeseg.apps.engine_build import EngineRequest, EngineResult

__all__ = ["add_arguments", "batch_range", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `edgeseg build`."""
    from edgeseg.backends.tensorrt.options import TARGETS

    parser.add_argument("bundle", type=Path, metavar="BUNDLE")
    device = parser.add_argument_group("device")
    device.add_argument(
        "--target",
        default="auto",
        choices=list(TARGETS),
        help="what the engine is for (default auto, the GPU of this machine); the rtx targets need no GPU here",
    )
    device.add_argument(
        "--library", choices=("tensorrt", "tensorrt-rtx"), help="what builds (default: the target's library)"
    )
    device.add_argument("--dla", type=int, choices=(0, 1), help="deep learning accelerator of a Jetson")
    precision = parser.add_argument_group("precision")
    precision.add_argument("--fp16-only", action="store_true", help="without INT8, for boards or networks without it")
    precision.add_argument(
        "--precision",
        choices=("auto", "float32"),
        default="auto",
        help="of layers outside INT8: auto (default) takes FP16, float32 forbids it",
    )
    precision.add_argument(
        "--frames", metavar="SOURCE", help="calibration frames, where a DLA needs ranges that the bundle does not hold"
    )
    effort = parser.add_argument_group("building")
    effort.add_argument(
        "--batch", type=batch_range, default=(1, 1), metavar="MIN-MAX", help="frames at once, such as 1-8 (default 1)"
    )
    effort.add_argument("--workspace", type=positive_count, metavar="MB", help="most memory for one layer's kernel")
    effort.add_argument(
        "--optimization-level", type=int, choices=range(6), help="0: fast build, 5: fast engine (TensorRT's default: 3)"
    )
    effort.add_argument(
        "--timing-cache",
        type=Path,
        metavar="FILE",
        help="measurements to start from and to write (default: one for each device in the cache folder)",
    )
    output = parser.add_argument_group("output")
    output.add_argument(
        "-o", dest="output", type=Path, metavar="FILE.plan", help="default: engines/ in the bundle, where run finds it"
    )
    output.add_argument("--force", action="store_true", help="build again what is there")
    add_json_argument(parser)


def batch_range(text: str) -> tuple[int, int]:
    """(least, largest) from "1-8", or both from "4", for argparse."""
    found = re.fullmatch(r"(\d{1,4})(?:-(\d{1,4}))?", text)
    least, largest = (int(found.group(1)), int(found.group(2) or found.group(1))) if found else (0, 0)
    if not 1 <= least <= largest:
        raise argparse.ArgumentTypeError(f"expected MIN-MAX frames, such as 1-8, but got {text!r}")
    return least, largest


def run(options: argparse.Namespace) -> int:
    """Build and print what was built."""
    from edgeseg.apps.engine_build import build_engine

    request = _request(options)
    with only_results_on_stdout():
        result = build_engine(Bundle.open(options.bundle), request, progress_for(options.quiet))
    if options.json:
        print_json(_summary(result))
    else:
        print(_text(result))
    return 0


def _request(options: argparse.Namespace) -> EngineRequest:
    from edgeseg.apps.engine_build import EngineRequest
    from edgeseg.backends.tensorrt.options import BuildOptions

    if options.fp16_only and options.precision == "float32":
        raise UsageError("--fp16-only and --precision float32 forbid each other's types; give one of them")
    least, largest = options.batch
    library: Any = None if options.library is None else options.library.replace("-", "_")
    build = BuildOptions(
        target=options.target,
        library=library,
        fp16=options.precision == "auto",
        workspace_mb=options.workspace,
        optimization_level=options.optimization_level,
        timing_cache=options.timing_cache,
        dla_core=options.dla,
        # A batch is asked for where frames come in numbers: the largest is made the fastest.
        batch=(least, largest, largest),
    )
    return EngineRequest(build, options.fp16_only, options.frames, options.output, options.force)


def _summary(result: EngineResult) -> dict[str, Any]:
    """The JSON object of `edgeseg build --json`."""
    record = result.plan.record
    return {
        "plan": str(result.plan.path),
        "record": str(result.plan.path.with_suffix(".json")),
        "reused": result.reused,
        "network": record.network,
        "form": record.form,
        **asdict(record.build),
    }


def _text(result: EngineResult) -> str:
    record = result.plan.record
    build = record.build
    counts = ", ".join(f"{count} in {kind}" for kind, count in build.convolutions.items())
    rows = [
        (
            "engine",
            f"{result.plan.path} ({build.plan_bytes / 1e6:.2f} MB)" + (", built before" if result.reused else ""),
        ),
        ("runs on", record.side),
        ("graph form", record.form),
        ("batch", f"{build.batch[0]} to {build.batch[2]}" if build.batch[2] > 1 else "1"),
        ("convolutions", counts or "none listed"),
        ("layout steps", f"{build.reformats} that only move data, {build.requantizes} that only scale and round"),
        ("build", f"{build.seconds:.1f} s, {build.peak_memory_mb} MB"),
    ]
    if build.int8:
        rows.insert(5, ("INT8", f"{build.proven_int8} of {build.promised_int8} promised layers, proven"))
    if build.dla_core is not None:
        rows.append(("DLA", str(build.dla_core)))
    return table(rows)
