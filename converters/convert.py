"""The recipe of `edgeseg convert`: a float network and frames in, a bundle with the proof of its accuracy out.

In FP16 nothing is quantized, so there is nothing to calibrate either: see `fp16`.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import logging
import resource
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import onnx

from edgeseg.bundle import MODEL, check_place, write_bundle
from edgeseg.calibration.cache import write_cache
from edgeseg.calibration.progress import Progress, SilentProgress
from edgeseg.calibration.ranges import AUTO, METHODS
from edgeseg.calibration.sensitivity import Sensitivity
from edgeseg.calibration.table import TABLE, CalibrationTable
from edgeseg.converters.calibrate import Calibrated, CalibrationRecipe, calibrate, calibration_units, check_frame_size
from edgeseg.converters.fp16 import check_options, quantization_of
from edgeseg.converters.joined import TOLERANCE, with_partners
from edgeseg.converters.lint import require_clean
from edgeseg.converters.mixed import Mixture, find_mixture, kept_by_name, search_set
from edgeseg.converters.network import network_on_cpu
from edgeseg.converters.options import PARTNERS, ConvertOptions, ConvertResult
from edgeseg.converters.parity import check_parity
from edgeseg.converters.place import Placement, place_qdq, plan_placement
from edgeseg.converters.prepare import Prepared, finish, prepare
from edgeseg.converters.report import ReportContent, report_html, report_json
from edgeseg.converters.split import FrameSplit, only_scored, split_frames
from edgeseg.converters.targets import derive
from edgeseg.converters.verify import Verification, verify
from edgeseg.errors import ModelError, UsageError, unknown_name
from edgeseg.labels import ClassMapping, load_mapping
from edgeseg.manifest import Manifest, OutputSpec, Quantization
from edgeseg.tools import tool_versions

__all__ = ["Steps", "bundle_files", "convert", "peak_rss_mb", "place_beside"]

_log = logging.getLogger(__name__)
_PARITY_FRAMES = 2
_PRECISIONS = ("int8", "fp16")

Advance = Callable[[int], None]
"""Tells a step how many units were just done."""


@dataclass
class Steps:
    """Runs the steps one after the other, each with its bar and its time."""

    progress: Progress
    seconds: dict[str, float] = field(default_factory=dict)

    @contextlib.contextmanager
    def __call__(self, title: str, total: int | None = None) -> Iterator[Advance]:
        start = time.perf_counter()
        with self.progress.step(title, total) as advance:
            yield advance
        self.seconds[title] = round(time.perf_counter() - start, 3)


@dataclass(frozen=True)
class _Converted:
    """The bundle's graph, and what its manifest and report say of it."""

    model: onnx.ModelProto
    output: OutputSpec
    quantization: Quantization
    calibrated: Calibrated | None = None
    sensitivity: Sensitivity | None = None

    @property
    def table(self) -> CalibrationTable | None:
        return self.calibrated.table if self.calibrated else None


def convert(
    model: str | Path, frames: str | None, options: ConvertOptions, progress: Progress | None = None
) -> ConvertResult:
    """Quantize a segmentation network to INT8, or take it to FP16 as it is, and prove what that cost.

    Args:
        model: a float ONNX network.
        frames: calibration frames, see `edgeseg.calibration.frames.frames_from`; never random, never a default. In
            FP16 frames to score, or None.
        options: everything else.
        progress: watches the steps.

    Returns:
        The bundle on disk, with its report.

    Raises:
        EdgesegError: when anything cannot be done; then no bundle is written and an old one stays as it was.
    """
    _check_options(frames, options)
    folder = options.output or place_beside(Path(model))
    check_place(folder, force=options.force)
    steps = Steps(progress or SilentProgress())
    with steps("prepare"):
        prepared = prepare(model, options)
        kept, placement = ({}, None) if options.precision == "fp16" else _plan(prepared, options)
    mapping = load_mapping(options.mapping, prepared.labels) if options.mapping else None
    truth = (mapping.target if mapping else prepared.labels).classes()
    split = split_frames(frames or "", options, truth) if placement else only_scored(frames, options, truth)
    with steps("check", _PARITY_FRAMES) as advance:
        _check_parity(prepared, split, advance)
    if placement is None:
        converted = _in_floating_point(prepared, options, steps)
    else:
        converted = _quantized(prepared, placement, kept, split, mapping, options, steps)
    verification = _verify(prepared, converted, split, mapping, steps)
    remarks = (*_remarks(verification, converted, frames, options), *_remarks_on_budget(converted.quantization))
    with steps("write"):
        files = bundle_files(converted.model, converted.table)
        manifest = _manifest(prepared, converted, verification, files)
        worst, measured = verification.worst if verification else (), converted.sensitivity
        content = ReportContent(manifest, worst, converted.table, steps.seconds, peak_rss_mb(), remarks, measured)
        files["report.html"], files["report.json"] = report_html(content).encode(), report_json(content).encode()
        bundle = write_bundle(folder, manifest, files, force=options.force)
    count, reused = len(converted.quantization.frame_names), bool(converted.calibrated and converted.calibrated.reused)
    return ConvertResult(bundle, count, reused, steps.seconds, peak_rss_mb(), remarks)


