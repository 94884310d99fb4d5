"""Where to cut a graph into segments, so that what lies before a change is computed once for many changes behind it."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from edgeseg.converters.graph import GraphIndex

__all__ = ["Segment", "cut_positions", "segment_model", "segments"]

_SEGMENTS = 8
"""At most: what a layer still computes needlessly is about one segment."""


def cut_positions(graph: onnx.GraphProto, layers: Collection[str], macs: Mapping[str, int]) -> tuple[int, ...]:
    """Where to cut, so that changing each layer once computes least.

    A change of a layer computes its segment and all behind it. The sum of that over the layers is least, exactly, by
    dynamic programming over where each segment starts.

    Args:
        graph: in an order that runs.
        layers: names of the nodes that change, one after the other.
        macs: work by name of the node; nodes that are missing cost nothing.

    Returns:
        The first node of each segment but the first, growing; each is a layer.
    """
    places = [i for i, node in enumerate(graph.node) if node.name in layers]
    work = np.array([macs.get(node.name, 0) for node in graph.node], np.float64)
    if not places:
        return ()
    behind = np.cumsum(work[::-1])[::-1][[0, *places[1:]]]
    end = len(places)
    # least[start]: work of the layers from there on, in at most so many segments; at[start]: where the first one ends.
    least = np.array([*(behind * (end - np.arange(end))), 0.0])
    ends: list[NDArray[np.int64]] = []
    for _ in range(_SEGMENTS - 1):
        at = np.full(end + 1, end)
        better = least.copy()
        for start in range(end):
            sums = behind[start] * np.arange(1, end - start + 1) + least[start + 1 :]
            # The longest of equals: a cut that saves nothing is none.
            at[start] = end - int(sums[::-1].argmin())
            better[start] = sums.min()
        least = better
        ends.append(at)
    cuts, start = [], 0
    for at in reversed(ends):
        start = int(at[start])
        if start < end:
            cuts.append(places[start])
    return tuple(cuts)


@dataclass(frozen=True, eq=False)
class Segment:
    """Successive nodes of a graph.

    Attributes:
        nodes: in their order.
        inputs: tensors made or given before it that it reads or a later segment needs.
        outputs: tensors that the next segment takes; of the last one, the graph's outputs.
    """

    nodes: tuple[onnx.NodeProto, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def segments(index: GraphIndex, cuts: Sequence[int]) -> list[Segment]:
    """The graph in pieces.

    Args:
        index: of a model in an order that runs.
        cuts: the first node of each piece but the first, growing.

    Returns:
        The pieces; what one gives, the next takes. Constants belong to every piece that reads them.
    """
    graph = index.graph
    end = len(graph.node)
    last = {name: i for i, node in enumerate(graph.node) for name in node.input}
    last.update((value.name, end) for value in graph.output)
    made = dict.fromkeys(index.inputs, -1)
    made.update((name, i) for i, node in enumerate(graph.node) for name in node.output if index.constant(name) is None)
    edges = [0, *cuts, end]
    # What crosses an edge was made before it and is read behind it.
    crossing = [tuple(name for name, i in made.items() if i < edge <= last.get(name, -1)) for edge in edges]
    return [
        Segment(tuple(node for node in graph.node[start:stop] if node.output[0] in made), *sides)
        for (start, stop), sides in zip(itertools.pairwise(edges), itertools.pairwise(crossing), strict=True)
    ]


def segment_model(index: GraphIndex, segment: Segment) -> onnx.ModelProto:
    """One piece as a model of its own, with the constants that it reads.

    Its inputs are the segment's that it reads, its outputs those that it makes: what only passes through does neither.

    Args:
        index: of the whole model.
        segment: the piece.
    """
    read = dict.fromkeys(name for node in segment.nodes for name in node.input if name)
    made = {name for node in segment.nodes for name in node.output}

    def values(names: Iterable[str]) -> list[onnx.ValueInfoProto]:
        return [helper.make_tensor_value_info(name, index.element_type(name), index.shape(name)) for name in names]

    constants = [numpy_helper.from_array(value, name) for name in read if (value := index.constant(name)) is not None]
    graph = helper.make_graph(
        segment.nodes,
        "segment",
        values(name for name in segment.inputs if name in read),
        values(name for name in segment.outputs if name in made),
        constants,
    )
    model = index.model
    return helper.make_model(graph, ir_version=model.ir_version, opset_imports=model.opset_import)
