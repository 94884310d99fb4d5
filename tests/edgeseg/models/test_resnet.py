"""The dilated ResNets and the aligned Xception: published counts, strides, rates."""

from __future__ import annotations

import pytest
import torch
from support.costs import count_parameters
from torch import nn

from edgeseg.models.resnet import DEPTHS, DilatedResNet
from edgeseg.models.xception import AlignedXception65


@pytest.mark.parametrize(("name", "parameters"), [("resnet50", 25_557_032), ("resnet101", 44_549_160)])
def test_it_is_the_classifier_without_its_last_layer(name: str, parameters: int) -> None:
    with torch.device("meta"):
        assert count_parameters(DilatedResNet(name)) == parameters - (2048 * 1000 + 1000)


@pytest.mark.parametrize("deep_stem", [False, True])
@pytest.mark.parametrize(("output_stride", "strides"), [(8, (4, 8, 8, 8)), (16, (4, 8, 16, 16)), (32, (4, 8, 16, 32))])
def test_strides(output_stride: int, strides: tuple[int, ...], deep_stem: bool) -> None:
    with torch.device("meta"):
        network = DilatedResNet("resnet50", output_stride=output_stride, deep_stem=deep_stem, width=0.125)
    features = network(torch.zeros(1, 3, 64, 128, device="meta"))
    assert network.channels == (32, 64, 128, 256)
    assert [tuple(maps.shape[1:]) for maps in features] == [
        (channels, 64 // stride, 128 // stride) for channels, stride in zip(network.channels, strides, strict=True)
    ]


def test_rates_keep_the_field_of_view() -> None:
    network = DilatedResNet("resnet50", output_stride=8, multi_grid=(1, 2, 4), width=0.125)
    rates = [[block.conv.conv.dilation[0] for block in stage] for stage in network.stages]
    assert rates == [[1] * 3, [1] * 4, [2] * 6, [4, 8, 16]]


def test_xception_has_the_published_count() -> None:
    with torch.device("meta"):
        assert count_parameters(AlignedXception65()) == 37_867_312


@pytest.mark.parametrize("output_stride", [8, 16])
def test_xception_strides(output_stride: int) -> None:
    with torch.device("meta"):
        network = AlignedXception65(output_stride=output_stride, width=0.125)
    features = network(torch.zeros(1, 3, 64, 128, device="meta"))
    assert [tuple(maps.shape[1:]) for maps in features] == [
        (16, 16, 32),
        (32, 16, 32),
        (256, 64 // output_stride, 128 // output_stride),
    ]


def test_xception_has_no_pooling() -> None:
    network = AlignedXception65(width=0.125)
    assert not any(isinstance(module, (nn.MaxPool2d, nn.AvgPool2d)) for module in network.modules())
    strided = [m for m in network.modules() if isinstance(m, nn.Conv2d) and m.stride == (2, 2) and m.groups > 1]
    assert len(strided) == 3


def test_depths() -> None:
    assert {name: sum(counts) * 3 + 2 for name, counts in DEPTHS.items()} == {"resnet50": 50, "resnet101": 101}
