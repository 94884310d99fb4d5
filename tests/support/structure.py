"""What every published network must do whatever its layers: sizes, training outputs, gradients, the way to ONNX."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from support.costs import meta_network
from support.published import run_onnx

from edgeseg.converters.export import export
from edgeseg.models import create

__all__ = ["check_export", "check_sizes", "check_training"]

SIZES = ((360, 480), (361, 479), (33, 50), (64, 128))
"""(height, width): what does not divide by 32, what is odd, and what divides."""


def check_sizes(name: str, **options: Any) -> None:
    """Logits have the size of the image, whether it divides or not."""
    network = meta_network(name, classes=5, **options)
    for size in SIZES:
        assert network(torch.zeros(1, 3, *size, device="meta")).shape == (1, 5, *size), size


def check_training(name: str, heads: int, **options: Any) -> None:
    """Training gives logits and those of each auxiliary head, and every weight has a part in them."""
    torch.manual_seed(0)
    network = create(name, classes=5, **options)
    outputs = network(torch.randn(2, 3, 64, 96))
    assert [tuple(logits.shape) for logits in outputs] == [(2, 5, 64, 96)] * (1 + heads)
    torch.stack([logits.square().mean() for logits in outputs]).sum().backward()
    without = [n for n, p in network.named_parameters() if p.grad is None or not torch.isfinite(p.grad).all()]
    assert without == []
    with torch.inference_mode():
        assert isinstance(network.eval()(torch.randn(1, 3, 64, 96)), torch.Tensor)


def check_export(path: Path, name: str, size: tuple[int, int], **options: Any) -> onnx.ModelProto:
    """The exported graph gives torch's logits, within 1e-3, and its classes; returns the graph."""
    torch.manual_seed(0)
    network = create(name, classes=5, **options)
    with torch.no_grad():
        # So that no BatchNorm is the identity, and the logits stay near 1.
        network(torch.randn(4, 3, 64, 64))
    network.eval()
    export(network, size, path)
    image = torch.randn(1, 3, *size)
    with torch.inference_mode():
        expected = network(image).numpy()
    logits = run_onnx(path, image.numpy())
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-3 * max(1, np.abs(expected).max()))
    first, second = np.sort(expected, 1)[:, ::-1][:, :2].transpose(1, 0, 2, 3)
    clear = first - second > 1e-4 * np.abs(expected).max()
    assert clear.mean() > 0.9
    assert (logits.argmax(1) == expected.argmax(1))[clear].all()
    return onnx.load(path)
