"""One node of a graph that is trained."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from edgeseg.errors import UnsupportedModelError

__all__ = ["Operator", "Step", "unsupported"]


@dataclass(frozen=True)
class Step:
    """One node.

    Attributes:
        name: of the node.
        op: its ONNX operator.
        inputs: tensors that it reads; empty text for one that is left out.
        outputs: tensors that it makes.
        attributes: its attributes, text decoded.
        constants: by input, the value where it is a number or integers known beforehand, else None.
        shape: of the first output in the graph, whose batch is 1; None where inference does not know it.
    """

    name: str
    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]
    constants: tuple[NDArray[Any] | None, ...]
    shape: tuple[int, ...] | None

    def get(self, name: str, default: Any) -> Any:
        """An attribute, or `default`."""
        return self.attributes.get(name, default)

    def integers(self, place: int) -> list[int]:
        """A constant input as integers.

        Raises:
            UnsupportedModelError: where it is computed.
        """
        value = self.constants[place] if place < len(self.constants) else None
        if value is None:
            raise unsupported(self, f"its input {place} is computed, expected a constant")
        return [int(v) for v in value.reshape(-1)]


def unsupported(step: Step, why: str) -> UnsupportedModelError:
    """The error for a node that cannot be trained."""
    return UnsupportedModelError(
        f"the graph cannot be fine-tuned, because of node {step.name!r} ({step.op}): {why}; use the bundle as it was "
        "quantized after training"
    )


Operator = Callable[..., Any]
"""Takes the step and its inputs; gives a tensor, or a tuple for several outputs."""
