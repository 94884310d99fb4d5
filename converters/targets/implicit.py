"""INT8 as TensorRT knew it before Q/DQ: a graph without, a calibration cache, and the precision of each layer.

For DLA up to TensorRT 10.7, DeepStream, jetson-inference and trtexec. TensorRT takes a layer into INT8 only where every
tensor that it reads and writes has a range ("Missing scale and zero-point for tensor ..., expect fall back to non-int8
implementation for any layer consuming or producing given tensor"), and builds without an error where none has. A
bundle holds the ranges of what it quantizes, the inputs of convolutions; here the others are asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import onnx
from onnx import TensorProto

from edgeseg.calibration.cache import write_cache
from edgeseg.calibration.measure import Feed, measure_ranges
from edgeseg.calibration.ranges import LEVELS
from edgeseg.calibration.table import choose_ranges
from edgeseg.converters.graph import GraphIndex, copy_model, name_nodes
from edgeseg.converters.macs import COMPUTE
from edgeseg.converters.place import remove_qdq
from edgeseg.converters.targets.normalisation import normalising_nodes
from edgeseg.errors import CalibrationError

__all__ = [
    "activation_tensors",
    "complete_ranges",
    "layer_precisions",
    "measure_missing",
    "missing_ranges",
    "quantized_ranges",
    "range_cache",
]

_ACTIVATIONS = frozenset(("Clip", "LeakyRelu", "PRelu", "Relu"))

# Values pass unchanged, all of them.
_REARRANGES = frozenset(
    ("DepthToSpace", "Flatten", "Identity", "Reshape", "SpaceToDepth", "Squeeze", "Transpose", "Unsqueeze")
)
# What comes out is among what goes in, or between.
_STAYS_WITHIN = _REARRANGES | {
    "AveragePool", "Gather", "GlobalAveragePool", "GlobalMaxPool", "MaxPool", "Relu", "Resize", "Slice", "Split",
}  # fmt: skip
_UP_TO_ONE = frozenset(("HardSigmoid", "Sigmoid", "Softmax", "Tanh"))
_SHOWN = 5


def quantized_ranges(model: onnx.ModelProto) -> dict[str, float]:
    """amax by activation tensor as a graph's Q/DQ has it: 127 times the scale, the largest where there are several."""
    index = GraphIndex(model)
    ranges: dict[str, float] = {}
    for node in model.graph.node:
        if node.op_type == "QuantizeLinear" and index.constant(node.input[0]) is None:
            scale = index.constant(node.input[1])
            if scale is not None and scale.size == 1:
                ranges[node.input[0]] = max(ranges.get(node.input[0], 0.0), float(scale.item()) * LEVELS)
    return ranges


def activation_tensors(model: onnx.ModelProto) -> tuple[str, ...]:
    """Tensors that TensorRT wants a range of, in the order of the graph: all float ones but those of normalisation.

    Args:
        model: the canonical graph, with or without Q/DQ.
    """
    model = _without_qdq(model)
    index, before = GraphIndex(model), normalising_nodes(model)

    def is_wanted(tensor: str) -> bool:
        readers, maker = index.consumers(tensor), index.producer(tensor)
        source = maker.input[0] if maker is not None and maker.op_type == "Cast" else tensor
        normalises = bool(readers) and all(reader.name in before for reader in readers)
        # A class number on its way from ArgMax through float32 to uint8 is no activation.
        is_float = index.element_type(tensor) == index.element_type(source) == TensorProto.FLOAT
        return is_float and not normalises

    made = (tensor for node in model.graph.node for tensor in node.output if index.constant(tensor) is None)
    return tuple(tensor for tensor in (*index.inputs, *made) if tensor and is_wanted(tensor))


def missing_ranges(model: onnx.ModelProto, ranges: Mapping[str, float]) -> tuple[str, ...]:
    """Tensors whose range neither the graph nor `ranges` has and that follows from no other.

    Args:
        model: the canonical Q/DQ graph.
        ranges: amax by tensor name, for example what `edgeseg.calibration.cache.read_cache` gives.
    """
    known = complete_ranges(model, ranges)
    return tuple(tensor for tensor in activation_tensors(model) if tensor not in known)


def complete_ranges(model: onnx.ModelProto, ranges: Mapping[str, float]) -> dict[str, float]:
    """Ranges of the graph's Q/DQ, those given, and those that follow from them.

    Values that are only rearranged keep their range; what a pool, Resize, ReLU or Concat gives lies within that of what
    it takes; what a ReLU takes may be clipped where the ReLU's result is; a sigmoid ends at 1.

    Args:
        model: the canonical Q/DQ graph.
        ranges: amax by tensor name.

    Raises:
        CalibrationError: for ranges of another graph: a name that is no tensor of this one, or another range than its
            Q/DQ has.
    """
    known = {**ranges, **quantized_ranges(model)}
    _check_origin(model, ranges, known)
    plain = _without_qdq(model)
    index = GraphIndex(plain)
    wanted = set(activation_tensors(plain))
    while found := {t: a for t, a in _following(index, known).items() if t in wanted and t not in known}:
        known.update(found)
    return known


