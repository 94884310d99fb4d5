"""What a report is made of: the manifest, the worst frames, the measured ranges and how the conversion went."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edgeseg.errors import ShapeError
from edgeseg.manifest import Manifest

__all__ = ["CalibrationEntry", "CalibrationRanges", "ReportContent", "WorstFrame"]


class CalibrationEntry(Protocol):
    """What the report needs to know of one tensor's calibration."""

    @property
    def amax(self) -> float:
        """The chosen range: values beyond -amax..amax are clipped."""
        ...

    @property
    def minimum(self) -> float:
        """Smallest value seen."""
        ...

    @property
    def maximum(self) -> float:
        """Largest value seen."""
        ...

    @property
    def clipped_share(self) -> float:
        """Share of the values beyond the chosen range, 0..1."""
        ...

    @property
    def histogram(self) -> Sequence[int]:
        """Number of values by bin of their magnitude; bin i holds i * width up to (i + 1) * width."""
        ...

    @property
    def width(self) -> float:
        """Width of a bin, in units of the tensor."""
        ...


class CalibrationRanges(Protocol):
    """What the report needs of a calibration table."""

    @property
    def entries(self) -> Mapping[str, CalibrationEntry]:
        """The calibration of each tensor by the tensor's name."""
        ...


@dataclass(frozen=True)
class WorstFrame:
    """A frame on which the INT8 network differs most from the float network.

    Attributes:
        name: name of the frame.
        agreement: share of the pixels with the same class in both maps, 0..100.
        frame: (H, W, 3) uint8 RGB.
        float_map, int8_map: (H, W) uint8 class indices of the float and of the INT8 network.
    """

    name: str
    agreement: float
    frame: NDArray[np.uint8]
    float_map: NDArray[np.uint8]
    int8_map: NDArray[np.uint8]

    def __post_init__(self) -> None:
        size = self.frame.shape[:2]
        if self.frame.shape != (*size, 3) or self.frame.dtype != np.uint8 or 0 in size:
            raise ShapeError(
                f"frame {self.name} must be (H, W, 3) uint8 RGB, but is {self.frame.shape} {self.frame.dtype}; "
                "give it as it was decoded"
            )
        for kind, class_map in (("float", self.float_map), ("INT8", self.int8_map)):
            if class_map.shape != size or class_map.dtype != np.uint8:
                raise ShapeError(
                    f"the {kind} class map of frame {self.name} must be {size} uint8 as the frame, but is "
                    f"{class_map.shape} {class_map.dtype}; resize it to the frame first"
                )


@dataclass(frozen=True)
class ReportContent:
    """Everything that the report shows.

    Attributes:
        manifest: the bundle's manifest.
        worst: the worst frames, the worst one first.
        table: the calibration table (any object with `entries` as in `CalibrationRanges`).
        steps: seconds by step of the conversion, in their order.
        peak_rss_mb: largest resident memory of the conversion, in MB.
        remarks: sentences that the reader must see, such as ranges reused from an earlier conversion.
    """

    manifest: Manifest
    worst: tuple[WorstFrame, ...]
    table: CalibrationRanges
    steps: dict[str, float]
    peak_rss_mb: float
    remarks: tuple[str, ...] = ()
