"""VGG-16: its stages, and ImageNet's weights into networks that stand on it."""

from __future__ import annotations

import pytest
import torch
from support.costs import count_parameters
from torch import Tensor, nn

from edgeseg.errors import InputError
from edgeseg.models import create
from edgeseg.models.fcn import FCN
from edgeseg.models.segnet import SegNet
from edgeseg.models.vgg import VGG16, halve

WIDTH = 0.125


def imagenet_like(classifier: bool = True) -> dict[str, Tensor]:
    """A state dict with torchvision's names for a VGG-16 of width 0.125, of random values."""
    torch.manual_seed(3)
    state: dict[str, Tensor] = {}
    # Where torchvision's 31 layers have their convolutions: pooling and activations are counted too.
    numbers = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
    before = 3
    for number, channels in zip(numbers, (8, 8, 16, 16, *[32] * 3, *[64] * 6), strict=True):
        state[f"features.{number}.weight"] = torch.randn(channels, before, 3, 3)
        state[f"features.{number}.bias"] = torch.randn(channels)
        before = channels
    if classifier:
        for number, rows, columns in ((0, 512, 64 * 49), (3, 512, 512), (6, 1000, 512)):
            state[f"classifier.{number}.weight"] = torch.randn(rows, columns)
            state[f"classifier.{number}.bias"] = torch.randn(rows)
    return state


def test_parameters_are_those_of_vgg16() -> None:
    with torch.device("meta"):
        assert count_parameters(VGG16()) == 14_714_688


def test_strides() -> None:
    pooled = VGG16(WIDTH)(torch.zeros(1, 3, 37, 65))
    assert [tuple(maps.shape[1:]) for maps in pooled] == [(8, 19, 33), (16, 10, 17), (32, 5, 9), (64, 3, 5), (64, 2, 3)]


def test_pooling_rounds_up() -> None:
    maps = torch.arange(15.0).reshape(1, 1, 3, 5)
    assert halve(maps)[0, 0].tolist() == [[6, 8, 9], [11, 13, 14]]


def test_every_convolution_of_fcn_is_copied() -> None:
    network, state = create("fcn", classes=4, width=WIDTH), imagenet_like()
    assert isinstance(network, FCN)
    network.copy_vgg16(state)
    convs = network.backbone.convolutions
    assert len(convs) == 13
    weights = [v for n, v in state.items() if n.startswith("features.") and n.endswith("weight")]
    assert all(torch.equal(conv.weight, weight) for conv, weight in zip(convs, weights, strict=True))
    first, second = (m for m in network.fully_connected if isinstance(m, nn.Conv2d))
    assert second.bias is not None
    assert torch.equal(second.bias, state["classifier.3.bias"])
    # The 7x7 convolution gives what the linear layer gives on the same 7x7 map.
    maps = torch.randn(1, 64, 7, 7)
    linear = maps.flatten(1) @ state["classifier.0.weight"].T + state["classifier.0.bias"]
    torch.testing.assert_close(first(maps).flatten(1), linear, rtol=1e-4, atol=1e-3)


def test_encoder_of_segnet_is_copied() -> None:
    network, state = create("segnet", classes=4, width=WIDTH), imagenet_like(classifier=False)
    assert isinstance(network, SegNet)
    network.copy_vgg16(state)
    convs = [m for m in network.encoder.modules() if isinstance(m, nn.Conv2d)]
    assert torch.equal(convs[12].weight, state["features.28.weight"])


def test_refuses_another_network() -> None:
    network, state = create("fcn", classes=4, width=WIDTH), imagenet_like()
    assert isinstance(network, FCN)
    before = network.backbone.convolutions[0].weight.clone()
    missing = {name: value for name, value in state.items() if not name.startswith("features.28")}
    with pytest.raises(InputError, match=r"vgg16 with 13 convolutions and 2 linear layers.* holds 12 and 2; vgg16_bn"):
        network.copy_vgg16(missing)
    with pytest.raises(InputError, match=r"holds 13 and 0"):
        network.copy_vgg16(imagenet_like(classifier=False))
    with pytest.raises(InputError, match=r"features.26.weight has shape \(4, 64, 3, 3\), but \(64, 64, 3, 3\)"):
        network.copy_vgg16({**state, "features.26.weight": torch.zeros(4, 64, 3, 3)})
    assert torch.equal(network.backbone.convolutions[0].weight, before)
