"""`edgeseg train --qat`: a bundle or a checkpoint in, a fine-tuned bundle with the proof of its accuracy out."""

from __future__ import annotations

import hashlib
import itertools
import logging
import tempfile
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import onnx
import torch

from edgeseg.bundle import Bundle, check_place, write_bundle
from edgeseg.calibration.datasets import LabelledFrames
from edgeseg.calibration.frames import Frame, FrameSource
from edgeseg.calibration.progress import Progress, SilentProgress
from edgeseg.calibration.scoring import score_labels
from edgeseg.calibration.table import CalibrationTable, read_table
from edgeseg.converters.calibrate import CalibrationRecipe, calibrate, calibration_units
from edgeseg.converters.convert import Steps, bundle_files, peak_rss_mb
from edgeseg.converters.export import export
from edgeseg.converters.lint import require_clean
from edgeseg.converters.metadata import NetworkMetadata
from edgeseg.converters.network import graph_on_cpu
from edgeseg.converters.options import DEFAULT_COUNT, ConvertOptions
from edgeseg.converters.parity import check_parity
from edgeseg.converters.place import place_qdq, plan_placement, remove_qdq
from edgeseg.converters.prepare import prepare
from edgeseg.converters.report import ReportContent, report_html, report_json
from edgeseg.converters.verify import Verification, verify
from edgeseg.errors import FrameError, UsageError
from edgeseg.labels import LabelSet
from edgeseg.manifest import Manifest, Quantization
from edgeseg.models.network import SegmentationNetwork
from edgeseg.tools import tool_versions
from edgeseg.training.checkpoint import load_network
from edgeseg.training.qat import METHOD, QuantizedNetwork, Tuned, fine_tune, tuning_recipe
from edgeseg.training.recipe import Recipe
from edgeseg.training.samples import MEMORY, Samples, open_data

__all__ = ["TuneOptions", "TuneResult", "quantize", "tune"]

_PARITY_FRAMES = 2

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TuneOptions:
    """How to fine-tune.

    Attributes:
        data: data sets to train on, see `edgeseg.training.samples.open_data`.
        output: the bundle's folder.
        validation: data set that decides which epoch is kept, and is scored; None for neither.
        force: replace a bundle that stands there.
        recipe: fields of `edgeseg.training.recipe.Recipe` such as epochs, batch, lr and augmentation.
        fixed_ranges, distill, workers: see `edgeseg.training.qat.fine_tune`.
        memory: bytes of decoded frames that are kept.
    """

    data: tuple[str, ...]
    output: Path
    validation: str | None = None
    force: bool = False
    recipe: Mapping[str, Any] = field(default_factory=dict)
    fixed_ranges: bool = False
    distill: float = 0.0
    workers: int = 1
    memory: int = MEMORY


@dataclass(frozen=True)
class TuneResult:
    """What fine-tuning gave.

    Attributes:
        bundle: on disk, with its report.
        tuned: how training went.
        frames: frames trained on.
        untuned_score: mean IoU of the INT8 network before fine-tuning, as the runtime computes it, 0..100; None without
            validation frames.
        seconds: wall time by step.
        remarks: what the user should know, one sentence each.
    """

    bundle: Bundle
    tuned: Tuned
    frames: int
    untuned_score: float | None
    seconds: dict[str, float]
    remarks: tuple[str, ...]


