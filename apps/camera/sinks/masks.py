"""`masks/%06d.png`: class maps as PNG files, one channel of class indices, numbered as the frames are."""

from __future__ import annotations

import re
from pathlib import Path

from edgeseg.apps.camera.results import CameraResult, StreamFacts
from edgeseg.apps.camera.sinks.options import SinkOptions
from edgeseg.apps.camera.sinks.worker import WorkerSink
from edgeseg.apps.writers import output_errors, write_image
from edgeseg.errors import OutputError, UsageError

__all__ = ["MaskFiles"]


class MaskFiles(WorkerSink):
    """Writes each class map to a file of its frame's number."""

    def __init__(self, address: str, options: SinkOptions) -> None:
        super().__init__(address, lossless=options.lossless)
        self._pattern = address.removeprefix("masks://").removeprefix("file://")
        if len(re.findall(r"%0?\d*d", self._pattern)) != 1 or self._pattern.count("%") != 1:
            raise UsageError(
                f"class maps are written under names with the frame's number, such as masks/%06d.png, but got {address}"
            )
        if not self._pattern.lower().endswith(".png"):
            raise UsageError(f"class maps are written as PNG, since other formats change their values: {address}")
        self._force = options.force

    def open(self, stream: StreamFacts) -> None:
        """Make the folder.

        Raises:
            OutputError: when that cannot be done, or class maps are there and may not be replaced.
        """
        folder = Path(self._pattern).parent
        with output_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            name = re.compile(re.sub(r"%0?\d*d", r"\\d+", re.escape(Path(self._pattern).name).replace("\\%", "%")))
            taken = not self._force and any(name.fullmatch(path.name) for path in folder.iterdir())
        if taken:
            raise OutputError(f"{folder} holds class maps already; choose another folder, or replace them with --force")

    def work(self, result: CameraResult) -> None:
        """Write one."""
        write_image(Path(self._pattern % result.frame.number), result.segmentation.class_map)
