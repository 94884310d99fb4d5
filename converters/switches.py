"""One graph in which every layer is INT8 or float by a switch, so that any mixture runs without building it first."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edgeseg.calibration.measure import Feed
from edgeseg.calibration.ranges import LEVELS
from edgeseg.converters.graph import GraphIndex, copy_model
from edgeseg.converters.place import Placement, correct_biases
from edgeseg.converters.rounding import level_limits, rounded_weight, rounding
from edgeseg.errors import EngineError
from edgeseg.libraries import require

__all__ = ["SwitchedNetwork"]

_SWITCHES = "switches"


class SwitchedNetwork:
    """A float network whose layers can be quantized one by one.

    Runs in ONNX Runtime, whose If operator computes the chosen branch alone, on one thread a call; calls from several
    threads run side by side. INT8 is computed in float32: products of two 8-bit levels are exact there.

    Args:
        model: the float graph.
        placement: which layers can be quantized.
        ranges: amax by tensor.
        shifts: corrections of the biases of quantized layers, see `edgeseg.converters.place.correct_biases`.

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
    ) -> None:
        ort = require("onnxruntime", "find out which layers quantization harms")
        self.layers = tuple(layer.name for layer in placement.layers if layer.precision == "int8")
        self._output = model.graph.output[0].name
        options = ort.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        graph = _switched(model, self.layers, ranges, correct_biases(model, shifts or {}))
        try:
            self._session = ort.InferenceSession(graph.SerializeToString(), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime's own exceptions have no common base
            raise EngineError(f"ONNX Runtime cannot take the network with switches: {error}") from error

    def run(self, feed: Feed, quantized: Collection[str]) -> NDArray[np.float32]:
        """The logits (1, C, h, w) of one frame.

        Args:
            feed: its array by name of the graph's input.
            quantized: layers in INT8; all others are float.
        """
        switches = np.array([name in quantized for name in self.layers])
        logits: NDArray[np.float32] = self._session.run([self._output], {**feed, _SWITCHES: switches})[0]
        return logits


def _switched(
    model: onnx.ModelProto, layers: tuple[str, ...], ranges: Mapping[str, float], corrected: onnx.ModelProto
) -> onnx.ModelProto:
    switched = copy_model(model)
    index, other = GraphIndex(model), GraphIndex(corrected)
    biases = {
        node.name: other.constant(node.input[2])
        for node in corrected.graph.node
        if len(node.input) > 2 and node.input[2]
    }
    graph = switched.graph
    graph.input.append(helper.make_tensor_value_info(_SWITCHES, TensorProto.BOOL, [len(layers)]))
    graph.initializer.extend(level_limits("switch"))
    numbers = {name: number for number, name in enumerate(layers)}
    nodes = []
    for node in model.graph.node:
        if node.name not in numbers:
            nodes.append(onnx.NodeProto.FromString(node.SerializeToString()))
            continue
        number = numbers[node.name]
        weight = index.constant(node.input[1])
        assert weight is not None  # or it could not be quantized
        constants = {"number": np.array(number), "step": np.array(ranges[node.input[0]] / LEVELS, np.float32)}
        constants["weight"] = rounded_weight(weight)
        bias = biases.get(node.name)
        if bias is not None:
            constants["bias"] = bias
        graph.initializer.extend(numpy_helper.from_array(v, f"switch_{number}_{n}") for n, v in constants.items())
        nodes += _switch(node, number, bias is not None, index.shape(node.output[0]))
    del graph.node[:]
    graph.node.extend(nodes)
    return switched


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
