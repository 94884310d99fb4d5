"""From a bundle to a folder of files that another program reads."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from edgeseg.bundle import MODEL as BUNDLE_MODEL
from edgeseg.bundle import Bundle
from edgeseg.calibration.frames import FrameSource
from edgeseg.converters.calibrate import check_frame_size
from edgeseg.converters.emit.deepstream import DEEPSTREAM
from edgeseg.converters.emit.folder import check_folder, write_folder
from edgeseg.converters.emit.jetson_inference import JETSON_INFERENCE
from edgeseg.converters.emit.options import EmitOptions, form_for, version_text
from edgeseg.converters.emit.request import Emission, Program, Request
from edgeseg.converters.emit.triton import TRITON
from edgeseg.converters.emit.trtexec import TRTEXEC
from edgeseg.converters.targets import FORMS, measure_missing, missing_ranges
from edgeseg.errors import UsageError, unknown_name
from edgeseg.frame import fit_frame
from edgeseg.manifest import InputSpec
from edgeseg.tools import tool_versions

__all__ = ["PROGRAMS", "RECORD", "Emitted", "emit"]

PROGRAMS: dict[str, Program] = {p.name: p for p in (TRTEXEC, DEEPSTREAM, TRITON, JETSON_INFERENCE)}
"""Every program by its name."""

RECORD = "emit.json"
README = "README.txt"

_DLA_NOTES = {
    "implicit_int8": "What the accelerator cannot run goes to the GPU. Orin Nano and Thor have no DLA.",
    "fp16_qdq": "DLA with Q/DQ needs TensorRT 11.4.1 or newer on AGX Orin (JetPack 7.2.2 or newer); what the "
    "accelerator cannot run goes to the GPU.",
    "fp16": "What the accelerator cannot run goes to the GPU. Orin Nano and Thor have no DLA.",
}

Step = Callable[[str, int | None], AbstractContextManager[Callable[[int], None]]]


@dataclass(frozen=True)
class Emitted:
    """What was written.

    Attributes:
        folder: where.
        program: a name of PROGRAMS.
        tensorrt: version that it is for.
        form: of `edgeseg.converters.targets.FORMS`.
        files: names inside the folder.
        commands: to type in the folder, in this order.
        notes: what to know before.
        measured: number of tensors whose range was measured for it.
    """

    folder: Path
    program: str
    tensorrt: str
    form: str
    files: tuple[str, ...]
    commands: tuple[str, ...]
    notes: tuple[str, ...]
    measured: int


def emit(
    bundle: Bundle,
    program: str,
    folder: Path,
    options: EmitOptions,
    *,
    frames: FrameSource | None = None,
    step: Step,
    force: bool = False,
) -> Emitted:
    """Write what a program reads.

    Args:
        bundle: with a canonical graph.
        program: a name of PROGRAMS.
        folder: to write; it is there complete or not at all.
        options: how to emit.
        frames: on which ranges are measured that the bundle lacks; only implicit INT8 needs them.
        step: opens a step of progress, see `edgeseg.calibration.progress.Progress.step`.
        force: replace a folder that an earlier emit wrote.

    Raises:
        UsageError: for an unknown program, options that it or its TensorRT cannot follow, or missing frames.
        UnsupportedModelError: for a bundle that the program cannot run.
        CalibrationError: when a range cannot be measured.
        LintError: for a graph that TensorRT would refuse or run otherwise than meant.
        OutputError: when the folder is taken or cannot be written.
    """
    if program not in PROGRAMS:
        raise UsageError(unknown_name("program", program, PROGRAMS))
    chosen = PROGRAMS[program]
    _check_options(chosen, options)
    check_folder(folder, RECORD, force=force)
    options = _completed(chosen, options, bundle)
    form = form_for(options)
    model = onnx.ModelProto.FromString(bundle.read_model())
    ranges: dict[str, float] = {}
    measured = 0
    if form == "implicit_int8":
        measured = len(missing_ranges(model, {}))
        ranges = _measure(bundle, model, chosen, frames, measured, step)
    request = Request(bundle.manifest, model, options, form, ranges)
    emission = chosen.make(request)
    if options.dla_core is not None:
        emission = replace(emission, notes=(*emission.notes, _DLA_NOTES[form]))
    record = _record(bundle, request, chosen, measured, frames)
    files = {**emission.files, README: _readme(chosen, request, emission).encode(), RECORD: record.encode()}
    write_folder(folder, files, RECORD, force=force)
    version = version_text(options.tensorrt)
    return Emitted(folder, program, version, form, tuple(files), emission.commands, emission.notes, measured)


def _check_options(program: Program, options: EmitOptions) -> None:
    if program.before is not None and options.tensorrt >= program.before:
        raise UsageError(
            f"{program.name} is not known to work with TensorRT {version_text(options.tensorrt)}; give an older one "
            "with --tensorrt"
        )
    asked = {"implicit": options.implicit, "dla": options.dla_core is not None, "logits_size": options.logits_size}
    refused = [name for name, given in asked.items() if given and name not in program.takes]
    if refused:
        names = ", ".join(f"--{name.replace('_', '-')}" for name in refused)
        raise UsageError(f"{names} cannot be followed for {program.name}; leave it away")


def _completed(program: Program, options: EmitOptions, bundle: Bundle) -> EmitOptions:
    """What follows from the bundle and the program without being asked for."""
    if bundle.manifest.quantization.number_format == "FP16":
        if options.implicit:
            raise UsageError("this bundle is FP16, and --implicit is about INT8; leave it away, or convert to INT8")
        return replace(options, fp16_only=True)
    return replace(options, implicit=options.implicit or (program.always_implicit and not options.fp16_only))


def _measure(
    bundle: Bundle, model: onnx.ModelProto, program: Program, frames: FrameSource | None, missing: int, step: Step
) -> dict[str, float]:
    """Ranges of every tensor; measured on frames where the bundle lacks one."""
    if missing and frames is None:
        raise UsageError(
            f"{program.name} takes INT8 from a calibration cache here, which needs the range of every tensor, and the "
            f"bundle lacks {missing} of them; give calibration frames with --frames DIR, or --fp16-only for no INT8"
        )
    if not missing or frames is None:
        return measure_missing(model, {}, [])
    with step("measure ranges", len(frames)) as progress:
        feeds = _feeds(frames, bundle.manifest.input)
        return measure_missing(model, {}, feeds, progress=progress, frame_names=frames.names)


def _feeds(frames: FrameSource, spec: InputSpec) -> Iterator[dict[str, NDArray[np.uint8]]]:
    for frame in frames:
        check_frame_size(frame, spec)
        yield {spec.tensor: fit_frame(frame.image, spec.height, spec.width)}


def _record(bundle: Bundle, request: Request, program: Program, measured: int, frames: FrameSource | None) -> str:
    """Where the folder came from, for whoever finds it."""
    options = request.options
    content = {
        "program": program.name,
        "network": bundle.manifest.network.name,
        "graph_digest": bundle.manifest.files[BUNDLE_MODEL],
        "tensorrt": version_text(options.tensorrt),
        "form": request.form,
        "dla_core": options.dla_core,
        "batch": options.batch,
        "measured_ranges": measured,
        "frames": list(frames.names) if measured and frames is not None else [],
        "tools": tool_versions(),
    }
    return json.dumps(content, indent=1) + "\n"


def _readme(program: Program, request: Request, emission: Emission) -> str:
    """What a person reads first."""
    name, version = request.manifest.network.name, version_text(request.options.tensorrt)
    lines = [
        f"{name} for {program.name}, TensorRT {version}",
        f"Graph: {FORMS[request.form].title}.",
        "",
        "In this folder:",
        "",
        *(f"  {command}" for command in emission.commands),
        "",
        *(f"* {note}" for note in emission.notes),
        "",
        f"Written by edgeseg after the documentation and source of {program.name}; it was not run there. Compare",
        "the masks with those of `edgeseg run` before you rely on them.",
    ]
    return "\n".join(lines) + "\n"
