"""Unpooling by comparisons is MaxUnpool2d to the bit."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from edgeseg.models.unpooling import largest_of_windows, max_unpool

SIZES = [(8, 12), (7, 12), (8, 11), (5, 3), (1, 1), (1, 6)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("values", ["random", "relu", "few", "equal", "negative"])
def test_equals_max_unpool(size: tuple[int, int], values: str) -> None:
    generator = torch.Generator().manual_seed(11)
    maps = torch.randn(2, 6, *size, generator=generator)
    # After ReLU or quantization most windows hold equal values; the first of them counts.
    maps = {
        "random": maps,
        "relu": maps.relu(),
        "few": (maps * 2).round(),
        "equal": torch.ones_like(maps),
        "negative": -maps.abs() - 1,
    }[values]
    pooled, indices = functional.max_pool2d(maps, 2, ceil_mode=True, return_indices=True)
    some = torch.randn(pooled.shape, generator=generator)
    largest = largest_of_windows(maps)
    for what in (pooled, some):
        # max_unpool2d checks the size that it is asked for, and refuses one that rounds up: scattered by hand.
        expected = torch.zeros(2, 6, size[0] * size[1]).scatter(2, indices.flatten(2), what.flatten(2))
        assert torch.equal(max_unpool(what, largest), expected.reshape(2, 6, *size))
    if size[0] % 2 == 0 and size[1] % 2 == 0:
        assert torch.equal(max_unpool(some, largest), functional.max_unpool2d(some, indices, 2))


def test_gradient_is_that_of_max_unpool() -> None:
    maps = torch.randn(1, 2, 4, 6)
    pooled, indices = functional.max_pool2d(maps, 2, return_indices=True)
    weights = torch.randn(1, 2, 4, 6)
    ours, theirs = pooled.clone().requires_grad_(), pooled.clone().requires_grad_()
    (max_unpool(ours, largest_of_windows(maps)) * weights).sum().backward()
    (functional.max_unpool2d(theirs, indices, 2) * weights).sum().backward()
    assert ours.grad is not None
    assert theirs.grad is not None
    assert torch.equal(ours.grad, theirs.grad)