@dataclass(frozen=True)
class _JoinedFrames:
    """Several sources as one."""

    sources: tuple[FrameSource, ...]

    def __len__(self) -> int:
        return sum(map(len, self.sources))

    def __iter__(self) -> Iterator[Frame]:
        return itertools.chain.from_iterable(self.sources)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(name for source in self.sources for name in source.names)

    @property
    def skipped(self) -> int:
        return sum(source.skipped for source in self.sources)

    def select(self, count: int) -> _JoinedFrames:
        """Evenly spaced frames of each source by its share, one at the least."""
        shares = [max(1, count * len(source) // len(self)) for source in self.sources]
        return _JoinedFrames(tuple(s.select(share) for s, share in zip(self.sources, shares, strict=True)))

    def exclude(self, names: Collection[str]) -> _JoinedFrames:
        return _JoinedFrames(tuple(source.exclude(names) for source in self.sources))


def tune(
    source: str | Path, options: TuneOptions, device: torch.device, progress: Progress | None = None
) -> TuneResult:
    """Fine-tune a network in INT8, and prove what it gained.

    Args:
        source: a bundle, or a checkpoint of `edgeseg train`, which is quantized first with evenly spaced training
            frames as calibration.
        options: everything else.
        device: where to train; the proof runs on the CPU as every bundle's does.
        progress: watches the steps.

    Raises:
        EdgesegError: when anything cannot be done; then no bundle is written and an old one stays as it was.
    """
    check_place(options.output, force=options.force)
    steps = Steps(progress or SilentProgress())
    source = Path(source)
    opened = _open(source) if source.is_dir() else load_network(source)
    labels = (opened.manifest if isinstance(opened, QuantizedNetwork) else opened[1]).labels.classes()
    data = [open_data(spec, "train", labels) for spec in options.data]
    validation = open_data(options.validation, "val", labels) if options.validation else None
    samples = Samples(data, labels, options.memory)
    if isinstance(opened, QuantizedNetwork):
        start = opened
    else:
        start = quantize(*opened, _JoinedFrames(tuple(part.frames for part in data)), steps)
    if validation is not None:
        validation = _unseen(validation, data, start.table, steps)
    scored = Samples([validation], labels, options.memory) if validation is not None else None
    recipe = tuning_recipe(start.manifest, data=options.data, validation=options.validation, **options.recipe)
    tuned = fine_tune(
        start,
        recipe,
        samples,
        scored,
        device,
        fixed_ranges=options.fixed_ranges,
        distill=options.distill,
        workers=options.workers,
        progress=progress,
    )
    steps.seconds["fine-tune"] = tuned.seconds
    verification, before = _verify(start, tuned.network.model, validation, steps)
    remarks = (*_remarks(tuned, len(samples), before), *_left_behind(source))
    with steps("write"):
        written = _write(tuned.network, verification, remarks, steps, options)
    return TuneResult(written, tuned, len(samples), before, steps.seconds, remarks)


def _left_behind(source: Path) -> tuple[str, ...]:
    """What a bundle holds and its fine-tuned successor does not."""
    held = Bundle.open(source).smaller if source.is_dir() else None
    if held is None:
        return ()
    entry = held.manifest.input
    return (
        f"The network for frames of {entry.height}x{entry.width} in {source} is not in this bundle: give it to edgeseg "
        f"camera with --smaller {held.path}, or fine-tune it apart.",
    )


def _open(folder: Path) -> QuantizedNetwork:
    bundle = Bundle.open(folder)
    manifest = bundle.manifest
    if manifest.quantization.method.endswith(METHOD):
        raise UsageError(
            f"{folder} was fine-tuned already, and what it was before is not in it; start from the bundle that edgeseg "
            "convert wrote, or from the checkpoint, with more --epochs"
        )
    table = read_table(bundle, "fine-tuning")
    return QuantizedNetwork(manifest, onnx.load_from_string(bundle.read_model()), table)


def quantize(network: SegmentationNetwork, recipe: Recipe, frames: FrameSource, steps: Steps) -> QuantizedNetwork:
    """Export and convert a trained network in one go.

    Args:
        network, recipe: of a checkpoint.
        frames: that it was trained on; evenly spaced ones give the ranges.
        steps: watches.

    Raises:
        EdgesegError: as `export` and `convert` do.
    """
    metadata = NetworkMetadata(recipe.color_order, recipe.mean, recipe.std, recipe.labels, None, recipe.network)
    with steps("prepare"), tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / f"{recipe.network}.onnx"
        export(network, recipe.size, place, metadata)
        prepared = prepare(place, ConvertOptions())
        placement = plan_placement(prepared.model)
    check_parity(prepared, list(frames.select(_PARITY_FRAMES)))
    chosen = frames.select(DEFAULT_COUNT)
    ranges = CalibrationRecipe()
    with steps("calibrate", calibration_units(chosen, ranges)) as advance:
        calibrated = calibrate(prepared, placement, chosen, ranges, advance)
    model = place_qdq(calibrated.model, placement, calibrated.table.ranges, calibrated.shifts, calibrated.moved)
    require_clean(model)
    names, digests = calibrated.names, calibrated.table.frames
    quantization = Quantization(ranges.method, names, digests, placement.layers, ranges.techniques)
    manifest = Manifest(
        prepared.network, prepared.input, prepared.output, prepared.labels, quantization, None, {}, tool_versions()
    )
    return QuantizedNetwork(manifest, model, calibrated.table)


def _unseen(
    validation: LabelledFrames, data: list[LabelledFrames], table: CalibrationTable, steps: Steps
) -> LabelledFrames:
    """The validation frames whose pixels neither calibration nor training has seen."""
    with steps("check", len(validation) + sum(map(len, data))) as advance:
        seen = set(table.frames)
        for frame in itertools.chain.from_iterable(part.frames for part in data):
            seen.add(frame.digest)
            advance(1)
        known = set()
        for frame in validation.frames:
            if frame.digest in seen:
                known.add(frame.name)
                _log.warning("%s is left out of the score: training has seen the same pixels", frame.name)
            advance(1)
    left = validation.exclude(known)
    if not len(left):
        raise FrameError(
            "every validation frame is among those that are trained on or were calibrated with; give others with "
            "--validation"
        )
    return left


def _verify(
    start: QuantizedNetwork, tuned: onnx.ModelProto, validation: LabelledFrames | None, steps: Steps
) -> tuple[Verification | None, float | None]:
    """Float against fine-tuned INT8, and the score of INT8 before; all as the runtime computes them."""
    if validation is None:
        return None, None
    manifest = start.manifest
    with steps("verify", 2 * len(validation)) as advance:
        with graph_on_cpu(manifest, start.model) as untuned:
            before = score_labels(untuned, validation, manifest.labels, progress=advance).miou
        # The weights of a Q/DQ graph are those of the float network, but for what `moved_weight` does to a few.
        with (
            graph_on_cpu(manifest, remove_qdq(start.model)) as float_network,
            graph_on_cpu(manifest, tuned) as int8_network,
        ):
            frames = ((item.frame, item) for item in validation)
            verification = verify(float_network, int8_network, frames, _scored(manifest, validation), progress=advance)
    return verification, before


def _scored(manifest: Manifest, validation: LabelledFrames) -> LabelSet:
    """The network's classes, with the value that these labels ignore."""
    known = validation.label_set
    return manifest.labels if known is None else replace(manifest.labels, ignore_index=known.ignore_index)


def _remarks(tuned: Tuned, frames: int, before: float | None) -> tuple[str, ...]:
    remarks = [f"Fine-tuned in INT8 on {frames} frames for {tuned.epochs} epochs (quantization-aware training)."]
    if before is None:
        remarks.append("Without --validation the last epoch is kept, and what it gained is not known.")
    elif tuned.best_epoch:
        remarks.append(
            f"Before fine-tuning INT8 scored {before:.2f}; epoch {tuned.best_epoch} is kept, the best on the frames "
            "that are scored here."
        )
    else:
        remarks.append(f"No epoch was better than the start, so the network is as it was, at {before:.2f}.")
    remarks.append("The histograms are those of the calibration, before the ranges and weights were learned.")
    return tuple(remarks)


def _write(
    network: QuantizedNetwork,
    verification: Verification | None,
    remarks: tuple[str, ...],
    steps: Steps,
    options: TuneOptions,
) -> Bundle:
    files = bundle_files(network.model, network.table)
    manifest = replace(
        network.manifest,
        quantization=replace(network.manifest.quantization, method=network.table.method),
        scores=verification.scores if verification else None,
        files={name: hashlib.sha256(content).hexdigest() for name, content in files.items()},
        tools={**tool_versions(), "torch": str(torch.__version__)},
    )
    worst = verification.worst if verification else ()
    content = ReportContent(manifest, worst, network.table, steps.seconds, peak_rss_mb(), remarks)
    files["report.html"], files["report.json"] = report_html(content).encode(), report_json(content).encode()
    return write_bundle(options.output, manifest, files, force=options.force)
