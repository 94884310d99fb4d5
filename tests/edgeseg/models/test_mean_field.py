"""The mean field as a layer: against sums over all pairs, its gradient, the sign of its compatibility."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgeseg.models.mean_field import MeanField, filtered, mean_field
from edgeseg.refine import PRESETS
from edgeseg.refine.gaussian import Filter
from edgeseg.refine.learned_crf import message_filters

CLASSES, HEIGHT, WIDTH = 3, 4, 5
PIXELS = HEIGHT * WIDTH


def picture(height: int = HEIGHT, width: int = WIDTH, seed: int = 0) -> NDArray[np.uint8]:
    """Two flat halves with a little noise, so that pixels have some that are like them."""
    random = np.random.default_rng(seed)
    frame = np.full((height, width, 3), (60, 80, 120), np.float64)
    frame[:, width // 2 :] = (180, 150, 90)
    return np.clip(frame + random.normal(0, 2, frame.shape), 0, 255).astype(np.uint8)


def scores(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return 2 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def images(frame: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(frame.transpose(2, 0, 1)[None].astype(np.float32))


class AllPairs:
    """A kernel of the paper written out in float64, its rows divided by their sums."""

    def __init__(self, frame: NDArray[np.uint8], position: float, colour: float | None = None) -> None:
        height, width = frame.shape[:2]
        self.matrix = np.zeros((height * width, height * width))
        for i, (y, x) in enumerate(np.ndindex(height, width)):
            for j, (v, u) in enumerate(np.ndindex(height, width)):
                energy = ((y - v) ** 2 + (x - u) ** 2) / (2 * position**2)
                if colour is not None:
                    energy += ((frame[y, x].astype(float) - frame[v, u]) ** 2).sum() / (2 * colour**2)
                self.matrix[i, j] = np.exp(-energy)
        self.matrix /= self.matrix.sum(axis=1, keepdims=True)

    def __call__(self, values: NDArray[np.float32], *, transposed: bool = False) -> NDArray[np.float32]:
        return (self.matrix.T if transposed else self.matrix) @ values


def all_pairs() -> tuple[AllPairs, AllPairs]:
    frame = picture()
    kernels = AllPairs(frame, 160, 3), AllPairs(frame, 3)
    assert not np.allclose(kernels[0].matrix, kernels[0].matrix.T)
    return kernels


def matrices(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    """No two alike, none symmetric."""
    start = torch.eye(CLASSES, dtype=dtype)
    noise = [0.3 * scores(CLASSES, CLASSES, seed=seed, dtype=dtype) for seed in (1, 2, 3)]
    return 1.5 * start + noise[0], start + noise[1], noise[2] - start


def written_out(logits: Tensor, kernels: tuple[Tensor, Tensor], weights: tuple[Tensor, ...], rounds: int) -> Tensor:
    """Mean field by torch's own products alone; kernels are (pixels, pixels)."""
    refined = logits
    for _ in range(rounds):
        belief = torch.softmax(refined, 0)
        message = weights[0] @ belief @ kernels[0].T + weights[1] @ belief @ kernels[1].T
        refined = logits - weights[2] @ message
    return refined


class TestGradient:
    def test_equals_differences_with_sums_over_all_pairs(self) -> None:
        kernels = all_pairs()

        def refined(logits: Tensor, *weights: Tensor) -> Tensor:
            return mean_field(logits, kernels, weights, 5)  # type: ignore[arg-type]

        given = [scores(CLASSES, PIXELS, dtype=torch.float64), *matrices()]
        assert torch.autograd.gradcheck(refined, [t.requires_grad_() for t in given])

    def test_equals_that_of_products_with_the_kernels(self) -> None:
        kernels = all_pairs()
        given = [scores(CLASSES, PIXELS, dtype=torch.float64), *matrices()]
        one, other = ([t.clone().requires_grad_() for t in given] for _ in range(2))
        dense = torch.from_numpy(kernels[0].matrix), torch.from_numpy(kernels[1].matrix)
        found = mean_field(one[0], kernels, tuple(one[1:]), 5)  # type: ignore[arg-type]
        expected = written_out(other[0], dense, tuple(other[1:]), 5)
        torch.testing.assert_close(found, expected)
        for result in (found, expected):
            (result * scores(CLASSES, PIXELS, seed=9, dtype=torch.float64)).sum().backward()
        for mine, theirs in zip(one, other, strict=True):
            torch.testing.assert_close(mine.grad, theirs.grad)

    @pytest.mark.parametrize("kernel", [0, 1])
    def test_the_lattice_goes_back_by_its_transposed(self, kernel: int) -> None:
        """<K x, y> = <x, K' y>, which a filtering forth instead of back would miss."""
        frame = picture(24, 32)
        chosen = message_filters(frame, 20, 12, 3)[kernel]
        values, weights = (scores(4, 24 * 32, seed=seed).requires_grad_() for seed in (1, 2))
        (filtered(values, chosen) * weights).sum().backward()
        assert values.grad is not None
        rows = np.ascontiguousarray(weights.detach().numpy().T)
        assert not np.allclose(chosen(rows), values.grad.numpy().T, rtol=1e-2, atol=1e-3)
        forth = filtered(values.detach(), chosen)
        torch.testing.assert_close((forth * weights).sum(), (values.detach() * values.grad).sum(), rtol=1e-4, atol=1e-3)

    def test_of_the_layer_equals_that_of_its_own_kernels(self) -> None:
        """The layer as it is trained, against torch's products with the matrices that its filters stand for."""
        frame, layer = picture(6, 7), MeanField(CLASSES)
        with torch.no_grad():
            for parameter, value in zip(layer.parameters(), matrices(torch.float32), strict=True):
                parameter.copy_(value)
        one, other = (scores(1, CLASSES, 6, 7).requires_grad_() for _ in range(2))
        own = [p.detach().clone().requires_grad_() for p in layer.parameters()]
        filters = message_filters(frame, 160, 3, 3)
        dense = tuple(torch.from_numpy(f(np.eye(42, dtype=np.float32))) for f in filters)
        found = layer(one, images(frame))
        expected = written_out(other.reshape(CLASSES, 42), dense, tuple(own), 5)  # type: ignore[arg-type]
        torch.testing.assert_close(found.reshape(CLASSES, 42), expected, rtol=1e-4, atol=1e-4)
        weights = scores(CLASSES, 42, seed=9)
        for result in (found.reshape(CLASSES, 42), expected):
            (result * weights).sum().backward()
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-3, atol=1e-3)
        for parameter, value in zip(layer.parameters(), own, strict=True):
            torch.testing.assert_close(parameter.grad, value.grad, rtol=1e-3, atol=1e-3)

    def test_frames_get_none(self) -> None:
        frames = images(picture()).requires_grad_()
        MeanField(CLASSES)(scores(1, CLASSES, HEIGHT, WIDTH), frames).sum().backward()
        assert frames.grad is None


