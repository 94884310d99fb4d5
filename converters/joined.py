"""Which partners of quantized tensors are quantized too: those that leave the logits as they were.

What a partner costs is seen at the logits alone: a skip carries its rounding past every layer that it skips, and a
range that is wrong for one branch of a concatenation may not matter behind it. So the network with its INT8 layers is
run with and without.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edgeseg.calibration.measure import Feed, Forward
from edgeseg.calibration.partners import Partner, Partners
from edgeseg.calibration.ranges import LEVELS
from edgeseg.converters.graph import GraphIndex
from edgeseg.converters.place import Placement, correct_biases
from edgeseg.converters.rounding import level_limits, rounded_weight, rounding
from edgeseg.machine import usable_processors

__all__ = ["TOLERANCE", "JoinedNetwork", "choose_partners", "with_partners"]

TOLERANCE = 0.5
"""dB that partners may take from the logits' signal-to-noise ratio in all: an eighth more noise than INT8 makes anyway,
which no score shows (docs/benchmarks.md, Partners)."""

_STEPS, _SKIPS = "joined_steps", "joined_skips"
_ALONE = 2
"""Every so manyth frame is enough to order the partners by; all together are measured on each."""


class JoinedNetwork:
    """The network with its INT8 layers, in which ranges and quantized skips are inputs.

    Args:
        model: the float graph, with logits as its output.
        placement: its INT8 layers, and skips that can be quantized.
        shifts: corrections of the biases, see `edgeseg.converters.place.correct_biases`.
        feeds: for each frame its arrays by name of the graph's input.

    Raises:
        CalibrationError: for a graph that OpenVINO does not run.
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        placement: Placement,
        shifts: Mapping[str, NDArray[np.float64]],
        feeds: Sequence[Feed],
    ) -> None:
        self._feeds, self._tensors, self._skips = feeds, placement.quantized, placement.skips
        self._output = model.graph.output[0].name
        exact = Forward(model, [self._output], usable_processors())
        # A copy: the next frame overwrites the array.
        self._logits = [exact(feed, f"number {i + 1}")[self._output].copy() for i, feed in enumerate(feeds)]
        self._forward = Forward(_joined(model, placement, shifts), [self._output], usable_processors())

    def noise(self, ranges: Mapping[str, float], skips: Collection[str], every: int = 1) -> float:
        """Mean square of the difference of the logits to the float network's, over the mean square of these.

        Args:
            ranges: amax of every quantized tensor.
            skips: names of the sums whose skip is quantized.
            every: every so manyth frame is run.
        """
        steps = np.array([ranges[tensor] / LEVELS for tensor in self._tensors], np.float32)
        more: Feed = {_STEPS: steps}
        if self._skips:
            more[_SKIPS] = np.array([skip.node in skips for skip in self._skips], bool)
        noise = signal = 0.0
        for number in range(0, len(self._feeds), every):
            found = self._forward({**self._feeds[number], **more}, f"number {number + 1}")[self._output]
            exact = self._logits[number]
            noise += float(np.square(found - exact, dtype=np.float64).sum())
            signal += float(np.square(exact, dtype=np.float64).sum())
        return noise / max(signal, 1e-30)


def _joined(model: onnx.ModelProto, placement: Placement, shifts: Mapping[str, NDArray[np.float64]]) -> onnx.ModelProto:
    joined = correct_biases(model, shifts)
    graph, index = joined.graph, GraphIndex(joined)
    int8 = {layer.name for layer in placement.layers if layer.precision == "int8"}
    numbers = {tensor: number for number, tensor in enumerate(placement.quantized)}
    skips = {skip.node: (number, skip.tensor) for number, skip in enumerate(placement.skips)}
    graph.input.append(helper.make_tensor_value_info(_STEPS, TensorProto.FLOAT, [len(numbers)]))
    if skips:
        graph.input.append(helper.make_tensor_value_info(_SKIPS, TensorProto.BOOL, [len(skips)]))
    constants = level_limits("joined")
    nodes: list[onnx.NodeProto] = []

    def pick(vector: str, number: int, name: str) -> None:
        constants.append(numpy_helper.from_array(np.array(number, np.int64), f"{name}_number"))
        nodes.append(helper.make_node("Gather", [vector, f"{name}_number"], [name]))

    def follow(tensor: str) -> None:
        if tensor in numbers:
            step = f"joined_step_{numbers[tensor]}"
            pick(_STEPS, numbers[tensor], step)
            nodes.extend(rounding(tensor, step, "joined", numbers[tensor]))

    for value in graph.input:
        follow(value.name)
    for original in graph.node:
        node = onnx.NodeProto.FromString(original.SerializeToString())
        if node.name in int8:
            weight = index.constant(node.input[1])
            assert weight is not None  # or it would not be quantized
            name = f"joined_weight_{len(constants)}"
            constants.append(numpy_helper.from_array(rounded_weight(weight), name))
            node.input[:2] = [f"joined_rounded_{numbers[node.input[0]]}", name]
        if node.name in skips:
            number, tensor = skips[node.name]
            switch, chosen = f"joined_skip_{number}", f"joined_chosen_{number}"
            pick(_SKIPS, number, switch)
            nodes.append(helper.make_node("Where", [switch, f"joined_rounded_{numbers[tensor]}", tensor], [chosen]))
            node.input[list(node.input).index(tensor)] = chosen
        nodes.append(node)
        for output in node.output:
            follow(output)
    del graph.node[:]
    graph.node.extend(nodes)
    graph.initializer.extend(constants)
    return joined


