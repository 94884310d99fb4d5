"""Reading an ONNX graph: producers, consumers, constants and shapes; and the few edits that every step needs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from functools import cached_property
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from edgeseg.calibration.shapes import inferred_shapes
from edgeseg.errors import ModelError

__all__ = [
    "GraphIndex",
    "attribute",
    "copy_model",
    "drop_attributes",
    "insert_nodes",
    "name_nodes",
    "remove_unused",
    "rename_tensor",
    "set_constant",
    "sort_nodes",
    "with_shapes",
]


class GraphIndex:
    """A read-only view of a model's graph; build a new one after an edit.

    Args:
        model: a graph without control flow.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        self.graph = model.graph
        self.producers: dict[str, onnx.NodeProto] = {o: n for n in self.graph.node for o in n.output if o}
        self._consumers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
        for node in self.graph.node:
            for tensor in dict.fromkeys(node.input):
                if tensor:
                    self._consumers[tensor].append(node)
        self._initializers = {t.name: t for t in self.graph.initializer}
        self.inputs = [i.name for i in self.graph.input if i.name not in self._initializers]
        self.outputs = [o.name for o in self.graph.output]
        self._constants: dict[str, NDArray[Any] | None] = {}

    def producer(self, tensor: str) -> onnx.NodeProto | None:
        """The node that makes a tensor; None for graph inputs and initializers."""
        return self.producers.get(tensor)

    def consumers(self, tensor: str) -> list[onnx.NodeProto]:
        """Nodes that read a tensor, each once, in graph order."""
        return self._consumers.get(tensor, [])

    def only_consumer(self, tensor: str) -> onnx.NodeProto | None:
        """The one node that reads a tensor; None where several do or where it is an output of the graph."""
        nodes = self.consumers(tensor)
        return nodes[0] if len(nodes) == 1 and tensor not in self.outputs else None

    def is_constant(self, tensor: str) -> bool:
        """Whether a tensor is an initializer or comes from a Constant node; its value is not read for it."""
        node = self.producers.get(tensor)
        return tensor in self._initializers or (node is not None and node.op_type == "Constant")

    def constant(self, tensor: str) -> NDArray[Any] | None:
        """Value of an initializer or of a Constant node; None for a tensor that is computed."""
        if tensor not in self._constants:
            self._constants[tensor] = self._read_constant(tensor)
        return self._constants[tensor]

    def _read_constant(self, tensor: str) -> NDArray[Any] | None:
        if tensor in self._initializers:
            return numpy_helper.to_array(self._initializers[tensor])
        node = self.producers.get(tensor)
        if node is None or node.op_type != "Constant":
            return None
        value = helper.get_attribute_value(node.attribute[0])
        kinds = {"value_float": np.float32, "value_floats": np.float32, "value_int": np.int64, "value_ints": np.int64}
        if isinstance(value, onnx.TensorProto):
            return numpy_helper.to_array(value)
        kind = kinds.get(node.attribute[0].name)
        return None if kind is None else np.asarray(value, kind)

    @cached_property
    def _types(self) -> dict[str, onnx.TypeProto.Tensor]:
        graph = _inferred(self.model)
        values = [*graph.value_info, *graph.input, *graph.output]
        types = {v.name: v.type.tensor_type for v in values}
        for name, tensor in self._initializers.items():
            types[name] = helper.make_tensor_type_proto(tensor.data_type, list(tensor.dims)).tensor_type
        return types

    def shape(self, tensor: str) -> tuple[int, ...] | None:
        """Static shape of a tensor by shape inference; None where a dimension or the rank is unknown."""
        kind = self._types.get(tensor)
        if kind is None or not kind.HasField("shape"):
            return None
        if not all(d.HasField("dim_value") for d in kind.shape.dim):
            return None
        return tuple(d.dim_value for d in kind.shape.dim)

    def element_type(self, tensor: str) -> int:
        """onnx.TensorProto data type of a tensor; UNDEFINED (0) where inference does not know it."""
        kind = self._types.get(tensor)
        return kind.elem_type if kind is not None else 0

    def names(self) -> set[str]:
        """Every tensor and node name in use."""
        tensors = {t for n in self.graph.node for t in (*n.input, *n.output)}
        values = {v.name for v in (*self.graph.input, *self.graph.output, *self.graph.initializer)}
        return tensors | values | {n.name for n in self.graph.node}

    def fresh(self, stem: str) -> str:
        """`stem`, or `stem_1`, `stem_2` ... where it is taken by a tensor or a node; each call gives another name."""
        name = _fresh(stem, self._taken)
        self._taken.add(name)
        return name

    @cached_property
    def _taken(self) -> set[str]:
        return self.names()


def _fresh(stem: str, taken: set[str]) -> str:
    name, number = stem, 0
    while name in taken:
        number += 1
        name = f"{stem}_{number}"
    return name


