"""The steps from file to canonical float graph, on the real networks beside the checkout."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from support.graphs import run_graph

from edgeseg.converters.embed import append_class_map, cut_upsampling, embed_preprocessing
from edgeseg.converters.fold import fold_batch_norms, remaining_batch_norms
from edgeseg.converters.graph import GraphIndex
from edgeseg.converters.load import LoadedNetwork, load_network
from edgeseg.converters.rewrite import rewrite_for_tensorrt
from edgeseg.converters.simplify import simplify_graph

IMAGENET = {
    "color_order": "RGB",
    "mean": [255 * v for v in (0.485, 0.456, 0.406)],
    "std": [255 * v for v in (0.229, 0.224, 0.225)],
}
CAMVID = {
    "color_order": "BGR",
    "mean": [110.33102417, 108.40886688, 105.03319550],
    "std": [255 * v for v in (72.12570953, 72.69074249, 69.90435028)],
}
NETWORKS = {
    # preprocessing, channels, BatchNormalization left by folding, rule, size of the low-resolution logits
    "espnet_camvid_360x480": (CAMVID, 12, 16, None, (360, 480)),
    "espnetv2_s0.5_cityscapes_352x480": (IMAGENET, 20, 20, "align_corners", (176, 240)),
    "espnetv2_s2.0_cityscapes_512x1024": (IMAGENET, 20, 20, "align_corners", (256, 512)),
}


@pytest.fixture(scope="module", params=NETWORKS)
def network(request: pytest.FixtureRequest, shared: Path) -> LoadedNetwork:
    return load_network(shared / "models" / f"{request.param}.onnx")


@pytest.fixture(scope="module")
def frame(network: LoadedNetwork, shared: Path) -> NDArray[np.uint8]:
    """A real frame at the network's size, (H, W, 3) uint8 RGB."""
    import cv2

    path = sorted((shared / "data").rglob("*.png"))[0]
    return cv2.resize(cv2.imread(str(path)), (network.width, network.height))[:, :, ::-1]


@pytest.fixture(scope="module")
def logits(network: LoadedNetwork, frame: NDArray[np.uint8]) -> NDArray[np.float32]:
    """What the network as given makes of the frame, prepared in NumPy."""
    options = NETWORKS[network.name][0]
    colors = frame[:, :, ::-1] if options["color_order"] == "BGR" else frame
    normal = (colors.astype(np.float64) - options["mean"]) / options["std"]
    return run_graph(network.model, threads=2, image=normal.transpose(2, 0, 1)[None].astype(np.float32))[0]


@pytest.fixture(scope="module")
def canonical(network: LoadedNetwork) -> tuple[onnx.ModelProto, str | None]:
    model = rewrite_for_tensorrt(fold_batch_norms(simplify_graph(network.model)))
    return cut_upsampling(embed_preprocessing(model, **NETWORKS[network.name][0]))


def test_load(network):
    assert network.channels == NETWORKS[network.name][1]
    assert f"{network.height}x{network.width}" in network.name


def test_fold_keeps_the_logits(network):
    result = fold_batch_norms(simplify_graph(network.model))
    assert len(remaining_batch_norms(result)) == NETWORKS[network.name][2]
    image = np.random.default_rng(0).normal(0, 1, (1, 3, network.height, network.width)).astype(np.float32)
    expected = run_graph(network.model, threads=2, image=image)[0]
    got = run_graph(result, threads=2, image=image)[0]
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5 * max(1, np.abs(expected).max()))
    assert np.mean(got.argmax(axis=1) != expected.argmax(axis=1)) < 1e-4


def test_canonical_graph_gives_the_same_classes(network, canonical, frame, logits):
    model, rule = canonical
    onnx.checker.check_model(model, full_check=True)
    assert (rule, GraphIndex(model).shape("logits")[2:]) == NETWORKS[network.name][3:]
    complete = append_class_map(model, network.height, network.width, rule)
    class_map = run_graph(complete, threads=2, frame=frame[None])[0]
    assert np.mean(class_map != logits.argmax(axis=1)) < 1e-4


def test_every_window_is_small_enough_for_tensorrt(canonical):
    windows = [a.ints for n in canonical[0].graph.node for a in n.attribute if a.name == "kernel_shape"]
    assert max(max(w) for w in windows) <= 7


def test_full_window_pools_become_global(network, canonical):
    counts = Counter(n.op_type for n in canonical[0].graph.node)
    assert counts["GlobalAveragePool"] == (3 if network.name.startswith("espnetv2") else 0)


def test_global_pooling_is_nearer_to_the_exact_mean(network):
    """ONNX Runtime sums a large AveragePool window in float32, so the rewrite is held to the mean in float64."""
    values = np.random.default_rng(0).normal(3, 1, (1, 4, 256, 512)).astype(np.float32)
    exact = values.astype(np.float64).mean(axis=(2, 3), keepdims=True)
    results = []
    for op, options in (("GlobalAveragePool", {}), ("AveragePool", {"kernel_shape": [256, 512]})):
        info = [onnx.helper.make_tensor_value_info(n, 1, s) for n, s in (("x", values.shape), ("y", exact.shape))]
        graph = onnx.helper.make_graph([onnx.helper.make_node(op, ["x"], ["y"], **options)], "pool", info[:1], info[1:])
        model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
        results.append(np.abs(run_graph(model, x=values)[0] - exact).max())
    assert results[0] <= results[1]


@pytest.mark.parametrize("complete", [False, True])
def test_tensorrt_parses_and_builds(network, canonical, complete, shared, tmp_path):
    pytest.importorskip("tensorrt_rtx", reason="pip install 'edgeseg[rtx]' for the check by TensorRT's own parser")
    model, rule = canonical
    if complete:
        model = append_class_map(model, network.height, network.width, rule)
    path = tmp_path / "canonical.onnx"
    onnx.save(model, path)
    command = [sys.executable, str(shared / "tools" / "trt_oracle.py"), str(path)]
    answer = json.loads(subprocess.run(command, capture_output=True, text=True, check=False).stdout)
    assert (answer["parsed"], answer["built"], answer["errors"]) == (True, True, [])
