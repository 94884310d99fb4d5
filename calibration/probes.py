"""Watching large tensors inside the graph: the engine itself computes what an observer needs of them.

Handing every large tensor out costs up to three quarters of the network's own time: the engine must keep all of them at
once, and the observer reads them again from memory. A sample of each costs a fifth to a third, and as much again where
the extremes are to be those of every value.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import onnx
from onnx import helper, numpy_helper

from edgeseg.calibration.observers import sample_stride
from edgeseg.calibration.shapes import inferred_shapes

__all__ = ["Probe", "Summary", "add_probes"]


@dataclass(frozen=True)
class Summary:
    """Names of scalar outputs over all values of one tensor.

    Attributes:
        largest, smallest: maximum and minimum.
        total: the sum. A NaN always reaches it, but not every engine's maximum.
    """

    largest: str
    smallest: str
    total: str


@dataclass(frozen=True)
class Probe:
    """The outputs that tell of one tensor.

    Attributes:
        tensor: its name.
        values: name of the output that holds the tensor itself, or every n-th of its values, see `sample_stride`.
        elements: number of values of the whole tensor, where `values` is a sample.
        summary: of the whole tensor, where `values` is a sample and extremes were asked for.
    """

    tensor: str
    values: str
    elements: int | None = None
    summary: Summary | None = None

    @property
    def outputs(self) -> tuple[str, ...]:
        """All names."""
        if self.summary is None:
            return (self.values,)
        return self.values, self.summary.largest, self.summary.smallest, self.summary.total


def add_probes(
    model: onnx.ModelProto, tensors: Iterable[str], sample: int | None, *, extremes: bool = False
) -> tuple[onnx.ModelProto, list[Probe]]:
    """Give a graph outputs that tell of tensors.

    Args:
        model: with shapes that can be inferred.
        tensors: names of node outputs.
        sample: values of a tensor wanted at most; smaller tensors, and all when None, become outputs as they are.
        extremes: whether the extremes of a sampled tensor are those of all its values. It costs twice as much.

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
        probe = Probe(tensor, tensor)
        if stride > 1:
            probe = _sample(graph, tensor, shape, stride, f"{prefix}{number}_")
            if extremes:
                probe = replace(probe, summary=_summarize(graph, tensor, f"{prefix}{number}_"))
        graph.output.extend(onnx.ValueInfoProto(name=name) for name in probe.outputs if name not in present)
        present.update(probe.outputs)
        probes.append(probe)
    return probed, probes


def _shapes(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    """Shape by name of every tensor whose shape is wholly known."""
    graph = inferred_shapes(model)
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


def _sample(graph: onnx.GraphProto, tensor: str, shape: tuple[int, ...], stride: int, prefix: str) -> Probe:
    elements = math.prod(shape)
    flat, values = f"{prefix}flat", f"{prefix}sample"
    constants = {"flatten": -1, "start": 0, "end": elements, "axis": 0, "step": stride}
    graph.initializer.extend(
        numpy_helper.from_array(np.array([value], np.int64), prefix + name) for name, value in constants.items()
    )
    flatten, *bounds = (prefix + name for name in constants)
    graph.node.append(helper.make_node("Reshape", [tensor, flatten], [flat]))
    graph.node.append(helper.make_node("Slice", [flat, *bounds], [values]))
    return Probe(tensor, values, elements)


def _summarize(graph: onnx.GraphProto, tensor: str, prefix: str) -> Summary:
    summary = Summary(f"{prefix}largest", f"{prefix}smallest", f"{prefix}total")
    operators = {"ReduceMax": summary.largest, "ReduceMin": summary.smallest, "ReduceSum": summary.total}
    graph.node.extend(helper.make_node(operator, [tensor], [name], keepdims=0) for operator, name in operators.items())
    return summary
