"""A small network as the canonical graph of a bundle."""

from __future__ import annotations

import onnx
import pytest
from support.graphs import random_frame, toy_network

from edgeseg.calibration.measure import measure_ranges
from edgeseg.calibration.ranges import minmax
from edgeseg.converters.embed import cut_upsampling, embed_preprocessing
from edgeseg.converters.fold import fold_batch_norms
from edgeseg.converters.place import place_qdq, plan_placement


@pytest.fixture(scope="session")
def canonical() -> onnx.ModelProto:
    """uint8 frame (1, 64, 64, 3) in, Q/DQ, logits (1, 3, 16, 16) out; two BatchNormalizations could not be folded."""
    cut, _ = cut_upsampling(fold_batch_norms(toy_network()))
    network = embed_preprocessing(cut, color_order="BGR", mean=(110.3, 108.4, 105.0), std=(18392.1, 18536.1, 17825.6))
    placement = plan_placement(network)
    histograms = measure_ranges(network, placement.tensors, [{"frame": random_frame()[None]}])
    return place_qdq(network, placement, {tensor: minmax(h) for tensor, h in histograms.items()})
