"""Partners of quantized tensors: which were quantized too, which were not, and what that costs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from edgeseg.errors import CalibrationError

__all__ = ["Partner", "Partners"]

Kind = Literal["sum", "concatenation"]


@dataclass(frozen=True)
class Partner:
    """Tensors that TensorRT joins with INT8 convolutions where they are quantized with them.

    Attributes:
        kind: "sum": a skip input is quantized; "concatenation": tensors have one range.
        tensors: names.
        node: name of the sum; empty for a concatenation.
        loss: dB of the logits' signal-to-noise ratio that it costs alone; negative where it gains.
        taken: whether it was done.
    """

    kind: Kind
    tensors: tuple[str, ...]
    node: str
    loss: float
    taken: bool

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind) or not self.tensors or not math.isfinite(self.loss):
            raise CalibrationError(f"a partner of kind {self.kind} with the tensors {self.tensors} cannot be")


@dataclass(frozen=True)
class Partners:
    """All that could have been joined.

    Attributes:
        groups: each partner, in the order of the graph, sums first.
        loss: dB that those taken cost together.
        tolerance: dB that they may cost; None where all were asked for.
    """

    groups: tuple[Partner, ...]
    loss: float
    tolerance: float | None

    def __post_init__(self) -> None:
        if not all(math.isfinite(number) for number in (self.loss, self.tolerance or 0.0)):
            raise CalibrationError(f"partners that cost {self.loss} dB of {self.tolerance} cannot be")

    @property
    def taken(self) -> tuple[Partner, ...]:
        """Those that were quantized."""
        return tuple(group for group in self.groups if group.taken)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Partners:
        """Read what `to_dict` gave; raises what a mapping of another form leads to."""
        groups = tuple(
            Partner(
                each["kind"],
                tuple(map(str, each["tensors"])),
                str(each["node"]),
                float(each["loss"]),
                each["taken"] is True,
            )
            for each in data["groups"]
        )
        tolerance = data["tolerance"]
        return cls(groups, float(data["loss"]), None if tolerance is None else float(tolerance))
