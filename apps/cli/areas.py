"""The options of commands that measure areas and volumes, and the file of areas that they write."""

from __future__ import annotations

import argparse
import csv
import io
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeseg.apps.cli.results import table
from edgeseg.errors import UsageError

if TYPE_CHECKING:
    from edgeseg.segmentation import Segmentation

__all__ = ["AreaTable", "add_area_arguments", "asked_areas", "volume_text"]

_LARGEST = 1e9


def add_area_arguments(parser: argparse.ArgumentParser) -> None:
    """Add --areas, --spacing and --slice-distance."""
    group = parser.add_argument_group("areas and volumes")
    group.add_argument(
        "--areas", type=Path, metavar="FILE", help="write the area of every class in every frame; ends in .csv or .json"
    )
    group.add_argument(
        "--spacing",
        type=_distance,
        nargs=2,
        metavar=("DY", "DX"),
        help="distance of two pixels, down and across, such as mm: areas in its square; default: shares of the frame",
    )
    group.add_argument(
        "--slice-distance",
        type=_distance,
        metavar="D",
        help="distance of two frames of SOURCE, parallel slices of one body, in the same unit: volumes, too",
    )


@dataclass
class AreaTable:
    """The areas of frames, collected one by one.

    Attributes:
        file: where `content` is to be written; None for nowhere.
        spacing: see `Segmentation.areas`.
        slice_distance: from one frame taken to the next; None where they are no slices.
        rows: name and areas of every frame so far.
    """

    file: Path | None
    spacing: tuple[float, float] | None
    slice_distance: float | None
    rows: list[tuple[str, dict[str, float]]] = field(default_factory=list)

    def add(self, name: str, result: Segmentation) -> None:
        """Take the areas of one frame."""
        self.rows.append((name, result.areas(self.spacing)))

    def volumes(self) -> dict[str, float] | None:
        """Volume by class name; None where the frames are no slices."""
        if self.slice_distance is None:
            return None
        from edgeseg.volume import cavalieri_volumes

        return cavalieri_volumes((areas for _, areas in self.rows), self.slice_distance)

    def content(self) -> bytes:
        """The file: as CSV a line a frame, as JSON the volumes too."""
        if self.file is not None and self.file.suffix.lower() == ".json":
            frames = [{"name": name, "areas": areas} for name, areas in self.rows]
            return json.dumps({**self.summary(), "frames": frames}, indent=1).encode()
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        classes = list(self.rows[0][1]) if self.rows else []
        writer.writerow(["frame", *classes])
        writer.writerows([name, *(areas[c] for c in classes)] for name, areas in self.rows)
        return text.getvalue().encode()

    def summary(self) -> dict[str, Any]:
        """What --json prints of it."""
        return {"spacing": self.spacing, "slice_distance": self.slice_distance, "volumes": self.volumes()}


def asked_areas(options: argparse.Namespace) -> AreaTable | None:
    """The table that the options ask for; None for none.

    Raises:
        UsageError: for options that do not go together.
    """
    file, spacing, distance = options.areas, options.spacing, options.slice_distance
    if file is not None and file.suffix.lower() not in (".csv", ".json"):
        raise UsageError(f"--areas must end in .csv or .json, but is {file}")
    if distance is not None and spacing is None:
        raise UsageError("a volume needs the size of a pixel: give --spacing DY DX beside --slice-distance")
    if distance is not None and options.skip_broken:
        raise UsageError("a volume needs every slice: leave --skip-broken out with --slice-distance")
    if spacing is not None and file is None and distance is None:
        raise UsageError("--spacing is for areas and volumes: give --areas FILE or --slice-distance D beside it")
    if file is None and distance is None:
        return None
    # Of a source of which every Nth slice is taken, each stands for N.
    thickness = None if distance is None else distance * options.every
    return AreaTable(file, None if spacing is None else (spacing[0], spacing[1]), thickness)


def volume_text(measured: AreaTable) -> str:
    """The volumes for a person; empty where there are none."""
    volumes = measured.volumes()
    if volumes is None:
        return ""
    rows = [("class", "volume"), *((name, f"{volume:.6g}") for name, volume in volumes.items())]
    count, distance = len(measured.rows), measured.slice_distance
    return f"{table(rows, right=(1,))}\nby Cavalieri: the sum of the areas of {count} slices x {distance:g}\n\n"


def _distance(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value <= _LARGEST:
        raise argparse.ArgumentTypeError(f"expected a distance above 0, such as 0.5, but got {text!r}")
    return value
