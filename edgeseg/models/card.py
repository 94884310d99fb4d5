"""What a card says of a network: where it comes from, and what each variant costs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["Card", "Cost"]


@dataclass(frozen=True)
class Cost:
    """What one variant of a network costs, in `eval()`.

    Attributes:
        options: what `create` takes beside the name, `classes` among them.
        parameters: exact number.
        gmacs: 10^9 multiply-accumulates of convolutions and linear layers at `size`, four decimals; None where unknown.
        size: (height, width) of the input that `gmacs` counts.
    """

    options: dict[str, Any]
    parameters: int
    gmacs: float | None = None
    size: tuple[int, int] = (512, 1024)


@dataclass(frozen=True)
class Card:
    """Where a network comes from and what it costs.

    Attributes:
        name: what `create` takes.
        title: the name as published.
        paper: authors, title, venue, year, arXiv number.
        source: the public code whose counts these are.
        stride: of the last feature map before the prediction layer.
        costs: variants with exact counts.
        deploy: what `create(..., deploy=True)` changes and why; empty where the published network is taken as it is.
    """

    name: str
    title: str
    paper: str
    source: str
    stride: int
    costs: tuple[Cost, ...]
    deploy: str = ""
