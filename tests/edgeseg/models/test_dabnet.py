"""DABNet: published counts, dilations, sizes, the variant, and its way to ONNX."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
import torch
from support.costs import count_macs, count_parameters, meta_network
from support.structure import check_export, check_sizes, check_training
from torch import nn


@pytest.mark.parametrize(
    ("classes", "parameters", "gmacs"), [(19, 756_643, 10.2204), (11, 754_571, 10.2034), (20, 756_902, 10.2225)]
)
def test_costs_what_is_published(classes: int, parameters: int, gmacs: float) -> None:
    network = meta_network("dabnet", classes=classes)
    assert count_parameters(network) == count_parameters(network.train()) == parameters
    assert round(count_macs(network.eval(), (512, 1024)) / 1e9, 4) == gmacs


@pytest.mark.parametrize("deploy", [False, True])
def test_dilations_grow_with_depth(deploy: bool) -> None:
    convs = [m for m in meta_network("dabnet", deploy=deploy).modules() if isinstance(m, nn.Conv2d)]
    dilated = [(conv.kernel_size, conv.dilation) for conv in convs if max(conv.dilation) > 1]
    assert dilated == [pair for d in (2, 2, 2, 4, 4, 8, 8, 16, 16) for pair in (((3, 1), (d, 1)), ((1, 3), (1, d)))]


@pytest.mark.parametrize("deploy", [False, True])
def test_any_size(deploy: bool) -> None:
    check_sizes("dabnet", deploy=deploy)


def test_pooled_channels_are_the_largest_of_each_window() -> None:
    from edgeseg.models.dabnet import Downsampling

    down = Downsampling(3, 8, deploy=True).eval()
    maps = torch.arange(3 * 5 * 4, dtype=torch.float32).reshape(1, 3, 5, 4)
    with torch.inference_mode():
        pooled = down(maps)[:, 5:]
    assert pooled.shape == (1, 3, 3, 2)
    assert pooled[0, 0].tolist() == [[5, 7], [13, 15], [17, 19]]


@pytest.mark.parametrize("deploy", [False, True])
def test_training_reaches_every_weight(deploy: bool) -> None:
    check_training("dabnet", heads=0, deploy=deploy)


@pytest.mark.parametrize("deploy", [False, True])
def test_exported_graph_gives_the_same_logits(tmp_path: Path, deploy: bool) -> None:
    model = check_export(tmp_path / "model.onnx", "dabnet", (41, 54), deploy=deploy)
    kinds = {node.op_type for node in model.graph.node}
    assert ("PRelu" in kinds) is not deploy
    assert ("Relu" in kinds) is deploy
    # BatchNorms that fold are gone or stand right behind a convolution.
    assert (len(_unfoldable(model)) > 0) is not deploy


def test_variant_has_the_same_convolutions() -> None:
    published, variant = meta_network("dabnet"), meta_network("dabnet", deploy=True)

    def shapes(network: nn.Module) -> list[tuple[int, ...]]:
        return [tuple(m.weight.shape) for m in network.modules() if isinstance(m, nn.Conv2d)]

    assert shapes(published) == shapes(variant)
    assert count_macs(published, (64, 64)) == count_macs(variant, (64, 64))


def _unfoldable(model: onnx.ModelProto) -> list[str]:
    made_by = {name: node.op_type for node in model.graph.node for name in node.output}
    norms = [node for node in model.graph.node if node.op_type == "BatchNormalization"]
    return [node.name for node in norms if made_by.get(node.input[0]) != "Conv"]
