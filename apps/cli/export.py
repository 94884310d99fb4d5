"""`edgeseg export`: a network by name or a checkpoint in, the ONNX file that `edgeseg convert` takes out."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from edgeseg.apps.cli.options import (
    add_network_arguments,
    add_preprocessing_arguments,
    network_options,
    positive_count,
    preprocessing,
)
from edgeseg.apps.cli.results import add_json_argument, only_results_on_stdout, print_json
from edgeseg.errors import UsageError, unknown_name
from edgeseg.labels import load_labels
from edgeseg.libraries import require
from edgeseg.models import NETWORKS, create

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from edgeseg.converters.export import Exported
    from edgeseg.converters.metadata import NetworkMetadata
    from edgeseg.models.network import SegmentationNetwork

__all__ = ["add_arguments", "run"]

_FRAMES = 8
_CRF = "  crf     {0}, not in the graph: run the bundle with --refine densecrf --refine-preset {0}"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `edgeseg export`."""
    parser.add_argument("network", metavar="NAME|CHECKPOINT", help="a name of `edgeseg models`, or a trainer's file")
    network = parser.add_argument_group("a network by its name")
    network.add_argument("--weights", type=Path, metavar="FILE", help="state dict; without it the weights are random")
    network.add_argument("--classes", metavar="N|NAME|FILE.json", help="a number, or a label set, which is kept")
    add_network_arguments(network)
    add_preprocessing_arguments(parser, "size of the input; a checkpoint knows it")
    output = parser.add_argument_group("output")
    output.add_argument("-o", dest="output", type=Path, required=True, metavar="MODEL.onnx")
    output.add_argument("--frames", metavar="SOURCE", help="real frames on which torch and the file must agree too")
    output.add_argument(
        "--count", type=positive_count, default=_FRAMES, metavar="N", help=f"of --frames (default {_FRAMES})"
    )
    output.add_argument("--name", dest="title", metavar="TEXT", help="name of the network, kept in the file")
    output.add_argument("--licence", metavar="TEXT", help="licence of the weights, kept in the file")
    output.add_argument("--force", action="store_true", help="replace an existing file")
    add_json_argument(parser)


@dataclass(frozen=True)
class _Source:
    """What is exported."""

    network: SegmentationNetwork
    size: tuple[int, int]
    metadata: NetworkMetadata
    remarks: tuple[str, ...] = ()


def run(options: argparse.Namespace) -> int:
    """Export and print what was written."""
    require("torch", "export networks")
    from edgeseg.converters.export import export

    with only_results_on_stdout():
        source = _by_name(options) if options.network in NETWORKS else _from_checkpoint(options)
        done = export(
            source.network,
            source.size,
            options.output,
            source.metadata,
            frames=_frames(options),
            force=options.force,
        )
    if options.json:
        print_json(_summary(done, source))
    else:
        print(_text(done, source))
    return 0


def _by_name(options: argparse.Namespace) -> _Source:
    from edgeseg.converters.metadata import NetworkMetadata

    if options.size is None or options.classes is None:
        raise UsageError(
            "a network by its name is built for --classes (a number, or a label set) and --size HxW; give both"
        )
    labels = None if options.classes.isdecimal() else load_labels(options.classes)
    count = int(options.classes) if labels is None else len(labels)
    network = create(options.network, classes=count, deploy=options.deploy, **network_options(options))
    remarks: tuple[str, ...] = ()
    if options.weights is not None:
        from edgeseg.models.weights import load_weights

        load_weights(network, options.weights)
    else:
        remarks = ("The weights are random: give trained ones with --weights FILE, or train them first.",)
    mean, std = preprocessing(options) or (None, None)
    order: Literal["RGB", "BGR"] | None = options.color or ("RGB" if mean is not None else None)
    metadata = NetworkMetadata(order, mean, std, labels, options.licence, options.title or options.network)
    return _Source(network, options.size, metadata, remarks)


def _from_checkpoint(options: argparse.Namespace) -> _Source:
    from edgeseg.converters.metadata import NetworkMetadata

    path = Path(options.network)
    if not path.is_file():
        raise UsageError(f"{unknown_name('network', options.network, NETWORKS)}; or give the file of a checkpoint")
    own = ("weights", "classes", "width", "q", "backbone", "color", "mean", "std", "preset")
    given = [f"--{name}" for name in own if getattr(options, name) is not None]
    given += ["--option"] * bool(options.option) + ["--deploy"] * options.deploy
    if given:
        raise UsageError(f"a checkpoint knows its network: {', '.join(given)} only go with a network's name")
    from edgeseg.training.checkpoint import load_network

    network, recipe = load_network(path)
    name = options.title or recipe.network
    metadata = NetworkMetadata(recipe.color_order, recipe.mean, recipe.std, recipe.labels, options.licence, name)
    return _Source(network, options.size or recipe.size, metadata)


def _frames(options: argparse.Namespace) -> Iterator[NDArray[np.uint8]]:
    if options.frames is None:
        return iter(())
    from edgeseg.calibration.frames import frames_from

    return (frame.image for frame in frames_from(options.frames).select(options.count))


def _summary(done: Exported, source: _Source) -> dict[str, Any]:
    return {
        "model": str(done.path),
        "input": list(done.input_shape),
        "output": list(done.output_shape),
        "parameters": done.parameters,
        "random_images": done.random_images,
        "frames": done.frames,
        "pixels": done.pixels,
        "ties": done.ties,
        "crf": None if done.crf is None else str(done.crf),
        "stated": source.metadata.summary(),
        "remarks": list(source.remarks),
    }


def _text(done: Exported, source: _Source) -> str:
    shapes = ["x".join(map(str, shape)) for shape in (done.input_shape, done.output_shape)]
    compared = f"{done.random_images} images of noise" + (f" and {done.frames} frames" if done.frames else "")
    ties = f", but for {done.ties} with two equal logits" if done.ties else ""
    lines = [
        f"{done.path}",
        f"  image   {shapes[0]}, logits {shapes[1]}, {done.parameters:,} parameters",
        f"  agrees  with torch in the class of all {done.pixels:,} pixels of {compared}{ties}",
        *([] if done.crf is None else [_CRF.format(done.crf)]),
        *(f"  note    {remark}" for remark in source.remarks),
    ]
    return "\n".join(lines)
