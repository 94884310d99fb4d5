"""FCN: sizes, the bilinear start, where its maps line up, the variant without the wide padding, its way to ONNX."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from support.costs import count_macs, count_parameters, meta_network
from support.structure import check_export, check_sizes, check_training
from torch import nn
from torch.nn import functional

from edgeseg.errors import UsageError
from edgeseg.models import create
from edgeseg.models.fcn import FCN, bilinear_kernel

SMALL = {"width": 0.125}
STRIDES = [8, 16, 32]


@pytest.mark.parametrize("deploy", [False, True])
@pytest.mark.parametrize("stride", STRIDES)
def test_any_size(stride: int, deploy: bool) -> None:
    check_sizes("fcn", stride=stride, deploy=deploy, **SMALL)


@pytest.mark.parametrize("stride", STRIDES)
@pytest.mark.parametrize("size", [(1, 1), (500, 375), (513, 513), (640, 640), (512, 1024)])
def test_published_size_is_kept(size: tuple[int, int], stride: int) -> None:
    network = meta_network("fcn", classes=21, stride=stride)
    assert network(torch.zeros(1, 3, *size, device="meta")).shape == (1, 21, *size)


@pytest.mark.parametrize(("stride", "deploy"), [(8, False), (16, True), (32, False)])
def test_training_reaches_every_weight(stride: int, deploy: bool) -> None:
    check_training("fcn", heads=0, stride=stride, deploy=deploy, **SMALL)


@pytest.mark.parametrize(("stride", "deploy"), [(8, False), (8, True), (32, True)])
def test_exported_graph_gives_the_same_logits(tmp_path: Path, stride: int, deploy: bool) -> None:
    model = check_export(tmp_path / "model.onnx", "fcn", (41, 54), stride=stride, deploy=deploy, **SMALL)
    grown = [node for node in model.graph.node if node.op_type == "ConvTranspose"]
    assert len(grown) == {8: 3, 32: 1}[stride]


@pytest.mark.parametrize("factor", [2, 8, 16, 32])
def test_interpolation_starts_bilinear(factor: int) -> None:
    maps = torch.randn(1, 3, 6, 7)
    found = functional.conv_transpose2d(maps, bilinear_kernel(3, factor), stride=factor, padding=factor // 2)
    expected = functional.interpolate(maps, scale_factor=factor, mode="bilinear", align_corners=False)
    # At the edges a transposed convolution reads zeros, a resize the edge.
    inner = slice(factor, -factor)
    torch.testing.assert_close(found[:, :, inner, inner], expected[:, :, inner, inner], rtol=1e-4, atol=1e-5)


def test_classes_differ_at_the_start() -> None:
    network = create("fcn", classes=4, **SMALL)
    assert isinstance(network, FCN)
    for layer in (*network.doublings, network.interpolation):
        weight = layer.weight
        assert torch.equal(weight, bilinear_kernel(4, weight.shape[2] // 2))
        assert int((weight.abs().sum((2, 3)) > 0).sum()) == 4


@pytest.mark.parametrize("deploy", [False, True])
@pytest.mark.parametrize("stride", STRIDES)
def test_scores_lie_where_the_image_has_them(stride: int, deploy: bool) -> None:
    """A map of averages instead of features: what comes out is the image's own ramp, in place to a tenth of a pixel."""
    network = create("fcn", classes=1, stride=stride, deploy=deploy, width=0.125).eval()
    assert isinstance(network, FCN)
    rows = torch.arange(512.0).reshape(1, 1, 512, 1).expand(1, 1, 512, 512)
    image = torch.cat([rows, rows, rows], 1)
    _pass_through(network)
    found = network(image)[0, 0, 240:272, 256]
    # Every scale adds the ramp once, and a window's largest is (stride - 1) / 2 below its centre.
    scales = {8: (32, 16, 8), 16: (32, 16), 32: (32,)}[stride]
    expected = sum(torch.arange(240.0, 272.0) + (scale - 1) / 2 for scale in scales)
    assert isinstance(expected, torch.Tensor)
    torch.testing.assert_close(found, expected, rtol=0, atol=0.1)


def _pass_through(network: FCN) -> None:
    """Weights under which the first channel goes through every layer as it is."""
    scores = (network.score, *network.skip_scores)
    convs = [*network.backbone.convolutions, *(m for m in network.fully_connected if isinstance(m, nn.Conv2d))]
    with torch.no_grad():
        for conv in (*convs, *scores):
            assert isinstance(conv, nn.Conv2d)
            conv.weight.zero_()
            assert conv.bias is not None
            conv.bias.zero_()
            conv.weight[0, 0, conv.kernel_size[0] // 2, conv.kernel_size[1] // 2] = 1


def test_variant_has_the_same_weights_and_less_work() -> None:
    published, variant = meta_network("fcn"), meta_network("fcn", deploy=True)
    shapes = [[(n, tuple(p.shape)) for n, p in network.named_parameters()] for network in (published, variant)]
    assert shapes[0] == shapes[1]
    assert round(count_macs(variant, (512, 1024)) / 1e9, 4) == 222.4314


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"stride": 4}, "stride of fcn must be one of 8, 16, 32, but is 4"),
        ({"width": 0}, "width of fcn must be above 0 and at most 1, but is 0"),
        ({"depth": 8}, "fcn has no option depth; it has stride, width"),
    ],
)
def test_refuses(options: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        create("fcn", **options)


@pytest.mark.slow
def test_full_size(tmp_path: Path) -> None:
    check_export(tmp_path / "model.onnx", "fcn", (64, 96), deploy=True)
    assert count_parameters(meta_network("fcn", classes=5)) == 134_456_985 - 14 * (4096 + 512 + 256 + 3) - (
        (19**2 - 5**2) * (2 * 16 + 256)
    )
