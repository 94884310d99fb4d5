"""FastFCN: published counts with and without joint pyramid upsampling, sizes, training, and its way to ONNX."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from support.costs import count_macs, count_parameters, meta_network
from support.structure import check_export, check_sizes, check_training

from edgeseg.errors import UsageError
from edgeseg.models import create
from edgeseg.models.fastfcn import JointPyramidUpsampling

SMALL = {"backbone": "resnet50", "width": 0.125}
HEADS = pytest.mark.parametrize("head", ["fcn", "psp", "deeplabv3"])
CLASSIFIER = 2048 * 1000 + 1000
"""ImageNet's, which the published code holds and nothing reads."""


@pytest.mark.parametrize(
    ("backbone", "head", "jpu", "parameters", "gmacs"),
    [
        ("resnet50", "psp", True, 70_895_390, 138.3730),
        ("resnet50", "psp", False, 51_159_838, 193.9603),
        ("resnet101", "psp", True, 89_887_518, 157.7674),
        ("resnet101", "psp", False, 70_151_966, 271.5382),
        ("resnet50", "deeplabv3", True, 63_931_934, 124.8374),
        ("resnet50", "deeplabv3", False, 44_196_382, 180.4248),
        ("resnet101", "deeplabv3", True, 82_924_062, 144.2319),
        ("resnet101", "deeplabv3", False, 63_188_510, 258.0026),
        ("resnet50", "fcn", True, 57_259_806, 99.6658),
        ("resnet50", "fcn", False, 37_524_254, 155.2532),
        ("resnet101", "fcn", True, 76_251_934, 119.0603),
        ("resnet101", "fcn", False, 56_516_382, 232.8311),
    ],
)
def test_published_counts(backbone: str, head: str, jpu: bool, parameters: int, gmacs: float) -> None:
    """The published code counts its auxiliary head and ImageNet's classifier, and runs the head in inference too."""
    network = meta_network("fastfcn", backbone=backbone, head=head, jpu=jpu, classes=59)
    deployed = count_macs(network, (512, 512))
    assert count_parameters(network.train()) == parameters - CLASSIFIER
    pixels = (512 // (16 if jpu else 8)) ** 2
    assert (deployed + pixels * (1024 * 256 * 9 + 256 * 59)) / 1e9 == pytest.approx(gmacs, abs=6e-5)


def test_joint_pyramid_upsampling_has_the_published_count() -> None:
    with torch.device("meta"):
        assert count_parameters(JointPyramidUpsampling((512, 1024, 2048), 512, True)) == 70_895_390 - 51_159_838


def test_joint_pyramid_upsampling_gives_the_finest_size() -> None:
    module = JointPyramidUpsampling((8, 16, 24), 4, True).eval()
    maps = [torch.randn(1, 8, 9, 13), torch.randn(1, 16, 5, 7), torch.randn(1, 24, 3, 4)]
    assert module(*maps).shape == (1, 16, 9, 13)


@HEADS
def test_any_size(head: str) -> None:
    check_sizes("fastfcn", head=head, **SMALL)


@HEADS
def test_training_reaches_every_weight(head: str) -> None:
    check_training("fastfcn", heads=1, head=head, **SMALL)


@pytest.mark.parametrize(("jpu", "size"), [(True, (4, 6)), (False, (8, 12))])
def test_the_auxiliary_head_reads_the_third_stage(jpu: bool, size: tuple[int, int]) -> None:
    features, taps = create("fastfcn", jpu=jpu, **SMALL).encode(torch.randn(2, 3, 64, 96))
    assert [tuple(tap.shape) for tap in taps] == [(2, 128, *size)]
    assert features.shape[2:] == (8, 12)


@pytest.mark.slow
@pytest.mark.parametrize(("head", "deploy"), [("fcn", False), ("psp", False), ("psp", True), ("deeplabv3", True)])
def test_exported_graph_gives_the_same_logits(tmp_path: Path, head: str, deploy: bool) -> None:
    check_export(tmp_path / "model.onnx", "fastfcn", (45, 70), head=head, deploy=deploy, **SMALL)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"backbone": "resnet18"}, "backbone of fastfcn must be one of resnet50, resnet101, but is resnet18"),
        ({"head": "encnet"}, "head of fastfcn must be one of fcn, psp, deeplabv3, but is encnet"),
        ({"width": 0}, "width of fastfcn must be above 0 and at most 1, but is 0"),
    ],
)
def test_refuses(options: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        create("fastfcn", **options)
    assert str(caught.value) == said


@pytest.mark.slow
@pytest.mark.parametrize("backbone", ["resnet50", "resnet101"])
def test_full_size_is_exported(tmp_path: Path, backbone: str) -> None:
    check_export(tmp_path / "model.onnx", "fastfcn", (97, 129), backbone=backbone)
