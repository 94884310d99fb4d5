"""From the user's network to the canonical float graph: frame in, logits out, in the form that TensorRT takes."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypeVar

import onnx

from edgeseg.converters.embed import append_class_map, cut_upsampling, embed_preprocessing
from edgeseg.converters.fold import fold_batch_norms
from edgeseg.converters.graph import GraphIndex
from edgeseg.converters.load import LoadedNetwork, load_network
from edgeseg.converters.options import ConvertOptions
from edgeseg.converters.rewrite import rewrite_for_tensorrt
from edgeseg.converters.simplify import simplify_graph
from edgeseg.errors import UnsupportedModelError, UsageError
from edgeseg.labels import LabelSet, load_labels
from edgeseg.manifest import InputSpec, Network, OutputSpec

__all__ = ["Prepared", "finish", "prepare"]

_log = logging.getLogger(__name__)

Value = TypeVar("Value")


@dataclass(frozen=True)
class Prepared:
    """The canonical float graph and what the manifest says of it.

    Attributes:
        loaded: the network as it was given, with fixed shapes.
        model: frame (1, H, W, 3) uint8 RGB in, logits (1, channels, h, w) float32 out.
        network, input, output, labels: the manifest's parts.
    """

    loaded: LoadedNetwork
    model: onnx.ModelProto
    network: Network
    input: InputSpec
    output: OutputSpec
    labels: LabelSet


def prepare(path: str | Path, options: ConvertOptions) -> Prepared:
    """Load, simplify, fold, rewrite, cut the final upsampling and put pre-processing into the graph.

    Raises:
        ModelError: when the graph cannot be read or taken.
        UsageError: when neither the options nor the network's metadata say how frames were normalised.
        LabelError: when the classes do not fit the network's channels.
    """
    loaded = load_network(path, options.size, output=options.output_name)
    frame = _frame(loaded, options)
    labels = _labels(loaded, options.classes)
    model = rewrite_for_tensorrt(fold_batch_norms(simplify_graph(loaded.model)))
    model, coordinates = cut_upsampling(model, loaded.map_size)
    model = embed_preprocessing(model, color_order=frame.color_order, mean=frame.mean, std=frame.std)
    logits = model.graph.output[0].name
    shape = GraphIndex(model).shape(logits)
    if shape is None or len(shape) != 4 or shape[1] != loaded.channels:
        raise UnsupportedModelError(f"expected logits (1, {loaded.channels}, h, w), but the graph gives {shape}")
    licence = _chosen("--licence", options.licence, loaded.metadata.licence)
    return Prepared(
        loaded=loaded,
        model=model,
        network=Network(loaded.metadata.name or loaded.name, loaded.source, loaded.digest, loaded.opset, licence),
        input=replace(frame, tensor=model.graph.input[0].name),
        output=OutputSpec(logits, "logits", loaded.channels, shape[2], shape[3], coordinates, *loaded.map_size),
        labels=labels,
    )


def _chosen(option: str, given: Value | None, stated: Value | None) -> Value | None:
    """What the user gave wins over what the network says of itself, and is not silent about it."""
    if given is not None and stated is not None and given != stated:
        _log.warning("%s wins over what the network's metadata says, which is %s", option, stated)
    return stated if given is None else given


def _frame(loaded: LoadedNetwork, options: ConvertOptions) -> InputSpec:
    stated = loaded.metadata
    if (options.mean is None) != (options.std is None):
        raise UsageError("mean and std go together; give both or neither")
    order: Literal["RGB", "BGR"] | None = _chosen("--color", options.color_order, stated.color_order)
    if options.mean is None and stated.mean is not None and order != (stated.color_order or order):
        raise UsageError(
            f"the network's metadata gives mean and std in the order {stated.color_order}, but --color is {order}; "
            "give --mean and --std too"
        )
    mean, std = _chosen("--mean", options.mean, stated.mean), _chosen("--std", options.std, stated.std)
    if mean is None or std is None:
        raise UsageError(
            "how frames were normalised in training must be said, since a wrong guess costs accuracy silently, and the "
            "network's metadata does not say it: give --mean and --std (three numbers each, in 0..255 units), or "
            "--preset imagenet, unit (x / 255) or none"
        )
    return InputSpec(loaded.input_name, loaded.height, loaded.width, order or "RGB", mean, std)


def _labels(loaded: LoadedNetwork, classes: str | None) -> LabelSet:
    given = load_labels(classes).for_channels(loaded.channels) if classes is not None else None
    stated = loaded.metadata.classes
    if given is not None and stated is not None and given.names != stated.names:
        _log.warning("--classes wins over the %d classes that the network's metadata names", len(stated))
    if given is not None or stated is None:
        return given or LabelSet.numbered(loaded.channels)
    return stated.for_channels(loaded.channels)


def finish(model: onnx.ModelProto, output: OutputSpec, frame: InputSpec) -> tuple[onnx.ModelProto, OutputSpec]:
    """The graph with upsampling and argmax inside: class map (1, H, W) uint8 out."""
    height, width = output.map_size(frame)
    finished = append_class_map(model, height, width, output.coordinates)
    tensor = finished.graph.output[0].name
    return finished, OutputSpec(tensor, "class-map", output.channels, height, width, None, height, width)
