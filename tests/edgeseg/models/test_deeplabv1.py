"""DeepLab v1: both variants, the hole algorithm, sizes, training, and its way to ONNX; its counts are in its card."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.costs import count_parameters, meta_network
from support.structure import check_export, check_sizes, check_training
from torch import nn

from edgeseg.errors import UsageError
from edgeseg.models import create

VARIANTS = pytest.mark.parametrize("variant", ["largefov", "msc"])


def test_the_branches_have_the_published_count() -> None:
    with_branches = meta_network("deeplabv1", variant="msc", classes=21)
    assert count_parameters(with_branches.get_submodule("branches")) == 1_192_576
    assert with_branches.feature_channels == 1024 + 5 * 128


def test_layers_behind_the_kept_size_are_dilated() -> None:
    network = create("deeplabv1", width=0.125)
    wide = [m for m in network.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]
    assert [m.dilation[0] for m in wide] == [1] * 10 + [2] * 3 + [12]
    assert all(m.padding == m.dilation for m in wide)


@VARIANTS
def test_any_size(variant: str) -> None:
    check_sizes("deeplabv1", variant=variant, width=0.125)


@VARIANTS
def test_training_reaches_every_weight(variant: str) -> None:
    check_training("deeplabv1", heads=0, variant=variant, width=0.125)


@pytest.mark.parametrize("variant", [pytest.param("largefov", marks=pytest.mark.slow), "msc"])
def test_exported_graph_gives_the_same_logits(tmp_path: Path, variant: str) -> None:
    check_export(tmp_path / "model.onnx", "deeplabv1", (45, 70), variant=variant, width=0.125)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"variant": "7x7"}, "variant of deeplabv1 must be one of largefov, msc, but is 7x7"),
        ({"width": 2}, "width of deeplabv1 must be above 0 and at most 1, but is 2"),
    ],
)
def test_refuses(options: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        create("deeplabv1", **options)
    assert str(caught.value) == said


@pytest.mark.slow
@VARIANTS
def test_full_size_is_exported(tmp_path: Path, variant: str) -> None:
    check_export(tmp_path / "model.onnx", "deeplabv1", (97, 129), variant=variant)
