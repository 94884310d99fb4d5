"""Ranges for a network: measured on frames, or taken from an earlier conversion of the same network and frames."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeseg.calibration.frames import Frame, FrameSource
from edgeseg.calibration.measure import measure_ranges
from edgeseg.calibration.table import CalibrationTable, calibration_key, choose_ranges
from edgeseg.converters.place import Placement
from edgeseg.converters.prepare import Prepared
from edgeseg.engine_cache import write_atomically
from edgeseg.environment import read_environment
from edgeseg.errors import CalibrationError, FrameError
from edgeseg.frame import fit_frame
from edgeseg.manifest import InputSpec

__all__ = ["SMALLEST_SHARE", "Calibrated", "calibrate", "check_frame_size"]

SMALLEST_SHARE = 4
"""A frame may be this many times smaller than the network's input, in each direction."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Calibrated:
    """Ranges and where they came from.

    Attributes:
        table: the ranges.
        names: names of the frames; their digests stand in the table.
        reused: whether an earlier conversion had measured them.
    """

    table: CalibrationTable
    names: tuple[str, ...]
    reused: bool


def calibrate(
    prepared: Prepared, placement: Placement, frames: FrameSource, method: str, progress: Callable[[int], None]
) -> Calibrated:
    """Measure the range of every quantized tensor, or reuse what the cache folder holds.

    Args:
        prepared: the canonical float graph.
        placement: which tensors need a range.
        frames: calibration frames.
        method: range chooser.
        progress: called with 1 after every frame.

    Raises:
        FrameError: when a frame cannot be read or has less than a quarter of the network's height or width.
        CalibrationError: when a tensor holds NaN or infinity.
    """
    digests, names = _digests(prepared, frames)
    graph = prepared.model.SerializeToString(deterministic=True)
    key = calibration_key(graph, digests, placement.tensors, method)
    store = read_environment().cache_dir / "calibration" / f"{key}.json"
    known = _stored(store, key)
    if known is not None:
        progress(len(frames))
        # The key does not depend on the order of the frames, but names and digests must pair up.
        return Calibrated(replace(known, frames=digests), names, reused=True)
    histograms = measure_ranges(
        prepared.model, placement.tensors, _feeds(prepared, frames), progress=progress, frame_names=names
    )
    table = CalibrationTable(key, method, digests, choose_ranges(histograms, method))
    _store(store, table)
    return Calibrated(table, names, reused=False)


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


def _stored(path: Path, key: str) -> CalibrationTable | None:
    try:
        table = CalibrationTable.from_json(path.read_text("utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError, CalibrationError) as error:
        _log.warning("the stored calibration %s cannot be used and is measured again: %s", path, error)
        return None
    return table if table.key == key else None


def _store(path: Path, table: CalibrationTable) -> None:
    """Keep a table for the next conversion; a cache that cannot be written costs time, not the result."""
    try:
        write_atomically(path, table.to_json().encode())
    except OSError as error:
        _log.warning("the calibration could not be kept in %s: %s", path.parent, error)