def _check_options(frames: str | None, options: ConvertOptions) -> None:
    if options.precision not in _PRECISIONS:
        raise UsageError(unknown_name("precision", options.precision, _PRECISIONS))
    if options.method not in (*METHODS, AUTO):
        raise UsageError(unknown_name("method", options.method, [*METHODS, AUTO]))
    if options.partners not in PARTNERS:
        raise UsageError(unknown_name("choice of partners", options.partners, PARTNERS))
    if options.partners == "all" and options.budget is not None:
        raise UsageError("--partners quantizes sums, which --budget cannot leave in float; give one of the two")
    if options.precision == "fp16":
        check_options(frames, options)
    elif frames is None:
        raise UsageError("INT8 needs real frames of the network's domain to calibrate with; give a source of them")


def _plan(prepared: Prepared, options: ConvertOptions) -> tuple[dict[str, str], Placement]:
    """The layers that the user keeps in float, and what is quantized."""
    partners = options.partners if options.budget is None else "none"
    placement = plan_placement(prepared.model, partners=partners)
    kept = kept_by_name(placement, options.keep_float)
    return kept, plan_placement(prepared.model, kept, partners=partners) if kept else placement


def _in_floating_point(prepared: Prepared, options: ConvertOptions, steps: Steps) -> _Converted:
    with steps("fp16"):
        model, output = _finished(prepared.model, prepared, options)
        require_clean(model)
        derive("fp16", model)  # what an engine is built from; a graph that has no such form is refused here
    return _Converted(model, output, quantization_of(prepared.model))


def _quantized(
    prepared: Prepared,
    placement: Placement,
    kept: Mapping[str, str],
    split: FrameSplit,
    mapping: ClassMapping | None,
    options: ConvertOptions,
    steps: Steps,
) -> _Converted:
    recipe = CalibrationRecipe(
        options.method,
        options.equalize,
        options.correct_bias,
        options.round_weights,
        None if options.partners == "all" else TOLERANCE,
    )
    with steps("calibrate", calibration_units(split.calibration, recipe)) as advance:
        calibrated = calibrate(prepared, placement, split.calibration, recipe, advance)
    placement = with_partners(placement, calibrated.table.partners)
    mixture: Mixture | None = None
    if options.budget is not None:
        searched = search_set(prepared, split, options, mapping, frozenset(calibrated.table.frames))
        mixture = find_mixture(prepared, placement, calibrated, searched, options, steps)
        placement = plan_placement(prepared.model, {**kept, **mixture.reasons})
    with steps("quantize"):
        quantized = place_qdq(calibrated.model, placement, calibrated.table.ranges, calibrated.shifts, calibrated.moved)
        model, output = _finished(quantized, prepared, options)
        require_clean(model)
    budget, sensitivity = (mixture.budget, mixture.sensitivity) if mixture else (None, None)
    digests = calibrated.table.frames
    techniques = (*recipe.techniques, *(("quantized partners",) if placement.skips or placement.groups else ()))
    found = Quantization(recipe.method, calibrated.names, digests, placement.layers, techniques, budget)
    return _Converted(model, output, found, calibrated, sensitivity)


def place_beside(model: Path) -> Path:
    """Where a network's bundle goes unless told otherwise."""
    if not model.name:
        raise ModelError(f"expected an ONNX file, but got {str(model)!r}; give a path such as model.onnx")
    return model.with_suffix(".edgeseg")


