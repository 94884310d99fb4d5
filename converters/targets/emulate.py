"""What a graph typed in float16 computes, for processors that have no such arithmetic.

ONNX Runtime's CPU kernels take few float16 nodes; the others run in float32, and between two of them it drops the
rounding too (version 1.31 at every optimisation level: 2048 + 1 + 1 + 1 in float16 gives 2051, which is no float16
number). OpenVINO computes the whole graph in float32. A Cast to float16 and back that stands in the graph is kept by
ONNX Runtime, and dropped by OpenVINO.
"""

from __future__ import annotations

import onnx
from onnx import TensorProto, helper, numpy_helper

from edgeseg.converters.graph import GraphIndex, copy_model, drop_attributes, name_nodes, with_shapes

__all__ = ["emulate_float16"]

# What they give was rounded when it was made.
_EXACT = frozenset(
    {
        "Clip", "Concat", "DepthToSpace", "Expand", "Flatten", "Gather", "GlobalMaxPool", "Identity", "MaxPool", "Pad",
        "Relu", "Reshape", "Slice", "SpaceToDepth", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze",
    }
)  # fmt: skip


def emulate_float16(model: onnx.ModelProto) -> onnx.ModelProto:
    """A float32 graph that rounds wherever a graph typed in float16 does.

    Products of two float16 numbers are exact in float32, and tensor cores add them up in float32; what a node gives is
    rounded to the nearest float16 number, with its subnormal numbers and its infinity. TensorRT rounds less often,
    since it fuses nodes.

    Args:
        model: a graph typed in float16, see `edgeseg.converters.targets.float16.to_float16`.

    Returns:
        A new graph, to be run by ONNX Runtime.
    """
    result = copy_model(with_shapes(model))
    name_nodes(result)
    index = GraphIndex(result)
    halves = {o for n in result.graph.node for o in n.output if index.element_type(o) == TensorProto.FLOAT16}
    for tensor in result.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT16:
            widened = numpy_helper.to_array(tensor).astype("float32")
            tensor.CopyFrom(numpy_helper.from_array(widened, tensor.name))
    nodes: list[onnx.NodeProto] = []
    for node in result.graph.node:
        to_half = node.op_type == "Cast" and node.output[0] in halves
        if to_half:
            drop_attributes(node, "to")
            node.attribute.append(helper.make_attribute("to", TensorProto.FLOAT))
        nodes.append(node)
        if node.op_type not in _EXACT:
            for place, tensor in enumerate(node.output):
                if tensor in halves:
                    node.output[place] = index.fresh(f"{tensor}_unrounded")
                    nodes += _rounding(index, node.output[place], tensor)
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del result.graph.node[:], result.graph.value_info[:]
    result.graph.node.extend(copies)
    return with_shapes(result)


def _rounding(index: GraphIndex, source: str, target: str) -> list[onnx.NodeProto]:
    half = index.fresh(f"{target}_rounded")
    return [
        helper.make_node("Cast", [source], [half], name=index.fresh(f"{half}/Cast"), to=TensorProto.FLOAT16),
        helper.make_node("Cast", [half], [target], name=index.fresh(f"{target}/Cast"), to=TensorProto.FLOAT),
    ]
