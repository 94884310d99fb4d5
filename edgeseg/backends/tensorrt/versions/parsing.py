"""From a graph to a network: the parser's side of every version."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from edgeseg.backends.tensorrt.versions.library import Library
from edgeseg.errors import EngineError, UsageError

__all__ = [
    "ParserMessage",
    "Shape",
    "create_builder",
    "create_network",
    "input_shapes",
    "make_logger",
    "parse_graph",
]

Shape = tuple[int, ...]


@dataclass(frozen=True)
class ParserMessage:
    """Why the parser refused a graph: the node's name (or "node 12"), its operator where the version tells it, why."""

    node: str
    operator: str
    text: str


def make_logger(library: Library, receive: Callable[[str, str], None]) -> Any:
    """A trt.ILogger that hands on each message.

    Args:
        library: whose logger.
        receive: gets the severity's name ("VERBOSE", "INFO", "WARNING", "ERROR" or "INTERNAL_ERROR") and the text; it
            must not raise, since the caller is C++.
    """
    trt = library.module

    class Logger(trt.ILogger):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            receive(severity.name, message)

    return Logger()


def create_builder(library: Library, logger: Any) -> Any:
    """A trt.Builder.

    Raises:
        EngineError: where it cannot be made: a full TensorRT needs a GPU with a driver.
    """
    trt = library.module
    try:
        return trt.Builder(logger)
    except TypeError as error:  # "factory function returned nullptr": the reason stands in the log
        raise EngineError(
            f"{library} cannot start its builder, which needs an NVIDIA GPU and a driver that fits it; build on the "
            "board, or for RTX GPUs without one: pip install 'edgeseg[rtx]' and --target rtx"
        ) from error


def create_network(library: Library, builder: Any, *, strongly_typed: bool) -> Any:
    """An empty trt.INetworkDefinition of an explicit batch.

    Raises:
        UsageError: for a typing that this version does not have.
    """
    trt = library.module
    flags = 0
    if library.wants_explicit_batch:
        flags |= 1 << int(trt.NetworkDefinitionCreationFlag.EXPLICIT_BATCH)
    if not strongly_typed and not library.weakly_typed:
        raise UsageError(f"{library} has strongly typed networks only; give it a graph that holds its own types")
    if strongly_typed:
        if library.strong_typing:
            flags |= 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
        else:
            raise UsageError(f"{library} has no strong typing fit for use; it comes with 10.12, use flags instead")
    return builder.create_network(flags)


def parse_graph(library: Library, network: Any, logger: Any, graph: bytes) -> list[ParserMessage]:
    """Read a serialised ONNX model into a network.

    Returns:
        What the parser refused; empty when it took the graph.
    """
    trt = library.module
    parser = trt.OnnxParser(network, logger)
    if parser.parse(graph):
        return []
    refusals = [parser.get_error(index) for index in range(parser.num_errors)]
    messages = [_parser_message(library, refusal) for refusal in refusals]
    return messages or [ParserMessage("", "", "it gives no reason")]


def _parser_message(library: Library, refusal: Any) -> ParserMessage:
    text = str(refusal.desc())
    if library.names_refused_nodes:
        return ParserMessage(str(refusal.node_name()), str(refusal.node_operator()), text)
    return ParserMessage(f"node {refusal.node()}" if refusal.node() >= 0 else "", "", text)


def input_shapes(network: Any) -> dict[str, Shape]:
    """Shape by name of a network's inputs, -1 where a dimension is dynamic."""
    inputs = [network.get_input(index) for index in range(network.num_inputs)]
    return {tensor.name: tuple(tensor.shape) for tensor in inputs}