def copy_model(model: onnx.ModelProto) -> onnx.ModelProto:
    """A deep copy, so that an edit never reaches the caller's model."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    return result


def with_shapes(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which shape inference has written every shape it knows, and no stale one is left."""
    inferred = _inferred(model)
    result = copy_model(model)
    for field, values in ((result.graph.value_info, inferred.value_info), (result.graph.output, inferred.output)):
        del field[:]
        field.extend(values)
    return result


def _inferred(model: onnx.ModelProto) -> onnx.GraphProto:
    try:
        return inferred_shapes(model, strict=True)
    except onnx.shape_inference.InferenceError as error:
        lines = [line for line in str(error).splitlines() if line.strip()]
        raise ModelError(
            f"expected a graph whose shapes fit together, but ONNX's shape inference fails: {lines[-1]}; "
            "check the export with onnx.checker.check_model(model, full_check=True)"
        ) from error


def attribute(node: onnx.NodeProto, name: str, default: Any) -> Any:
    """Value of a node's attribute (text decoded, lists as lists), or `default` where the node does not have it."""
    for item in node.attribute:
        if item.name == name:
            value = helper.get_attribute_value(item)
            return value.decode() if isinstance(value, bytes) else value
    return default


def drop_attributes(node: onnx.NodeProto, *names: str) -> None:
    """Remove attributes of a node; those it does not have are no error."""
    kept = [onnx.AttributeProto.FromString(a.SerializeToString()) for a in node.attribute if a.name not in names]
    del node.attribute[:]
    node.attribute.extend(kept)


def set_constant(model: onnx.ModelProto, name: str, value: NDArray[Any]) -> str:
    """Add or replace an initializer and return its name."""
    tensor = numpy_helper.from_array(np.asarray(value, order="C"), name)
    for existing in model.graph.initializer:
        if existing.name == name:
            existing.CopyFrom(tensor)
            return name
    model.graph.initializer.append(tensor)
    return name


def insert_nodes(model: onnx.ModelProto, nodes: Iterable[onnx.NodeProto], *, replace: Iterable[str] = ()) -> None:
    """Add nodes, take out those whose names stand in `replace`, and bring all into an order that runs."""
    gone = set(replace)
    kept = [n for n in model.graph.node if n.name not in gone] + list(nodes)
    del model.graph.node[:]
    model.graph.node.extend(kept)
    sort_nodes(model)


def sort_nodes(model: onnx.ModelProto) -> None:
    """Order the nodes so that each stands after its producers, and otherwise as they stood.

    Raises:
        ModelError: for a cycle or a tensor that nothing makes.
    """
    graph = model.graph
    ready = {"", *(i.name for i in graph.input), *(t.name for t in graph.initializer)}
    waiting = list(graph.node)
    ordered: list[onnx.NodeProto] = []
    while waiting:
        later = []
        for node in waiting:
            if all(i in ready for i in node.input):
                ordered.append(node)
                ready.update(node.output)
            else:
                later.append(node)
        if len(later) == len(waiting):
            missing = sorted({i for n in later for i in n.input} - ready - {o for n in later for o in n.output})
            raise ModelError(
                f"expected every tensor to have a producer, but {', '.join(missing[:3]) or 'a cycle'} stops "
                f"node {later[0].name or later[0].op_type}; export the network again"
            )
        waiting = later
    copies = [onnx.NodeProto.FromString(n.SerializeToString()) for n in ordered]
    del graph.node[:]
    graph.node.extend(copies)


def name_nodes(model: onnx.ModelProto) -> None:
    """Give every node a name of its own: `<op>_<n>` where it is empty, a suffix where it is taken."""
    taken: set[str] = set()
    named = {n.name for n in model.graph.node if n.name}
    for number, node in enumerate(model.graph.node):
        if not node.name:
            node.name = _fresh(f"{node.op_type}_{number}", taken | named)
        elif node.name in taken:
            node.name = _fresh(f"{node.name}_{number}", taken | named)
        taken.add(node.name)


def rename_tensor(model: onnx.ModelProto, old: str, new: str) -> None:
    """Rename a tensor wherever it stands, graph inputs, outputs and initializers included."""
    graph = model.graph
    for node in graph.node:
        node.input[:] = [new if i == old else i for i in node.input]
        node.output[:] = [new if o == old else o for o in node.output]
    for value in (*graph.input, *graph.output, *graph.initializer, *graph.value_info):
        if value.name == old:
            value.name = new


def remove_unused(model: onnx.ModelProto) -> None:
    """Drop nodes that no output needs, then initializers and shapes that nothing reads."""
    graph = model.graph
    needed = {o.name for o in graph.output}
    kept: list[onnx.NodeProto] = []
    for node in reversed(graph.node):
        if any(o in needed for o in node.output):
            kept.append(onnx.NodeProto.FromString(node.SerializeToString()))
            needed.update(i for i in node.input if i)
    del graph.node[:]
    graph.node.extend(reversed(kept))
    made = {o for n in kept for o in n.output}
    for field, names in ((graph.initializer, needed), (graph.value_info, needed & made)):
        # One by one: copies of those that stay would be copies of all weights.
        for place in reversed([i for i, item in enumerate(field) if item.name not in names]):
            del field[place]
