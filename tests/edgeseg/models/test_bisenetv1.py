"""BiSeNet: published counts of both backbones, sizes, the variant, and its way to ONNX."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from support.costs import count_macs, count_parameters, meta_network
from support.structure import check_export, check_sizes, check_training

from edgeseg.errors import UsageError
from edgeseg.models import create
from edgeseg.models.backbones import BACKBONES

BOTH = pytest.mark.parametrize("backbone", ["resnet18", "xception39"])


@pytest.mark.parametrize(
    ("backbone", "parameters", "trained", "gmacs"),
    [("resnet18", 12_894_163, 13_194_489, 12.1553), ("xception39", 1_541_963, 1_842_289, 3.2535)],
)
def test_costs_what_is_published(backbone: str, parameters: int, trained: int, gmacs: float) -> None:
    network = meta_network("bisenetv1", classes=19, backbone=backbone)
    assert count_parameters(network) == parameters
    assert round(count_macs(network, (384, 640)) / 1e9, 4) == gmacs
    assert count_parameters(network.train()) == trained
    eleven = meta_network("bisenetv1", classes=11, backbone=backbone)
    assert count_parameters(eleven) == parameters - 8 * (64 + 1)
    assert count_parameters(eleven.train()) == trained - 8 * (64 + 1) - 2 * 8 * (128 + 1)


def test_resnet18_is_the_classifier_without_its_last_layer() -> None:
    with torch.device("meta"):
        backbone = BACKBONES["resnet18"]()
    assert count_parameters(backbone) == 11_689_512 - (512 * 1000 + 1000)


@BOTH
def test_backbone_gives_the_features_of_three_strides(backbone: str) -> None:
    with torch.device("meta"):
        network = BACKBONES[backbone]()
    features = network(torch.zeros(1, 3, 64, 96, device="meta"))
    assert [tuple(maps.shape[1:]) for maps in features] == [
        (channels, 64 // stride, 96 // stride) for channels, stride in zip(network.channels, (8, 16, 32), strict=True)
    ]


@BOTH
def test_any_size(backbone: str) -> None:
    check_sizes("bisenetv1", backbone=backbone)


@BOTH
def test_training_reaches_every_weight(backbone: str) -> None:
    check_training("bisenetv1", heads=2, backbone=backbone)


def test_auxiliary_heads_read_strides_16_and_8() -> None:
    network = create("bisenetv1", backbone="xception39")
    _, taps = network.encode(torch.randn(2, 3, 64, 96))
    assert [tuple(tap.shape) for tap in taps] == [(2, 128, 4, 6), (2, 128, 8, 12)]


@pytest.mark.parametrize(("backbone", "deploy"), [("resnet18", False), ("xception39", False), ("xception39", True)])
def test_exported_graph_gives_the_same_logits(tmp_path: Path, backbone: str, deploy: bool) -> None:
    model = check_export(tmp_path / "model.onnx", "bisenetv1", (45, 70), backbone=backbone, deploy=deploy)
    aligned = [
        attribute.s == b"align_corners"
        for node in model.graph.node
        if node.op_type == "Resize"
        for attribute in node.attribute
        if attribute.name == "coordinate_transformation_mode"
    ]
    assert aligned == [not deploy] * 3


def test_refuses_an_unknown_backbone() -> None:
    with pytest.raises(UsageError) as caught:
        create("bisenetv1", backbone="resnet50")
    assert str(caught.value) == "backbone of bisenetv1 must be one of resnet18, xception39, but is resnet50"
