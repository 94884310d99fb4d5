"""A graph in which every layer is INT8 or float by a switch, so that any mixture runs without building it first."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edgeseg.calibration.measure import Feed
from edgeseg.calibration.ranges import LEVELS
from edgeseg.converters.graph import GraphIndex
from edgeseg.converters.place import Placement, correct_biases, moved_weight
from edgeseg.converters.rounding import level_limits, rounded_weight, rounding
from edgeseg.converters.segments import Segment, cut_positions, segment_model, segments
from edgeseg.errors import EngineError
from edgeseg.libraries import require

__all__ = ["SwitchedNetwork"]

_SWITCHES = "switches"
_Tensors = dict[str, NDArray[Any]]
_Constants = dict[str, NDArray[Any]]


class SwitchedNetwork:
    """A float network whose layers can be quantized one by one.

    Runs in ONNX Runtime, whose If operator computes the chosen branch alone, on one thread a call; calls from several
    threads run side by side. INT8 is computed in float32: products of two 8-bit levels are exact there. The graph is
    cut into segments, so that mixtures of one frame share what they begin with.

    Args:
        model: the float graph.
        placement: which layers can be quantized.
        ranges: amax by tensor.
        shifts: corrections of the biases of quantized layers, see `edgeseg.converters.place.correct_biases`.
        moved: weights of quantized layers that round to the farther level, see `edgeseg.converters.place.moved_weight`.

    Raises:
        EngineError: when ONNX Runtime does not take the graph.
        MissingDependencyError: when it is not installed.

    Attributes:
        layers: names of the layers with a switch, in the order of the graph.
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        placement: Placement,
        ranges: Mapping[str, float],
        shifts: Mapping[str, NDArray[np.float64]] | None = None,
        moved: Mapping[str, NDArray[np.int64]] | None = None,
    ) -> None:
        self.layers = tuple(layer.name for layer in placement.layers if layer.precision == "int8")
        work = {layer.name: layer.macs for layer in placement.layers}
        index = GraphIndex(model)
        corrected = GraphIndex(correct_biases(model, shifts or {}))
        constants = functools.partial(_rounded_constants, corrected, moved or {})
        self._thread = threading.local()
        self._parts = [
            _Part(index, segment, self.layers, ranges, constants)
            for segment in segments(index, cut_positions(model.graph, self.layers, work))
        ]

    def run(self, feed: Feed, quantized: Collection[str]) -> NDArray[np.float32]:
        """The logits (1, C, h, w) of one frame.

        Runs of one frame that follow each other on a thread compute what they begin with once, see `_FrameRuns`.

        Args:
            feed: its array by name of the graph's input; the same object stands for the same frame.
            quantized: layers in INT8; all others are float.
        """
        runs = getattr(self._thread, "runs", None)
        if runs is None or runs.feed is not feed:
            runs = self._thread.runs = _FrameRuns(self._parts, feed)
        logits: NDArray[np.float32] = runs.run(frozenset(quantized))
        return logits


class _FrameRuns:
    """Runs of one frame, each from the first segment on that is neither all float nor all INT8.

    What stands before that segment is kept once for float and once for INT8, so memory does not grow with the runs.
    Mixtures in the order of the graph compute each segment before theirs once; any other order gives the same logits.

    Args:
        parts: the segments, in their order.
        feed: the frame.
    """

    def __init__(self, parts: Sequence[_Part], feed: Feed) -> None:
        self.feed = feed
        self._parts = parts
        self._kept: dict[bool, tuple[int, _Tensors]] = {kind: (0, dict(feed)) for kind in (False, True)}

    def run(self, quantized: frozenset[str]) -> NDArray[np.float32]:
        """The logits with the named layers in INT8."""
        begins = {kind: self._begin(quantized, kind) for kind in (False, True)}
        kind = begins[True] > begins[False]
        at, tensors = self._kept[kind]
        # A mixture without a beginning is all float or all INT8; it must not move the cut that others start from.
        if begins[kind] < len(self._parts):
            at, tensors = self._kept[kind] = self._until(begins[kind], kind, quantized)
        for part in self._parts[at:]:
            tensors = part.run(tensors, quantized)
        (logits,) = tensors.values()
        return logits

    def _begin(self, quantized: frozenset[str], kind: bool) -> int:
        """The first segment that is not all INT8 (`kind` True) or all float."""
        return next((i for i, part in enumerate(self._parts) if not part.is_all(kind, quantized)), len(self._parts))

    def _until(self, end: int, kind: bool, quantized: frozenset[str]) -> tuple[int, _Tensors]:
        """The tensors before a segment, from what is kept where that is not behind it."""
        at, tensors = self._kept[kind]
        if at > end:
            at, tensors = 0, dict(self.feed)
        for part in self._parts[at:end]:
            tensors = part.run(tensors, quantized)
        return end, tensors


