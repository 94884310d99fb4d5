"""Constant folding and clean-up of an exported graph, with a check that it still computes the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from edgeseg.converters.graph import (
    GraphIndex,
    copy_model,
    insert_nodes,
    name_nodes,
    remove_unused,
    rename_tensor,
    set_constant,
    with_shapes,
)
from edgeseg.errors import ModelError
from edgeseg.libraries import require

__all__ = ["outputs_of", "simplify_graph"]

# Folding constants and reordering sums costs a few units in the last place; anything larger is another function.
_TOLERANCE = 1e-3

_STAYING = frozenset(
    {
        "Add",
        "AveragePool",
        "BatchNormalization",
        "Concat",
        "Conv",
        "ConvTranspose",
        "GlobalAveragePool",
        "HardSwish",
        "LeakyRelu",
        "MaxPool",
        "Mul",
        "PRelu",
        "Relu",
        "Resize",
        "Sigmoid",
        "Sub",
    }
)
"""Operators that go for no other reason than that all they read is constant; idle ones are not among them."""


def simplify_graph(model: onnx.ModelProto) -> onnx.ModelProto:
    """Fold constants, drop operators that do nothing, and turn Constant nodes into initializers.

    onnxsim does that, and is loaded where there is something for it to do, see `_has_nothing_to_fold`.

    Args:
        model: opset 17, one input of a fixed shape.

    Returns:
        A new model with shapes written for every tensor.

    Raises:
        ModelError: where the graph does not run, or computes something else afterwards.
    """
    result = copy_model(model)
    _constants_to_initializers(result)
    if not _has_nothing_to_fold(result):
        result = _folded(result)
        _constants_to_initializers(result)
        _remove_idle(result)
    remove_unused(result)
    name_nodes(result)
    _check_equal(model, result)
    return with_shapes(result)


def _folded(model: onnx.ModelProto) -> onnx.ModelProto:
    onnxsim = require("onnxsim", "simplify a network")
    try:
        result, _ = onnxsim.simplify(model, check_n=0)
    except Exception as error:  # onnxsim has no error class of its own
        raise ModelError(
            f"the network cannot be simplified: {_first_line(error)}; check it with onnx.checker.check_model and "
            "run it once in ONNX Runtime"
        ) from error
    return copy_model(result)


def _has_nothing_to_fold(model: onnx.ModelProto) -> bool:
    """Whether every node computes on what comes from the input, in an operator that stays, and none twice the same."""
    index = GraphIndex(model)
    seen = set()
    for node in model.graph.node:
        idle = node.op_type == "Concat" and len(node.input) == 1
        if idle or node.op_type not in _STAYING or all(index.is_constant(name) for name in node.input if name):
            return False
        seen.add((node.op_type, *node.input, *sorted(a.SerializeToString() for a in node.attribute)))
    return len(seen) == len(model.graph.node)


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def _constants_to_initializers(model: onnx.ModelProto) -> None:
    index = GraphIndex(model)
    for node in [n for n in model.graph.node if n.op_type == "Constant"]:
        value = index.constant(node.output[0])
        if value is not None:
            set_constant(model, node.output[0], value)
            model.graph.node.remove(node)


def _remove_idle(model: onnx.ModelProto) -> None:
    """Take out Identity and Dropout (at inference both hand their input on)."""
    name_nodes(model)
    while True:
        index = GraphIndex(model)
        node = next((n for n in model.graph.node if n.op_type in ("Identity", "Dropout")), None)
        if node is None:
            return
        source, result = node.input[0], node.output[0]
        if result in index.outputs and (
            source in index.inputs or source in index.outputs or not index.producer(source)
        ):
            return
        insert_nodes(model, [], replace=[node.name])
        if result in index.outputs:
            rename_tensor(model, source, result)
        else:
            for other in model.graph.node:
                other.input[:] = [source if i == result else i for i in other.input]


def _check_equal(before: onnx.ModelProto, after: onnx.ModelProto) -> None:
    if [o.name for o in before.graph.output] != [o.name for o in after.graph.output]:
        raise ModelError(
            f"simplifying changed the outputs from {[o.name for o in before.graph.output]} to "
            f"{[o.name for o in after.graph.output]}; please report this network"
        )
    value = before.graph.input[0]
    shape = tuple(d.dim_value for d in value.type.tensor_type.shape.dim)
    feed = {value.name: np.random.default_rng(0).normal(0, 1, shape).astype(np.float32)}
    names, first = [o.name for o in before.graph.output], outputs_of(before, feed)
    # Where nothing was changed there is nothing to compare: the graph is run once, for values that are not finite.
    second = first if list(before.graph.node) == list(after.graph.node) else outputs_of(after, feed)
    for name, one, two in zip(names, first, second, strict=True):
        if not np.isfinite(one).all():
            raise ModelError(
                f"the network gives NaN or infinity in {name} for random input, before anything was changed; look for "
                "broken weights, and export it again"
            )
        limit = _TOLERANCE * max(1.0, float(np.abs(one).max()))
        difference = float(np.abs(one.astype(np.float64) - two).max()) if one.shape == two.shape else np.inf
        if not difference <= limit:
            raise ModelError(
                f"simplifying changed output {name} by {difference:.3g} (allowed: {limit:.3g}); "
                "please report this network"
            )


def outputs_of(model: onnx.ModelProto, feed: dict[str, NDArray[Any]]) -> list[NDArray[np.float32]]:
    """Run a graph once in ONNX Runtime.

    Raises:
        ModelError: where ONNX Runtime refuses it.
    """
    onnxruntime = require("onnxruntime", "check a network")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.enable_cpu_mem_arena = False  # an arena pays over many runs, and takes twice the memory
    try:
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return list(session.run(None, feed))
    except Exception as error:  # ONNX Runtime's errors share no public base class
        raise ModelError(f"the network does not run in ONNX Runtime: {_first_line(error)}; export it again") from error
