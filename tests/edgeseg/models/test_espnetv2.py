"""ESPNetv2: published logits and costs, sizes, pooling that does not divide, the variant, and its way to ONNX."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from support.costs import count_macs, count_parameters, meta_network
from support.published import ESPNETV2, run_onnx
from torch import nn
from torch.nn import functional

from edgeseg.converters.export import export
from edgeseg.models import create
from edgeseg.models.espnetv2 import EESP
from edgeseg.models.pooling import average_pool, averaging_matrix


def test_published_weights_give_the_published_logits(shared: Path) -> None:
    ours, published = ESPNETV2.logits(shared)
    assert ours.shape == (1, 20, 512, 1024)
    np.testing.assert_allclose(ours, published, rtol=0, atol=1e-3)


@pytest.mark.parametrize(
    ("width", "half", "voc"),
    [
        (0.5, 0.1491, 0.0747),
        (1.0, 0.2713, 0.1358),
        (1.25, 0.3523, 0.1763),
        (1.5, 0.4283, 0.2143),
        (2.0, 0.6745, 0.3374),
    ],
)
def test_costs_at_the_smaller_published_sizes(width: float, half: float, voc: float) -> None:
    cityscapes = meta_network("espnetv2", width=width, classes=20)
    assert round(count_macs(cityscapes, (256, 512)) / 1e9, 4) == half
    assert round(count_macs(meta_network("espnetv2", width=width, classes=21), (256, 256)) / 1e9, 4) == voc


def test_strided_units_keep_the_activation_that_they_do_not_use() -> None:
    network = meta_network("espnetv2", width=2.0)
    strided = [module for module in network.modules() if isinstance(module, EESP) and module.stride == 2]
    assert [count_parameters(unit.act) for unit in strided] == [96, 128, 256]


@pytest.mark.parametrize("classes", [1, 3, 32, 40])
@pytest.mark.parametrize("size", [(64, 96), (37, 51)])
def test_any_number_of_classes_and_any_size(classes: int, size: tuple[int, int]) -> None:
    network = create("espnetv2", width=0.5, classes=classes).eval()
    with torch.inference_mode():
        image = torch.randn(1, 3, *size)
        features, taps = network.encode(image)
        assert features.shape == (1, max(1, min(classes // 2, 16)), -(-size[0] // 2), -(-size[1] // 2))
        assert taps == ()
        assert network(image).shape == (1, classes, *size)


def test_training_gives_every_used_weight_a_gradient() -> None:
    network = create("espnetv2", width=0.5, classes=6)
    (logits,) = network(torch.randn(2, 3, 64, 64))
    logits.square().mean().backward()
    unused = {name for name, parameter in network.named_parameters() if parameter.grad is None}
    assert unused == {f"down{level}.eesp.act.weight" for level in (2, 3, 4)}


@pytest.mark.parametrize(("source", "target"), [(48, 32), (33, 22), (32, 5), (22, 5), (3, 5), (7, 7), (45, 30), (8, 1)])
def test_averaging_matrix_is_adaptive_pooling(source: int, target: int, monkeypatch: pytest.MonkeyPatch) -> None:
    maps = torch.randn(2, 3, source, 18)
    expected = functional.adaptive_avg_pool2d(maps, (target, 12))
    by_matrix = averaging_matrix(source, target) @ maps @ averaging_matrix(18, 12).t()
    torch.testing.assert_close(by_matrix, expected)
    torch.testing.assert_close(average_pool(maps, target, 12), expected)
    monkeypatch.setattr(torch.compiler, "is_exporting", lambda: True)
    torch.testing.assert_close(average_pool(maps, target, 12), expected)


@pytest.mark.parametrize("deploy", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_exported_graph_gives_the_same_logits(tmp_path: Path, deploy: bool) -> None:
    """At a size where most poolings do not divide."""
    torch.manual_seed(0)
    network = create("espnetv2", width=0.5, classes=6, deploy=deploy).eval()
    path = tmp_path / "model.onnx"
    export(network, (70, 90), path)
    model = onnx.load(path)
    assert model.opset_import[0].version == 17
    kinds = [node.op_type for node in model.graph.node]
    assert "Gather" not in kinds
    assert kinds.count("MatMul") >= 8
    assert kinds.count("PRelu") == (0 if deploy else 64)
    placements = {a.s for node in model.graph.node for a in node.attribute if a.name.startswith("coordinate_trans")}
    assert (b"align_corners" in placements) is not deploy
    assert len(placements) == 1
    image = torch.randn(1, 3, 70, 90)
    with torch.inference_mode():
        expected = network(image).numpy()
    np.testing.assert_allclose(run_onnx(path, image.numpy()), expected, rtol=0, atol=1e-4 * np.abs(expected).max())


def test_variant_has_no_slopes() -> None:
    published, variant = meta_network("espnetv2"), meta_network("espnetv2", deploy=True)
    slopes = sum(count_parameters(m) for m in published.modules() if isinstance(m, nn.PReLU))
    assert count_parameters(published) - count_parameters(variant) == slopes > 0
    assert count_macs(published, (64, 64)) == count_macs(variant, (64, 64))
    assert (published.align_corners, variant.align_corners) == (True, False)
