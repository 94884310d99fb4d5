"""Ranges for a network: measured on frames, or taken from an earlier conversion of the same network and frames."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx
from numpy.typing import NDArray

from edgeseg.calibration.channels import measure_channels
from edgeseg.calibration.frames import Frame, FrameSource
from edgeseg.calibration.measure import Feed, measure_ranges
from edgeseg.calibration.observers import Histogram, frame_sample
from edgeseg.calibration.partners import Partners
from edgeseg.calibration.ranges import AUTO, CANDIDATES, METHODS
from edgeseg.calibration.table import CalibrationTable, Entry, calibration_key, choose_ranges
from edgeseg.converters.equalize import channel_factors, scale_channels
from edgeseg.converters.findings import Findings, keep, stored
from edgeseg.converters.joined import TOLERANCE, choose_partners, with_partners
from edgeseg.converters.levels import choose_levels
from edgeseg.converters.options import DEFAULT_METHOD
from edgeseg.converters.place import Placement
from edgeseg.converters.prepare import Prepared
from edgeseg.converters.trials import Trials, best_by_output
from edgeseg.environment import read_environment
from edgeseg.errors import FrameError, UsageError, unknown_name
from edgeseg.frame import fit_frame
from edgeseg.manifest import InputSpec

__all__ = ["SMALLEST_SHARE", "Calibrated", "CalibrationRecipe", "calibrate", "calibration_units", "check_frame_size"]

CHANNEL_FRAMES = 8
"""Frames on which channels are measured; each channel's largest magnitude is averaged over them."""

TRIAL_FRAMES = 2
"""Frames on which every candidate for a range is tried: one has some ten thousand outputs of every channel."""

SHIFT_FRAMES = 4
"""Frames over which the shift of each channel is averaged."""

LEVEL_FRAMES = 8
"""Frames on which the levels of weights are chosen."""

_OF_SKIPS = "mse"
"""What chooses the range of a tensor that only sums read: its own error is what reaches the output."""

SMALLEST_SHARE = 4
"""A frame may be this many times smaller than the network's input, in each direction."""

_log = logging.getLogger(__name__)

Array = NDArray[np.float64]


@dataclass(frozen=True)
class CalibrationRecipe:
    """How ranges are found, and what is done to the network for their sake.

    Attributes:
        method: a chooser of `edgeseg.calibration.ranges.METHODS`, or AUTO.
        equalize: bring channels of one tensor to like magnitudes, see `edgeseg.converters.equalize`.
        correct_bias: add to biases what quantization takes from the means of outputs.
        round_weights: choose the levels of weights by the error at their layer's output.
        tolerance: dB of the logits' signal-to-noise ratio that the placement's partners may cost together; None takes
            all of them.
    """

    method: str = DEFAULT_METHOD
    equalize: bool = True
    correct_bias: bool = True
    round_weights: bool = True
    tolerance: float | None = TOLERANCE

    @property
    def techniques(self) -> tuple[str, ...]:
        """What the manifest says was done beyond choosing ranges."""
        done = {
            "cross-layer equalization": self.equalize,
            "bias correction": self.correct_bias,
            "weight rounding": self.round_weights,
        }
        return tuple(name for name, chosen in done.items() if chosen)


@dataclass(frozen=True)
class Calibrated:
    """Ranges and where they came from, with what the quantized network needs beside them.

    Attributes:
        model: the float graph that the ranges are of; with equalization, one with rescaled channels.
        table: the ranges.
        shifts: corrections of biases by layer, see `edgeseg.converters.place.correct_biases`.
        moved: weights that round to the farther level, see `edgeseg.converters.place.moved_weight`.
        names: names of the frames; their digests stand in the table.
        reused: whether an earlier conversion had measured them.
    """

    model: onnx.ModelProto
    table: CalibrationTable
    shifts: dict[str, Array]
    moved: dict[str, NDArray[np.int64]]
    names: tuple[str, ...]
    reused: bool


def calibration_units(frames: FrameSource, recipe: CalibrationRecipe) -> int:
    """How many units of progress `calibrate` will count."""
    more = (CHANNEL_FRAMES if recipe.equalize else 0, LEVEL_FRAMES if recipe.round_weights else 0)
    return len(frames) + sum(min(count, len(frames)) for count in more)