class TestStart:
    def test_is_the_preset(self) -> None:
        """Also the sign of the compatibility: with the other one, outlines would be pushed away from like colours."""
        frame, logits = picture(24, 32), scores(1, CLASSES, 24, 32)
        found = MeanField(CLASSES).eval()(logits, images(frame)).softmax(1)[0]
        expected = PRESETS["crfasrnn"](logits[0].numpy(), frame)
        np.testing.assert_allclose(found.detach().numpy(), expected, atol=1e-5)

    def test_repairs_a_noisy_prediction(self) -> None:
        frame = picture(24, 32)
        labels = np.zeros((24, 32), np.int64)
        labels[:, 16:] = 1
        wrong = np.random.default_rng(0).random(labels.shape) < 0.2
        logits = torch.from_numpy(np.stack([(labels == c) ^ wrong for c in range(2)]).astype(np.float32))[None]
        found = MeanField(2).eval()(logits, images(frame)).argmax(1)[0].numpy()
        assert (logits.argmax(1)[0].numpy() == labels).mean() < 0.85
        assert (found == labels).mean() > 0.98

    def test_has_1323_parameters_for_21_classes(self) -> None:
        assert sum(p.numel() for p in MeanField(21).parameters()) == 1323


class TestForward:
    def test_takes_every_image_for_itself(self) -> None:
        layer = MeanField(CLASSES)
        frames = torch.cat([images(picture(seed=seed)) for seed in (0, 1)])
        logits = scores(2, CLASSES, HEIGHT, WIDTH)
        both = layer(logits, frames)
        for index in range(2):
            torch.testing.assert_close(both[index], layer(logits[index : index + 1], frames[index : index + 1])[0])

    def test_iterates_five_times_in_training_and_ten_at_test(self, monkeypatch: pytest.MonkeyPatch) -> None:
        counted: list[int] = []

        def counting(logits: Tensor, kernel: Filter) -> Tensor:
            counted.append(1)
            return filtered(logits, kernel)

        monkeypatch.setattr("edgeseg.models.mean_field.filtered", counting)
        layer, arguments = MeanField(CLASSES), (scores(1, CLASSES, HEIGHT, WIDTH), images(picture()))
        layer(*arguments)
        assert len(counted) == 2 * 5
        layer.eval()(*arguments)
        assert len(counted) == 2 * 5 + 2 * 10

    def test_mixed_precision_filters_in_float32(self) -> None:
        layer, logits = MeanField(CLASSES), scores(1, CLASSES, HEIGHT, WIDTH)
        with torch.autocast("cpu", torch.bfloat16):
            found = layer(logits.bfloat16(), images(picture()))
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, layer(logits.bfloat16().float(), images(picture())))

    def test_what_is_learned_refines_alike_without_torch(self) -> None:
        frame, logits, layer = picture(24, 32), scores(1, CLASSES, 24, 32), MeanField(CLASSES).eval()
        with torch.no_grad():
            for parameter, value in zip(layer.parameters(), matrices(torch.float32), strict=True):
                parameter.copy_(value)
        expected = layer(logits, images(frame)).softmax(1)[0].detach().numpy()
        np.testing.assert_allclose(layer.learned()(logits[0].numpy(), frame), expected, atol=1e-4)