class _Part:
    """One segment with its switches, in ONNX Runtime."""

    def __init__(
        self,
        index: GraphIndex,
        segment: Segment,
        layers: Sequence[str],
        ranges: Mapping[str, float],
        constants: Callable[[Sequence[str]], dict[str, _Constants]],
    ) -> None:
        ort = require("onnxruntime", "find out which layers quantization harms")
        inside = {node.name for node in segment.nodes}
        self._layers = tuple(name for name in layers if name in inside)
        self._crossing = segment.outputs
        graph = _switched(index, segment, self._layers, ranges, constants(self._layers))
        self._inputs = [value.name for value in graph.graph.input if value.name != _SWITCHES]
        self._outputs = [value.name for value in graph.graph.output]
        options = ort.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        # The highest level changes the layout of pools by what their neighbours are: cuts would change the figures.
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        try:
            self._session = ort.InferenceSession(graph.SerializeToString(), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime's own exceptions have no common base
            raise EngineError(f"ONNX Runtime cannot take the network with switches: {error}") from error

    def is_all(self, kind: bool, quantized: frozenset[str]) -> bool:
        """Whether its layers are all INT8 (`kind` True) or all float."""
        return all((name in quantized) is kind for name in self._layers)

    def run(self, tensors: _Tensors, quantized: frozenset[str]) -> _Tensors:
        """From the tensors before it those behind it."""
        switches = np.array([name in quantized for name in self._layers], bool)
        feed = {name: tensors[name] for name in self._inputs} | {_SWITCHES: switches}
        made = dict(zip(self._outputs, self._session.run(self._outputs, feed), strict=True))
        return {name: made[name] if name in made else tensors[name] for name in self._crossing}


def _rounded_constants(
    index: GraphIndex, moved: Mapping[str, NDArray[np.int64]], layers: Sequence[str]
) -> dict[str, _Constants]:
    """Weight and, where it is a constant, bias of each layer in INT8."""
    found = {}
    for node in index.graph.node:
        if node.name not in layers:
            continue
        weight = index.constant(node.input[1])
        assert weight is not None  # or it could not be quantized
        if node.input[1] in moved:
            weight = moved_weight(weight, moved[node.input[1]])
        found[node.name] = {"weight": rounded_weight(weight)}
        bias = index.constant(node.input[2]) if len(node.input) > 2 and node.input[2] else None
        if bias is not None:
            found[node.name]["bias"] = bias
    return found


def _switched(
    index: GraphIndex,
    segment: Segment,
    layers: Sequence[str],
    ranges: Mapping[str, float],
    rounded: Mapping[str, _Constants],
) -> onnx.ModelProto:
    """The segment as a model with a switch for each of the layers."""
    model = segment_model(index, segment)
    graph = model.graph
    graph.input.append(helper.make_tensor_value_info(_SWITCHES, TensorProto.BOOL, [len(layers)]))
    graph.initializer.extend(level_limits("switch"))
    numbers = {name: number for number, name in enumerate(layers)}
    nodes = []
    for node in segment.nodes:
        if node.name not in numbers:
            nodes.append(onnx.NodeProto.FromString(node.SerializeToString()))
            continue
        number = numbers[node.name]
        step = np.array(ranges[node.input[0]] / LEVELS, np.float32)
        constants: _Constants = {"number": np.array(number), "step": step, **rounded[node.name]}
        graph.initializer.extend(numpy_helper.from_array(v, f"switch_{number}_{n}") for n, v in constants.items())
        nodes += _switch(node, number, "bias" in constants, index.shape(node.output[0]))
    del graph.node[:]
    graph.node.extend(nodes)
    return model


def _switch(node: onnx.NodeProto, number: int, biased: bool, shape: tuple[int, ...] | None) -> list[onnx.NodeProto]:
    """An If with the layer as it is and, in the other branch, with its input and weights rounded."""

    def name(part: str) -> str:
        return f"switch_{number}_{part}"

    whole = onnx.NodeProto.FromString(node.SerializeToString())
    whole.output[0] = name("float")
    rounded = onnx.NodeProto.FromString(node.SerializeToString())
    rounded.name, rounded.output[0] = name("layer"), name("int8")
    rest = [name("bias")] if biased else list(node.input[2:])
    rounding_nodes = rounding(node.input[0], name("step"), "switch", number)
    rounded.input[:] = [rounding_nodes[-1].output[0], name("weight"), *rest]
    branches = {
        kind: helper.make_graph(body, name(kind), [], [helper.make_tensor_value_info(result, TensorProto.FLOAT, shape)])
        for kind, body, result in (
            ("then_branch", [*rounding_nodes, rounded], name("int8")),
            ("else_branch", [whole], name("float")),
        )
    }
    return [
        helper.make_node("Gather", [_SWITCHES, name("number")], [name("on")]),
        helper.make_node("If", [name("on")], [node.output[0]], name=name("if"), **branches),
    ]
