"""PSPNet: published counts, sizes, training, and its way to ONNX."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from support.costs import count_parameters, meta_network
from support.structure import check_export, check_sizes, check_training

from edgeseg.errors import UsageError
from edgeseg.models import create
from edgeseg.models.pyramid import PyramidPooling


@pytest.mark.parametrize(
    ("backbone", "classes", "trained"),
    [
        ("resnet50", 19, 49_080_038),
        ("resnet50", 21, 49_081_578),
        ("resnet50", 150, 49_180_908),
        ("resnet101", 19, 68_072_166),
        ("resnet101", 21, 68_073_706),
        ("resnet101", 150, 68_173_036),
    ],
)
def test_counts_with_the_auxiliary_head(backbone: str, classes: int, trained: int) -> None:
    assert count_parameters(meta_network("pspnet", backbone=backbone, classes=classes).train()) == trained


def test_the_pyramid_has_the_published_count() -> None:
    with torch.device("meta"):
        assert count_parameters(PyramidPooling(2048, True)) == 4_198_400


def test_any_size() -> None:
    check_sizes("pspnet", width=0.125)


def test_training_reaches_every_weight() -> None:
    check_training("pspnet", heads=1, width=0.125)


def test_the_auxiliary_head_reads_the_third_stage() -> None:
    _, taps = create("pspnet", width=0.125).encode(torch.randn(2, 3, 64, 96))
    assert [tuple(tap.shape) for tap in taps] == [(2, 128, 8, 12)]


@pytest.mark.parametrize("deploy", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_exported_graph_gives_the_same_logits(tmp_path: Path, deploy: bool) -> None:
    # 45 x 70 is 6 x 9 at stride 8: of the pyramid's sizes, all divide the rows, and 2 and 6 not the columns.
    model = check_export(tmp_path / "model.onnx", "pspnet", (45, 70), width=0.125, deploy=deploy)
    operators = [node.op_type for node in model.graph.node]
    assert operators.count("MatMul") > 0
    assert "Gather" not in operators


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"backbone": "resnet18"}, "backbone of pspnet must be one of resnet50, resnet101, but is resnet18"),
        ({"width": 2.0}, "width of pspnet must be above 0 and at most 1, but is 2.0"),
    ],
)
def test_refuses(options: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        create("pspnet", **options)
    assert str(caught.value) == said


@pytest.mark.slow
@pytest.mark.parametrize("backbone", ["resnet50", "resnet101"])
def test_full_size_is_exported(tmp_path: Path, backbone: str) -> None:
    check_export(tmp_path / "model.onnx", "pspnet", (97, 129), backbone=backbone)
