"""Layers that belong together, found in the structure of the graph alone: names and kinds of operators do not matter.

Where branches meet again, the tensor that all of them come from and the node that they meet in enclose a part of the
graph with one way in and one way out: a residual unit, parallel dilated convolutions, an attention. The way in may also
lead elsewhere, as it does where a skip to the decoder begins.

Parts with one way in and one out by dominance: R. Johnson, D. Pearson and K. Pingali, The program structure tree,
PLDI 1994.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import onnx

from edgeseg.converters.graph import GraphIndex

__all__ = ["find_blocks"]


@dataclass(frozen=True)
class _Region:
    """What lies between a fork and the node where its branches meet.

    Attributes:
        members: positions of the nodes between the two.
        fork, merge: tensors that both ends give.
    """

    members: frozenset[int]
    fork: str
    merge: str


def find_blocks(model: onnx.ModelProto, layers: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """Group layers by the block that they stand in.

    A block is a largest part of the graph in which branches part and meet, unless

    * two parts of more than one layer stand in it: then it is a stage made of blocks;
    * the resolution falls in it and rises again, or does so in a part of it: then it is an encoder and a decoder with
      the skip between them. Tensors of 1x1 do not count: context over the whole frame has them.

    A layer outside of all such parts is a block of its own.

    Args:
        model: in an order that runs, with static shapes.
        layers: names of nodes.

    Returns:
        The blocks in the order of their first layers; every layer stands in one.
    """
    index = GraphIndex(model)
    wanted = {i for i, node in enumerate(model.graph.node) if node.name in set(layers)}
    blocks: list[frozenset[int]] = []
    refused: list[frozenset[int]] = []
    for region in sorted(_regions(index), key=lambda each: len(each.members)):
        inside = region.members & wanted
        parts = [block for block in blocks if block <= inside]
        if len(parts) > 1 or any(each <= region.members for each in refused) or _rises_again(index, region):
            refused.append(region.members)
        elif len(inside) > 1:
            blocks = [block for block in blocks if block not in parts] + [inside]
    alone = wanted.difference(*blocks)
    blocks += [frozenset({i}) for i in alone]
    nodes = model.graph.node
    return tuple(tuple(nodes[i].name for i in sorted(block)) for block in sorted(blocks, key=min))


def _regions(index: GraphIndex) -> Iterable[_Region]:
    """One for every node whose inputs come from more than one branch."""
    nodes = index.graph.node
    # The frame stands before the first node, so that a network may fork at once.
    made = {name: i for i, node in enumerate(nodes, 1) for name in node.output if name} | dict.fromkeys(index.inputs, 0)
    before = [set[int](), *({made[name] for name in node.input if name in made} for node in nodes)]
    dominators = _dominators(before, range(len(before)), 0)
    after: list[set[int]] = [set() for _ in before]
    for i, sources in enumerate(before):
        for source in sources:
            after[source].add(i)
    last = made[index.outputs[0]]
    followers = _dominators(after, range(len(before) - 1, -1, -1), last)
    for merge, sources in enumerate(before):
        if len([each for each in sources if dominators[each]]) < 2:
            continue
        fork = (dominators[merge] ^ 1 << merge).bit_length() - 1
        members = frozenset(
            i - 1 for i in range(fork + 1, merge) if dominators[i] >> fork & 1 and followers[i] >> merge & 1
        )
        yield _Region(members, nodes[fork - 1].output[0] if fork else index.inputs[0], nodes[merge - 1].output[0])


def _dominators(sources: Sequence[set[int]], order: Iterable[int], root: int) -> list[int]:
    """The nodes that every way from the root passes, as bits, by node; 0 where no way leads from the root.

    Args:
        sources: nodes that lead to each.
        order: in which each node stands behind its sources.
        root: where all ways begin.
    """
    found = [0] * len(sources)
    for i in order:
        ways = [found[source] for source in sources[i] if found[source]]
        if i == root or ways:
            found[i] = 1 << i | (functools.reduce(int.__and__, ways) if ways and i != root else 0)
    return found


def _rises_again(index: GraphIndex, region: _Region) -> bool:
    """Whether a tensor inside has fewer pixels than both ends."""
    inside = [_pixels(index, index.graph.node[i].output[0]) for i in region.members]
    ends = min(_pixels(index, region.fork), _pixels(index, region.merge))
    return any(1 < pixels < ends for pixels in inside)


def _pixels(index: GraphIndex, tensor: str) -> float:
    """Height times width of (N, C, H, W); infinite for a tensor of another rank."""
    shape = index.shape(tensor)
    return math.prod(shape[2:]) if shape is not None and len(shape) == 4 else math.inf
