"""What a torch network costs, counted the way its card counts."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from edgeseg.models.network import SegmentationNetwork

__all__ = ["count_macs", "count_parameters", "meta_network"]


def meta_network(name: str, **options: Any) -> SegmentationNetwork:
    """A network in `eval()` without memory for its weights and maps: any size runs in no time."""
    from edgeseg.models import create

    with torch.device("meta"):
        return create(name, **options).eval()


def count_parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def count_macs(network: nn.Module, size: tuple[int, int]) -> int:
    """Multiply-accumulates of the Conv2d, ConvTranspose2d and Linear layers that one image runs through.

    Args:
        network: on any device; `meta` is fast.
        size: (height, width) of the image.
    """
    total = 0

    def count(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        if isinstance(module, nn.Conv2d):
            total += output.numel() * module.weight[0].numel()
        elif isinstance(module, nn.ConvTranspose2d):
            total += inputs[0].numel() * module.weight[0].numel()
        elif isinstance(module, nn.Linear):
            total += output.numel() * module.in_features

    handles = [module.register_forward_hook(count) for module in network.modules()]
    device = next(network.parameters()).device
    with torch.no_grad():
        network(torch.zeros(1, 3, *size, device=device))
    for handle in handles:
        handle.remove()
    return total
