"""Each loss against values by hand, among them those of an image of 97 % background."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from edgeseg.errors import LabelError, ShapeError, UsageError
from edgeseg.training.losses import LOSSES, CrossEntropy, Dice, Focal, HardCrossEntropy, SegmentationLoss


def pixels(probabilities: Sequence[Sequence[float]]) -> Tensor:
    """Logits (1, C, 1, P) whose softmax gives each pixel's probabilities."""
    return torch.tensor(probabilities).T.log()[None, :, None]


def labels(*values: int) -> Tensor:
    return torch.tensor(values)[None, None]


def sure(share: float, count: int, label: int) -> tuple[list[list[float]], list[int]]:
    """Pixels of two classes whose right class has one probability."""
    p = [share, 1 - share] if label == 0 else [1 - share, share]
    return [p] * count, [label] * count


def unbalanced() -> tuple[Tensor, Tensor]:
    """10 000 pixels: 97 % background at 80 %, 3 % object at 30 %."""
    (background, zeros), (object_, ones) = sure(0.8, 9700, 0), sure(0.3, 300, 1)
    return pixels(background + object_), labels(*zeros, *ones)


def with_ignored(logits: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """The same pixels and wrong ones that do not count."""
    return torch.cat([logits, 50 * torch.randn_like(logits)], 3), torch.cat([right, torch.full_like(right, 255)], 2)


class TestEvery:
    @pytest.mark.parametrize("name", LOSSES)
    def test_ignored_pixels_do_not_count(self, name: str) -> None:
        torch.manual_seed(0)
        logits, right = torch.randn(1, 3, 1, 20), torch.randint(0, 3, (1, 1, 20))
        logits, right = with_ignored(logits, right)
        logits.requires_grad_()
        loss = LOSSES[name]()(logits, right)
        loss.backward()
        assert loss.item() == pytest.approx(LOSSES[name]()(logits[..., :20], right[..., :20]).item())
        assert logits.grad is not None
        assert logits.grad[..., :20].abs().sum() > 0
        assert not logits.grad[..., 20:].any()

    @pytest.mark.parametrize("name", LOSSES)
    @pytest.mark.parametrize("weights", [None, [1.0, 2.0, 0.5]])
    def test_a_batch_without_labels_gives_0_and_a_gradient(self, name: str, weights: list[float] | None) -> None:
        logits = torch.randn(2, 3, 4, 5, requires_grad=True)
        loss = LOSSES[name](weights=weights)(logits, torch.full((2, 4, 5), 255))
        loss.backward()
        assert loss.item() == 0
        assert logits.grad is not None
        assert not logits.grad.any()

    @pytest.mark.parametrize("name", LOSSES)
    def test_right_and_sure_is_0(self, name: str) -> None:
        right = torch.randint(0, 3, (1, 4, 5))
        logits = 1000 * functional.one_hot(right, 3).permute(0, 3, 1, 2).float()
        logits.requires_grad_()
        loss = LOSSES[name]()(logits, right)
        loss.backward()
        assert loss.item() == pytest.approx(0, abs=1e-6)
        assert logits.grad is not None
        assert logits.grad.isfinite().all()

    @pytest.mark.parametrize("name", LOSSES)
    def test_wrong_and_sure_has_a_finite_gradient(self, name: str) -> None:
        right = torch.randint(0, 3, (1, 4, 5))
        logits = -1000 * functional.one_hot(right, 3).permute(0, 3, 1, 2).float()
        logits.requires_grad_()
        LOSSES[name]()(logits, right).backward()
        assert logits.grad is not None
        assert logits.grad.isfinite().all()

    @pytest.mark.parametrize("name", LOSSES)
    def test_reads_half_precision_in_float32(self, name: str) -> None:
        logits, right = torch.randn(1, 3, 4, 5).bfloat16(), torch.randint(0, 3, (1, 4, 5))
        loss = LOSSES[name]()(logits, right)
        assert loss.dtype == torch.float32
        assert loss.item() == LOSSES[name]()(logits.float(), right).item()

    @pytest.mark.parametrize("name", LOSSES)
    def test_another_ignore_index(self, name: str) -> None:
        logits, right = torch.randn(1, 3, 1, 8), torch.tensor([[[0, 1, 2, 2, 1, 0, 1, 2]]])
        other = torch.where(right == 2, 255, right)
        expected = LOSSES[name]()(logits, other).item()
        assert LOSSES[name](ignore_index=2)(logits, right).item() == pytest.approx(expected)

    @pytest.mark.parametrize("name", LOSSES)
    @pytest.mark.parametrize(
        ("right", "error", "message"),
        [
            (torch.full((1, 4, 5), 3), LabelError, "0 to 2 or the ignore index 255, but 3 occurs"),
            (torch.full((1, 4, 5), -1), LabelError, "but -1 occurs"),
            (torch.zeros(1, 2, 5).long(), ShapeError, r"\(1, 3, 4, 5\), but are \(1, 2, 5\); resize the logits"),
        ],
    )
    def test_refuses_labels(self, name: str, right: Tensor, error: type[Exception], message: str) -> None:
        with pytest.raises(error, match=message):
            LOSSES[name]()(torch.zeros(1, 3, 4, 5), right)

    @pytest.mark.parametrize("name", LOSSES)
    def test_refuses_weights(self, name: str) -> None:
        with pytest.raises(UsageError, match="2 class weights, but 3 classes"):
            LOSSES[name](weights=[1.0, 2.0])(torch.zeros(1, 3, 4, 5), torch.zeros(1, 4, 5).long())
        for weights in ([1.0, -1.0], [0.0, 0.0], [math.nan, 1.0]):
            with pytest.raises(UsageError, match="class weights must be finite"):
                LOSSES[name](weights=weights)


class TestCrossEntropy:
    def test_at_80_percent(self) -> None:
        assert CrossEntropy()(pixels([[0.8, 0.2]]), labels(0)).item() == pytest.approx(0.2231, abs=5e-5)

    def test_background_outweighs_the_object(self) -> None:
        logits, right = unbalanced()
        assert 9700 * CrossEntropy()(logits[..., :9700], right[..., :9700]).item() == pytest.approx(2164.5, abs=0.05)
        assert 300 * CrossEntropy()(logits[..., 9700:], right[..., 9700:]).item() == pytest.approx(361.2, abs=0.05)
        assert 10_000 * CrossEntropy()(logits, right).item() == pytest.approx(2164.5 + 361.2, abs=0.1)

    def test_weighs_classes(self) -> None:
        logits, right = pixels([[0.5, 0.5], [0.8, 0.2], [0.9, 0.1]]), labels(0, 0, 1)
        expected = (math.log(2) - math.log(0.8) - 3 * math.log(0.1)) / (1 + 1 + 3)
        assert CrossEntropy(weights=[1, 3])(logits, right).item() == pytest.approx(expected)

    def test_agrees_with_torch(self) -> None:
        logits, right = torch.randn(2, 4, 6, 7), torch.randint(0, 4, (2, 6, 7))
        right[0, :3] = 255
        weights = [0.5, 1.0, 2.0, 3.0]
        expected = functional.cross_entropy(logits, right, torch.tensor(weights), ignore_index=255)
        assert CrossEntropy(weights=weights)(logits, right).item() == pytest.approx(expected.item())


class TestHardCrossEntropy:
    def test_keeps_pixels_below_the_probability(self) -> None:
        logits = pixels([[0.9, 0.1], [0.71, 0.29], [0.69, 0.31], [0.5, 0.5]])
        expected = -(math.log(0.69) + math.log(0.5)) / 2
        assert HardCrossEntropy(share=0)(logits, labels(0, 0, 0, 0)).item() == pytest.approx(expected)

    def test_keeps_the_least_share_of_the_pixels_that_count(self) -> None:
        logits = pixels([[0.99, 0.01], [0.9, 0.1], [0.95, 0.05], [0.8, 0.2], [0.1, 0.9], [0.1, 0.9]])
        # Half of the four pixels that count: the two least probable ones, though both are above 0.7.
        expected = -(math.log(0.8) + math.log(0.9)) / 2
        loss = HardCrossEntropy(share=0.5)(logits, labels(0, 0, 0, 0, 255, 255))
        assert loss.item() == pytest.approx(expected)

    def test_weights_do_not_choose(self) -> None:
        logits = pixels([[0.6, 0.4], [0.2, 0.8], [0.4, 0.6]])
        loss = HardCrossEntropy(weights=[1, 100], share=0)(logits, labels(0, 1, 1))
        assert loss.item() == pytest.approx(-(math.log(0.6) + 100 * math.log(0.6)) / 101)

    def test_everything_sure_and_no_share_gives_0(self) -> None:
        assert HardCrossEntropy(share=0)(pixels([[0.9, 0.1]]), labels(0)).item() == 0

    @pytest.mark.parametrize(
        ("options", "message"),
        [({"probability": 0.0}, "probability must be"), ({"share": 1.5}, "share must be 0 to 1")],
    )
    def test_refuses(self, options: dict[str, float], message: str) -> None:
        with pytest.raises(UsageError, match=message):
            HardCrossEntropy(**options)


class TestFocal:
    def test_the_object_outweighs_the_background(self) -> None:
        logits, right = unbalanced()
        assert 9700 * Focal()(logits[..., :9700], right[..., :9700]).item() == pytest.approx(86.58, abs=0.005)
        assert 300 * Focal()(logits[..., 9700:], right[..., 9700:]).item() == pytest.approx(176.98, abs=0.005)
        assert 10_000 * Focal()(logits, right).item() == pytest.approx(86.58 + 176.98, abs=0.01)

    def test_without_gamma_is_cross_entropy(self) -> None:
        logits, right = unbalanced()
        assert Focal(gamma=0)(logits, right).item() == pytest.approx(CrossEntropy()(logits, right).item())

    def test_alpha_does_not_enter_the_divisor(self) -> None:
        logits, right = pixels([[0.8, 0.2], [0.7, 0.3]]), labels(0, 1)
        expected = -(0.25 * 0.2**2 * math.log(0.8) + 0.75 * 0.7**2 * math.log(0.3)) / 2
        assert Focal(weights=[0.25, 0.75])(logits, right).item() == pytest.approx(expected)

    @pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0])
    def test_low_gamma_has_a_finite_gradient(self, gamma: float) -> None:
        logits = torch.tensor([[[[100.0]], [[0.0]]]], requires_grad=True)
        Focal(gamma=gamma)(logits, torch.zeros(1, 1, 1).long()).backward()
        assert logits.grad is not None
        assert logits.grad.isfinite().all()

    def test_refuses(self) -> None:
        with pytest.raises(UsageError, match="gamma must be finite and not negative, but is -1"):
            Focal(gamma=-1)


