"""Where a frame is normalised: the nodes between the graph's input and the first that computes on an image."""

from __future__ import annotations

import onnx

from edgeseg.converters.graph import GraphIndex

__all__ = ["normalising_nodes"]

_OPERATORS = frozenset(
    {
        "Add", "Cast", "Concat", "Div", "Gather", "Identity", "Mul", "Reshape", "Slice", "Split", "Squeeze", "Sub",
        "Transpose", "Unsqueeze",
    }
)  # fmt: skip


def normalising_nodes(model: onnx.ModelProto) -> frozenset[str]:
    """Names of the nodes that move and normalise the frame, by constants only.

    Args:
        model: a graph with named nodes.
    """
    index = GraphIndex(model)
    frame, found = set(index.inputs), set()
    for node in model.graph.node:
        computed = [i for i in node.input if i and index.constant(i) is None]
        if node.op_type in _OPERATORS and computed and frame.issuperset(computed):
            frame.update(node.output)
            found.add(node.name)
    return frozenset(found)
