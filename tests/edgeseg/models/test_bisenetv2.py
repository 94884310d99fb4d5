"""BiSeNetV2: published counts, sizes, the strides of its branches, and its way to ONNX."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from support.costs import count_macs, count_parameters, meta_network
from support.structure import check_export, check_sizes, check_training
from torch import nn

from edgeseg.models import create
from edgeseg.models.bisenetv2 import GuidedAggregation


def test_costs_what_is_published() -> None:
    network = meta_network("bisenetv2", classes=19)
    assert count_parameters(network) == 3_358_627
    assert round(count_macs(network, (512, 1024)) / 1e9, 4) == 24.6033
    assert count_parameters(network.train()) == 5_231_487
    # BatchNorm refuses the one pixel of the context embedding in training; what runs is the same.
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    assert round(count_macs(network, (512, 1024)) / 1e9, 4) == 35.5588


def test_eleven_classes_differ_by_their_predictions_alone() -> None:
    network = meta_network("bisenetv2", classes=11)
    assert count_parameters(network) == 3_358_627 - 8 * (1024 + 1)
    heads = sum(stride * stride + 1 for stride in (4, 8, 16, 32))
    assert count_parameters(network.train()) == 5_231_487 - 8 * (1024 + 1) - 8 * heads


def test_auxiliary_heads_read_strides_4_to_32() -> None:
    network = create("bisenetv2")
    _, taps = network.encode(torch.randn(2, 3, 64, 96))
    assert [tuple(tap.shape[1:]) for tap in taps] == [(16, 16, 24), (32, 8, 12), (64, 4, 6), (128, 2, 3)]


@pytest.mark.parametrize("size", [(16, 24), (13, 18)])
def test_each_branch_gates_the_other(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    layer = GuidedAggregation(8).eval()
    detail = torch.randn(1, 8, *size)
    semantic = torch.randn(1, 8, -(-size[0] // 4), -(-size[1] // 4))
    layer.fuse = nn.Identity()  # type: ignore[assignment]
    closed = torch.full_like(semantic, -1e4)
    with torch.inference_mode():
        assert layer(detail, semantic).shape == detail.shape
        # With the gate of one branch closed, what the other branch says there is gone.
        layer.semantic_grown = nn.Identity()  # type: ignore[assignment]
        layer.semantic = nn.Identity()  # type: ignore[assignment]
        assert layer(detail, closed).abs().max() == 0
        assert layer(detail, -closed).abs().max() > 0


def test_any_size() -> None:
    check_sizes("bisenetv2")


def test_training_reaches_every_weight() -> None:
    check_training("bisenetv2", heads=4)


@pytest.mark.parametrize("size", [(64, 96), (45, 70)])
def test_exported_graph_gives_the_same_logits(tmp_path: Path, size: tuple[int, int]) -> None:
    check_export(tmp_path / "model.onnx", "bisenetv2", size)
