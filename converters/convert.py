"""The recipe of `edgeseg convert`: a float network and frames in, a bundle with the proof of its accuracy out."""

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
from edgeseg.calibration.frames import Frame
from edgeseg.calibration.progress import Progress, SilentProgress
from edgeseg.calibration.ranges import AUTO, METHODS
from edgeseg.calibration.sensitivity import Sensitivity
from edgeseg.calibration.table import TABLE, CalibrationTable
from edgeseg.converters.calibrate import Calibrated, CalibrationRecipe, calibrate, calibration_units, check_frame_size
from edgeseg.converters.lint import require_clean
from edgeseg.converters.mixed import find_mixture, kept_by_name, search_set
from edgeseg.converters.network import as_given, network_on_cpu
from edgeseg.converters.options import ConvertOptions, ConvertResult
from edgeseg.converters.place import Placement, place_qdq, plan_placement
from edgeseg.converters.prepare import Prepared, finish, prepare
from edgeseg.converters.report import ReportContent, report_html, report_json
from edgeseg.converters.split import FrameSplit, split_frames
from edgeseg.converters.verify import Verification, check_parity, verify
from edgeseg.errors import ModelError, UsageError, unknown_name
from edgeseg.labels import ClassMapping, load_mapping
from edgeseg.manifest import Budget, Manifest, OutputSpec, Quantization
from edgeseg.tools import tool_versions

__all__ = ["Steps", "bundle_files", "convert", "peak_rss_mb"]

_log = logging.getLogger(__name__)
_PARITY_FRAMES = 2

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


def convert(model: str | Path, frames: str, options: ConvertOptions, progress: Progress | None = None) -> ConvertResult:
    """Quantize a segmentation network to INT8 and prove what it cost.

    Args:
        model: a float ONNX network.
        frames: calibration frames, see `edgeseg.calibration.frames.frames_from`; never random, never a default.
        options: everything else.
        progress: watches the steps.

    Returns:
        The bundle on disk, with its report.

    Raises:
        EdgesegError: when anything cannot be done; then no bundle is written and an old one stays as it was.
    """
    if options.method not in (*METHODS, AUTO):
        raise UsageError(unknown_name("method", options.method, [*METHODS, AUTO]))
    if options.partners and options.budget is not None:
        raise UsageError("--partners quantizes sums, which --budget cannot leave in float; give one of the two")
    recipe = CalibrationRecipe(options.method, options.equalize, options.correct_bias, share=options.partners)
    folder = options.output or _place_beside(Path(model))
    check_place(folder, force=options.force)
    steps = Steps(progress or SilentProgress())
    with steps("prepare"):
        prepared = prepare(model, options)
        placement = plan_placement(prepared.model, partners=options.partners)
        kept = kept_by_name(placement, options.keep_float)
        if kept:
            placement = plan_placement(prepared.model, kept, partners=options.partners)
    mapping = load_mapping(options.mapping, prepared.labels) if options.mapping else None
    split = split_frames(frames, options, (mapping.target if mapping else prepared.labels).classes())
    with steps("check", _PARITY_FRAMES) as advance:
        _check_parity(prepared, split, advance)
    with steps("calibrate", calibration_units(split.calibration, recipe)) as advance:
        calibrated = calibrate(prepared, placement, split.calibration, recipe, advance)
    budget: Budget | None = None
    sensitivity: Sensitivity | None = None
    if options.budget is not None:
        searched = search_set(prepared, split, options, mapping, frozenset(calibrated.table.frames))
        mixture = find_mixture(prepared, placement, calibrated, searched, options, steps)
        placement = plan_placement(prepared.model, {**kept, **mixture.reasons})
        budget, sensitivity = mixture.budget, mixture.sensitivity
    with steps("quantize"):
        quantized, output = _quantize(prepared, placement, calibrated, options)
        require_clean(quantized)
    verification = _verify(prepared, quantized, output, split, calibrated, budget, mapping, steps)
    remarks = (*_remarks(verification, calibrated), *_remarks_on_budget(budget, placement))
    with steps("write"):
        files = bundle_files(quantized, calibrated.table)
        found = Quantization(
            recipe.method, calibrated.names, calibrated.table.frames, placement.layers, recipe.techniques, budget
        )
        manifest = _manifest(prepared, output, found, verification, files)
        worst = verification.worst if verification else ()
        content = ReportContent(manifest, worst, calibrated.table, steps.seconds, peak_rss_mb(), remarks, sensitivity)
        files["report.html"], files["report.json"] = report_html(content).encode(), report_json(content).encode()
        bundle = write_bundle(folder, manifest, files, force=options.force)
    return ConvertResult(bundle, len(calibrated.names), calibrated.reused, steps.seconds, peak_rss_mb(), remarks)


