"""ESPNet: published logits, sizes, the variant, and its way to ONNX."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from support.costs import count_macs, count_parameters, meta_network
from support.published import ESPNET, run_onnx
from torch import nn

from edgeseg.converters.export import export
from edgeseg.errors import ShapeError
from edgeseg.models import create


def test_published_weights_give_the_published_logits(shared: Path) -> None:
    ours, published = ESPNET.logits(shared)
    assert ours.shape == (1, 12, 360, 480)
    np.testing.assert_allclose(ours, published, rtol=0, atol=1e-3)


def test_encoder_costs_what_is_published_for_it() -> None:
    """ESPNet-C at 20 classes, whose bilinear upsampling has no weights."""
    network = meta_network("espnet", classes=20)
    decoder = ("score2", "up3", "combine", "up2", "last", "prediction")
    decoded = sum(count_parameters(getattr(network, name)) for name in decoder)
    assert count_parameters(network) - decoded - count_parameters(network.score3.norm) == 349_449
    assert round(count_macs(network, (512, 1024)) / 1e9, 4) == 4.7802


@pytest.mark.parametrize("classes", [1, 2, 4, 5, 19])
def test_any_number_of_classes(classes: int) -> None:
    network = create("espnet", classes=classes, q=3).eval()
    with torch.inference_mode():
        image = torch.randn(2, 3, 32, 48)
        features, taps = network.encode(image)
        assert features.shape == (2, max(classes, 5), 16, 24)
        assert taps == ()
        assert network(image).shape == (2, classes, 32, 48)


def test_training_gives_every_weight_a_gradient() -> None:
    network = create("espnet", classes=6, q=3)
    (logits,) = network(torch.randn(2, 3, 32, 32))
    logits.square().mean().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


@pytest.mark.parametrize(("size", "cure"), [((360, 482), "360x480"), ((3, 16), "8x16")])
def test_refuses_sizes_that_do_not_halve_three_times(size: tuple[int, int], cure: str) -> None:
    with pytest.raises(ShapeError) as caught:
        meta_network("espnet")(torch.zeros(1, 3, *size, device="meta"))
    assert f"multiples of 8, but got {size[0]}x{size[1]}; resize them to {cure}" in str(caught.value)


@pytest.mark.parametrize("deploy", [False, True])
def test_exported_graph_gives_the_same_logits(tmp_path: Path, deploy: bool) -> None:
    torch.manual_seed(0)
    network = create("espnet", classes=6, q=3, deploy=deploy).eval()
    path = tmp_path / "model.onnx"
    export(network, (24, 40), path)
    model = onnx.load(path)
    assert model.opset_import[0].version == 17
    activation, other = ("Relu", "PRelu") if deploy else ("PRelu", "Relu")
    kinds = {node.op_type for node in model.graph.node}
    assert activation in kinds
    assert other not in kinds
    image = torch.randn(1, 3, 24, 40)
    with torch.inference_mode():
        expected = network(image).numpy()
    np.testing.assert_allclose(run_onnx(path, image.numpy()), expected, rtol=0, atol=1e-4 * np.abs(expected).max())


def test_variant_differs_from_the_published_network_by_its_slopes_alone() -> None:
    published, variant = meta_network("espnet"), meta_network("espnet", deploy=True)
    slopes = sum(count_parameters(m) for m in published.modules() if isinstance(m, nn.PReLU))
    assert count_parameters(published) - count_parameters(variant) == slopes > 0
    assert count_macs(published, (64, 64)) == count_macs(variant, (64, 64))
