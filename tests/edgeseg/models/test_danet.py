"""DANet: published counts, both attentions against their formulas, sizes, training, and its way to ONNX."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from support.costs import count_parameters, meta_network
from support.structure import check_export, check_sizes, check_training
from torch import nn

from edgeseg.errors import UsageError
from edgeseg.models import create
from edgeseg.models.attention import ChannelAttention, PositionAttention

SMALL = {"backbone": "resnet50", "width": 0.125}


@pytest.mark.parametrize(("backbone", "trunk"), [("resnet50", 23_508_032), ("resnet101", 42_500_160)])
def test_counts_with_the_auxiliary_heads(backbone: str, trunk: int) -> None:
    network = meta_network("danet", backbone=backbone, classes=19).train()
    assert count_parameters(network.get_submodule("backbone")) == trunk
    assert count_parameters(network) == trunk + 23_954_619


def test_the_last_stage_has_the_published_dilations() -> None:
    last = meta_network("danet").get_submodule("backbone.stages.3")
    found = [m.dilation[0] for m in last.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]
    assert found == [4, 8, 16]


def some_maps(channels: int = 8) -> torch.Tensor:
    return torch.randn(2, channels, 5, 7, generator=torch.Generator().manual_seed(0))


def test_attention_starts_as_the_identity() -> None:
    maps = some_maps()
    assert torch.equal(PositionAttention(8, 4)(maps), maps)
    assert torch.equal(ChannelAttention()(maps), maps)


def test_position_attention_is_a_weighted_mean_of_positions() -> None:
    attention, maps = PositionAttention(8, 4), some_maps()
    nn.init.ones_(attention.gain)
    with torch.no_grad():
        found = attention(maps) - maps
        query, key, value = (layer(maps).flatten(2) for layer in (attention.query, attention.key, attention.value))
        expected = torch.empty_like(value)
        for image in range(2):
            for place in range(35):
                products = (query[image, :, place, None] * key[image]).sum(0)
                expected[image, :, place] = (products.softmax(0) * value[image]).sum(1)
    torch.testing.assert_close(found.flatten(2), expected)


def test_channel_attention_is_that_of_the_published_code() -> None:
    """softmax(largest product of the row - products), products of features as they are."""
    attention, maps = ChannelAttention(), some_maps()
    nn.init.ones_(attention.gain)
    with torch.no_grad():
        found = attention(maps) - maps
        rows = maps.flatten(2)
        products = torch.bmm(rows, rows.transpose(1, 2))
        weights = (products.max(-1, keepdim=True)[0].expand_as(products) - products).softmax(-1)
        expected = torch.bmm(weights, rows).view_as(maps)
    torch.testing.assert_close(found, expected)


def test_channel_attention_stays_within_float16() -> None:
    """Features of 4 at 8192 positions: their plain products are 131,072, beyond the largest float16 of 65,504."""
    attention = ChannelAttention().half()
    nn.init.ones_(attention.gain)
    maps = torch.full((1, 4, 64, 128), 4.0).half()
    maps[:, 0] = 0
    with torch.no_grad():
        found = attention(maps)
    # A channel is given what it is least like: the empty one, and the empty one the mean of all.
    assert torch.equal(found[:, 1:], maps[:, 1:])
    assert torch.equal(found[:, 0], torch.full_like(found[:, 0], 3))


def test_any_size() -> None:
    check_sizes("danet", **SMALL)


def test_training_reaches_every_weight() -> None:
    check_training("danet", heads=2, **SMALL)


def test_the_auxiliary_heads_read_the_branches() -> None:
    features, taps = create("danet", **SMALL).encode(torch.randn(2, 3, 64, 96))
    torch.testing.assert_close(taps[0] + taps[1], features)


@pytest.mark.slow
@pytest.mark.parametrize("deploy", [False, True])
def test_exported_graph_gives_the_same_logits(tmp_path: Path, deploy: bool) -> None:
    model = check_export(tmp_path / "model.onnx", "danet", (45, 70), deploy=deploy, **SMALL)
    operators = [node.op_type for node in model.graph.node]
    assert (operators.count("MatMul"), operators.count("Softmax")) == (4, 2)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"backbone": "resnet18"}, "backbone of danet must be one of resnet50, resnet101, but is resnet18"),
        ({"width": 2.0}, "width of danet must be above 0 and at most 1, but is 2.0"),
    ],
)
def test_refuses(options: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        create("danet", **options)
    assert str(caught.value) == said


@pytest.mark.slow
@pytest.mark.parametrize("backbone", ["resnet50", "resnet101"])
def test_full_size_is_exported(tmp_path: Path, backbone: str) -> None:
    check_export(tmp_path / "model.onnx", "danet", (97, 129), backbone=backbone)
