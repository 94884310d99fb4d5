"""Training that goes on from an exported file: the same function, statistics measured again, and every refusal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from edgeseg.converters.export import export
from edgeseg.errors import InputError, ModelError
from edgeseg.models import create, create_dsrl
from edgeseg.models.network import SegmentationNetwork
from edgeseg.training.exported import load_exported

SIZE = (64, 96)


def images(count: int = 6) -> list[Tensor]:
    return [torch.randn(1, 3, *SIZE, generator=torch.Generator().manual_seed(seed)) for seed in range(count)]


def trained(network: SegmentationNetwork) -> SegmentationNetwork:
    """With statistics of the images, and scales and shifts other than one and zero."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.2)
        elif isinstance(module, nn.Conv2d) and module.bias is not None:
            nn.init.normal_(module.bias)
    with torch.no_grad():
        for image in images():
            network.train()(torch.cat([image, image.flip(3)]))
    return network.eval()


def same(found: Any, expected: Tensor) -> bool:
    return torch.allclose(found, expected, atol=1e-3 * float(expected.abs().max()))


@pytest.fixture(scope="module")
def folded(tmp_path_factory: pytest.TempPathFactory) -> tuple[SegmentationNetwork, Path]:
    """A network all of whose BatchNorms the export folds, and its file."""
    torch.manual_seed(0)
    given = trained(create_dsrl("dabnet", classes=5, deploy=True))
    path = tmp_path_factory.mktemp("folded") / "given.onnx"
    export(given, SIZE, path)
    return given, path


@torch.no_grad()
def test_folded(folded: tuple[SegmentationNetwork, Path]) -> None:
    given, path = folded
    found = create_dsrl("dabnet", classes=5, deploy=True).train()
    load_exported(found, path, images())
    assert found.training
    batch = torch.cat(images())
    expected = given(batch)
    # The images that were measured have the same statistics as a batch.
    assert same(found(batch)[0], expected)
    load_exported(found, path, images())
    assert same(found.eval()(batch), expected)


@torch.no_grad()
@pytest.mark.parametrize(("name", "options"), [("dabnet", {}), ("fastscnn", {"deploy": True})])
def test_not_folded_or_with_auxiliary_heads(name: str, options: dict[str, Any], tmp_path: Path) -> None:
    given = trained(create(name, classes=5, **options))
    export(given, SIZE, tmp_path / "given.onnx")
    found = create(name, classes=5, **options)
    load_exported(found, tmp_path / "given.onnx", images())
    assert same(found.eval()(images()[0]), given(images()[0]))


def test_another_network_is_refused(folded: tuple[SegmentationNetwork, Path]) -> None:
    with pytest.raises(InputError, match=r"given\.onnx is no export of this DABNet with 5 classes: it lacks .* more"):
        load_exported(create("dabnet", classes=5), folded[1], images())
    with pytest.raises(InputError, match=r"it lacks prediction\.weight, prediction\.bias; give the name"):
        load_exported(create_dsrl("dabnet", classes=6, deploy=True), folded[1], images())


def test_a_foreign_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "given.onnx").write_bytes(b"nothing of the kind")
    with pytest.raises(InputError, match=r"cannot read .*given\.onnx as an ONNX file that edgeseg export wrote"):
        load_exported(create("dabnet", classes=5), tmp_path / "given.onnx", images())


def test_no_frames(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="measured on training frames, but there are none"):
        load_exported(create("dabnet", classes=5), tmp_path / "given.onnx", [])
