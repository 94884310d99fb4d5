"""The options of commands that segment large images tile by tile, and the way of a source through them."""

from __future__ import annotations

import argparse
import contextlib
import logging
import time
from collections.abc import Generator
from functools import partial
from typing import TYPE_CHECKING

from edgeseg.apps.cli.options import frame_size
from edgeseg.errors import UsageError

if TYPE_CHECKING:
    from edgeseg.calibration.frames import Frame, FrameSource
    from edgeseg.calibration.progress import Progress
    from edgeseg.refine import Refinement
    from edgeseg.segmentation import Segmentation
    from edgeseg.segmenter import Segmenter
    from edgeseg.tiles import Tiling

__all__ = ["add_tile_arguments", "asked_tiling", "check_tile_arguments", "tiled_results"]

logger = logging.getLogger(__name__)

_NETWORK = "network"
_DISTORTION = 1.02
"""A tile's ratio of height to width may differ from the network's by this factor without a word."""


def add_tile_arguments(parser: argparse.ArgumentParser) -> None:
    """Add --tile and --overlap."""
    group = parser.add_argument_group("large images, tile by tile")
    group.add_argument(
        "--tile",
        type=_tile,
        metavar="N|HxW",
        help="size of a tile in pixels of the image, which is resized to the network's input like any frame; network: "
        "that input's own size, pixel by pixel. Default: the whole frame at once",
    )
    group.add_argument(
        "--overlap",
        type=_overlap,
        metavar="N",
        help="pixels that a tile reaches into its neighbours' part (default: an eighth of the tile)",
    )


def check_tile_arguments(options: argparse.Namespace) -> None:
    """Refuse what no network could take, before one is loaded.

    Raises:
        UsageError: for an overlap without tiles, or numbers that do not go together.
    """
    if options.tile is None:
        if options.overlap is not None:
            raise UsageError("--overlap is for tiles: give --tile beside it, such as --tile network")
    elif options.tile != _NETWORK:
        from edgeseg.tiles import Tiling

        height, width = options.tile
        Tiling(height, width, options.overlap or 0)


def asked_tiling(options: argparse.Namespace, segmenter: Segmenter) -> Tiling | None:
    """The tiling that the options ask for; None for whole frames.

    Raises:
        UsageError: for an overlap that does not fit the network's input.
    """
    if options.tile is None:
        return None
    from edgeseg.tiles import tiling_for

    tiling = tiling_for(segmenter, None if options.tile == _NETWORK else options.tile, options.overlap)
    frame = segmenter.bundle.manifest.input
    stretch = (frame.height / tiling.height) / (frame.width / tiling.width)
    if max(stretch, 1 / stretch) > _DISTORTION:
        logger.warning(
            "tiles of %dx%d are distorted to the network's input of %dx%d (height x width); --tile network shows it "
            "every pixel as it is",
            tiling.height, tiling.width, frame.height, frame.width,
        )  # fmt: skip
    return tiling


def tiled_results(
    segmenter: Segmenter, source: FrameSource, tiling: Tiling, refine: Refinement | None, progress: Progress
) -> Generator[tuple[Frame, Segmentation, int], None, None]:
    """The frames with their results and numbers of tiles, in order, one frame in memory at a time.

    Progress counts the tiles of a single image, and frames where there are several.
    """
    from edgeseg.refine import stream_refined
    from edgeseg.tiles import segment_tiled

    stream = None if refine is None else partial(stream_refined, segmenter, refine)
    single = len(source) == 1
    frames, number = iter(source), 0
    with contextlib.ExitStack() as stack:
        frame_done = None if single else stack.enter_context(progress.step("segment", len(source)))
        while True:
            started = time.perf_counter()
            frame = next(frames, None)
            if frame is None:
                return
            decode = 1e3 * (time.perf_counter() - started)
            tiles = tiling.count(frame.image.shape[0], frame.image.shape[1])
            with progress.step("segment (tiles)", tiles) if single else contextlib.nullcontext() as tile_done:
                result = segment_tiled(
                    segmenter,
                    frame.image,
                    tile=(tiling.height, tiling.width),
                    overlap=tiling.overlap,
                    stream=stream,
                    step=tile_done,
                    number=number,
                    name=frame.name,
                    decode=decode,
                )
            yield frame, result, tiles
            # Otherwise this image would still be there while the next is read.
            del frame, result
            number += 1
            if frame_done is not None:
                frame_done(1)


def _tile(text: str) -> tuple[int, int] | str:
    if text == _NETWORK:
        return text
    with contextlib.suppress(argparse.ArgumentTypeError):
        return frame_size(text if "x" in text.lower() else f"{text}x{text}")
    raise argparse.ArgumentTypeError(
        f"expected pixels such as 512, HEIGHTxWIDTH such as 360x480, or network, but got {text!r}"
    )


def _overlap(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and int(text) < 2**31):
        raise argparse.ArgumentTypeError(f"expected a whole number of pixels from 0, but got {text!r}")
    return int(text)
