"""edgeseg: a trained segmentation network as an INT8 engine whose accuracy is proven, in real time on a camera.

    import edgeseg

    with edgeseg.load("model.edgeseg") as segmenter:
        result = segmenter(frame)          # (H, W, 3) uint8 RGB
        result.class_map                   # (H, W) uint8

Importing this package loads numpy and the standard library only.
"""

from __future__ import annotations

import logging

from edgeseg._version import __version__
from edgeseg.bundle import Bundle
from edgeseg.errors import EdgesegError
from edgeseg.labels import ClassMapping, LabelSet
from edgeseg.loading import load
from edgeseg.manifest import Manifest
from edgeseg.segmentation import Segmentation, Timing
from edgeseg.segmenter import Segmenter

__all__ = [
    "Bundle",
    "ClassMapping",
    "EdgesegError",
    "LabelSet",
    "Manifest",
    "Segmentation",
    "Segmenter",
    "Timing",
    "__version__",
    "load",
]


logging.getLogger(__name__).addHandler(logging.NullHandler())