def _check_origin(model: onnx.ModelProto, ranges: Mapping[str, float], known: Mapping[str, float]) -> None:
    tensors = {tensor for node in model.graph.node for tensor in (*node.input, *node.output)}
    strangers = [tensor for tensor in ranges if tensor not in tensors]
    others = [tensor for tensor, amax in ranges.items() if not np.isclose(amax, known[tensor], rtol=1e-5, atol=0)]
    if strangers or others:
        first = (strangers or others)[0]
        what = (
            "is no tensor of it" if strangers else f"has the range {known[first]:g} in its Q/DQ, not {ranges[first]:g}"
        )
        raise CalibrationError(
            f"expected the ranges of this very graph, but {len(strangers) + len(others)} of {len(ranges)} belong to "
            f"another: {first} {what}; TensorRT would build in float without a word. Take model.onnx and "
            "calibration.cache of one bundle"
        )


def _following(index: GraphIndex, known: Mapping[str, float]) -> dict[str, float]:
    """One step from the known ranges along and against the nodes."""
    found: dict[str, float] = {}
    for node in index.graph.node:
        inputs = [known.get(i) for i in node.input if i and index.constant(i) is None]
        amax = max((a for a in inputs if a is not None), default=None)
        if node.op_type in _UP_TO_ONE:
            found.update((output, 1.0) for output in node.output)
        elif amax is not None and (node.op_type in _STAYS_WITHIN or (node.op_type == "Concat" and None not in inputs)):
            found.update((output, amax) for output in node.output)
        elif node.op_type in _REARRANGES or node.op_type == "Relu":
            behind = known.get(node.output[0])
            if behind is not None and index.only_consumer(node.input[0]) is not None:
                found[node.input[0]] = behind
    return found


def measure_missing(
    model: onnx.ModelProto,
    ranges: Mapping[str, float],
    feeds: Iterable[Feed],
    *,
    method: str = "mse",
    progress: Callable[[int], None] | None = None,
    frame_names: Sequence[str] = (),
) -> dict[str, float]:
    """Ranges of every tensor that TensorRT wants one of, those that are missing measured on frames.

    Args:
        model: the canonical Q/DQ graph; it is run without its Q/DQ.
        ranges: amax by tensor name, as far as known.
        feeds: frames, as for `edgeseg.calibration.measure.measure_ranges`.
        method: range chooser, one of `edgeseg.calibration.ranges.METHODS`.
        progress, frame_names: as for `measure_ranges`.

    Raises:
        CalibrationError: as for `complete_ranges` and `measure_ranges`.
    """
    missing = missing_ranges(model, ranges)
    if not missing:
        return complete_ranges(model, ranges)
    histograms = measure_ranges(
        _without_qdq(model),
        missing,
        feeds,
        progress=progress,
        frame_names=frame_names,
        extremes=method == "minmax",
    )
    measured = {name: entry.amax for name, entry in choose_ranges(histograms, method).items()}
    return complete_ranges(model, {**ranges, **measured})


def range_cache(model: onnx.ModelProto, ranges: Mapping[str, float]) -> bytes:
    """A calibration cache that covers every tensor, in TensorRT's format (see `edgeseg.calibration.cache`).

    Args:
        model: the canonical Q/DQ graph.
        ranges: amax by tensor name, beyond those of the Q/DQ.

    Raises:
        CalibrationError: for ranges of another graph, or when a tensor has none, with the first names.
    """
    known = complete_ranges(model, ranges)
    wanted = activation_tensors(model)
    missing = [tensor for tensor in wanted if tensor not in known]
    if missing:
        listed = ", ".join(missing[:_SHOWN]) + (" and others" if len(missing) > _SHOWN else "")
        raise CalibrationError(
            f"expected a range for each of the {len(wanted)} tensors, since TensorRT runs a layer in float where one "
            f"is missing, but {len(missing)} have none: {listed}; measure them on calibration frames with "
            "measure_missing"
        )
    return write_cache({tensor: known[tensor] for tensor in wanted})


def layer_precisions(model: onnx.ModelProto) -> dict[str, str]:
    """Layers that are not to run in INT8, so that the accuracy stays what the Q/DQ graph has.

    Args:
        model: the canonical Q/DQ graph.

    Returns:
        "fp32" for what normalises the frame, "fp16" for every other node that the Q/DQ graph has in float, by name, in
        the order of the graph. Not listed are nodes that read INT8, and the activation behind one of them.
    """
    model = copy_model(model)
    name_nodes(model)
    index, before = GraphIndex(model), normalising_nodes(model)
    dequantized = {node.output[0] for node in model.graph.node if node.op_type == "DequantizeLinear"}
    int8: set[str] = set()
    precisions = {}
    for node in model.graph.node:
        needed = node.input[:2] if node.op_type in COMPUTE else [t for t in node.input[:1] if t]
        maker = index.producer(node.input[0]) if node.input else None
        follows = node.op_type in _ACTIVATIONS and maker is not None and maker.name in int8
        if follows or (needed and dequantized.issuperset(needed)):
            int8.add(node.name)
        elif node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            continue
        elif index.element_type(node.output[0]) == TensorProto.FLOAT and index.constant(node.output[0]) is None:
            precisions[node.name] = "fp32" if node.name in before else "fp16"
    return precisions


def _without_qdq(model: onnx.ModelProto) -> onnx.ModelProto:
    plain = remove_qdq(model)
    name_nodes(plain)
    return plain
