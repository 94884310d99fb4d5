"""DeepLabv3: counts against a second public code, both forms, both output strides, and its way to ONNX."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.costs import count_macs, count_parameters, meta_network
from support.structure import check_export, check_sizes, check_training
from torch import nn

from edgeseg.errors import UsageError
from edgeseg.models import create

SMALL = {"backbone": "resnet50", "width": 0.125}
FORMS = pytest.mark.parametrize("head", ["aspp", "cascade"])
STRIDES = pytest.mark.parametrize("output_stride", [8, 16])


@pytest.mark.parametrize(
    ("backbone", "output_stride", "parameters", "gmacs"),
    [
        ("resnet50", 16, 39_638_355, 96.8066),
        ("resnet101", 16, 58_630_483, 135.5956),
        ("resnet101", 8, 58_630_483, 482.3098),
    ],
)
def test_costs_that_of_another_code_less_its_further_convolution(
    backbone: str, output_stride: int, parameters: int, gmacs: float
) -> None:
    """segmentation_models_pytorch has a 3x3 convolution of 256 channels before the prediction, the paper has none."""
    network = meta_network("deeplabv3", classes=19, backbone=backbone, output_stride=output_stride)
    further = 256 * 256 * 9
    assert count_parameters(network) == parameters - further - 2 * 256
    pixels = (512 // output_stride) * (1024 // output_stride)
    assert count_macs(network, (512, 1024)) / 1e9 == pytest.approx(gmacs - further * pixels / 1e9, abs=1e-4)


@FORMS
def test_output_stride_changes_no_weight(head: str) -> None:
    shapes = [
        {n: p.shape for n, p in meta_network("deeplabv3", head=head, output_stride=s, **SMALL).named_parameters()}
        for s in (8, 16)
    ]
    assert shapes[0] == shapes[1]


def rates(network: nn.Module) -> list[int]:
    return [m.dilation[0] for m in network.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]


@pytest.mark.parametrize(
    ("head", "output_stride", "last", "behind"),
    [
        ("aspp", 16, [2, 4, 8], [6, 12, 18]),
        ("aspp", 8, [4, 8, 16], [12, 24, 36]),
        ("cascade", 16, [2, 4, 2], [4, 8, 4, 8, 16, 8, 16, 32, 16]),
        ("cascade", 8, [4, 8, 4], [8, 16, 8, 16, 32, 16, 32, 64, 32]),
    ],
)
def test_rates(head: str, output_stride: int, last: list[int], behind: list[int]) -> None:
    network = create("deeplabv3", head=head, output_stride=output_stride, **SMALL)
    assert rates(network)[-len(last) - len(behind) :] == last + behind


@FORMS
@STRIDES
def test_any_size(head: str, output_stride: int) -> None:
    check_sizes("deeplabv3", head=head, output_stride=output_stride, **SMALL)


@FORMS
def test_training_reaches_every_weight(head: str) -> None:
    check_training("deeplabv3", heads=0, head=head, **SMALL)


@pytest.mark.parametrize(
    ("head", "output_stride"),
    [
        ("aspp", 16),
        pytest.param("aspp", 8, marks=pytest.mark.slow),
        pytest.param("cascade", 16, marks=pytest.mark.slow),
    ],
)
def test_exported_graph_gives_the_same_logits(tmp_path: Path, head: str, output_stride: int) -> None:
    check_export(tmp_path / "m.onnx", "deeplabv3", (45, 70), head=head, output_stride=output_stride, **SMALL)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"backbone": "vgg"}, "backbone of deeplabv3 must be one of resnet50, resnet101, but is vgg"),
        ({"head": "dense"}, "head of deeplabv3 must be one of aspp, cascade, but is dense"),
        ({"output_stride": 4}, "output_stride of deeplabv3 must be one of 8, 16, but is 4"),
        ({"width": 0}, "width of deeplabv3 must be above 0 and at most 1, but is 0"),
    ],
)
def test_refuses(options: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        create("deeplabv3", **options)
    assert str(caught.value) == said


@pytest.mark.slow
@FORMS
def test_full_size_is_exported(tmp_path: Path, head: str) -> None:
    check_export(tmp_path / "model.onnx", "deeplabv3", (97, 129), head=head)