def _check_parity(prepared: Prepared, split: FrameSplit, advance: Advance) -> None:
    chosen = split.calibration if len(split.calibration) else split.scoring
    few = list(itertools.islice(chosen or (), _PARITY_FRAMES))
    if not few:
        return
    # Before the networks are opened: at a size typed wrongly they take more memory than there is.
    for frame in few:
        check_frame_size(frame, prepared.input)

    share = check_parity(prepared, few, advance)
    _log.info("the canonical graph agrees with the given network on %.3f %% of the pixels", share)


def _finished(
    model: onnx.ModelProto, prepared: Prepared, options: ConvertOptions
) -> tuple[onnx.ModelProto, OutputSpec]:
    if options.output_kind == "class-map":
        return finish(model, prepared.output, prepared.input)
    return model, prepared.output


def _verify(
    prepared: Prepared, converted: _Converted, split: FrameSplit, mapping: ClassMapping | None, steps: Steps
) -> Verification | None:
    found = converted.quantization
    searched = frozenset(found.budget.frame_digests) if found.budget else frozenset()
    scored = split.scored(frozenset(found.frame_digests), searched)
    with steps("verify", len(split.scoring) if split.scoring is not None else 0) as advance:
        if split.scoring is None:
            return None
        frames = 2 * len(split.scoring)
        with (
            network_on_cpu(prepared, prepared.model, prepared.output, frames=frames) as float_network,
            network_on_cpu(prepared, converted.model, converted.output, found, frames) as converted_network,
        ):
            return verify(float_network, converted_network, scored, prepared.labels, mapping, advance)


def _remarks(
    verification: Verification | None, converted: _Converted, frames: str | None, options: ConvertOptions
) -> tuple[str, ...]:
    remarks = []
    calibrated = converted.calibrated
    count = len(converted.quantization.frame_names)
    if calibrated and calibrated.reused:
        remarks.append("The ranges of an earlier conversion of the same network with the same frames were reused.")
    if verification is None and calibrated:
        remarks.append("There was no frame left to score; give others with --score-frames.")
    elif verification is None:
        remarks.append(
            "Without frames nothing was scored, nor was the simplified graph checked against the given one; give some "
            "with --frames or --score-frames."
        )
    elif verification.scores.metric == "agreement":
        remarks.append("Without --labels the score is the agreement with the float network, not the accuracy.")
    if calibrated is None and frames is not None and options.score_frames is not None:
        remarks.append("FP16 needs no calibration, so --frames was not read; the frames of --score-frames were scored.")
    if calibrated and count < 16:
        remarks.append(f"Only {count} calibration frames were used; 64 or more that cover the use are steadier.")
    return tuple(remarks)


def _remarks_on_budget(found: Quantization) -> tuple[str, ...]:
    budget = found.budget
    if budget is None or budget.met:
        return ()
    names = [layer.name for layer in found.layers if "budget" in layer.reason]
    listed = f"{', '.join(names[:5])}{' and others' if len(names) > 5 else ''}" if names else "none"
    return (
        f"The budget of {budget.points:g} points was not met: {budget.drop:.2f} are lost on the search frames, with "
        f"{len(names)} layers in float ({listed}). Fine-tune the network in INT8 with edgeseg train --qat, or allow a "
        "larger --max-float-share.",
    )


def _manifest(
    prepared: Prepared, converted: _Converted, verification: Verification | None, files: Mapping[str, bytes]
) -> Manifest:
    return Manifest(
        network=prepared.network,
        input=prepared.input,
        output=converted.output,
        labels=prepared.labels,
        quantization=converted.quantization,
        scores=verification.scores if verification else None,
        files={name: hashlib.sha256(content).hexdigest() for name, content in files.items()},
        tools=tool_versions(),
    )


def bundle_files(model: onnx.ModelProto, table: CalibrationTable | None) -> dict[str, bytes]:
    """What the report proves: the bundle's files by name, but for the report itself; without ranges in FP16."""
    files = {MODEL: model.SerializeToString(deterministic=True)}
    if table is not None:
        files |= {TABLE: table.to_json().encode(), "calibration.cache": write_cache(table.ranges)}
    return files


def peak_rss_mb() -> float:
    """Largest resident memory of this process so far, in MB of 10^6 bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak * (1 if sys.platform == "darwin" else 1024) / 1e6, 1)
