"""U-Net: counts of its forms, sizes, how levels are joined, and its way to ONNX."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from support.costs import count_parameters, meta_network
from support.structure import check_export, check_sizes, check_training
from torch import nn

from edgeseg.errors import UsageError
from edgeseg.models import create
from edgeseg.models.unet import Expansion

FORMS: list[dict[str, Any]] = [{}, {"upsampling": "bilinear"}, {"batch_norm": False}]
SMALL = {"width": 0.125}


@pytest.mark.parametrize("classes", [2, 19, 21])
def test_layers_of_the_paper(classes: int) -> None:
    network = meta_network("unet", classes=classes, batch_norm=False)
    assert count_parameters(network) == {2: 31_031_810, 19: 31_032_915, 21: 31_033_045}[classes]
    assert not [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]


@pytest.mark.parametrize("options", FORMS)
def test_any_size(options: dict[str, Any]) -> None:
    check_sizes("unet", **options, **SMALL)


@pytest.mark.parametrize("options", FORMS)
def test_training_reaches_every_weight(options: dict[str, Any]) -> None:
    check_training("unet", heads=0, **options, **SMALL)


@pytest.mark.parametrize("options", [*FORMS, {"upsampling": "bilinear", "deploy": True}])
def test_exported_graph_gives_the_same_logits(tmp_path: Path, options: dict[str, Any]) -> None:
    model = check_export(tmp_path / "model.onnx", "unet", (41, 54), **options, **SMALL)
    kinds = [node.op_type for node in model.graph.node]
    bilinear = "upsampling" in options
    assert kinds.count("ConvTranspose") == (0 if bilinear else 4)
    assert kinds.count("Resize") == (4 if bilinear else 0)
    places = {a.s for n in model.graph.node for a in n.attribute if a.name == "coordinate_transformation_mode"}
    if bilinear:
        assert places == {b"half_pixel" if "deploy" in options else b"align_corners"}


def test_an_odd_side_gets_a_row_and_a_column_of_zeros() -> None:
    expand = Expansion(4, 3, 2, bilinear=False, batch_norm=False, align_corners=True).eval()
    seen: list[torch.Tensor] = []
    expand.convs.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    skip = torch.randn(1, 3, 7, 5)
    with torch.inference_mode():
        assert expand(torch.randn(1, 4, 3, 2), skip).shape == (1, 2, 7, 5)
    joined = seen[0]
    assert torch.equal(joined[:, :3], skip)
    assert joined[:, 3:, :6, :4].abs().min() > 0
    assert not joined[:, 3:, 6].any()
    assert not joined[:, 3:, :, 4].any()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"upsampling": "nearest"}, "upsampling of unet must be one of transposed, bilinear, but is nearest"),
        ({"width": 2}, "width of unet must be above 0 and at most 1, but is 2"),
    ],
)
def test_refuses(options: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        create("unet", **options)


@pytest.mark.slow
def test_full_size(tmp_path: Path) -> None:
    check_export(tmp_path / "model.onnx", "unet", (64, 96))
