"""A bundle that also holds its network for smaller frames, which `edgeseg camera --max-latency` changes to."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path

from edgeseg.bundle import MANIFEST, SMALLER, Bundle, check_place, write_bundle
from edgeseg.calibration.progress import Progress
from edgeseg.converters.convert import convert, place_beside
from edgeseg.converters.options import ConvertOptions, ConvertResult
from edgeseg.errors import UsageError

__all__ = ["convert_with_smaller"]


def convert_with_smaller(
    model: str | Path,
    frames: str | None,
    options: ConvertOptions,
    size: tuple[int, int],
    progress: Progress | None = None,
) -> ConvertResult:
    """Convert a network at two sizes, each calibrated and scored by itself, into one bundle.

    Args:
        model: a float ONNX network whose input size is dynamic.
        frames: see `convert`.
        options: of both; `options.size` is that of the larger.
        size: (height, width) of the smaller.
        progress: watches the steps of both.

    Returns:
        The result of the larger, whose bundle holds the other as a bundle in the folder SMALLER.

    Raises:
        UsageError: for a size that is not smaller, or options without a size.
        EdgesegError: as `convert`; then no bundle is written and an old one stays as it was.
    """
    if options.size is None:
        raise UsageError("a bundle of two sizes needs both; give the larger with --size HxW")
    if size[0] * size[1] >= options.size[0] * options.size[1]:
        given = [f"{height}x{width}" for height, width in (size, options.size)]
        raise UsageError(f"the network for smaller frames needs a smaller size, but {given[0]} is not below {given[1]}")
    folder = options.output or place_beside(Path(model))
    check_place(folder, force=options.force)
    with tempfile.TemporaryDirectory(prefix="edgeseg-convert-") as place:
        # The smaller first: a network of one size is refused at once, and memory is at its largest in the end.
        smaller, larger = (
            convert(model, frames, dataclasses.replace(options, size=each, output=Path(place) / name), progress)
            for each, name in ((size, SMALLER), (options.size, "larger"))
        )
        files = _files(larger.bundle, *larger.bundle.manifest.files)
        held = _files(smaller.bundle, MANIFEST, *smaller.bundle.manifest.files)
        files |= {f"{SMALLER}/{name}": content for name, content in held.items()}
        bundle = write_bundle(folder, larger.bundle.manifest, files, force=options.force)
    seconds = larger.seconds | {f"{step} ({SMALLER})": value for step, value in smaller.seconds.items()}
    remarks = (*larger.remarks, *(f"{SMALLER}: {remark}" for remark in smaller.remarks if remark not in larger.remarks))
    return dataclasses.replace(larger, bundle=bundle, seconds=seconds, remarks=remarks)


def _files(bundle: Bundle, *names: str) -> dict[str, bytes]:
    return {name: (bundle.path / name).read_bytes() for name in names}
