"""Bringing a graph of any opset from 11 on to the one opset that edgeseg writes."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, version_converter

from edgeseg.calibration.shapes import is_large, without_weights
from edgeseg.converters.graph import GraphIndex, attribute, copy_model, drop_attributes, set_constant
from edgeseg.converters.newer import write_newer_operators
from edgeseg.errors import UnsupportedModelError

__all__ = ["OLDEST_OPSET", "OPSET", "opset_of", "to_target_opset"]

# TensorRT 8.4 to 8.6 read up to opset 17; per-channel QuantizeLinear needs 13.
OPSET = 17
OLDEST_OPSET = 11

# ONNX's converter has no way down from opset 18 for these; they are brought to their older form here and kept out of
# its sight under a domain of their own.
_HELD = ("Split", "Pad")
_HELD_DOMAIN = "edgeseg.held"


def opset_of(model: onnx.ModelProto) -> int:
    """Opset of the default domain; 0 where the model names none."""
    return max((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), default=0)


def to_target_opset(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy at opset 17, IR version 8.

    Raises:
        UnsupportedModelError: for an opset below 11, or an operator that has no form at opset 17.
    """
    opset = opset_of(model)
    if opset < OLDEST_OPSET:
        raise UnsupportedModelError(
            f"expected a network of opset {OLDEST_OPSET} or newer, but got opset {opset}; "
            f"export it again with opset_version={OPSET}"
        )
    result = copy_model(model)
    if opset > OPSET:
        write_newer_operators(result, opset)
        _hold(result)
    if opset != OPSET:
        try:
            result = _converted(result)
        except RuntimeError as error:
            reason = str(error).splitlines()[0].rsplit("failed: ", 1)[-1]
            raise UnsupportedModelError(
                f"expected a network that can be brought from opset {opset} to {OPSET}, but ONNX's version converter "
                f"says: {reason}; export it again with opset_version={OPSET}"
            ) from error
    for node in result.graph.node:
        if node.domain == _HELD_DOMAIN:
            node.domain = ""
    _drop_newer_attributes(result, opset)
    del result.opset_import[:]
    result.opset_import.append(helper.make_opsetid("", OPSET))
    result.ir_version = 8
    return result


def _converted(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model at opset 17; the weights, which no converter changes, do not make the way through it."""
    result = version_converter.convert_version(without_weights(model), OPSET)
    large = {tensor.name for tensor in model.graph.initializer if is_large(tensor)}
    given = {value.name for value in model.graph.input}
    for place in reversed([i for i, v in enumerate(result.graph.input) if v.name in large - given]):
        del result.graph.input[place]
    result.graph.initializer.extend(tensor for tensor in model.graph.initializer if tensor.name in large)
    result.producer_name, result.producer_version = model.producer_name, model.producer_version
    result.doc_string = model.doc_string
    result.metadata_props.extend(model.metadata_props)
    return result


def _drop_newer_attributes(model: onnx.ModelProto, opset: int) -> None:
    """Take out attributes that opset 17 does not know; ONNX's converter leaves some, such as Resize's `antialias`."""
    for node in model.graph.node:
        if node.domain not in ("", "ai.onnx") or not onnx.defs.has(node.op_type, OPSET, ""):
            continue
        known = onnx.defs.get_schema(node.op_type, OPSET, "").attributes
        for item in [a for a in node.attribute if a.name not in known]:
            newer = onnx.defs.get_schema(node.op_type, opset, "").attributes.get(item.name)
            value = helper.get_attribute_value(item)
            if newer is not None and value != helper.get_attribute_value(newer.default_value):
                raise UnsupportedModelError(
                    f"{node.op_type} {node.name!r} has {item.name}={value!r}, which opset {OPSET} does not have; "
                    "replace it in the network and export again"
                )
            node.attribute.remove(item)


def _hold(model: onnx.ModelProto) -> None:
    index = GraphIndex(model)
    for node in model.graph.node:
        if node.op_type in _HELD:
            if node.op_type == "Split":
                _lower_split(model, index, node)
            else:
                _lower_pad(model, index, node)
            node.domain = _HELD_DOMAIN
    model.opset_import.append(helper.make_opsetid(_HELD_DOMAIN, 1))


def _lower_split(model: onnx.ModelProto, index: GraphIndex, node: onnx.NodeProto) -> None:
    """Opset 18's `num_outputs` becomes the explicit sizes that opset 13 wants."""
    parts = attribute(node, "num_outputs", 0)
    if not parts:
        return
    shape = index.shape(node.input[0])
    if shape is None:
        raise UnsupportedModelError(
            f"expected a static shape before Split {node.name!r} of opset 18, but it is dynamic; "
            f"export the network again with opset_version={OPSET} or give --size HxW"
        )
    length = shape[attribute(node, "axis", 0)]
    share = -(-length // parts)
    sizes = [share] * (parts - 1) + [length - share * (parts - 1)]
    drop_attributes(node, "num_outputs")
    name = set_constant(model, index.fresh(f"{node.output[0]}_sizes"), np.array(sizes, np.int64))
    node.input[:] = [node.input[0], name]


def _lower_pad(model: onnx.ModelProto, index: GraphIndex, node: onnx.NodeProto) -> None:
    """Opset 18's `axes` input becomes pads for every axis."""
    mode = attribute(node, "mode", "constant")
    if mode == "wrap":
        raise UnsupportedModelError(
            f"Pad {node.name!r} wraps around, which opset {OPSET} does not have; pad with zeros or by reflection"
        )
    if len(node.input) < 4 or not node.input[3]:
        return
    shape, pads, axes = index.shape(node.input[0]), index.constant(node.input[1]), index.constant(node.input[3])
    if shape is None or pads is None or axes is None:
        raise UnsupportedModelError(
            f"expected constant pads and axes in Pad {node.name!r} of opset 18, but they are computed; "
            f"export the network again with opset_version={OPSET}"
        )
    rank = len(shape)
    full = np.zeros(2 * rank, np.int64)
    for i, axis in enumerate(int(a) % rank for a in axes):
        full[axis], full[rank + axis] = pads[i], pads[len(axes) + i]
    name = set_constant(model, index.fresh(f"{node.output[0]}_pads"), full)
    node.input[:] = [node.input[0], name, *node.input[2:3]]
