"""Watching large tensors inside the graph: the engine itself computes what an observer needs of them.

Handing every large tensor out costs up to three quarters of the network's own time: the engine must keep all of them at
once, and the observer reads them again from memory. Four small outputs for each cost a tenth to a third.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper, numpy_helper

from edgeseg.calibration.observers import sample_stride

__all__ = ["Probe", "Summary", "add_probes"]


@dataclass(frozen=True)
class Summary:
    """Names of scalar outputs over all values of one tensor.

    Attributes:
        largest, smallest: maximum and minimum.
        total: the sum. A NaN always reaches it, but not every engine's maximum.
        elements: number of values of the tensor.
    """

    largest: str
    smallest: str
    total: str
    elements: int


@dataclass(frozen=True)
class Probe:
    """The outputs that tell of one tensor.

    Attributes:
        tensor: its name.
        values: name of the output that holds the tensor itself, or every n-th of its values, see `sample_stride`.
        summary: of the whole tensor, where `values` is a sample.
    """

    tensor: str
    values: str
    summary: Summary | None = None

    @property
    def outputs(self) -> tuple[str, ...]:
        """All names."""
        if self.summary is None:
            return (self.values,)
        return self.values, self.summary.largest, self.summary.smallest, self.summary.total


def add_probes(
    model: onnx.ModelProto, tensors: Iterable[str], sample: int | None
) -> tuple[onnx.ModelProto, list[Probe]]:
    """Give a graph outputs that tell of tensors.

    Args:
        model: with shapes that can be inferred.
        tensors: names of node outputs.
        sample: values of a tensor wanted at most; smaller tensors, and all when None, become outputs as they are.

    Returns:
        A new model, and a probe by tensor in their order.
    """
    probed = onnx.ModelProto()
    probed.CopyFrom(model)
    graph = probed.graph
    shapes = _shapes(model)
    prefix = _free_prefix(graph)
    present = {value.name for value in graph.output}
    probes = []
    for number, tensor in enumerate(dict.fromkeys(tensors)):
        shape = shapes.get(tensor, ())
        stride = sample_stride(shape, sample)
        probe = Probe(tensor, tensor) if stride == 1 else _add_probe(graph, tensor, shape, stride, f"{prefix}{number}_")
        graph.output.extend(onnx.ValueInfoProto(name=name) for name in probe.outputs if name not in present)
        present.update(probe.outputs)
        probes.append(probe)
    return probed, probes


def _shapes(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    """Shape by name of every tensor whose shape is wholly known."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    shapes = {}
    for value in (*graph.value_info, *graph.output):
        sizes = tuple(d.dim_value for d in value.type.tensor_type.shape.dim)
        if sizes and all(size > 0 for size in sizes):
            shapes[value.name] = sizes
    return shapes


def _free_prefix(graph: onnx.GraphProto) -> str:
    taken = {name for node in graph.node for name in (*node.input, *node.output)}
    prefix = "probe_"
    while any(name.startswith(prefix) for name in taken):
        prefix += "_"
    return prefix


def _add_probe(graph: onnx.GraphProto, tensor: str, shape: tuple[int, ...], stride: int, prefix: str) -> Probe:
    summary = Summary(f"{prefix}largest", f"{prefix}smallest", f"{prefix}total", math.prod(shape))
    flat, values = f"{prefix}flat", f"{prefix}sample"
    constants = {"flatten": -1, "start": 0, "end": math.prod(shape), "axis": 0, "step": stride}
    graph.initializer.extend(
        numpy_helper.from_array(np.array([value], np.int64), prefix + name) for name, value in constants.items()
    )
    flatten, *bounds = (prefix + name for name in constants)
    graph.node.append(helper.make_node("Reshape", [tensor, flatten], [flat]))
    graph.node.append(helper.make_node("Slice", [flat, *bounds], [values]))
    for operator, name in (("ReduceMax", summary.largest), ("ReduceMin", summary.smallest)):
        graph.node.append(helper.make_node(operator, [tensor], [name], keepdims=0))
    graph.node.append(helper.make_node("ReduceSum", [tensor], [summary.total], keepdims=0))
    return Probe(tensor, values, summary)
