"""Mixed precision: which layers stay in float because the user says so, or because the budget asks for it."""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from edgeseg.calibration.datasets import LabelledFrame, pair_labels
from edgeseg.calibration.frames import Frame, FrameSource, frames_from
from edgeseg.calibration.scoring import resize_nearest
from edgeseg.calibration.sensitivity import (
    MixtureScore,
    SearchFrame,
    Sensitivity,
    Truth,
    measure_sensitivity,
    sensitivity_runs,
)
from edgeseg.converters.budget import BudgetResult, search_budget
from edgeseg.converters.calibrate import Calibrated
from edgeseg.converters.costs import float_costs
from edgeseg.converters.options import ConvertOptions
from edgeseg.converters.place import Placement
from edgeseg.converters.prepare import Prepared
from edgeseg.converters.split import FrameSplit
from edgeseg.converters.switches import SwitchedNetwork
from edgeseg.errors import FrameError, UsageError
from edgeseg.frame import fit_frame
from edgeseg.labels import ClassMapping, LabelSet
from edgeseg.manifest import Budget, InputSpec, OutputSpec

__all__ = [
    "SEARCH_FRAMES",
    "Mixture",
    "SearchSet",
    "Steps",
    "find_mixture",
    "kept_by_name",
    "search_frames",
    "search_set",
]

SEARCH_FRAMES = 24
"""Frames that the search measures on at most."""

SENSITIVITY_FRAMES = 4
"""Of these, frames on which each layer is quantized alone: its noise differs little from frame to frame."""

_HELD_OUT = 3
"""Every so manyth labelled frame searches and does not score."""


Steps = Callable[[str, int | None], AbstractContextManager[Callable[[int], None]]]


@dataclass(frozen=True, eq=False)
class SearchSet:
    """Frames to search on.

    Attributes:
        frames: as the network takes them, in memory.
        truth: what their labels mean; None without.
        names, digests: of the frames.
    """

    frames: tuple[SearchFrame, ...]
    truth: Truth | None
    names: tuple[str, ...]
    digests: tuple[str, ...]


@dataclass(frozen=True)
class Mixture:
    """What the search decided.

    Attributes:
        reasons: why a layer stays in float, by name.
        budget: for the manifest.
        sensitivity: what INT8 does in each layer alone, for the report.
    """

    reasons: dict[str, str]
    budget: Budget
    sensitivity: Sensitivity


def kept_by_name(placement: Placement, patterns: Iterable[str]) -> dict[str, str]:
    """Layers that the user keeps in float.

    Args:
        placement: with every layer that can be quantized in INT8.
        patterns: with *, ? and [...].

    Returns:
        The reason by name of the layer.

    Raises:
        UsageError: for a pattern that matches no layer.
    """
    names = [layer.name for layer in placement.layers if layer.precision == "int8"]
    kept: dict[str, str] = {}
    for pattern in patterns:
        found = fnmatch.filter(names, pattern)
        if not found:
            raise UsageError(
                f"--keep-float {pattern!r} matches none of the {len(names)} layers that can be quantized, such as "
                f"{names[0]}; edgeseg info lists a bundle's layers"
            )
        kept.update(dict.fromkeys(found, "the user keeps it in float"))
    return kept


def search_set(
    prepared: Prepared, split: FrameSplit, options: ConvertOptions, mapping: ClassMapping | None, seen: frozenset[str]
) -> SearchSet:
    """The frames to search on: the user's, or held back from the labelled ones, or some that calibrate.

    Args:
        prepared: the network.
        split: the conversion's frames.
        options: frames and labels to search on.
        mapping: from the network's classes to those of the labels.
        seen: digests of the calibration frames.

    Raises:
        FrameError: where there are none.
        LabelError: where a frame has no label image.
    """
    classes = (prepared.labels if mapping is None else mapping.target).classes()
    if options.search_frames is not None:
        source = frames_from(options.search_frames, skip_broken=options.skip_broken).select(SEARCH_FRAMES)
        return search_frames(source, options.search_labels, classes, mapping, prepared.input, prepared.output)
    if split.labelled is None:
        source = split.calibration.select(SEARCH_FRAMES)
        return search_frames(source, None, classes, mapping, prepared.input, prepared.output)
    step = max(_HELD_OUT, math.ceil(len(split.labelled) / SEARCH_FRAMES))
    held_out = (pair for i, pair in enumerate(split.scored(seen)) if i % step == step - 1)
    return _search_set(held_out, Truth(len(classes), classes.ignore_index, mapping), prepared.input, prepared.output)


