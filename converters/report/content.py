"""What a report is made of: the manifest, the worst frames, the measured ranges and how the conversion went."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeseg.calibration.sensitivity import Sensitivity
from edgeseg.calibration.table import CalibrationTable
from edgeseg.errors import ShapeError
from edgeseg.manifest import Manifest

__all__ = ["ReportContent", "WorstFrame"]


@dataclass(frozen=True)
class WorstFrame:
    """A frame on which the converted network differs most from the float network.

    Attributes:
        name: name of the frame.
        agreement: share of the pixels with the same class in both maps, 0..100.
        frame: (H, W, 3) uint8 RGB.
        float_map, int8_map: (H, W) uint8 class indices of the float and of the INT8 (or FP16) network.
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
        for kind, class_map in (("float", self.float_map), ("converted", self.int8_map)):
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
        table: the calibration table, whose most clipped tensors are drawn; None in FP16.
        steps: seconds by step of the conversion, in their order.
        peak_rss_mb: largest resident memory of the conversion, in MB.
        remarks: sentences that the reader must see, such as ranges reused from an earlier conversion.
        sensitivity: what INT8 does in each layer, where the conversion measured it.
    """

    manifest: Manifest
    worst: tuple[WorstFrame, ...]
    table: CalibrationTable | None
    steps: dict[str, float]
    peak_rss_mb: float
    remarks: tuple[str, ...] = ()
    sensitivity: Sensitivity | None = None
