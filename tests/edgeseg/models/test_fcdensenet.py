"""FC-DenseNet: layers per block, sizes, the variant, and its way to ONNX."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
import torch
from support.costs import count_macs, count_parameters, meta_network
from support.structure import check_export, check_sizes, check_training
from torch import nn

from edgeseg.errors import UsageError
from edgeseg.models import create
from edgeseg.models.fcdensenet import DenseBlock

SMALL = {"depth": 56, "width": 0.5}


@pytest.mark.parametrize("depth", [56, 67, 103])
def test_depth_counts_the_convolutions(depth: int) -> None:
    network = meta_network("fcdensenet", depth=depth)
    assert sum(isinstance(m, (nn.Conv2d, nn.ConvTranspose2d)) for m in network.modules()) == depth
    blocks = [len(m.layers) for m in network.modules() if isinstance(m, DenseBlock)]
    assert blocks == {56: [4] * 11, 67: [5] * 11, 103: [4, 5, 7, 10, 12, 15, 12, 10, 7, 5, 4]}[depth]


@pytest.mark.parametrize("deploy", [False, True])
def test_any_size(deploy: bool) -> None:
    check_sizes("fcdensenet", deploy=deploy, **SMALL)


@pytest.mark.parametrize("deploy", [False, True])
def test_training_reaches_every_weight(deploy: bool) -> None:
    check_training("fcdensenet", heads=0, deploy=deploy, **SMALL)


def test_layers_read_all_before_them() -> None:
    block = DenseBlock(8, 4, 3, deploy=False).eval()
    seen: list[int] = []
    for layer in block.layers:
        layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape[1]))
    with torch.inference_mode():
        assert block(torch.randn(1, 8, 6, 6)).shape == (1, 12, 6, 6)
    assert seen == [8, 12, 16]


def test_variant_has_the_same_convolutions() -> None:
    published, variant = (meta_network("fcdensenet", depth=67, deploy=deploy) for deploy in (False, True))
    assert count_macs(published, (64, 64)) == count_macs(variant, (64, 64))
    assert count_parameters(variant) < count_parameters(published)


@pytest.mark.parametrize("deploy", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_exported_graph_gives_the_same_logits(tmp_path: Path, deploy: bool) -> None:
    model = check_export(tmp_path / "model.onnx", "fcdensenet", (41, 54), deploy=deploy, **SMALL)
    assert (len(_unfoldable(model)) > 0) is not deploy


@pytest.mark.parametrize(("option", "value"), [("depth", 57), ("width", 0)])
def test_refuses(option: str, value: int) -> None:
    said = {"depth": "depth of fcdensenet must be one of 56, 67, 103, but is 57", "width": "width of fcdensenet must"}
    with pytest.raises(UsageError, match=said[option]):
        create("fcdensenet", **{option: value})


@pytest.mark.slow
def test_full_size(tmp_path: Path) -> None:
    check_export(tmp_path / "model.onnx", "fcdensenet", (64, 96), depth=103)


def _unfoldable(model: onnx.ModelProto) -> list[str]:
    made_by = {name: node.op_type for node in model.graph.node for name in node.output}
    norms = [node for node in model.graph.node if node.op_type == "BatchNormalization"]
    return [node.name for node in norms if made_by.get(node.input[0]) != "Conv"]
