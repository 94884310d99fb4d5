"""Ranges for a network: measured on frames, or taken from an earlier conversion of the same network and frames."""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeseg.calibration.frames import FrameSource
from edgeseg.calibration.measure import measure_ranges
from edgeseg.calibration.table import CalibrationTable
from edgeseg.converters.place import Placement
from edgeseg.converters.prepare import Prepared
from edgeseg.environment import read_environment
from edgeseg.errors import CalibrationError, FrameError
from edgeseg.frame import fit_frame

__all__ = ["calibrate", "calibration_key"]

SMALLEST_SHARE = 4
"""A frame may be this many times smaller than the network's input, in each direction."""

_log = logging.getLogger(__name__)


def calibration_key(prepared: Prepared, placement: Placement, method: str, digests: tuple[str, ...]) -> str:
    """SHA-256 of everything that the ranges depend on: canonical graph, tensors, method and frames."""
    content = hashlib.sha256(prepared.model.SerializeToString(deterministic=True))
    for part in (method, *placement.tensors, *digests):
        content.update(b"\0" + part.encode())
    return content.hexdigest()


def calibrate(
    prepared: Prepared, placement: Placement, frames: FrameSource, method: str, progress: Callable[[int], None]
) -> tuple[CalibrationTable, bool]:
    """Measure the range of every quantized tensor, or reuse what the cache folder holds.

    Args:
        prepared: the canonical float graph.
        placement: which tensors need a range.
        frames: calibration frames.
        method: range chooser.
        progress: called with 1 after every frame.

    Returns:
        The table, and whether it was reused.

    Raises:
        FrameError: when a frame cannot be read or is smaller than the network.
        CalibrationError: when a tensor holds NaN or infinity.
    """
    digests, names = _digests(prepared, frames)
    key = calibration_key(prepared, placement, method, digests)
    store = read_environment().cache_dir / "calibration" / f"{key}.json"
    known = _stored(store, key)
    if known is not None:
        progress(len(frames))
        return known, True
    histograms = measure_ranges(
        prepared.model, placement.tensors, _feeds(prepared, frames), progress=_units(progress), frame_names=names
    )
    table = CalibrationTable.from_histograms(key, method, names, digests, histograms)
    _store(store, table)
    return table, False


def _units(progress: Callable[[int], None]) -> Callable[[int], None]:
    """`measure_ranges` tells the number of frames done; a step wants the number just done."""
    return lambda done: progress(1)


def _digests(prepared: Prepared, frames: FrameSource) -> tuple[tuple[str, ...], tuple[str, ...]]:
    digests, names = [], []
    smaller = 0
    height, width = prepared.input.height, prepared.input.width
    for frame in frames:
        rows, columns = frame.image.shape[:2]
        if rows * SMALLEST_SHARE < height or columns * SMALLEST_SHARE < width:
            raise FrameError(
                f"frame {frame.name} is {rows}x{columns}, but the network takes {height}x{width}; frames of less than a "
                "quarter of its height or width do not show it what a camera will: give larger ones"
            )
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
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, beside = tempfile.mkstemp(prefix=".", dir=path.parent)
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(table.to_json())
        os.replace(beside, path)
    except OSError as error:
        _log.warning("the calibration could not be kept in %s: %s", path.parent, error)
