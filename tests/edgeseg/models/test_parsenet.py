"""ParseNet: its count by hand, the normalisation and the context, sizes, training, and its way to ONNX."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from support.costs import count_parameters, meta_network
from support.structure import check_export, check_sizes, check_training
from torch.nn import functional

from edgeseg.errors import UsageError
from edgeseg.models import create
from edgeseg.models.parsenet import ScaledNorm

SMALL = {"width": 0.125}


@pytest.mark.parametrize("classes", [19, 21])
def test_counts_what_deeplab_does_and_the_context(classes: int) -> None:
    """Two scales of 1024 channels, and as many weights again for each class."""
    trunk = count_parameters(meta_network("deeplabv1", variant="largefov", classes=classes))
    assert count_parameters(meta_network("parsenet", classes=classes)) == trunk + 2 * 1024 + 1024 * classes


def test_the_norm_is_l2_with_a_scale_of_ten() -> None:
    maps = torch.rand(2, 6, 5, 4)
    norm = ScaledNorm(6)
    with torch.no_grad():
        torch.testing.assert_close(norm(maps), 10 * functional.normalize(maps, dim=1))
        norm.scale[0, 2] = 3
        torch.testing.assert_close(norm(maps)[:, 2], 3 * functional.normalize(maps, dim=1)[:, 2])
        assert torch.equal(norm(torch.zeros(1, 6, 1, 1)), torch.zeros(1, 6, 1, 1))


def test_the_norm_stays_within_float16() -> None:
    """1024 values of 50: their squares' sum is 2,560,000, beyond the largest float16 of 65,504."""
    found = ScaledNorm(1024).half()(torch.full((1, 1024, 1, 1), 50.0).half())
    torch.testing.assert_close(found.float(), torch.full((1, 1024, 1, 1), 10 / 32), rtol=2e-3, atol=0)


def test_half_of_the_features_are_the_same_everywhere() -> None:
    network = create("parsenet", classes=3, **SMALL).eval()
    with torch.inference_mode():
        features, _ = network.encode(torch.randn(1, 3, 64, 96))
    local, context = features.chunk(2, 1)
    torch.testing.assert_close(context, context[:, :, :1, :1].expand_as(context))
    assert not torch.equal(local, local[:, :, :1, :1].expand_as(local))
    torch.testing.assert_close(context.norm(dim=1), torch.full((1, 8, 12), 10.0))
    torch.testing.assert_close(local.norm(dim=1), torch.full((1, 8, 12), 10.0))


def test_any_size() -> None:
    check_sizes("parsenet", **SMALL)


def test_training_reaches_every_weight() -> None:
    check_training("parsenet", heads=0, **SMALL)


def test_exported_graph_gives_the_same_logits(tmp_path: Path) -> None:
    check_export(tmp_path / "model.onnx", "parsenet", (45, 70), **SMALL)


def test_refuses() -> None:
    with pytest.raises(UsageError) as caught:
        create("parsenet", width=0)
    assert str(caught.value) == "width of parsenet must be above 0 and at most 1, but is 0"


@pytest.mark.slow
def test_full_size_is_exported(tmp_path: Path) -> None:
    check_export(tmp_path / "model.onnx", "parsenet", (97, 129))
