"""`edgeseg sensitivity`: which layers quantization harms, each alone in INT8 and each alone in float."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeseg.apps.cli.options import (
    add_classes_argument,
    add_map_argument,
    add_preprocessing_arguments,
    add_skip_broken_argument,
    positive_count,
    preprocessing,
    stated_color,
)
from edgeseg.apps.cli.results import add_json_argument, only_results_on_stdout, print_json, table
from edgeseg.converters.options import ConvertOptions
from edgeseg.errors import UsageError
from edgeseg.zoo import network_file

if TYPE_CHECKING:
    from edgeseg.converters.analyse import Analysis

__all__ = ["add_arguments", "run"]

DEFAULT_COUNT = 4
"""Frames measured on: each is run twice for every layer."""

CALIBRATION_COUNT = 64
"""Frames that calibrate a float network."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `edgeseg sensitivity`."""
    parser.add_argument(
        "model", type=Path, metavar="MODEL", help="a bundle, a float ONNX network or a shipped one's name"
    )
    frames = parser.add_argument_group("frames")
    frames.add_argument(
        "--frames", required=True, metavar="SOURCE", help="real frames: a folder, glob, text list or video"
    )
    frames.add_argument(
        "--count",
        type=positive_count,
        default=DEFAULT_COUNT,
        metavar="N",
        help=f"frames to measure on, evenly spaced (default {DEFAULT_COUNT}); each runs the network twice a layer",
    )
    frames.add_argument(
        "--calibration-count",
        type=positive_count,
        default=CALIBRATION_COUNT,
        metavar="N",
        help=f"frames that calibrate a float network (default {CALIBRATION_COUNT})",
    )
    frames.add_argument("--labels", type=Path, metavar="DIR", help="label images of the frames: then also mIoU")
    add_skip_broken_argument(frames)
    add_preprocessing_arguments(parser)
    classes = parser.add_argument_group("classes")
    add_classes_argument(classes)
    add_map_argument(classes)
    parser.add_argument(
        "--by",
        choices=("layer", "block"),
        default="layer",
        help="measure each layer, or the layers of each block of the graph together, in fewer runs (default layer)",
    )
    parser.add_argument(
        "--sort", choices=("alone", "spared", "graph"), default="alone", help="order of the table (default alone)"
    )
    parser.add_argument("-o", "--output", type=Path, metavar="FILE.html", help="also write a page with a chart")
    parser.add_argument("--force", action="store_true", help="replace an existing page")
    add_json_argument(parser)


def run(options: argparse.Namespace) -> int:
    """Measure and print."""
    if options.map and options.labels is None:
        raise UsageError("--map brings the network's classes to those of the labels; give the labels with --labels DIR")
    if options.output is not None and options.output.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"the page is HTML: expected a file that ends in .html, but got -o {options.output}")
    path = network_file(options.model)
    bundle = path.is_dir()
    mean, std = (None, None) if bundle else preprocessing(options, stated_color(options, path)) or (None, None)
    wanted = ConvertOptions(
        classes=options.classes,
        color_order=options.color,
        mean=mean,
        std=std,
        size=options.size,
        count=options.calibration_count,
        labels=options.labels,
        mapping=options.map,
        skip_broken=options.skip_broken,
    )
    from edgeseg.apps.cli.progress import progress_for
    from edgeseg.apps.writers import check_output, replace_file
    from edgeseg.converters.analyse import analyse
    from edgeseg.converters.report import sensitivity_figures, sensitivity_html

    if options.output is not None:
        check_output(options.output, force=options.force)
    with only_results_on_stdout():
        steps = progress_for(options.quiet).step
        found = analyse(path, options.frames, options.count, wanted, steps, by_block=options.by == "block")
    if options.output is not None:
        page = sensitivity_html(path.stem, found.sensitivity, found.layers, found.names)
        replace_file(options.output, page.encode())
    figures = sensitivity_figures(found.sensitivity, found.layers)
    figures["layers"] = _sorted(figures["layers"], options.sort, found)
    if options.json:
        print_json({"frames": list(found.names), **figures})
    else:
        print(_text(found, figures["layers"]))
    return 0


def _sorted(rows: list[dict[str, Any]], order: str, found: Analysis) -> list[dict[str, Any]]:
    """The rows, which come by what each does alone."""
    if order == "spared":
        return sorted(rows, key=lambda row: -row["spared"]["snr_db"])
    if order == "graph":
        places = {effect.name: place for place, effect in enumerate(found.sensitivity.layers)}
        return sorted(rows, key=lambda row: places[row["layer"]])
    return rows


def _text(found: Analysis, rows: list[dict[str, Any]]) -> str:
    whole, before = found.sensitivity.int8_network, found.sensitivity.float_network
    scored = whole.miou is not None
    head = ["layer", "MACs", "alone dB", "agree %", *(["mIoU"] if scored else [])]
    head += ["spared dB", "agree %", *(["mIoU"] if scored else [])]
    cells = [head]
    for row in rows:
        others = len(row["layers"]) - 1
        name = f"{row['layer']} (+{others})" if others else row["layer"]
        cells.append([name, f"{100 * row['mac_share']:.1f} %", *_cells(row["alone"]), *_cells(row["spared"])])
    lines = [table(cells, right=range(1, len(head)))]
    score = f", mIoU {whole.miou:.2f} of {before.miou:.2f}" if scored and before.miou is not None else ""
    lines.append(
        f"all in INT8: {_decibels(whole.snr)} dB, {whole.agreement:.2f} % agreement{score}, "
        f"on {len(found.names)} frames at the size of the logits"
    )
    return "\n".join(lines)


def _cells(effect: dict[str, float | None]) -> list[str]:
    cells = [_decibels(effect["snr_db"] or 0.0), f"{effect['agreement']:.2f}"]
    return cells if effect["miou"] is None else [*cells, f"{effect['miou']:.2f}"]


def _decibels(value: float) -> str:
    return "inf" if math.isinf(value) else f"{value:.1f}"
