"""SegNet: sizes, the same logits as with pooling indices, and a graph without them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from support.structure import check_export, check_sizes, check_training
from torch import Tensor
from torch.nn import functional

from edgeseg.errors import UsageError
from edgeseg.models import create, create_dsrl
from edgeseg.models.segnet import SegNet

SMALL = {"width": 0.125}


def with_indices(network: SegNet, image: Tensor) -> Tensor:
    """SegNet as published, by torch's own pooling indices; for sizes that divide by 32."""
    maps, indices = image, []
    for stage in network.encoder:
        maps, where = functional.max_pool2d(stage(maps), 2, return_indices=True)
        indices.append(where)
    for stage in network.decoder:
        maps = stage(functional.max_unpool2d(maps, indices.pop(), 2))
    return network.predict(maps)


def test_logits_are_those_of_pooling_indices() -> None:
    torch.manual_seed(0)
    network = create("segnet", classes=5, **SMALL)
    assert isinstance(network, SegNet)
    network(torch.randn(2, 3, 64, 96))
    network.eval()
    image = torch.randn(1, 3, 64, 96)
    with torch.inference_mode():
        assert torch.equal(network(image), with_indices(network, image))


def test_any_size() -> None:
    check_sizes("segnet", **SMALL)


def test_training_reaches_every_weight() -> None:
    check_training("segnet", heads=0, **SMALL)


@pytest.mark.parametrize("size", [(64, 96), (41, 54)])
def test_exported_graph_gives_the_same_logits(tmp_path: Path, size: tuple[int, int]) -> None:
    model = check_export(tmp_path / "model.onnx", "segnet", size, **SMALL)
    kinds = [node.op_type for node in model.graph.node]
    assert "MaxUnpool" not in kinds
    assert kinds.count("DepthToSpace") == 5
    assert all(len(node.output) == 1 for node in model.graph.node if node.op_type == "MaxPool")


def test_refuses() -> None:
    with pytest.raises(UsageError, match="width of segnet must be above 0 and at most 1, but is -1"):
        create("segnet", width=-1)


@pytest.mark.parametrize("name", ["fcn", "unet", "segnet", "fcdensenet"])
def test_no_super_resolution_head_at_full_resolution(name: str) -> None:
    with pytest.raises(UsageError, match=r"features of the base must have a stride of 2, 4, 8, \.\.\., but it is 1"):
        create_dsrl(name, classes=5, width=0.125)


@pytest.mark.slow
def test_full_size(tmp_path: Path) -> None:
    check_export(tmp_path / "model.onnx", "segnet", (64, 96))
