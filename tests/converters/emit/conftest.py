"""A small bundle whose normalisation differs by channel, and frames of its size."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from support.bundles import toy_bundle, toy_manifest
from support.emitting import Emit
from support.graphs import random_frame, toy_network

from edgeseg.bundle import Bundle
from edgeseg.calibration.frames import FrameSource, frames_from
from edgeseg.calibration.measure import measure_ranges
from edgeseg.calibration.progress import SilentProgress
from edgeseg.calibration.ranges import minmax
from edgeseg.converters.embed import cut_upsampling, embed_preprocessing
from edgeseg.converters.emit import EmitOptions, Emitted, emit
from edgeseg.converters.fold import fold_batch_norms
from edgeseg.converters.place import place_qdq, plan_placement


@pytest.fixture(scope="session")
def canonical() -> onnx.ModelProto:
    """uint8 frame (1, 64, 64, 3) in, logits (1, 3, 16, 16) out; BGR, another mean and deviation in each channel."""
    cut, _ = cut_upsampling(fold_batch_norms(toy_network()))
    network = embed_preprocessing(cut, color_order="BGR", mean=(110.3, 98.4, 125.0), std=(58.4, 57.1, 64.2))
    placement = plan_placement(network)
    histograms = measure_ranges(network, placement.tensors, [{"frame": random_frame()[None]}])
    return place_qdq(network, placement, {tensor: minmax(h) for tensor, h in histograms.items()})


@pytest.fixture
def bundle(canonical: onnx.ModelProto, tmp_path: Path) -> Bundle:
    manifest = toy_manifest(64, 64, classes=3, logits=(16, 16), coordinates="half_pixel")
    return toy_bundle(tmp_path / "toy.edgeseg", manifest, canonical.SerializeToString())


@pytest.fixture
def frames(tmp_path: Path) -> FrameSource:
    folder = tmp_path / "frames"
    folder.mkdir()
    random = np.random.default_rng(5)
    for index in range(2):
        cv2.imwrite(str(folder / f"{index}.png"), random.integers(0, 256, (64, 64, 3), np.uint8))
    return frames_from(folder)


@pytest.fixture
def emitted(bundle: Bundle, tmp_path: Path) -> Emit:
    """Emits the bundle into the folder `out`."""

    def run(program: str, *, frames: FrameSource | None = None, force: bool = False, **options: object) -> Emitted:
        place = tmp_path / "out"
        wanted = EmitOptions(**options)  # type: ignore[arg-type]
        return emit(bundle, program, place, wanted, frames=frames, step=SilentProgress().step, force=force)

    return run
