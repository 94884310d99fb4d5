"""calibration.json: the ranges that a network's tensors were given, from which frames, and what was clipped."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from edgeseg._version import __version__
from edgeseg.bundle import Bundle
from edgeseg.calibration.observers import Histogram
from edgeseg.calibration.partners import Partners
from edgeseg.calibration.ranges import METHODS
from edgeseg.errors import BundleError, CalibrationError, UsageError, unknown_name

__all__ = [
    "REPORT_BINS",
    "TABLE",
    "CalibrationTable",
    "Entry",
    "calibration_key",
    "choose_ranges",
    "read_table",
]

REPORT_BINS = 128

TABLE = "calibration.json"
"""Name of a table in a bundle."""

_SCHEMA = 1


@dataclass(frozen=True)
class Entry:
    """The range of one tensor.

    Attributes:
        amax: magnitude that the INT8 level 127 stands for.
        minimum, maximum: smallest and largest value seen.
        clipped_share: share of the values beyond amax, 0..1.
        histogram: counts of magnitudes in REPORT_BINS equal bins from 0 on, the last one up to `maximum` or `minimum`.
        width: of a bin.
        method: what chose the range, where the table's method leaves it open.
    """

    amax: float
    minimum: float
    maximum: float
    clipped_share: float
    histogram: tuple[int, ...]
    width: float
    method: str = ""

    def __post_init__(self) -> None:
        numbers = (self.amax, self.minimum, self.maximum, self.clipped_share, self.width)
        if not all(math.isfinite(n) for n in numbers) or min(self.amax, self.width) <= 0:
            raise CalibrationError(
                f"amax and bin width must be positive and finite, but are {self.amax} and {self.width} "
                f"for values in [{self.minimum}, {self.maximum}]"
            )
        if not 0 <= self.clipped_share <= 1 or self.minimum > self.maximum or any(n < 0 for n in self.histogram):
            raise CalibrationError(
                f"a range of [{self.minimum}, {self.maximum}] with {self.clipped_share} of its values clipped "
                "and these counts cannot be"
            )

    @classmethod
    def of(cls, histogram: Histogram, amax: float, method: str = "") -> Entry:
        """Sum up a histogram and the amax chosen from it."""
        filled = np.flatnonzero(histogram.counts)
        used = int(filled[-1]) + 1 if filled.size else 1
        merged = -(-used // REPORT_BINS)
        counts = np.zeros(REPORT_BINS * merged, np.int64)
        counts[:used] = histogram.counts[:used]
        return cls(
            amax,
            histogram.minimum,
            histogram.maximum,
            histogram.clipped_share(amax),
            tuple(int(n) for n in counts.reshape(REPORT_BINS, merged).sum(axis=1)),
            histogram.width * merged,
            method,
        )

    def with_amax(self, amax: float) -> Entry:
        """The same histogram with another range; the clipped share is then that of the bins whose middle is beyond."""
        counts = np.array(self.histogram)
        beyond = (np.arange(counts.size) + 0.5) * self.width > amax
        return replace(self, amax=amax, clipped_share=float(counts[beyond].sum() / max(1, counts.sum())))


@dataclass(frozen=True)
class CalibrationTable:
    """What calibration found.

    Attributes:
        key: see `calibration_key`; a table with the key of a new conversion can stand in for its calibration.
        method: the range chooser.
        frames: SHA-256 digests of the frames, in the order in which they were read.
        entries: by tensor name.
        partners: what was quantized beside layers, and what was not; None where nothing could be.
    """

    key: str
    method: str
    frames: tuple[str, ...]
    entries: dict[str, Entry]
    partners: Partners | None = None

    @property
    def ranges(self) -> dict[str, float]:
        """amax by tensor name."""
        return {name: entry.amax for name, entry in self.entries.items()}

    def most_clipped(self, count: int) -> list[str]:
        """Names of the tensors with the largest clipped share, that first."""
        return sorted(self.entries, key=lambda name: (-self.entries[name].clipped_share, name))[:count]

    def to_json(self) -> str:
        """The table as JSON, one line a tensor, tensors in their order."""
        head = {
            "schema_version": _SCHEMA,
            "key": self.key,
            "method": self.method,
            "frames": self.frames,
            "partners": self.partners.to_dict() if self.partners else None,
        }
        lines = [f"  {json.dumps(n)}: {json.dumps(asdict(e), allow_nan=False)}" for n, e in self.entries.items()]
        return json.dumps(head, indent=1)[:-2] + ',\n "entries": {\n' + ",\n".join(lines) + "\n }\n}\n"

    @classmethod
    def from_json(cls, text: str) -> CalibrationTable:
        """Read what `to_json` wrote.

        Raises:
            CalibrationError: for other text, a field that is missing or of the wrong type, or a newer schema.
        """
        try:
            data = json.loads(text)
        except ValueError as error:
            raise CalibrationError(f"calibration.json is not JSON ({error}); convert the network again") from error
        if not isinstance(data, dict) or not isinstance(data.get("schema_version"), int):
            raise CalibrationError("calibration.json has no schema_version: it is no calibration table")
        if data["schema_version"] > _SCHEMA:
            raise CalibrationError(
                f"calibration.json has schema version {data['schema_version']}, but this edgeseg reads "
                f"up to {_SCHEMA}; upgrade with: pip install --upgrade edgeseg"
            )
        try:
            entries = {str(name): _entry(fields) for name, fields in data["entries"].items()}
            partners = data.get("partners")
            found = None if partners is None else Partners.from_dict(partners)
            return cls(str(data["key"]), str(data["method"]), tuple(map(str, data["frames"])), entries, found)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            message = f"calibration.json does not fit ({type(error).__name__}: {error}); convert the network again"
            raise CalibrationError(message) from error


def _entry(fields: dict[str, Any]) -> Entry:
    numbers = {n: float(fields[n]) for n in ("amax", "minimum", "maximum", "clipped_share", "width")}
    return Entry(**numbers, histogram=tuple(int(n) for n in fields["histogram"]), method=str(fields.get("method", "")))


def read_table(bundle: Bundle, purpose: str) -> CalibrationTable:
    """The ranges that a bundle holds.

    Args:
        bundle: opened, so that the file is the one that its manifest names.
        purpose: what starts from the ranges, for the message.

    Raises:
        BundleError: for a bundle without them.
        CalibrationError: for a file that cannot be read as a table.
    """
    if bundle.manifest.quantization.number_format == "FP16":
        raise BundleError(
            f"{bundle.path} is FP16 and was not calibrated, so it has no ranges for {purpose} to start from; convert "
            "the network with --precision int8"
        )
    if TABLE not in bundle.manifest.files:
        raise BundleError(
            f"{bundle.path} has no {TABLE}, whose ranges {purpose} starts from; convert the network again"
        )
    return CalibrationTable.from_json((bundle.path / TABLE).read_text("utf-8"))


def calibration_key(model: bytes, frames: Iterable[str], tensors: Iterable[str], method: str) -> str:
    """SHA-256 (hexadecimal) of everything that ranges depend on, the version of edgeseg included.

    Args:
        model: the float graph that is run, serialised.
        frames: digests of the frames; their order does not matter, as it does not change the ranges.
        tensors: names of the tensors measured; their order does not matter.
        method: the range chooser.
    """
    content = {"version": __version__, "frames": sorted(frames), "tensors": sorted(tensors), "method": method}
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode())
    digest.update(hashlib.sha256(model).digest())
    return digest.hexdigest()


def choose_ranges(histograms: Mapping[str, Histogram], method: str) -> dict[str, Entry]:
    """Choose the range of every tensor.

    Args:
        histograms: by tensor name.
        method: a name of METHODS.

    Raises:
        UsageError: for an unknown method.
    """
    if method not in METHODS:
        raise UsageError(unknown_name("calibration method", method, METHODS))
    choose = METHODS[method]
    return {name: Entry.of(histogram, choose(histogram)) for name, histogram in histograms.items()}
