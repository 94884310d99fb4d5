"""Rules on the graph as a whole: opset, fixed sizes, names, wiring."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from edgeseg.converters.lint.findings import Problem, rule
from edgeseg.converters.lint.subject import Subject, node_name
from edgeseg.converters.macs import COMPUTE

__all__: list[str] = []

_GRAPH = "graph"
_EXPORT = "export the network again; onnx.checker.check_model shows what else is wrong"
_OLDEST_OPSET = 9
_OLDEST_QDQ_OPSET = 13


@rule("G101", "portability", "opset that not every version reads")
def _opset(subject: Subject) -> Iterator[Problem]:
    oldest = _OLDEST_QDQ_OPSET if subject.quantizers else _OLDEST_OPSET
    newest = subject.profile.newest_opset
    if not oldest <= subject.opset <= newest:
        reason = ", the first with Q/DQ per channel" if oldest == _OLDEST_QDQ_OPSET else ""
        yield Problem(
            _GRAPH,
            f"the graph has opset {subject.opset or 'none'}, but {subject.profile.versions} together read "
            f"{oldest}{reason} to {newest}",
            f"export with opset {min(newest, 17)}, or convert with onnx.version_converter",
        )


@rule("G102", "refused", "input without a fixed size")
def _dynamic(subject: Subject) -> Iterator[Problem]:
    wanted = set(subject.index.inputs)
    for value in subject.model.graph.input:
        tensor = value.type.tensor_type
        dims = [d.dim_param or (d.dim_value if d.HasField("dim_value") else "?") for d in tensor.shape.dim]
        fixed = tensor.HasField("shape") and all(isinstance(d, int) and d > 0 for d in dims)
        if value.name in wanted and not fixed:
            shape = "x".join(map(str, dims)) if tensor.HasField("shape") else "unknown"
            yield Problem(
                value.name,
                f"input {value.name} has size {shape}; TensorRT builds a dynamic input only with an optimization "
                "profile",
                "fix the size: edgeseg convert --size HEIGHTxWIDTH, or export with fixed dimensions",
            )


@rule("G103", "silent", "layer without a name")
def _unnamed(subject: Subject) -> Iterator[Problem]:
    for node in subject.nodes:
        if node.op_type in COMPUTE and not node.name:
            yield Problem(
                node_name(node),
                f"this {node.op_type} has no name, so its precision cannot be looked up in the engine",
                "give every node a name of its own",
            )


@rule("G104", "silent", "layers of the same name")
def _same_name(subject: Subject) -> Iterator[Problem]:
    count = Counter(node.name for node in subject.nodes if node.name)
    for name in dict.fromkeys(n.name for n in subject.nodes if n.op_type in COMPUTE and count[n.name] > 1):
        yield Problem(
            name,
            f"{count[name]} nodes are named {name}; TensorRT renames all but the first, so a precision may be looked "
            "up for the wrong layer",
            "give every node a name of its own",
        )


@rule("G105", "refused", "tensor that nothing makes")
def _dangling(subject: Subject) -> Iterator[Problem]:
    made = _before_nodes(subject).union(*(node.output for node in subject.nodes))
    for node in subject.nodes:
        for tensor in dict.fromkeys(node.input):
            if tensor not in made:
                yield Problem(node_name(node), f"{node.op_type} reads {tensor}, which nothing makes", _EXPORT)
    for output in subject.index.outputs:
        if output not in made:
            yield Problem(output, f"nothing makes the output {output}", _EXPORT)


@rule("G106", "portability", "node that stands before the one it reads from")
def _order(subject: Subject) -> Iterator[Problem]:
    ready = _before_nodes(subject)
    for node in subject.nodes:
        late = next((p for t in node.input if t not in ready and (p := subject.index.producer(t)) is not None), None)
        if late is not None:
            yield Problem(
                node_name(node),
                f"{node.op_type} stands before {node_name(late)}, from which it reads; that is no valid ONNX, and the "
                "other rules cannot follow it",
                _EXPORT,
            )
        ready.update(node.output)


def _before_nodes(subject: Subject) -> set[str]:
    """Tensors that are there before the first node runs; the empty name stands for an input left out."""
    sparse = (s.values.name for s in subject.model.graph.sparse_initializer)
    return {"", *subject.index.inputs, *subject.initializers, *sparse}