class TestDice:
    LOGITS = ((0.8, 0.2), (0.6, 0.4), (0.3, 0.7))

    def test_sum_of_both(self) -> None:
        # Class 0: 2 (0.8 + 0.6) / (1.7 + 2); class 1: 2 (0.7) / (1.3 + 1).
        expected = 1 - (2 * 1.4 / 3.7 + 2 * 0.7 / 2.3) / 2
        assert Dice()(pixels(self.LOGITS), labels(0, 0, 1)).item() == pytest.approx(expected)

    def test_sum_of_squares(self) -> None:
        first, second = 0.64 + 0.36 + 0.09, 0.04 + 0.16 + 0.49
        expected = 1 - (2 * 1.4 / (first + 2) + 2 * 0.7 / (second + 1)) / 2
        assert Dice(squared=True)(pixels(self.LOGITS), labels(0, 0, 1)).item() == pytest.approx(expected)

    @pytest.mark.parametrize("squared", [False, True])
    def test_leaves_absent_classes_out(self, squared: bool) -> None:
        size = 1.09 if squared else 1.7
        loss = Dice(squared=squared)(pixels(self.LOGITS), labels(0, 0, 0))
        assert loss.item() == pytest.approx(1 - 2 * 1.7 / (size + 3))

    def test_weighs_classes(self) -> None:
        expected = (1 * (1 - 2 * 1.4 / 3.7) + 3 * (1 - 2 * 0.7 / 2.3)) / 4
        assert Dice(weights=[1, 3])(pixels(self.LOGITS), labels(0, 0, 1)).item() == pytest.approx(expected)

    def test_counts_the_batch_as_one(self) -> None:
        logits, right = pixels(self.LOGITS), labels(0, 0, 1)
        apart = Dice()(logits.permute(3, 1, 2, 0), right.permute(2, 0, 1))
        assert apart.item() == pytest.approx(Dice()(logits, right).item())

    @pytest.mark.parametrize("squared", [False, True])
    def test_gradient_stays_small_where_a_class_is_hardly_there(self, squared: bool) -> None:
        logits = torch.zeros(1, 2, 1, 1000)
        logits[:, 0] = 12.0
        logits.requires_grad_()
        right = torch.zeros(1, 1, 1000).long()
        right[..., 0] = 1
        Dice(squared=squared)(logits, right).backward()
        assert logits.grad is not None
        assert 0 < logits.grad.abs().max() < 0.01


class TestSegmentationLoss:
    def test_weighs_auxiliary_logits(self) -> None:
        right = torch.randint(0, 3, (2, 4, 5))
        outputs = tuple(torch.randn(2, 3, 4, 5) for _ in range(3))
        main, *extra = (CrossEntropy()(o, right).item() for o in outputs)
        parts = SegmentationLoss(CrossEntropy(), 0.3)(outputs, right)
        assert parts["segmentation"].item() == pytest.approx(main)
        assert parts["auxiliary"].item() == pytest.approx(sum(extra))
        assert parts["loss"].item() == pytest.approx(main + 0.3 * sum(extra))

    @pytest.mark.parametrize("alone", [False, True])
    def test_logits_alone(self, alone: bool) -> None:
        right, logits = torch.randint(0, 3, (2, 4, 5)), torch.randn(2, 3, 4, 5)
        parts = SegmentationLoss(CrossEntropy())(logits if alone else (logits,), right)
        assert set(parts) == {"loss", "segmentation"}
        assert parts["loss"].item() == pytest.approx(CrossEntropy()(logits, right).item())
