"""Every card is true: parameters to the unit, GMACs to four decimals, stride, and what `deploy` says."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from support.costs import count_macs, count_parameters, meta_network

from edgeseg.models import NETWORKS
from edgeseg.models.cards import CARDS, NOT_BUILT, Card, Cost

COSTS = [
    pytest.param(card, cost, id=f"{card.name}-{'-'.join(map(str, cost.options.values()))}-{cost.size[1]}")
    for card in CARDS.values()
    for cost in card.costs
]
FIRST = [pytest.param(card, id=card.name) for card in CARDS.values()]


def test_every_network_has_a_card() -> None:
    assert sorted(CARDS) == sorted(NETWORKS)
    assert all(card.name == name for name, card in CARDS.items())
    assert all(card.title and card.paper and card.source and card.costs for card in CARDS.values())


SYSTEMS = {
    "FCN": "fcn",
    "ReSeg": None,
    "U-Net": "unet",
    "ParseNet": "parsenet",
    "DeepMask": None,
    "SegNet": "segnet",
    "Instance-Aware Segmentation": None,
    "DeepLab": "deeplabv1",
    "DeepLabv3": "deeplabv3",
    "DeepLabv3+": "deeplabv3plus",
    "RefineNet": "refinenet",
    "PSPNet": "pspnet",
    "Dense-Net": None,
    "Tiramisu": "fcdensenet",
    "MaskLab": "masklab",
    "PANet": None,
    "DANet": "danet",
    "FastFCN": "fastfcn",
    "Gated-SCNN": "gatedscnn",
    "OneFormer": None,
    "PSPNet-ResNet50_PSSL": None,
    "ESPNetv2": "espnetv2",
    "BiSeNet": "bisenetv1",
    "DABNet": "dabnet",
    "U-HRNet": None,
}
"""Every network that the field's introductions name, and the name under which it is built; None where it is not."""


@pytest.mark.parametrize(("system", "name"), SYSTEMS.items())
def test_every_named_system_is_built_or_has_a_reason(system: str, name: str | None) -> None:
    if name is None:
        assert len(NOT_BUILT[system]) > 20
    else:
        assert system.lower().replace("-", "") in CARDS[name].title.lower().replace("-", "")
        assert system not in NOT_BUILT


def test_nothing_has_a_reason_that_nobody_names() -> None:
    assert set(NOT_BUILT) <= set(SYSTEMS)


@pytest.mark.parametrize(("card", "cost"), COSTS)
def test_cost(card: Card, cost: Cost) -> None:
    network = meta_network(card.name, **cost.options)
    assert count_parameters(network) == cost.parameters
    if cost.gmacs is not None:
        assert round(count_macs(network, cost.size) / 1e9, 4) == cost.gmacs


@pytest.mark.parametrize("card", FIRST)
def test_stride(card: Card) -> None:
    network = meta_network(card.name, **card.costs[0].options)
    features, taps = network.encode(torch.zeros(1, 3, 64, 128, device="meta"))
    assert card.stride == network.feature_stride
    assert features.shape == (1, network.feature_channels, 64 // card.stride, 128 // card.stride)
    assert len(taps) == 0


@pytest.mark.parametrize("card", FIRST)
def test_deploy_is_described_where_it_changes_the_network(card: Card) -> None:
    def layers(deploy: bool) -> tuple[Any, ...]:
        network = meta_network(card.name, deploy=deploy, **card.costs[0].options)
        return [type(module).__name__ for module in network.modules()], network.align_corners

    if not card.deploy:
        assert layers(False) == layers(True)
    elif layers(False) == layers(True):
        pytest.skip("the variant differs in more than its layers")