def _place_beside(model: Path) -> Path:
    if not model.name:
        raise ModelError(f"expected an ONNX file, but got {str(model)!r}; give a path such as model.onnx")
    return model.with_suffix(".edgeseg")


def _check_parity(prepared: Prepared, split: FrameSplit, advance: Advance) -> None:
    few = list(itertools.islice(split.calibration, _PARITY_FRAMES))
    # Before the networks are opened: at a size typed wrongly they take more memory than there is.
    for frame in few:
        check_frame_size(frame, prepared.input)

    def frames() -> Iterator[Frame]:
        for frame in few:
            yield frame
            advance(1)

    with network_on_cpu(prepared, prepared.model, prepared.output) as canonical, as_given(prepared) as given:
        share = check_parity(given, canonical, frames())
    _log.info("the canonical graph agrees with the given network on %.3f %% of the pixels", share)


def _quantize(
    prepared: Prepared, placement: Placement, calibrated: Calibrated, options: ConvertOptions
) -> tuple[onnx.ModelProto, OutputSpec]:
    quantized = place_qdq(calibrated.model, placement, calibrated.table.ranges, calibrated.shifts)
    if options.output_kind == "class-map":
        return finish(quantized, prepared.output, prepared.input)
    return quantized, prepared.output


def _verify(
    prepared: Prepared,
    quantized: onnx.ModelProto,
    output: OutputSpec,
    split: FrameSplit,
    calibrated: Calibrated,
    budget: Budget | None,
    mapping: ClassMapping | None,
    steps: Steps,
) -> Verification | None:
    searched = frozenset(budget.frame_digests) if budget else frozenset()
    scored = split.scored(frozenset(calibrated.table.frames), searched)
    with steps("verify", len(split.scoring) if split.scoring is not None else 0) as advance:
        if split.scoring is None:
            return None
        with (
            network_on_cpu(prepared, prepared.model, prepared.output) as float_network,
            network_on_cpu(prepared, quantized, output) as int8_network,
        ):
            return verify(float_network, int8_network, scored, prepared.labels, mapping, advance)


def _remarks(verification: Verification | None, calibrated: Calibrated) -> tuple[str, ...]:
    remarks = []
    count = len(calibrated.names)
    if calibrated.reused:
        remarks.append("The ranges of an earlier conversion of the same network with the same frames were reused.")
    if verification is None:
        remarks.append("There was no frame left to score; give others with --score-frames.")
    elif verification.scores.metric == "agreement":
        remarks.append("Without --labels the score is the agreement with the float network, not the accuracy.")
    if count < 16:
        remarks.append(f"Only {count} calibration frames were used; 64 or more that cover the use are steadier.")
    return tuple(remarks)


def _remarks_on_budget(budget: Budget | None, placement: Placement) -> tuple[str, ...]:
    if budget is None or budget.met:
        return ()
    names = [layer.name for layer in placement.layers if "budget" in layer.reason]
    listed = f"{', '.join(names[:5])}{' and others' if len(names) > 5 else ''}" if names else "none"
    return (
        f"The budget of {budget.points:g} points was not met: {budget.drop:.2f} are lost on the search frames, with "
        f"{len(names)} layers in float ({listed}). Fine-tune the network in INT8 with edgeseg train --qat, or allow a "
        "larger --max-float-share.",
    )


def _manifest(
    prepared: Prepared,
    output: OutputSpec,
    quantization: Quantization,
    verification: Verification | None,
    files: Mapping[str, bytes],
) -> Manifest:
    return Manifest(
        network=prepared.network,
        input=prepared.input,
        output=output,
        labels=prepared.labels,
        quantization=quantization,
        scores=verification.scores if verification else None,
        files={name: hashlib.sha256(content).hexdigest() for name, content in files.items()},
        tools=tool_versions(),
    )


def bundle_files(quantized: onnx.ModelProto, table: CalibrationTable) -> dict[str, bytes]:
    """What the report proves: the bundle's files by name, but for the report itself."""
    return {
        MODEL: quantized.SerializeToString(deterministic=True),
        TABLE: table.to_json().encode(),
        "calibration.cache": write_cache(table.ranges),
    }


def peak_rss_mb() -> float:
    """Largest resident memory of this process so far, in MB of 10^6 bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak * (1 if sys.platform == "darwin" else 1024) / 1e6, 1)
