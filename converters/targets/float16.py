"""A graph typed in float16: for TensorRT with strong typing, which computes in the types that the graph has.

Own code, and not the converter of onnxconverter-common or its successor in onnxruntime.transformers: that one rounds to
float16 between two nodes that both stay in float32 (as those that normalise the frame do), clamps constants beyond
float16 without a word, and makes an invalid graph where two such nodes read one float16 tensor (two Casts of one name;
here a quantizer and a global pooling do so).
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import onnx
from onnx import TensorProto, helper

from edgeseg.converters.graph import (
    GraphIndex,
    attribute,
    copy_model,
    drop_attributes,
    insert_nodes,
    name_nodes,
    remove_unused,
    set_constant,
    with_shapes,
)
from edgeseg.converters.opset import opset_of
from edgeseg.converters.targets.normalisation import normalising_nodes
from edgeseg.errors import ModelError

__all__ = ["LARGEST", "LARGEST_WINDOW", "SMALLEST_NORMAL", "float32_nodes", "to_float16"]

LARGEST = float(np.finfo(np.float16).max)
"""65504: what is larger becomes infinite."""

SMALLEST_NORMAL = float(np.finfo(np.float16).smallest_normal)
"""6.1e-5: below it a float16 number has fewer than 11 significant bits."""

LARGEST_WINDOW = 256
"""Values that a mean may be taken over in float16: their sum overflows where they are 255 on average."""

_FLOAT, _HALF = TensorProto.FLOAT, TensorProto.FLOAT16
_QUANTIZERS = frozenset(("QuantizeLinear", "DequantizeLinear"))

# What sums, divides by a spread or takes powers: the operations that torch.amp keeps in float32, by their ONNX names.
_SENSITIVE = frozenset(
    {
        "CumSum", "Exp", "GridSample", "GroupNormalization", "InstanceNormalization", "LRN", "LayerNormalization",
        "Log", "LogSoftmax", "LpNormalization", "MeanVarianceNormalization", "Pow", "Reciprocal", "ReduceL1",
        "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMean", "ReduceProd", "ReduceSum", "ReduceSumSquare",
        "Softmax", "Softplus", "Sqrt",
    }
)  # fmt: skip

_POOLS = ("AveragePool", "GlobalAveragePool")
_SHIFTS = {"BatchNormalization": 2, "Conv": 2, "ConvTranspose": 2, "Gemm": 2}
"""First of the inputs that are added to the result, by operator."""

_REGION = ("Resize", 1, False)
"""An input that no segmentation network uses: left as it is."""


def to_float16(model: onnx.ModelProto, ranges: Mapping[str, float] | None = None) -> onnx.ModelProto:
    """Compute in float16 what loses nothing by it; inputs and outputs of the graph keep their types.

    Args:
        model: a float32 graph of fixed shapes, with or without Q/DQ. Q/DQ stays in float32, with a Cast before each
            QuantizeLinear and behind each DequantizeLinear: opset 17 has no float16 scales.
        ranges: largest magnitude by tensor, as far as known; what comes near float16's limit stays in float32.

    Returns:
        A new graph. `float32_nodes` says what stays in float32.

    Raises:
        ModelError: for a graph that holds float16 already.
    """
    result = copy_model(model)
    name_nodes(result)
    _fold_statistics(result)
    _Typing(result, float32_nodes(result, ranges)).apply()
    remove_unused(result)
    return with_shapes(result)


def float32_nodes(model: onnx.ModelProto, ranges: Mapping[str, float] | None = None) -> frozenset[str]:
    """Names of the nodes that stay in float32.

    Q/DQ; the frame's normalisation (its factor may be 1 / 18392); Softmax, normalisation layers, sums and powers;
    means over more than LARGEST_WINDOW values; operators that are not ONNX's own; nodes with a constant beyond
    float16's range, or wholly below its normal numbers; nodes at a tensor whose range comes within a factor of two of
    the largest float16.

    Args:
        model: a float32 graph with named nodes.
        ranges: largest magnitude by tensor.
    """
    index = GraphIndex(model)
    wide = {tensor for tensor, amax in (ranges or {}).items() if amax > LARGEST / 2}
    kept = set(normalising_nodes(model))
    for node in model.graph.node:
        if (
            node.op_type in _QUANTIZERS | _SENSITIVE
            or not onnx.defs.has(node.op_type, opset_of(model), node.domain)
            or not wide.isdisjoint((*node.input, *node.output))
            or (node.op_type in _POOLS and _window(index, node) > LARGEST_WINDOW)
            or not all(_fits(index, node, place) for place in range(len(node.input)))
        ):
            kept.add(node.name)
    return frozenset(kept)


def _window(index: GraphIndex, node: onnx.NodeProto) -> float:
    """How many values a pool takes the mean of; infinite where that is not known."""
    kernel = attribute(node, "kernel_shape", None) or (index.shape(node.input[0]) or ())[2:]
    return math.prod(kernel) if kernel else math.inf


def _fits(index: GraphIndex, node: onnx.NodeProto, place: int) -> bool:
    """Whether an input is computed, or a constant that float16 can hold. A weight is looked at behind its Q/DQ."""
    tensor = node.input[place]
    maker = index.producer(tensor)
    while maker is not None and maker.op_type in _QUANTIZERS:
        tensor = maker.input[0]
        maker = index.producer(tensor)
    value = index.constant(tensor)
    if value is None or value.dtype != np.float32 or value.size == 0 or node.op_type == "Resize":
        return True
    largest = float(np.abs(value).max())
    # What is added to values of ordinary size says nothing where it is tiny.
    added = place >= _SHIFTS.get(node.op_type, len(node.input))
    harmless = largest == 0 or added
    return largest <= LARGEST and (harmless or largest >= SMALLEST_NORMAL)


def _fold_statistics(model: onnx.ModelProto) -> None:
    """Put mean and variance of each BatchNormalization into its scale and shift, in float64.

    A variance of 1e-6 has three bits in float16, what it is used for has eleven.
    """
    index = GraphIndex(model)
    for node in model.graph.node:
        values = [index.constant(name) for name in node.input[1:5]]
        if node.op_type != "BatchNormalization" or any(value is None for value in values):
            continue
        scale, shift, mean, variance = (np.asarray(value, np.float64) for value in values)
        factor = scale / np.sqrt(variance + attribute(node, "epsilon", 1e-5))
        folded = (factor, shift - mean * factor, np.zeros_like(mean), np.ones_like(mean))
        for place, value in enumerate(folded, 1):
            name = index.fresh(f"{node.name}/folded_{place}")
            node.input[place] = set_constant(model, name, value.astype(np.float32))
        drop_attributes(node, "epsilon")
        node.attribute.append(helper.make_attribute("epsilon", 0.0))


class _Typing:
    """Gives every node its type and puts Casts where two types meet, one for all readers of a tensor."""

    def __init__(self, model: onnx.ModelProto, kept: frozenset[str]) -> None:
        self.model = model
        self.kept = kept
        self.index = GraphIndex(with_shapes(model))
        self.opset = opset_of(model)
        self.types: dict[str, int] = {}
        self.casts: dict[tuple[str, int], str] = {}
        self.added: list[onnx.NodeProto] = []

    def apply(self) -> None:
        for node in self.model.graph.node:
            for tensor in (*node.input, *node.output):
                self._refuse_half(node, tensor)
        for node in self.model.graph.node:
            self._set_inputs(node)
            self._set_outputs(node)
        insert_nodes(self.model, self.added)

    def _refuse_half(self, node: onnx.NodeProto, tensor: str) -> None:
        if self.index.element_type(tensor) == _HALF:
            raise ModelError(
                f"expected a float32 graph to type in float16, but tensor {tensor} of {node.name} is float16; give the "
                "canonical graph of a bundle, its model.onnx"
            )

    def _takes_half(self, node: onnx.NodeProto, place: int, *, output: bool = False) -> bool:
        """Whether the node computes in float16 and ONNX lets this input or output be float16 (Resize's scales not)."""
        if node.name in self.kept or (node.op_type, place, output) == _REGION:
            return False
        schema = onnx.defs.get_schema(node.op_type, self.opset, node.domain)
        formal = schema.outputs if output else schema.inputs
        return "tensor(float16)" in formal[min(place, len(formal) - 1)].types

    def _set_inputs(self, node: onnx.NodeProto) -> None:
        if node.op_type == "Cast" and node.name not in self.kept:
            return  # it takes either type
        for place, tensor in enumerate(node.input):
            if tensor and self.index.element_type(tensor) == _FLOAT:
                node.input[place] = self._as(tensor, _HALF if self._takes_half(node, place) else _FLOAT)

    def _set_outputs(self, node: onnx.NodeProto) -> None:
        for place, tensor in enumerate(node.output):
            if not tensor or self.index.element_type(tensor) != _FLOAT:
                continue
            self.types[tensor] = _FLOAT
            if self._takes_half(node, place, output=True) and not self._states_its_type(node):
                self._make_half(node, place, tensor)

    def _states_its_type(self, node: onnx.NodeProto) -> bool:
        """Whether the type stands in an attribute; a Cast from integers stays too, since they may be beyond 2048."""
        from_integers = node.op_type == "Cast" and self.types.get(node.input[0], _FLOAT) != _HALF
        return from_integers or node.op_type in ("Constant", "ConstantOfShape", "EyeLike")

    def _make_half(self, node: onnx.NodeProto, place: int, tensor: str) -> None:
        if node.op_type == "Cast":
            drop_attributes(node, "to")
            node.attribute.append(helper.make_attribute("to", _HALF))
        if tensor not in self.index.outputs:
            self.types[tensor] = _HALF
            return
        inner = self.index.fresh(f"{tensor}_float16")
        node.output[place] = inner
        self.casts[tensor, _HALF] = inner
        self._cast(inner, _FLOAT, tensor)

    def _as(self, tensor: str, wanted: int) -> str:
        """The name under which a float tensor has the type wanted."""
        if self.types.get(tensor, _FLOAT) == wanted:
            return tensor
        if (tensor, wanted) not in self.casts:
            name = self.index.fresh(f"{tensor}_{'float16' if wanted == _HALF else 'float32'}")
            value = self.index.constant(tensor)
            if value is not None:
                set_constant(self.model, name, value.astype(np.float16))
            else:
                self._cast(tensor, wanted, name)
            self.casts[tensor, wanted] = name
        return self.casts[tensor, wanted]

    def _cast(self, source: str, kind: int, target: str) -> None:
        name = self.index.fresh(f"{target}/Cast")
        self.added.append(helper.make_node("Cast", [source], [target], name=name, to=kind))
