"""The two networks of a comparison: a float network, a bundle or a canonical graph, each as a graph with a manifest."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx
from onnx import TensorProto

from edgeseg.bundle import MANIFEST, MODEL, Bundle
from edgeseg.converters.graph import GraphIndex
from edgeseg.converters.network import PROOF_BACKEND, as_computed
from edgeseg.converters.options import ConvertOptions
from edgeseg.converters.prepare import prepare
from edgeseg.converters.read import read_graph, read_model
from edgeseg.errors import LabelError, ModelError, UsageError
from edgeseg.labels import LabelSet, load_labels
from edgeseg.manifest import Coordinates, InputSpec, Manifest, Network, OutputSpec, Quantization

__all__ = ["BUNDLE", "CANONICAL", "FLOAT", "Side", "common_labels", "open_sides"]

FLOAT = "float network"
BUNDLE = "bundle"
CANONICAL = "canonical graph"


@dataclass(frozen=True)
class Side:
    """One of two networks.

    Attributes:
        path: as the user gave it.
        kind: FLOAT, BUNDLE or CANONICAL.
        manifest: its input, output and labels; a canonical graph without a bundle has a made-up one.
        model: the canonical graph: frame in, logits or class map out; of an FP16 bundle with its roundings.
        backend: what runs that graph.
    """

    path: Path
    kind: str
    manifest: Manifest
    model: onnx.ModelProto
    backend: str = PROOF_BACKEND


def open_sides(paths: Sequence[Path], options: Sequence[ConvertOptions]) -> tuple[Side, Side]:
    """Read two networks; each can be a float ONNX network, a bundle, or the graph of one.

    What a file does not say is taken from the other side where that knows it: pre-processing and size of the very float
    network that the other was made from, and the upsampling rule and channels of a canonical graph without its bundle.

    Args:
        paths: of the two.
        options: for each, what a float network is prepared with; of a canonical graph only `classes` is read.

    Raises:
        ModelError, BundleError: for what cannot be read.
        UsageError: for options that neither side needs, or a float network whose pre-processing nobody says.
        LabelError: for classes that do not fit the channels.
    """
    kinds = [_kind(path) for path in paths]
    _check_options(kinds, options)
    sides: list[Side | None] = [_bundle(p) if k == BUNDLE else None for p, k in zip(paths, kinds, strict=True)]
    # A float network may need what a bundle knows, and a canonical graph what either knows.
    for wanted, read in ((FLOAT, _float), (CANONICAL, _canonical)):
        for own, other in ((0, 1), (1, 0)):
            if kinds[own] == wanted:
                sides[own] = read(paths[own], options[own], sides[other])
    first, second = (side for side in sides if side is not None)
    return first, second


def common_labels(first: Side, second: Side) -> LabelSet:
    """The classes of both sides; those of the other where one side's are only numbered.

    Raises:
        LabelError: for two networks of different classes, of which no two class maps can be compared.
    """
    labels = first.manifest.labels, second.manifest.labels
    if len(labels[0]) != len(labels[1]):
        raise LabelError(
            f"{first.path} has {len(labels[0])} classes and {second.path} has {len(labels[1])}; "
            "compare two networks of the same classes"
        )
    numbered = LabelSet.numbered(len(labels[0])).names
    named = [each for each in labels if each.names != numbered] or [labels[0]]
    if named[0].names != named[-1].names:
        index = next(i for i, pair in enumerate(zip(named[0].names, named[1].names, strict=True)) if len({*pair}) > 1)
        raise LabelError(
            f"class {index} is {named[0].names[index]} in {first.path} and {named[1].names[index]} in {second.path}; "
            "compare two networks of the same classes in the same order"
        )
    return named[0]


def _kind(path: Path) -> str:
    # The graph of a bundle where it stands: the manifest beside it knows what the graph does not say.
    if path.is_dir() or path.suffix != ".onnx" or _inside_bundle(path):
        return BUNDLE
    model, _ = read_graph(path)
    return CANONICAL if _first_type(model) == TensorProto.UINT8 else FLOAT


def _inside_bundle(path: Path) -> bool:
    return path.name == MODEL and (path.parent / MANIFEST).is_file()


def _first_type(model: onnx.ModelProto) -> int:
    constants = {tensor.name for tensor in model.graph.initializer}
    return next((i.type.tensor_type.elem_type for i in model.graph.input if i.name not in constants), 0)


def _check_options(kinds: Sequence[str], options: Sequence[ConvertOptions]) -> None:
    given = {
        "--classes": any(o.classes for o in options),
        "--mean, --std or --preset": any(o.mean for o in options),
        "--color": any(o.color_order for o in options),
        "--size": any(o.size for o in options),
        "--output-name": any(o.output_name for o in options),
    }
    useful = set(given) if FLOAT in kinds else {"--classes"} if CANONICAL in kinds else set()
    idle = [name for name, there in given.items() if there and name not in useful]
    if idle:
        raise UsageError(
            f"{', '.join(idle)} only go with a float network, but A is a {kinds[0]} and B a {kinds[1]}, which know "
            "these themselves; leave them out"
        )


def _bundle(path: Path) -> Side:
    bundle = Bundle.open(path.parent if _inside_bundle(path) else path)
    model, backend = as_computed(onnx.load_from_string(bundle.read_model()), bundle.manifest.quantization)
    return Side(path, BUNDLE, bundle.manifest, model, backend)


def _float(path: Path, options: ConvertOptions, other: Side | None) -> Side:
    if other is not None and other.kind == BUNDLE and other.manifest.network.digest == read_model(path)[1]:
        options = _as_converted(options, other.manifest)
    prepared = prepare(path, options)
    parts = prepared.network, prepared.input, prepared.output, prepared.labels
    return Side(path, FLOAT, Manifest(*parts, Quantization("", (), (), ()), None, {}, {}), prepared.model)


def _as_converted(options: ConvertOptions, manifest: Manifest) -> ConvertOptions:
    """The options with what the bundle knows of the network that it was made from."""
    frame = manifest.input
    if options.mean is None and options.color_order in (None, frame.color_order):
        options = dataclasses.replace(options, mean=frame.mean, std=frame.std, color_order=frame.color_order)
    return dataclasses.replace(options, size=options.size or (frame.height, frame.width))


def _canonical(path: Path, options: ConvertOptions, other: Side | None) -> Side:
    model, digest = read_model(path)
    index = GraphIndex(model)
    if len(index.inputs) != 1 or len(index.outputs) != 1:
        raise ModelError(
            f"expected a canonical graph with one input and one output, but {path} has {len(index.inputs)} and "
            f"{len(index.outputs)}; take the {MODEL} of a bundle"
        )
    tensor, result = index.inputs[0], index.outputs[0]
    shape, out = index.shape(tensor), index.shape(result)
    if shape is None or len(shape) != 4 or (shape[0], shape[3]) != (1, 3):
        raise ModelError(f"expected a frame (1, H, W, 3) uint8, but {path} takes {shape}; take the {MODEL} of a bundle")
    frame = InputSpec(tensor, shape[1], shape[2], "RGB", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    output = _output(path, result, out, frame, other.manifest if other else None, options)
    named = load_labels(options.classes).for_channels(output.channels) if options.classes else None
    network = Network(path.stem, path.name, digest, next((o.version for o in model.opset_import if not o.domain), 0))
    labels = named or LabelSet.numbered(output.channels)
    return Side(
        path, CANONICAL, Manifest(network, frame, output, labels, Quantization("", (), (), ()), None, {}, {}), model
    )


def _output(
    path: Path,
    tensor: str,
    shape: tuple[int, ...] | None,
    frame: InputSpec,
    other: Manifest | None,
    options: ConvertOptions,
) -> OutputSpec:
    """What a canonical graph gives; the rule that upsamples its logits is not in the graph."""
    if shape is not None and len(shape) == 3:
        if other is None and options.classes is None:
            raise UsageError(f"{path} gives a class map, which does not say its number of classes; give --classes")
        channels = other.output.channels if other else len(load_labels(options.classes or ""))
        return OutputSpec(tensor, "class-map", channels, shape[1], shape[2], None, shape[1], shape[2])
    if shape is None or len(shape) != 4:
        raise ModelError(f"expected logits (1, C, h, w) or a class map (1, H, W), but {path} gives {shape}")
    if other is not None and (other.output.channels, other.output.height, other.output.width) == shape[1:]:
        return dataclasses.replace(other.output, tensor=tensor, kind="logits")
    rule: Coordinates | None = None if shape[2:] == (frame.height, frame.width) else "half_pixel"
    return OutputSpec(tensor, "logits", shape[1], shape[2], shape[3], rule, frame.height, frame.width)