def search_frames(
    source: FrameSource,
    labels: Path | None,
    classes: LabelSet,
    mapping: ClassMapping | None,
    frame: InputSpec,
    output: OutputSpec,
) -> SearchSet:
    """Frames of a source, with the label images of a folder where one is given.

    Args:
        source: the frames.
        labels: folder with their label images, or None.
        classes: of the labels.
        mapping: from the network's classes to them.
        frame, output: of the network; labels are brought to the size of its logits.

    Raises:
        FrameError: where there are none.
        LabelError: where a frame has no label image.
    """
    if labels is None:
        return _search_set(((each, None) for each in source), None, frame, output)
    pairs = ((item.frame, item) for item in pair_labels(source, labels, classes))
    return _search_set(pairs, Truth(len(classes), classes.ignore_index, mapping), frame, output)


def _search_set(
    chosen: Iterable[tuple[Frame, LabelledFrame | None]], truth: Truth | None, spec: InputSpec, output: OutputSpec
) -> SearchSet:
    frames, names, digests = [], [], []
    for frame, item in chosen:
        feed = {spec.tensor: fit_frame(frame.image, spec.height, spec.width)}
        labels = None if item is None else resize_nearest(item.labels, output.height, output.width)
        frames.append(SearchFrame(feed, labels))
        names.append(frame.name)
        digests.append(frame.digest)
    if not frames:
        raise FrameError("no frame is left to measure layers on; give some with --search-frames DIR")
    return SearchSet(tuple(frames), truth, tuple(names), tuple(digests))


def find_mixture(
    prepared: Prepared,
    placement: Placement,
    calibrated: Calibrated,
    frames: SearchSet,
    options: ConvertOptions,
    steps: Steps,
) -> Mixture:
    """Search the layers that must stay in float for the budget.

    Args:
        prepared: the network.
        placement: with the layers that can be quantized in INT8.
        calibrated: their ranges.
        frames: to search on.
        options: with the budget.
        steps: opens a step with its title and number of units, see `edgeseg.calibration.progress.Progress.step`.

    Raises:
        EngineError: when ONNX Runtime does not take the network.
        UsageError: for an unknown target.
    """
    assert options.budget is not None
    costs = float_costs(calibrated.model, placement.layers, options.target)
    network = SwitchedNetwork(calibrated.model, placement, calibrated.table.ranges, calibrated.shifts, calibrated.moved)
    few = frames.frames[:: -(-len(frames.frames) // SENSITIVITY_FRAMES)]
    runs = sensitivity_runs(len(network.layers), len(few), spare=False)
    with steps("sensitivity", runs) as advance:
        alone = measure_sensitivity(network.run, network.layers, few, frames.truth, advance, spare=False)
    with steps("search", None):
        score = MixtureScore(network.run, network.layers, frames.frames, frames.truth)
        found = search_budget(alone, costs, score.drop, options.budget, options.max_float_share)
    return Mixture(_reasons(found, options.budget), _budget(found, frames, options), alone)


def _reasons(found: BudgetResult, budget: float) -> dict[str, str]:
    return {
        layer.name: f"the budget of {budget:g} points: quantized alone it leaves the logits a signal-to-noise ratio "
        f"of {layer.snr:.1f} dB"
        for layer in found.layers
    }


def _budget(found: BudgetResult, frames: SearchSet, options: ConvertOptions) -> Budget:
    assert options.budget is not None
    return Budget(
        options.budget,
        "agreement" if frames.truth is None else "miou",
        options.target,
        found.int8_drop.points,
        found.drop.points,
        found.met,
        found.float_share,
        frames.names,
        frames.digests,
        found.drop.error,
    )
