"""Gated-SCNN: the published count, its parts by hand, sizes, training, and its way to ONNX."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.costs import meta_network
from support.structure import check_export, check_sizes, check_training
from torch import nn

from edgeseg.errors import UsageError
from edgeseg.models import create
from edgeseg.models.gatedscnn import GatedConvolution, GatedSCNN, image_gradient
from edgeseg.models.wideresnet import WideResNet38

WIDE: dict[str, Any] = {"backbone": "wideresnet38", "width": 0.125}
RESNET: dict[str, Any] = {"backbone": "resnet50", "width": 0.125}
TRUNKS = pytest.mark.parametrize("options", [WIDE, RESNET], ids=["wideresnet38", "resnet50"])


def test_the_variant_leaves_the_unread_convolution_out() -> None:
    published, variant = (meta_network("gatedscnn", deploy=deploy) for deploy in (False, True))
    unread = {name for name, _ in published.named_parameters() if "unread" in name}
    assert unread == {"unread.weight", "unread.bias"}
    assert sum(p.numel() for n, p in published.named_parameters() if n in unread) == 65
    assert not any("unread" in name for name, _ in variant.named_parameters())

    def convolutions(network: nn.Module) -> list[torch.Size]:
        return sorted(p.shape for n, p in network.named_parameters() if p.ndim == 4 and "unread" not in n)

    assert convolutions(published) == convolutions(variant)


@pytest.mark.parametrize("deploy", [False, True])
def test_the_trunk_has_the_published_strides_and_dilations(deploy: bool) -> None:
    with torch.device("meta"):
        trunk = WideResNet38(deploy=deploy)
    found = trunk(torch.zeros(1, 3, 61, 90, device="meta"))
    assert [tuple(maps.shape[1:]) for maps in found] == [
        (64, 61, 90), (128, 31, 45), (256, 16, 23), (512, 8, 12), (1024, 8, 12), (2048, 8, 12), (4096, 8, 12),
    ]  # fmt: skip
    dilations = [
        {m.dilation[0] for m in stage.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)}
        for stage in trunk.stages
    ]
    assert dilations == [{1}, {1}, {1}, {2}, {4}, {4}]


def test_a_gate_weighs_between_one_and_two_times() -> None:
    gated = GatedConvolution(2).eval()
    nn.init.dirac_(gated.conv.weight)
    maps, last = torch.ones(1, 2, 3, 4), gated.gate[3]
    assert isinstance(last, nn.Conv2d)
    nn.init.zeros_(last.weight)
    with torch.no_grad():
        for bias, factor in ((-100.0, 1.0), (0.0, 1.5), (100.0, 2.0)):
            nn.init.constant_(last.bias, bias)
            torch.testing.assert_close(gated(maps, torch.zeros(1, 1, 3, 4)), maps * factor)


def test_the_gradient_is_sobels() -> None:
    image = torch.randn(2, 3, 9, 11, generator=torch.Generator().manual_seed(0))
    grey = np.pad(image.mean(1).numpy(), ((0, 0), (1, 1), (1, 1)))
    across = grey[:, :, 2:] - grey[:, :, :-2]
    across = (across[:, :-2] + 2 * across[:, 1:-1] + across[:, 2:]) / 8
    down = grey[:, 2:] - grey[:, :-2]
    down = (down[:, :, :-2] + 2 * down[:, :, 1:-1] + down[:, :, 2:]) / 8
    expected = np.minimum(np.abs(across) + np.abs(down), 1)[:, None]
    np.testing.assert_allclose(image_gradient(image).numpy(), expected, rtol=0, atol=1e-6)
    assert image_gradient(10 * image).max() == 1


@TRUNKS
def test_boundaries_have_the_size_of_the_image(options: dict[str, Any]) -> None:
    network = GatedSCNN(4, **options).eval()
    with torch.inference_mode():
        assert network.boundaries(torch.randn(1, 3, 37, 50)).shape == (1, 1, 37, 50)


@TRUNKS
def test_any_size(options: dict[str, Any]) -> None:
    check_sizes("gatedscnn", **options)


@TRUNKS
def test_training_reaches_every_weight(options: dict[str, Any]) -> None:
    check_training("gatedscnn", heads=0, deploy=True, **options)


def test_the_image_reaches_the_features_through_the_shape_stream() -> None:
    """Without the trunk's last maps and early ones, features still change with the image: by the edge branch."""
    network = create("gatedscnn", classes=3, **RESNET)
    (logits,) = network(torch.randn(2, 3, 64, 96))
    logits.square().mean().backward()
    for part in ("shape.gated.2.conv.weight", "shape.fuse.weight", "edges.weight"):
        gradient = network.get_parameter(part).grad
        assert gradient is not None
        assert gradient.abs().max() > 0


@pytest.mark.slow
@pytest.mark.parametrize(("options", "deploy"), [(WIDE, False), (WIDE, True), (RESNET, True)])
def test_exported_graph_gives_the_same_logits(tmp_path: Path, options: dict[str, Any], deploy: bool) -> None:
    check_export(tmp_path / "model.onnx", "gatedscnn", (45, 70), deploy=deploy, **options)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            {"backbone": "resnet18"},
            "backbone of gatedscnn must be one of wideresnet38, resnet50, resnet101, but is resnet18",
        ),
        ({"width": 1.5}, "width of gatedscnn must be above 0 and at most 1, but is 1.5"),
    ],
)
def test_refuses(options: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        create("gatedscnn", **options)
    assert str(caught.value) == said


@pytest.mark.slow
def test_full_size_is_exported(tmp_path: Path) -> None:
    check_export(tmp_path / "model.onnx", "gatedscnn", (65, 97))
