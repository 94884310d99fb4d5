"""What one conversion measured, kept so that the next one of the same network with the same frames need not."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeseg.calibration.table import CalibrationTable
from edgeseg.engine_cache import write_atomically
from edgeseg.errors import CalibrationError

__all__ = ["Findings", "keep", "stored"]

_log = logging.getLogger(__name__)

_UNREADABLE = (
    OSError,
    TypeError,
    LookupError,
    AttributeError,
    ValueError,
    ArithmeticError,
    RecursionError,
    CalibrationError,
)
"""Whatever a file that somebody else wrote, or half of one, can lead to."""

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Findings:
    """Everything that calibration finds.

    Attributes:
        table: the ranges.
        factors: of channels, by tensor, see `edgeseg.converters.equalize`.
        shifts: of biases, by layer.
        moved: weights that round to the farther level, by name, see `edgeseg.converters.place.moved_weight`.
    """

    table: CalibrationTable
    factors: dict[str, Array]
    shifts: dict[str, Array]
    moved: dict[str, NDArray[np.int64]]


def keep(path: Path, findings: Findings) -> None:
    """Store findings; a cache that cannot be written costs time, not the result."""
    content = {
        "table": json.loads(findings.table.to_json()),
        "factors": {name: values.tolist() for name, values in findings.factors.items()},
        "shifts": {name: values.tolist() for name, values in findings.shifts.items()},
        "moved": {name: values.tolist() for name, values in findings.moved.items()},
    }
    try:
        write_atomically(path, json.dumps(content, allow_nan=False).encode())
    except (OSError, ValueError) as error:
        _log.warning("the calibration could not be kept in %s: %s", path.parent, error)


def stored(path: Path, key: str) -> Findings | None:
    """What `keep` stored under a key; None where there is nothing, or nothing that can be used."""
    try:
        content = json.loads(path.read_text("utf-8"))
        table = CalibrationTable.from_json(json.dumps(content["table"]))
        factors, shifts = _arrays(content["factors"], positive=True), _arrays(content["shifts"])
        findings = Findings(table, factors, shifts, _positions(content["moved"]))
    except FileNotFoundError:
        return None
    except _UNREADABLE as error:
        _log.warning("the stored calibration %s cannot be used and is measured again: %s", path, error)
        return None
    return findings if table.key == key else None


def _arrays(content: Mapping[str, Any], *, positive: bool = False) -> dict[str, Array]:
    arrays = {str(name): np.array(values, np.float64) for name, values in content.items()}
    for values in arrays.values():
        if values.ndim == 1 and np.isfinite(values).all() and not (positive and (values <= 0).any()):
            continue
        raise CalibrationError("it holds numbers that no calibration gives")
    return arrays


def _positions(content: Mapping[str, Any]) -> dict[str, NDArray[np.int64]]:
    arrays = {str(name): np.array(values) for name, values in content.items()}
    for values in arrays.values():
        if values.ndim == 1 and np.issubdtype(values.dtype, np.integer) and not (values < 0).any():
            continue
        raise CalibrationError("it holds positions that no array has")
    return arrays