def calibrate(
    prepared: Prepared,
    placement: Placement,
    frames: FrameSource,
    recipe: CalibrationRecipe,
    progress: Callable[[int], None],
) -> Calibrated:
    """Measure the range of every quantized tensor, or reuse what the cache folder holds.

    Args:
        prepared: the canonical float graph.
        placement: which tensors need a range.
        frames: calibration frames.
        recipe: how ranges are found.
        progress: called with the units just done, of `calibration_units`.

    Raises:
        FrameError: when a frame cannot be read or has less than a quarter of the network's height or width.
        CalibrationError: when a tensor holds NaN or infinity.
        UsageError: for an unknown method.
    """
    if recipe.method not in (*METHODS, AUTO):
        raise UsageError(unknown_name("calibration method", recipe.method, [*METHODS, AUTO]))
    digests, names = _digests(prepared, frames)
    graph = prepared.model.SerializeToString(deterministic=True)
    partners = (
        (f"partners {placement.skips} {placement.groups} {recipe.tolerance}",) if _has_partners(placement) else ()
    )
    how = " + ".join((recipe.method, *recipe.techniques, *partners))
    key = calibration_key(graph, digests, placement.quantized, how)
    store = read_environment().cache_dir / "calibration" / f"{key}.json"
    known = stored(store, key)
    if known is not None:
        progress(calibration_units(frames, recipe))
        # The key does not depend on the order of the frames, but names and digests must pair up.
        model = scale_channels(prepared.model, known.factors)
        return Calibrated(model, replace(known.table, frames=digests), known.shifts, known.moved, names, reused=True)
    factors: dict[str, Array] = {}
    if recipe.equalize:
        some = _feeds(prepared, frames.select(CHANNEL_FRAMES))
        factors = channel_factors(prepared.model, measure_channels(prepared.model, placement.tensors, some, progress))
    model = scale_channels(prepared.model, factors)
    histograms = measure_ranges(
        model,
        placement.quantized,
        _feeds(prepared, frames),
        progress=progress,
        frame_names=names,
        sample=frame_sample(len(digests)),
        extremes=recipe.method == "minmax",
    )
    few = list(_feeds(prepared, frames.select(SHIFT_FRAMES)))
    entries, shifts = _choose(model, placement, histograms, recipe, few)
    entries, joined = _join(model, placement, histograms, entries, shifts, few, recipe.tolerance)
    table = CalibrationTable(key, recipe.method, digests, entries, joined)
    moved: dict[str, NDArray[np.int64]] = {}
    if recipe.round_weights:
        some = _feeds(prepared, frames.select(LEVEL_FRAMES))
        chosen = choose_levels(model, placement, table.ranges, some, progress)
        moved = chosen.moved
        shifts = {layer: shift - chosen.changes.get(layer, 0.0) for layer, shift in shifts.items()}
    keep(store, Findings(table, factors, shifts, moved))
    return Calibrated(model, table, shifts, moved, names, reused=False)


def _choose(
    model: onnx.ModelProto,
    placement: Placement,
    histograms: Mapping[str, Histogram],
    recipe: CalibrationRecipe,
    feeds: Sequence[Feed],
) -> tuple[dict[str, Entry], dict[str, Array]]:
    """Ranges, and what each layer loses of the mean of its output where that is corrected.

    All of it is tried in one compiled network, which is gone when this returns.
    """
    if recipe.method != AUTO and not recipe.correct_bias:
        return choose_ranges(histograms, recipe.method), {}
    few = feeds[:: SHIFT_FRAMES // TRIAL_FRAMES]
    trials = Trials(model, placement)
    if recipe.method == AUTO:
        candidates = {
            name: {tensor: choose(histogram) for tensor, histogram in histograms.items()}
            for name, choose in CANDIDATES.items()
        }
        best = dict.fromkeys(histograms, _OF_SKIPS) | best_by_output(trials, candidates, few)
        entries = {t: Entry.of(h, candidates[best[t]][t], best[t]) for t, h in histograms.items()}
    else:
        entries = choose_ranges(histograms, recipe.method)
    ranges = {tensor: entry.amax for tensor, entry in entries.items()}
    errors = trials.run(ranges, feeds) if recipe.correct_bias else {}
    return entries, {layer: error.shift for layer, error in errors.items()}


def _has_partners(placement: Placement) -> bool:
    return bool(placement.skips or placement.groups)


def _join(
    model: onnx.ModelProto,
    placement: Placement,
    histograms: Mapping[str, Histogram],
    entries: dict[str, Entry],
    shifts: Mapping[str, Array],
    few: Sequence[Feed],
    tolerance: float | None,
) -> tuple[dict[str, Entry], Partners | None]:
    """Ranges of the tensors that stay quantized, and which partners were taken."""
    if not _has_partners(placement):
        return entries, None
    own = {tensor: entry.amax for tensor, entry in entries.items()}
    partners, shared = choose_partners(model, placement, own, shifts, few, tolerance)
    kept = with_partners(placement, partners).quantized
    joined = {t: Entry.of(histograms[t], amax, entries[t].method) for t, amax in shared.items()}
    return {tensor: joined.get(tensor, entries[tensor]) for tensor in kept}, partners


def check_frame_size(frame: Frame, spec: InputSpec) -> None:
    """Refuse a frame that is much smaller than the network's input.

    Raises:
        FrameError: with both sizes.
    """
    rows, columns = frame.image.shape[:2]
    if rows * SMALLEST_SHARE < spec.height or columns * SMALLEST_SHARE < spec.width:
        raise FrameError(
            f"frame {frame.name} is {rows}x{columns}, but the network takes {spec.height}x{spec.width}; frames of less "
            "than a quarter of its height or width do not show it what a camera will: give larger ones"
        )


def _digests(prepared: Prepared, frames: FrameSource) -> tuple[tuple[str, ...], tuple[str, ...]]:
    digests, names = [], []
    smaller = 0
    height, width = prepared.input.height, prepared.input.width
    for frame in frames:
        check_frame_size(frame, prepared.input)
        rows, columns = frame.image.shape[:2]
        smaller += rows < height or columns < width
        digests.append(frame.digest)
        names.append(frame.name)
    if smaller:
        _log.warning(
            "%d of %d calibration frames are smaller than the network's %dx%d and are enlarged; frames of the camera's "
            "own size give truer ranges", smaller, len(names), height, width,
        )  # fmt: skip
    return tuple(digests), tuple(names)


def _feeds(prepared: Prepared, frames: FrameSource) -> Iterator[dict[str, NDArray[np.uint8]]]:
    spec = prepared.input
    for frame in frames:
        yield {spec.tensor: fit_frame(frame.image, spec.height, spec.width)}
