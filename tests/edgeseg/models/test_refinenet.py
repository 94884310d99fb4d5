"""RefineNet: sizes, training, the pooling chain, and its way to ONNX; its counts are in its card."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from support.structure import check_export, check_sizes, check_training
from torch import nn

from edgeseg.errors import UsageError
from edgeseg.models import create
from edgeseg.models.refinenet import ChainedPooling, ResidualUnit

SMALL = {"backbone": "resnet50", "width": 0.125}


def test_any_size() -> None:
    check_sizes("refinenet", **SMALL)


def test_training_reaches_every_weight() -> None:
    check_training("refinenet", heads=0, **SMALL)


@pytest.mark.parametrize("width", [0.125, 0.5])
def test_logits_start_small(width: float) -> None:
    """Nothing in the decoder normalises: from Kaiming weights its 50 convolutions grow them to 100,000."""
    torch.manual_seed(0)
    logits = create("refinenet", classes=5, backbone="resnet50", width=width)(torch.randn(2, 3, 64, 96))[0]
    assert 0.05 < float(logits.detach().std()) < 5


def test_shortcuts_are_linear() -> None:
    """Without its convolutions a residual unit is the identity, and a pooling chain one ReLU."""
    maps = torch.randn(1, 4, 6, 7)
    unit, chain = ResidualUnit(4), ChainedPooling(4)
    with torch.no_grad():
        for module in [*unit.modules(), *chain.modules()]:
            if isinstance(module, nn.Conv2d):
                for parameter in module.parameters():
                    parameter.zero_()
        assert torch.equal(unit(maps), maps)
        assert torch.equal(chain(maps), maps.relu())


def test_the_chain_pools_what_it_convolved() -> None:
    """With convolutions that copy, link n is the maximum over n windows: the field grows along the chain."""
    chain = ChainedPooling(1)
    maps = torch.zeros(1, 1, 1, 25)
    maps[..., 12] = 1
    with torch.no_grad():
        for conv in chain.convs:
            nn.init.dirac_(conv.get_parameter("weight"))
        found = chain(maps)[0, 0, 0]
    assert (
        found.tolist()
        == [0.0] * 4
        + [1.0] * 2
        + [2.0] * 2
        + [3.0] * 2
        + [4.0] * 2
        + [5.0]
        + [4.0] * 2
        + [3.0] * 2
        + [2.0] * 2
        + [1.0] * 2
        + [0.0] * 4
    )


@pytest.mark.parametrize("deploy", [pytest.param(False, marks=pytest.mark.slow), True])
def test_exported_graph_gives_the_same_logits(tmp_path: Path, deploy: bool) -> None:
    check_export(tmp_path / "model.onnx", "refinenet", (45, 70), deploy=deploy, **SMALL)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"backbone": "resnet18"}, "backbone of refinenet must be one of resnet50, resnet101, but is resnet18"),
        ({"width": -1}, "width of refinenet must be above 0 and at most 1, but is -1"),
    ],
)
def test_refuses(options: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        create("refinenet", **options)
    assert str(caught.value) == said


@pytest.mark.slow
def test_full_size_is_exported(tmp_path: Path) -> None:
    check_export(tmp_path / "model.onnx", "refinenet", (97, 129))
