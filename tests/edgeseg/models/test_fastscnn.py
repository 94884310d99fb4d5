"""Fast-SCNN: published counts, sizes, its pyramid, the variant, and its way to ONNX."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from support.costs import count_macs, count_parameters, meta_network
from support.structure import check_export, check_sizes, check_training

from edgeseg.models.fastscnn import InvertedBottleneck, PyramidPooling


def test_costs_what_is_published() -> None:
    network = meta_network("fastscnn", classes=19)
    assert count_parameters(network) == 1_138_051
    assert round(count_macs(network, (512, 1024)) / 1e9, 4) == 1.6769
    # The auxiliary head: 3x3 from 64 to 32 channels, BatchNorm, 1x1.
    assert count_parameters(network.train()) == 1_138_051 + 64 * 32 * 9 + 2 * 32 + 32 * 19 + 19


def test_eleven_classes_differ_by_their_prediction_alone() -> None:
    assert count_parameters(meta_network("fastscnn", classes=11)) == 1_138_051 - 8 * (128 + 1)


def test_bottlenecks_add_their_input_where_it_fits() -> None:
    blocks = [m for m in meta_network("fastscnn").modules() if isinstance(m, InvertedBottleneck)]
    assert [block.residual for block in blocks] == [False, True, True] * 3


def test_pyramid_spreads_means() -> None:
    """Where maps are constant per channel, each level gives one value per channel, whatever its number of bins."""
    torch.manual_seed(0)
    pyramid = PyramidPooling(8, 8, align_corners=True).eval()
    with torch.inference_mode():
        maps = torch.randn(1, 8, 1, 1).expand(1, 8, 7, 11)
        out = pyramid(maps)
        expected = pyramid.out(torch.cat([maps, *(level(maps) for level in pyramid.levels)], 1))
    assert out.shape == (1, 8, 7, 11)
    torch.testing.assert_close(out, out[:, :, :1, :1].expand_as(out))
    torch.testing.assert_close(out, expected)


def test_any_size() -> None:
    check_sizes("fastscnn")


def test_training_reaches_every_weight() -> None:
    check_training("fastscnn", heads=1)


@pytest.mark.parametrize(("deploy", "size"), [(False, (96, 160)), (True, (45, 70))])
def test_exported_graph_gives_the_same_logits(tmp_path: Path, deploy: bool, size: tuple[int, int]) -> None:
    model = check_export(tmp_path / "model.onnx", "fastscnn", size, deploy=deploy)
    placements = {
        attribute.s
        for node in model.graph.node
        if node.op_type == "Resize"
        for attribute in node.attribute
        if attribute.name == "coordinate_transformation_mode"
    }
    assert placements <= ({b"half_pixel", b"pytorch_half_pixel"} if deploy else {b"align_corners"})
    assert placements
    # Bins whose windows differ in size are products with a matrix, not a gather for each window.
    kinds = [node.op_type for node in model.graph.node]
    assert "MatMul" in kinds
    assert not {"Gather", "GatherND", "Loop"} & set(kinds)
    assert len(kinds) < 150