@dataclass(frozen=True)
class _Candidate:
    """A partner with the range that its tensors get, None for their own, and the noise of the logits with it alone."""

    tensors: tuple[str, ...]
    node: str
    amax: float | None
    noise: float
    size: int

    def ranges(self) -> dict[str, float]:
        return {} if self.amax is None else dict.fromkeys(self.tensors, self.amax)


def choose_partners(
    model: onnx.ModelProto,
    placement: Placement,
    ranges: Mapping[str, float],
    shifts: Mapping[str, NDArray[np.float64]],
    feeds: Sequence[Feed],
    tolerance: float | None = TOLERANCE,
) -> tuple[Partners, dict[str, float]]:
    """Take all partners that fit; where together they do not, leave those that cost most for what they spare first.

    Args:
        model: the float graph, with logits as its output.
        placement: INT8 layers, with the skips and groups that can be taken.
        ranges: each tensor's own amax.
        shifts: corrections of the biases by layer.
        feeds: for each frame its arrays by name of the graph's input; some four frames.
        tolerance: dB of the logits' signal-to-noise ratio that they may cost together; None takes all.

    Returns:
        What was taken and what not, and the ranges of the tensors that share one.
    """
    network = JoinedNetwork(model, placement, shifts, feeds)
    every = min(_ALONE, len(feeds))
    before, alone = network.noise(ranges, ()), network.noise(ranges, (), every)
    candidates = _measured(network, GraphIndex(model), placement, ranges, every)

    def together(chosen: Sequence[_Candidate]) -> float:
        merged = {name: amax for candidate in chosen for name, amax in candidate.ranges().items()}
        return network.noise({**ranges, **merged}, {candidate.node for candidate in chosen})

    fitting = [c for c in candidates if tolerance is None or _loss(c.noise, alone) <= tolerance]
    taken = sorted(fitting, key=lambda c: (c.noise - alone) / c.size)
    noise = together(taken)
    while tolerance is not None and taken and _loss(noise, before) > tolerance:
        taken.pop()
        noise = together(taken)
    groups = tuple(
        Partner("sum" if c.node else "concatenation", c.tensors, c.node, _loss(c.noise, alone), c in taken)
        for c in candidates
    )
    shared = {name: amax for candidate in taken for name, amax in candidate.ranges().items()}
    return Partners(groups, _loss(noise, before), tolerance), shared


def with_partners(placement: Placement, partners: Partners | None) -> Placement:
    """The placement with the partners that were taken, and no others."""
    taken = partners.taken if partners else ()
    sums = {partner.node for partner in taken if partner.kind == "sum"}
    groups = tuple(partner.tensors for partner in taken if partner.kind == "concatenation")
    return replace(placement, skips=tuple(skip for skip in placement.skips if skip.node in sums), groups=groups)


def _measured(
    network: JoinedNetwork, index: GraphIndex, placement: Placement, ranges: Mapping[str, float], every: int
) -> list[_Candidate]:
    """Each partner alone on top of the INT8 layers; for a group with the best of its tensors' own ranges."""

    def size(tensors: Collection[str]) -> int:
        return sum(math.prod(index.shape(tensor) or ()) for tensor in tensors)

    found = [
        _Candidate((s.tensor,), s.node, None, network.noise(ranges, (s.node,), every), size((s.tensor,)))
        for s in placement.skips
    ]
    for group in placement.groups:
        tried = [
            _Candidate(group, "", amax, network.noise({**ranges, **dict.fromkeys(group, amax)}, (), every), size(group))
            for amax in sorted({ranges[tensor] for tensor in group}, reverse=True)
        ]
        found.append(min(tried, key=lambda candidate: candidate.noise))
    return found


def _loss(noise: float, before: float) -> float:
    """dB between two noises."""
    return 10 * math.log10(max(noise, 1e-30) / max(before, 1e-30))
