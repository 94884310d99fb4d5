"""DeepLabv3+: both heads on ResNet and Xception, sizes, training, and its way to ONNX."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from support.structure import check_export, check_sizes, check_training
from torch import nn

from edgeseg.errors import UsageError
from edgeseg.models import create

FORMS = pytest.mark.parametrize(
    ("backbone", "head"),
    [(backbone, head) for backbone in ("resnet50", "xception65") for head in ("dense", "separable")],
)


@FORMS
def test_any_size(backbone: str, head: str) -> None:
    check_sizes("deeplabv3plus", backbone=backbone, head=head, width=0.125)


@FORMS
def test_training_reaches_every_weight(backbone: str, head: str) -> None:
    check_training("deeplabv3plus", heads=0, backbone=backbone, head=head, width=0.125)


def test_the_decoder_reads_stride_4_whatever_the_output_stride() -> None:
    for output_stride in (8, 16):
        network = create("deeplabv3plus", backbone="resnet50", output_stride=output_stride, width=0.125).eval()
        features, _ = network.encode(torch.zeros(1, 3, 64, 96))
        assert features.shape == (1, 32, 16, 24)


def test_a_separable_head_has_no_dense_3x3_convolution() -> None:
    network = create("deeplabv3plus", backbone="resnet50", head="separable", width=0.125)
    wide = [
        module
        for part in (network.get_submodule("context"), network.get_submodule("decoder"))
        for module in part.modules()
        if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3)
    ]
    assert len(wide) == 5
    assert all(module.groups == module.in_channels for module in wide)


@pytest.mark.parametrize(
    ("head", "deploy"), [("dense", False), pytest.param("separable", True, marks=pytest.mark.slow)]
)
def test_exported_graph_gives_the_same_logits(tmp_path: Path, head: str, deploy: bool) -> None:
    options = {"backbone": "resnet50", "width": 0.125}
    check_export(tmp_path / "model.onnx", "deeplabv3plus", (45, 70), head=head, deploy=deploy, **options)


@pytest.mark.slow
@pytest.mark.parametrize("head", ["dense", "separable"])
def test_xception_is_exported(tmp_path: Path, head: str) -> None:
    check_export(tmp_path / "model.onnx", "deeplabv3plus", (45, 70), backbone="xception65", head=head, width=0.125)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            {"backbone": "vgg"},
            "backbone of deeplabv3plus must be one of resnet50, resnet101, xception65, but is vgg",
        ),
        ({"head": "aspp"}, "head of deeplabv3plus must be one of dense, separable, but is aspp"),
        ({"output_stride": 32}, "output_stride of deeplabv3plus must be one of 8, 16, but is 32"),
        ({"width": 1.5}, "width of deeplabv3plus must be above 0 and at most 1, but is 1.5"),
    ],
)
def test_refuses(options: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        create("deeplabv3plus", **options)
    assert str(caught.value) == said


@pytest.mark.slow
@pytest.mark.parametrize("backbone", ["resnet101", "xception65"])
def test_full_size_is_exported(tmp_path: Path, backbone: str) -> None:
    check_export(tmp_path / "model.onnx", "deeplabv3plus", (97, 129), backbone=backbone)
