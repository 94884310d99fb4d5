"""Every card is true: parameters to the unit, GMACs to four decimals, stride, and what `deploy` says."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from support.costs import count_macs, count_parameters, meta_network

from edgeseg.models import NETWORKS
from edgeseg.models.cards import CARDS, Card, Cost

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
