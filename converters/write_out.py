"""Replacing a node by simpler ones that compute the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import ArrayLike, NDArray
from onnx import helper

from edgeseg.converters.graph import GraphIndex, attribute, set_constant

__all__ = ["Replacement", "Writer", "write_out"]


class Replacement:
    """The nodes that take the place of one, added one after the other.

    Args:
        model: takes the constants.
        index: of the model.
        node: what is replaced.

    Attributes:
        inputs: what the node reads; "" for an optional input that is left out.
        nodes: what was added so far.
    """

    def __init__(self, model: onnx.ModelProto, index: GraphIndex, node: onnx.NodeProto) -> None:
        self._model, self._index, self._node = model, index, node
        self._stem = node.name or node.output[0]
        self.inputs = tuple(node.input)
        self.nodes: list[onnx.NodeProto] = []

    def attribute(self, name: str, default: Any) -> Any:
        """One of the replaced node."""
        return attribute(self._node, name, default)

    def shape(self, tensor: str) -> tuple[int, ...] | None:
        return self._index.shape(tensor)

    def known(self, tensor: str) -> NDArray[Any] | None:
        """The value of a constant; None for what is computed."""
        return self._index.constant(tensor)

    def add(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Add a node and return its result."""
        output = self._index.fresh(f"{self._stem}/{kind}")
        self.nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    def constant(self, name: str, value: ArrayLike, kind: Any = np.float32) -> str:
        """Add an initializer and return its name."""
        return set_constant(self._model, self._index.fresh(f"{self._stem}/{name}"), np.array(value, kind))


Writer = Callable[[Replacement], bool]
"""Adds nodes, the last of which gives what the replaced node gave; False where it cannot."""


def write_out(model: onnx.ModelProto, writers: Mapping[str, Writer]) -> None:
    """Replace nodes of ONNX's own operators, in place.

    Args:
        model: the graph.
        writers: by operator. A node whose further outputs are used stays as it is.
    """
    index = GraphIndex(model)
    nodes: list[onnx.NodeProto] = []
    for node in model.graph.node:
        replaceable = node.domain in ("", "ai.onnx") and not any(node.output[1:])
        writer = writers.get(node.op_type) if replaceable else None
        replacement = Replacement(model, index, node)
        if writer is not None and writer(replacement):
            replacement.nodes[-1].output[0] = node.output[0]
            nodes += replacement.nodes
        else:
            nodes.append(node)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
