"""MaskLab: sizes, its parts, detection, what it refuses, and its way to ONNX; its counts are in its card."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from support.costs import count_parameters, meta_network
from support.networks import SMALL
from support.structure import check_export, check_sizes
from torch import Tensor

from edgeseg.errors import EdgesegError, ShapeError, UsageError
from edgeseg.models import create
from edgeseg.models.masklab import MaskLab

OPTIONS = SMALL["masklab"]


def small(classes: int = 3, **options: object) -> MaskLab:
    torch.manual_seed(0)
    network = create("masklab", classes=classes, **OPTIONS, **options)
    assert isinstance(network, MaskLab)
    return network.eval()


@pytest.mark.parametrize("output_stride", [8, 16])
def test_any_size(output_stride: int) -> None:
    check_sizes("masklab", output_stride=output_stride, **OPTIONS)


def test_both_strides_take_the_same_weights() -> None:
    shapes = [{n: p.shape for n, p in small(output_stride=stride).named_parameters()} for stride in (8, 16)]
    assert shapes[0] == shapes[1]


def test_parameters_by_hand() -> None:
    """ResNet-101 without its classifier, a copy of its last stage, and the heads at their published widths."""
    backbone, last_stage = 42_500_160, 14_964_736
    semantic, direction = 2048 * 19 + 19, 2048 * 32 + 32
    proposal = 1024 * 512 * 9 + 512 + 512 * 15 + 15 + 512 * 60 + 60
    box = last_stage + 2048 * 20 + 20 + 2048 * 4 + 4
    mask = 2 + 1 + 25 * (64 + 256 + 1) * 64 + 64 + 25 * 64 * 64 + 64 + 25 * 64 + 1
    network = meta_network("masklab", classes=19)
    assert count_parameters(network) == backbone + semantic + direction + proposal + box + mask


def test_maps_have_the_strides_of_their_stages() -> None:
    network = small()
    maps = network.maps(torch.randn(2, 3, 64, 96))
    assert [tuple(low.shape[2:]) for low in maps.low] == [(32, 48), (16, 24)]
    assert tuple(maps.shared.shape[2:]) == tuple(maps.semantic.shape[2:]) == (4, 6)
    assert maps.direction.shape == (2, 32, 4, 6)
    assert maps.objectness.shape == (2, 15, 4, 6)
    assert maps.shifts.shape == (2, 60, 4, 6)


def test_semantic_logits_are_those_of_the_maps() -> None:
    network, image = small(), torch.randn(1, 3, 64, 96)
    with torch.inference_mode():
        features, taps = network.encode(image)
        assert torch.equal(network.predict(features), network.maps(image).semantic)
    assert taps == ()


def test_training_gives_the_semantic_logits_alone() -> None:
    outputs = small().train()(torch.randn(2, 3, 64, 96))
    assert [tuple(logits.shape) for logits in outputs] == [(2, 3, 64, 96)]


class TestProposals:
    def test_untrained_ones_are_the_anchors_of_the_image(self) -> None:
        """Without offsets a proposal is an anchor cut at the edges; the surest comes first."""
        proposal = small().proposal
        objectness, shifts = torch.full((1, 15, 4, 6), -9.0), torch.zeros(1, 60, 4, 6)
        objectness[0, 7, 2, 3] = 5  # of the third size, 4 * 8 pixels, the ratio 1
        (found,) = proposal.propose(objectness, shifts, (64, 96))
        side = 4 * OPTIONS["smallest_anchor"]
        assert found.boxes[0].tolist() == [56 - side / 2, 40 - side / 2, 56 + side / 2, 40 + side / 2]
        assert found.scores[0] == 5
        assert len(found.boxes) <= 300
        assert (found.boxes >= 0).all()
        assert (found.boxes <= torch.tensor([96, 64, 96, 64])).all()

    def test_offsets_belong_to_their_anchors(self) -> None:
        proposal = small().proposal
        shifts = torch.arange(2 * 60 * 4 * 6).reshape(2, 60, 4, 6).float()
        logits, by = proposal.flat(torch.arange(2 * 15 * 4 * 6).reshape(2, 15, 4, 6), shifts)
        number = (2 * 6 + 3) * 15 + 7  # row 2, column 3, anchor 7
        assert by[1, number].tolist() == shifts[1, 28:32, 2, 3].tolist()
        assert logits[1, number] == ((15 + 7) * 4 + 2) * 6 + 3


class TestDetection:
    """The parts put together, with weights set so that the result is known."""

    @pytest.fixture
    def network(self) -> MaskLab:
        """Every proposal is of class 1, and its mask the left half of its box."""
        network = small()
        with torch.no_grad():
            network.box.classes.weight.zero_()
            network.box.classes.bias.copy_(torch.tensor([0.0, 4.0, 0.0, 0.0]))
            network.box.shifts.weight.zero_()
            network.mask.coarse.weight.zero_()
            last = network.mask.refine[4]
            last.weight.zero_()
            last.bias.fill_(1)
        return network

    def test_gives_values_per_image(self, network: MaskLab) -> None:
        first, second = network.detect(torch.randn(2, 3, 64, 96), overlap=0.2, limit=7)
        for found in (first, second):
            count = len(found.boxes)
            assert 1 < count <= 7
            assert found.boxes.shape == (count, 4)
            assert found.boxes.dtype == np.float32
            assert found.classes.tolist() == [1] * count
            assert found.masks.shape == (count, 64, 96)
            assert found.masks.dtype == np.bool_
            np.testing.assert_allclose(found.scores, np.exp(4) / (np.exp(4) + 3), rtol=1e-5)

    def test_masks_fill_their_boxes(self, network: MaskLab) -> None:
        (found,) = network.detect(torch.randn(1, 3, 64, 96))
        y, x = np.mgrid[:64, :96] + 0.5
        for box, mask in zip(found.boxes, found.masks, strict=True):
            # A middle that lies on the edge up to rounding may be in or out.
            inside, around = (
                (box[0] - far <= x) & (x < box[2] + far) & (box[1] - far <= y) & (y < box[3] + far)
                for far in (-1e-3, 1e-3)
            )
            assert mask[inside].all()
            assert not mask[~around].any()

    def test_no_object_is_no_instance(self, network: MaskLab) -> None:
        with torch.no_grad():
            network.box.classes.bias[3] = 9
        (found,) = network.detect(torch.randn(1, 3, 64, 96))
        assert [value.shape for value in (found.boxes, found.classes, found.scores)] == [(0, 4), (0,), (0,)]
        assert found.masks.shape == (0, 64, 96)

    def test_one_image_is_found_alike_in_a_batch(self, network: MaskLab) -> None:
        images = torch.randn(2, 3, 64, 96)
        alone, among = network.detect(images[1:])[0], network.detect(images)[1]
        np.testing.assert_allclose(alone.boxes, among.boxes, rtol=0, atol=0.02)
        assert (alone.masks == among.masks).mean() > 0.999

    @pytest.mark.parametrize(
        ("images", "options", "error", "said"),
        [
            (torch.zeros(3, 8, 8), {}, ShapeError, r"must be \(N, 3, H, W\), but are \(3, 8, 8\); add a batch"),
            (torch.zeros(1, 4, 8, 8), {}, ShapeError, r"but are \(1, 4, 8, 8\)"),
            (torch.zeros(1, 3, 8, 8), {"score": 1.5}, UsageError, "score must be 0 to 1, but is 1.5"),
            (torch.zeros(1, 3, 8, 8), {"overlap": -1}, UsageError, "overlap must be 0 to 1, but is -1"),
            (torch.zeros(1, 3, 8, 8), {"limit": 0}, UsageError, "limit must be at least 1, but is 0"),
        ],
    )
    def test_refuses(
        self, network: MaskLab, images: Tensor, options: dict[str, float], error: type[EdgesegError], said: str
    ) -> None:
        with pytest.raises(error, match=said):
            network.detect(images, **options)  # type: ignore[arg-type]

    def test_refuses_while_training(self, network: MaskLab) -> None:
        with pytest.raises(UsageError, match=r"detect needs a network in eval\(\), but it is in train\(\)"):
            network.train().detect(torch.zeros(1, 3, 8, 8))


def test_exported_graph_gives_the_same_logits(tmp_path: Path) -> None:
    """It holds the semantic network alone, and no weight of the rest."""
    model = check_export(tmp_path / "model.onnx", "masklab", (45, 70), **OPTIONS)
    network = small(classes=5)
    kept = [*network.backbone.parameters(), *network.prediction.parameters()]
    assert sum(np.prod(weight.dims) for weight in model.graph.initializer) < 1.01 * sum(p.numel() for p in kept)
    network.drop_undeployed()
    assert [p.shape for p in network.parameters()] == [p.shape for p in kept]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"backbone": "resnet18"}, "backbone of masklab must be one of resnet50, resnet101, but is resnet18"),
        ({"output_stride": 32}, "output_stride of masklab must be one of 8, 16, but is 32"),
        ({"directions": 1}, "directions of masklab must be at least 2, but is 1"),
        ({"distances": 0}, "distances of masklab must be at least 1, but is 0"),
        ({"smallest_anchor": 0}, "smallest_anchor of masklab must be at least 1, but is 0"),
        ({"width": 2}, "width of masklab must be above 0 and at most 1, but is 2"),
    ],
)
def test_refuses(options: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        create("masklab", **options)
    assert str(caught.value) == said


@pytest.mark.slow
def test_full_size_is_exported(tmp_path: Path) -> None:
    check_export(tmp_path / "model.onnx", "masklab", (97, 129))
