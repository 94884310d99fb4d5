"""Optional steps around a network: what refines its class scores, and what segments a frame without one."""

from __future__ import annotations

from edgeseg.refine.classical import Quadtree, otsu
from edgeseg.refine.dense_crf import PRESETS, DenseCRF
from edgeseg.refine.grid_crf import GridCRF
from edgeseg.refine.learned_crf import LearnedCRF
from edgeseg.refine.segment import REFINEMENTS, Refinement, refinement, segment_refined, stream_refined

__all__ = [
    "PRESETS",
    "REFINEMENTS",
    "DenseCRF",
    "GridCRF",
    "LearnedCRF",
    "Quadtree",
    "Refinement",
    "otsu",
    "refinement",
    "segment_refined",
    "stream_refined",
]
