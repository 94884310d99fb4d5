"""From the user's network to the canonical float graph: frame in, logits out, in the form that TensorRT takes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import onnx

from edgeseg.converters.embed import append_class_map, cut_upsampling, embed_preprocessing
from edgeseg.converters.fold import fold_batch_norms
from edgeseg.converters.graph import GraphIndex
from edgeseg.converters.load import LoadedNetwork, load_network
from edgeseg.converters.options import ConvertOptions
from edgeseg.converters.rewrite import rewrite_for_tensorrt
from edgeseg.converters.simplify import simplify_graph
from edgeseg.errors import UnsupportedModelError
from edgeseg.labels import LabelSet, load_labels
from edgeseg.manifest import InputSpec, Network, OutputSpec

__all__ = ["Prepared", "finish", "prepare"]


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
        LabelError: when the classes do not fit the network's channels.
    """
    loaded = load_network(path, options.size, output=options.output_name)
    labels = _labels(options.classes, loaded.channels)
    model = rewrite_for_tensorrt(fold_batch_norms(simplify_graph(loaded.model)))
    model, coordinates = cut_upsampling(model)
    model = embed_preprocessing(model, color_order=options.color_order, mean=options.mean, std=options.std)
    frame, logits = model.graph.input[0].name, model.graph.output[0].name
    shape = GraphIndex(model).shape(logits)
    if shape is None or len(shape) != 4 or shape[1] != loaded.channels:
        raise UnsupportedModelError(f"expected logits (1, {loaded.channels}, h, w), but the graph gives {shape}")
    return Prepared(
        loaded=loaded,
        model=model,
        network=Network(loaded.name, loaded.source, loaded.digest, loaded.opset, options.licence),
        input=InputSpec(frame, loaded.height, loaded.width, options.color_order, options.mean, options.std),
        output=OutputSpec(logits, "logits", loaded.channels, shape[2], shape[3], coordinates),
        labels=labels,
    )


def _labels(classes: str | None, channels: int) -> LabelSet:
    if classes is None:
        return LabelSet.numbered(channels)
    return load_labels(classes).for_channels(channels)


def finish(model: onnx.ModelProto, output: OutputSpec, frame: InputSpec) -> tuple[onnx.ModelProto, OutputSpec]:
    """The graph with upsampling and argmax inside: class map (1, H, W) uint8 out."""
    finished = append_class_map(model, frame.height, frame.width, output.coordinates)
    tensor = finished.graph.output[0].name
    return finished, OutputSpec(tensor, "class-map", output.channels, frame.height, frame.width)
