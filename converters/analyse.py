"""The work of `edgeseg sensitivity`: a network or a bundle, opened so that each of its layers can be switched."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import onnx

from edgeseg.bundle import Bundle
from edgeseg.calibration.frames import frames_from
from edgeseg.calibration.sensitivity import Sensitivity, measure_sensitivity, sensitivity_runs
from edgeseg.calibration.table import read_table
from edgeseg.converters.blocks import find_blocks
from edgeseg.converters.calibrate import CalibrationRecipe, calibrate, calibration_units
from edgeseg.converters.mixed import Steps, search_frames
from edgeseg.converters.options import ConvertOptions
from edgeseg.converters.place import plan_placement, remove_qdq
from edgeseg.converters.prepare import prepare
from edgeseg.converters.switches import SwitchedNetwork
from edgeseg.errors import BundleError
from edgeseg.labels import LabelSet, load_mapping
from edgeseg.manifest import InputSpec, Layer, OutputSpec

__all__ = ["Analysis", "analyse"]


@dataclass(frozen=True)
class Analysis:
    """What was found of a network's layers.

    Attributes:
        layers: those with a switch, with their multiply-accumulates, in the order of the graph.
        sensitivity: of each, in the same order, or of the blocks that they form.
        names: of the frames it was measured on.
    """

    layers: tuple[Layer, ...]
    sensitivity: Sensitivity
    names: tuple[str, ...]


@dataclass(frozen=True)
class _Opened:
    model: onnx.ModelProto
    network: SwitchedNetwork
    layers: tuple[Layer, ...]
    frame: InputSpec
    output: OutputSpec
    labels: LabelSet


def analyse(
    path: Path, frames: str, count: int, options: ConvertOptions, steps: Steps, *, by_block: bool = False
) -> Analysis:
    """Measure what quantizing each layer alone does, and sparing each alone.

    Args:
        path: a float ONNX network, which is calibrated first, or a bundle, whose ranges are taken.
        frames: to measure on, and, for a network, to calibrate with.
        count: frames to measure on; a network is calibrated with `options.count`.
        options: of the network; of a bundle only labels and mapping count.
        steps: opens a step with its title and number of units.
        by_block: take the layers of a block together, see `edgeseg.converters.blocks.find_blocks`.

    Raises:
        EdgesegError: when anything cannot be done.
    """
    source = frames_from(frames, skip_broken=options.skip_broken)
    opened = _bundle(path) if path.is_dir() else _network(path, frames, options, steps)
    mapping = load_mapping(options.mapping, opened.labels) if options.mapping else None
    classes = (opened.labels if mapping is None else mapping.target).classes()
    chosen = search_frames(source.select(count), options.labels, classes, mapping, opened.frame, opened.output)
    network = opened.network
    blocks = find_blocks(opened.model, network.layers) if by_block else None
    runs = sensitivity_runs(len(network.layers if blocks is None else blocks), len(chosen.frames))
    with steps("sensitivity", runs) as advance:
        found = measure_sensitivity(network.run, network.layers, chosen.frames, chosen.truth, advance, blocks=blocks)
    layers = {layer.name: layer for layer in opened.layers}
    return Analysis(tuple(layers[name] for name in network.layers), found, chosen.names)


def _bundle(path: Path) -> _Opened:
    bundle = Bundle.open(path)
    manifest = bundle.manifest
    if manifest.output.kind != "logits":
        raise BundleError(
            f"{path} gives a class map, but sensitivity is measured on logits; convert it with --output logits"
        )
    table = read_table(bundle, "the analysis")
    model = remove_qdq(onnx.load_from_string(bundle.read_model()))
    names = {layer.name for layer in manifest.quantization.layers if layer.precision == "float"}
    placement = plan_placement(model, dict.fromkeys(names, "the bundle has it in float"))
    network = SwitchedNetwork(model, placement, table.ranges)
    return _Opened(model, network, placement.layers, manifest.input, manifest.output, manifest.labels)


def _network(path: Path, frames: str, options: ConvertOptions, steps: Steps) -> _Opened:
    with steps("prepare", None):
        prepared = prepare(path, options)
        placement = plan_placement(prepared.model)
    source = frames_from(frames, skip_broken=options.skip_broken).select(options.count)
    recipe = CalibrationRecipe(options.method, options.equalize, options.correct_bias, options.round_weights)
    with steps("calibrate", calibration_units(source, recipe)) as advance:
        found = calibrate(prepared, placement, source, recipe, advance)
    network = SwitchedNetwork(found.model, placement, found.table.ranges, found.shifts, found.moved)
    return _Opened(found.model, network, placement.layers, prepared.input, prepared.output, prepared.labels)
