"""Fake quantization: forward as ONNX Runtime's Q/DQ pairs, backward straight through, scales by LSQ's gradient."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from support.graphs import GraphBuilder, run_graph

from edgeseg.converters.place import weight_scales
from edgeseg.training.quantization import ActivationQuantization, WeightQuantization, fake_quantize

SCALE = 0.037


def values() -> torch.Tensor:
    """Some inside the range, some beyond both ends, and some on the edge between two levels."""
    random = torch.randn(1, 3, 4, 5, generator=torch.Generator().manual_seed(0)) * 3
    edges = torch.tensor([0.5, 1.5, -0.5, -2.5]) * SCALE
    return torch.cat([random.flatten(), edges, torch.tensor([100.0, -100.0])]).reshape(1, -1)


def test_equals_onnx_runtime() -> None:
    x = values()
    builder = GraphBuilder()
    scale, zero = builder.constant(np.float32(SCALE)), builder.constant(np.int8(0))
    result = builder.add("DequantizeLinear", builder.add("QuantizeLinear", "image", scale, zero), scale, zero)
    (expected,) = run_graph(builder.model(result, tuple(x.shape), tuple(x.shape)), image=x.numpy())
    found = fake_quantize(x, torch.tensor(SCALE))
    np.testing.assert_array_equal(found.numpy(), expected)
    assert found.min() == pytest.approx(-128 * SCALE)


def test_gradients() -> None:
    x = values().requires_grad_()
    scale = torch.tensor(SCALE, requires_grad=True)
    fake_quantize(x, scale).sum().backward()
    levels = values() / SCALE
    inside = (levels > -128) & (levels < 127)
    assert 0 < int(inside.sum()) < inside.numel()
    assert x.grad is not None
    assert scale.grad is not None
    assert torch.equal(x.grad, inside.float())
    # LSQ, equation 3: round(x / s) - x / s inside the range, the last level beyond it.
    expected = torch.where(inside, levels.round() - levels, levels.clamp(-128, 127))
    assert float(scale.grad) == pytest.approx(float(expected.sum()), rel=1e-5)


class TestActivation:
    def test_starts_at_the_scale_of_the_graph(self) -> None:
        module = ActivationQuantization(SCALE)
        assert float(module.scale.detach()) == float(np.float32(SCALE))
        assert torch.equal(module(values()), fake_quantize(values(), torch.tensor(SCALE)))

    def test_the_gradient_has_lsqs_factor(self) -> None:
        x, module, scale = values(), ActivationQuantization(SCALE), torch.tensor(SCALE, requires_grad=True)
        module(x).square().sum().backward()
        fake_quantize(x, scale).square().sum().backward()
        assert module.growth.grad is not None
        assert scale.grad is not None
        factor = SCALE / math.sqrt(x.shape[1] * 127)
        assert float(module.growth.grad) == pytest.approx(float(scale.grad) * factor, rel=1e-5)

    def test_the_scale_stays_positive(self) -> None:
        module = ActivationQuantization(SCALE)
        with torch.no_grad():
            module.growth.fill_(-20.0)
        assert 0 < float(module.scale.detach()) < SCALE

    def test_a_range_is_learned(self) -> None:
        x = torch.randn(1, 2000, generator=torch.Generator().manual_seed(1))
        module = ActivationQuantization(0.1 / 127)
        optimizer = torch.optim.AdamW(module.parameters(), lr=0.05)
        for _ in range(150):
            optimizer.zero_grad()
            (module(x) - x).square().mean().backward()
            optimizer.step()
        assert 2.5 < 127 * float(module.scale.detach()) < 5


def test_weight_scales_follow_the_weights() -> None:
    weight = torch.randn(4, 3, 3, 3, generator=torch.Generator().manual_seed(2))
    module = WeightQuantization()
    for factor in (1.0, 2.5):
        found = module(factor * weight)
        scales = torch.from_numpy(weight_scales((factor * weight).numpy()))[:, None, None, None]
        assert torch.equal(found, fake_quantize(factor * weight, scales))
        # No weight is clipped: the largest of each channel stands on the last level.
        error = (found - factor * weight).abs()
        assert bool((error <= 0.5001 * scales).all())
    assert list(module.parameters()) == []
