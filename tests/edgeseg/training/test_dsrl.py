"""The training half of DSRL: feature affinity, the restored image, and the total loss."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from edgeseg.errors import ShapeError
from edgeseg.models.network import SegmentationNetwork
from edgeseg.models.superresolution import SuperResolvedNetwork
from edgeseg.training.affinity import feature_affinity
from edgeseg.training.dsrl import DualSuperResolution, subsample
from edgeseg.training.losses import CrossEntropy


class Tiny(SegmentationNetwork):
    feature_channels = 12

    def __init__(self, classes: int = 5, stride: int = 8, auxiliary: bool = False) -> None:
        super().__init__(classes)
        self.feature_stride = stride
        self.body = nn.Conv2d(3, 12, stride, stride)
        self.prediction = nn.Conv2d(12, classes, 1)
        self.auxiliary = nn.ModuleList([nn.Conv2d(12, classes, 1)] if auxiliary else [])

    def encode(self, image: Tensor) -> tuple[Tensor, list[Tensor]]:
        features = self.body(image)
        return features, [features for _ in self.auxiliary] if self.training else []

    def predict(self, features: Tensor) -> Tensor:
        logits: Tensor = self.prediction(features)
        return logits


def dual(auxiliary: bool = False, stride: int = 8, **options: float) -> DualSuperResolution:
    torch.manual_seed(0)
    network = SuperResolvedNetwork(Tiny(auxiliary=auxiliary, stride=stride), channels=8)
    return DualSuperResolution(network, CrossEntropy(), width=8, **options)


def batch(height: int = 32, width: int = 48) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(1)
    high = torch.randn(2, 3, 2 * height, 2 * width)
    return functional.avg_pool2d(high, 2), high, torch.randint(0, 5, (2, 2 * height, 2 * width))


def whole_affinity(first: Tensor, second: Tensor) -> Tensor:
    """The formula as it is written, with both matrices whole."""
    a, b = (f.flatten(2) / f.flatten(2).norm(dim=1, keepdim=True).clamp_min(1e-12) for f in (first, second))
    return (a.transpose(1, 2) @ a - b.transpose(1, 2) @ b).abs().mean()


class TestAffinity:
    def test_by_hand(self) -> None:
        # Two pixels: at a right angle in the first map, parallel in the second; 2 of the 4 similarities differ by 1.
        first = torch.tensor([[[[3.0, 0.0]], [[0.0, 5.0]]]])
        second = torch.tensor([[[[1.0, 2.0]]]])
        assert feature_affinity(first, second).item() == pytest.approx(0.5)

    @pytest.mark.parametrize("chunk", [1, 70, 35 * 4, 1 << 22])
    def test_chunks_give_the_value_and_gradient_of_the_whole(self, chunk: int) -> None:
        torch.manual_seed(0)
        maps = [torch.randn(2, c, 5, 7) for c in (6, 4)]
        whole = [m.clone().requires_grad_() for m in maps]
        parts = [m.clone().requires_grad_() for m in maps]
        expected, given = whole_affinity(*whole), feature_affinity(*parts, chunk=chunk)
        (3 * expected).backward()
        (3 * given).backward()
        assert given.item() == pytest.approx(expected.item(), abs=1e-6)
        for one, other in zip(parts, whole, strict=True):
            assert other.grad is not None
            assert other.grad.abs().max() > 1e-4
            torch.testing.assert_close(one.grad, other.grad, atol=1e-6, rtol=0)

    def test_of_itself_is_0(self) -> None:
        features = torch.randn(2, 6, 5, 7)
        assert feature_affinity(features, features).item() == 0

    def test_does_not_see_lengths(self) -> None:
        features = torch.randn(2, 6, 5, 7)
        lengths = torch.rand(2, 1, 5, 7) + 0.1
        assert feature_affinity(features, 7 * features).item() < 1e-6
        assert feature_affinity(features, lengths * features).item() < 1e-6

    def test_zero_features_are_safe(self) -> None:
        zeros = torch.zeros(1, 4, 3, 3, requires_grad=True)
        loss = feature_affinity(zeros, torch.ones(1, 4, 3, 3))
        loss.backward()
        assert loss.item() == pytest.approx(1)
        assert zeros.grad is not None
        assert zeros.grad.isfinite().all()

    def test_never_holds_a_matrix(self) -> None:
        """2304 pixels: a matrix has 5.3 million similarities; nothing kept or made holds a tenth of it."""
        first, second = (torch.randn(1, 4, 48, 48, requires_grad=True) for _ in range(2))
        kept: list[int] = []
        made: list[int] = []

        class Sizes(torch.utils._python_dispatch.TorchDispatchMode):
            def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
                result = function(*args, **kwargs or {})
                made.extend(
                    t.numel()
                    for t in (result if isinstance(result, (tuple, list)) else [result])
                    if isinstance(t, Tensor)
                )
                return result

        with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t), Sizes():
            feature_affinity(first, second, chunk=100 * 2304).backward()
        assert max(made) == 100 * 2304
        assert sum(kept) < 100_000
        # Each of the 24 chunks of rows makes two matrices of similarities, the last ones smaller.
        assert made.count(100 * 2304) >= 2 * 23

    def test_bfloat16_is_compared_in_float32(self) -> None:
        features = torch.randn(1, 6, 5, 7)
        with torch.autocast("cpu", torch.bfloat16):
            loss = feature_affinity(features, features.flip(3))
        assert loss.dtype == torch.float32
        assert loss.item() == pytest.approx(whole_affinity(features, features.flip(3)).item(), abs=1e-6)


@pytest.mark.parametrize(
    ("given", "size", "expected"),
    [((32, 48), (8, 12), (8, 12)), ((32, 48), (8, 13), (8, 13)), ((4, 6), (8, 12), (4, 6))],
)
def test_subsampling_never_enlarges(given: tuple[int, int], size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert tuple(subsample(torch.ones(1, 2, *given), size).shape[2:]) == expected


class TestTotal:
    def test_is_the_weighted_sum(self) -> None:
        parts = dual()(*batch())
        total = parts["segmentation"] + 0.1 * parts["image"] + 1.0 * parts["affinity"]
        assert set(parts) == {"loss", "segmentation", "image", "affinity"}
        assert parts["loss"].item() == pytest.approx(total.item())
        assert all(p.item() > 0 for p in parts.values())

    def test_takes_its_weights(self) -> None:
        parts = dual(auxiliary=True, w1=2.0, w2=3.0, auxiliary_weight=0.5)(*batch())
        total = parts["segmentation"] + 0.5 * parts["auxiliary"] + 2 * parts["image"] + 3 * parts["affinity"]
        assert parts["loss"].item() == pytest.approx(total.item())

    @pytest.mark.parametrize("stride", [2, 4, 8, 16])
    def test_each_parameter_is_trained(self, stride: int) -> None:
        training = dual(auxiliary=True, stride=stride)
        training(*batch())["loss"].backward()
        assert [n for n, p in training.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []

    def test_image_is_that_of_the_restoration(self) -> None:
        training = dual().eval()
        low, high, labels = batch()
        with torch.no_grad():
            expanded, image = training.restoration(training.network.base.encode(low)[0])
            parts = training(low, high, labels)
        # Both heads' last features have one size; see the paper's figure 3.
        assert expanded.shape[2:] == training.network.encode(low)[0].shape[2:]
        assert image.shape == high.shape
        assert parts["image"].item() == pytest.approx(((image - high) ** 2).mean().item())

    def test_segmentation_is_that_of_the_network(self) -> None:
        training = dual().eval()
        low, high, labels = batch()
        expected = functional.cross_entropy(training.network(low), labels)
        assert training(low, high, labels)["segmentation"].item() == pytest.approx(expected.item())

    @pytest.mark.parametrize("detached", [False, True])
    def test_detached_affinity_leaves_the_restoration_alone(self, detached: bool) -> None:
        training = dual(detach_sr=detached)
        training(*batch())["affinity"].backward()
        reached = any(p.grad is not None for p in training.restoration.parameters())
        assert reached is not detached
        assert training.network.prediction.weight.grad is None, "the features are those before the prediction"
        assert all(p.grad is not None for p in training.network.expand.parameters())

    def test_takes_sizes_that_the_stride_does_not_divide(self) -> None:
        assert dual()(*batch(29, 50))["loss"].isfinite()

    def test_learns(self) -> None:
        """Both heads overfit one batch whose labels are in the image."""
        training = dual()
        low, high, _ = batch(16, 16)
        high = functional.interpolate(functional.avg_pool2d(high, 8), scale_factor=8) * 5
        low, labels = functional.avg_pool2d(high, 2), (high[:, 0] > 0).long()
        optimizer = torch.optim.Adam(training.parameters(), 0.01)
        history = []
        for _ in range(60):
            parts = training(low, high, labels)
            optimizer.zero_grad()
            parts["loss"].backward()
            optimizer.step()
            history.append(parts)
        assert history[-1]["segmentation"] < 0.2 * history[0]["segmentation"]
        assert history[-1]["image"] < 0.5 * history[0]["image"]

    @pytest.mark.parametrize(
        ("shapes", "message"),
        [
            (((8, 8), (8, 8), (16, 16)), "image_high must be twice the size of image_low, 16x16, but is 8x8"),
            (((8, 8), (16, 16), (8, 16)), "labels must be twice the size of image_low, 16x16, but is 8x16"),
        ],
    )
    def test_refuses_sizes(self, shapes: tuple[tuple[int, int], ...], message: str) -> None:
        low, high, labels = shapes
        with pytest.raises(ShapeError, match=message):
            dual()(torch.ones(1, 3, *low), torch.ones(1, 3, *high), torch.zeros(1, *labels, dtype=torch.long))
