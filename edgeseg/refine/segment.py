"""Frames through a network and then a refinement."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from edgeseg import streaming
from edgeseg.errors import UsageError, unknown_name
from edgeseg.refine.dense_crf import PRESETS, DenseCRF
from edgeseg.refine.grid_crf import GridCRF
from edgeseg.refine.learned_crf import LearnedCRF
from edgeseg.segmentation import Segmentation, Timing
from edgeseg.segmenter import NamedFrame, Segmenter

__all__ = ["REFINEMENTS", "Refinement", "refinement", "segment_refined", "stream_refined"]

Refinement = Callable[[NDArray[np.float32], NDArray[np.uint8]], NDArray[np.float32]]
"""Takes (C, H, W) float32 logits and the (H, W, 3) uint8 RGB frame, and gives (C, H, W) float32 probabilities."""

REFINEMENTS: dict[str, type[DenseCRF] | type[GridCRF]] = {"densecrf": DenseCRF, "gridcrf": GridCRF}
"""Refinements by the name of `--refine`."""


def refinement(name: str, preset: str | None = None) -> Refinement:
    """A refinement by name.

    Args:
        name: one of `REFINEMENTS`.
        preset: one of `dense_crf.PRESETS`, or the .json file of a `LearnedCRF`, for densecrf only; None for DeepLab's.

    Raises:
        UsageError: for an unknown name, or a preset of a refinement that has none.
        InputError: for a file that does not hold the parameters of a CRF.
    """
    if name not in REFINEMENTS:
        raise UsageError(unknown_name("refinement", name, REFINEMENTS))
    if name == "densecrf":
        if preset is not None and preset.lower().endswith(".json"):
            return LearnedCRF.read(preset)
        if preset is not None and preset not in PRESETS:
            raise UsageError(unknown_name("preset of densecrf", preset, PRESETS))
        return PRESETS[preset or "deeplab"]
    if preset is not None:
        raise UsageError(f"{name} has no presets; leave the preset {preset!r} out")
    return REFINEMENTS[name]()


def segment_refined(
    segmenter: Segmenter,
    refine: Refinement,
    frame: NDArray[np.uint8],
    number: int = 0,
    name: str = "",
    decode: float = 0.0,
) -> Segmentation:
    """Segment one frame and refine the result at the frame's size.

    Args:
        segmenter: of a bundle whose output is logits.
        refine: the refinement.
        frame: (H, W, 3) uint8 RGB of any size.
        number, name, decode: of the frame, for the result.

    Returns:
        As a call of the segmenter; in its timing `infer` is all up to the logits of the frame's size, and `postprocess`
        the refinement.

    Raises:
        ShapeError, EngineError: as a call of the segmenter.
        UsageError: for a bundle that gives class maps.
    """
    started = time.perf_counter()
    logits = segmenter.logits(frame)
    inferred = time.perf_counter()
    class_map = refine(logits, frame).argmax(axis=0).astype(np.uint8)
    finished = time.perf_counter()
    seconds = (0.0, inferred - started, finished - inferred, finished - started)
    return Segmentation(class_map, segmenter.labels, Timing(decode, *(1e3 * s for s in seconds)), number, name)


def stream_refined(segmenter: Segmenter, refine: Refinement, frames: Iterable[NamedFrame]) -> Iterator[Segmentation]:
    """Segment and refine frames in order; one is refined while the next goes through the network.

    Raises:
        As `segment_refined`, in the frame's place.
    """

    def work(frame: NamedFrame, number: int, decode: float) -> Segmentation:
        return segment_refined(segmenter, refine, frame.image, number, frame.name, decode)

    return streaming.ordered(frames, work, 2)
