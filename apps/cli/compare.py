"""`edgeseg compare`: two networks side by side on the same frames, and the first layer at which they part."""

from __future__ import annotations

import argparse
import math
import time
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
from edgeseg.apps.cli.results import add_json_argument, only_results_on_stdout, print_json, spread, table
from edgeseg.errors import UsageError
from edgeseg.zoo import network_file

if TYPE_CHECKING:
    from edgeseg.calibration.datasets import LabelledFrames
    from edgeseg.calibration.frames import FrameSource
    from edgeseg.converters.compare import Comparison
    from edgeseg.converters.compare_layers import LayerDifference
    from edgeseg.converters.options import ConvertOptions
    from edgeseg.converters.sides import Side
    from edgeseg.labels import LabelSet

__all__ = ["add_arguments", "run"]

DEFAULT_COUNT = 32
"""Frames compared."""

DEFAULT_THRESHOLD = 20.0
"""In decibels: noise of a tenth of the signal's amplitude."""

LAYER_FRAMES = 4
"""Frames that --layers takes: sums over all pixels of a few frames settle a ratio to a fraction of a dB."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `edgeseg compare`."""
    for name in ("a", "b"):
        parser.add_argument(
            name,
            type=Path,
            metavar=name.upper(),
            help="a float ONNX network (or a shipped one's name), a bundle, or the model.onnx of a bundle",
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
        help=f"frames, evenly spaced (default {DEFAULT_COUNT})",
    )
    frames.add_argument("--labels", type=Path, metavar="DIR", help="label images of the frames: scores are then mIoU")
    add_skip_broken_argument(frames)
    layers = parser.add_argument_group("layers")
    layers.add_argument(
        "--layers", action="store_true", help="show the noise at each layer that both networks have, by node name"
    )
    layers.add_argument(
        "--threshold",
        type=_decibels,
        metavar="DB",
        help=f"signal-to-noise ratio below which a layer has parted (default {DEFAULT_THRESHOLD:g})",
    )
    classes = parser.add_argument_group("a float network")
    add_classes_argument(classes)
    add_map_argument(classes)
    classes.add_argument("--output-name", metavar="TENSOR", help="the logits, where the network has several outputs")
    add_preprocessing_arguments(parser)
    add_json_argument(parser)


def _decibels(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"expected a number of decibels, such as 20, but got {text!r}")
    return value


def run(options: argparse.Namespace) -> int:
    """Compare and print."""
    if options.threshold is not None and not options.layers:
        raise UsageError("--threshold says when a layer has parted; give --layers too")
    if options.map and options.labels is None:
        raise UsageError("--map brings the networks' classes to those of the labels; give the labels with --labels DIR")
    start = time.perf_counter()
    with only_results_on_stdout():
        found = _compare(options)
    found["seconds"] = round(time.perf_counter() - start, 3)
    if options.json:
        print_json(found)
    else:
        print(_text(found))
    return 0


def _compare(options: argparse.Namespace) -> dict[str, Any]:
    """The JSON object of `edgeseg compare --json`, but for the time."""
    from edgeseg.apps.cli.progress import progress_for
    from edgeseg.calibration.frames import frames_from
    from edgeseg.converters.compare import compare
    from edgeseg.converters.compare_layers import compare_layers, plan_layers
    from edgeseg.converters.sides import common_labels, open_sides
    from edgeseg.labels import load_mapping

    paths = network_file(options.a), network_file(options.b)
    source = frames_from(options.frames, skip_broken=options.skip_broken).select(options.count)
    first, second = open_sides(paths, [_network_options(options, path) for path in paths])
    classes = common_labels(first, second)
    mapping = load_mapping(options.map, classes) if options.map else None
    frames = _labelled(options, source, classes if mapping is None else mapping.target) or source
    # Before the frames are run: layers that cannot be compared are found in a second.
    plan = plan_layers(first, second) if options.layers else None
    progress = progress_for(options.quiet)
    with progress.step("compare", len(frames)) as step:
        found = _summary(first, second, compare(first, second, frames, mapping, step))
    found["skipped"] = frames.skipped
    if plan is not None:
        few = source.select(LAYER_FRAMES)
        with progress.step("layers", plan.units(len(few))) as step:
            layers = compare_layers(first, second, plan, few, step)
        threshold = DEFAULT_THRESHOLD if options.threshold is None else options.threshold
        found["layers"] = {"frames": len(few), **_layers_summary(layers, plan.unmatched, threshold)}
    return found


def _network_options(options: argparse.Namespace, path: Path) -> ConvertOptions:
    from edgeseg.converters.options import ConvertOptions

    color = stated_color(options, path) if path.is_file() else None
    mean, std = preprocessing(options, color) or (None, None)
    return ConvertOptions(
        mean=mean,
        std=std,
        color_order=options.color,
        classes=options.classes,
        size=options.size,
        output_name=options.output_name,
    )


def _labelled(options: argparse.Namespace, source: FrameSource, truth: LabelSet) -> LabelledFrames | None:
    """The frames with their labels, where there are any; rendered scenes bring theirs."""
    from edgeseg.calibration.datasets import LabelledFrames, pair_labels
    from edgeseg.calibration.scenes import is_scene
    from edgeseg.labels import load_labels

    if options.labels is not None:
        return pair_labels(source, options.labels, truth.classes())
    scene = load_labels("camvid")
    if is_scene(options.frames) and truth.classes().names == scene.names:
        return LabelledFrames(source, {}, scene)
    return None


def _summary(first: Side, second: Side, found: Comparison) -> dict[str, Any]:
    logits = found.logits
    return {
        **{key: _side(side) for key, side in (("a", first), ("b", second))},
        "frames": found.frames,
        "labelled": found.labelled,
        "agreement": found.agreement,
        "agreement_interval": found.agreement_interval,
        "logits": {"snr_db": logits.snr, "equal": logits.snr == math.inf, "reason": logits.reason},
        "miou": {
            "a": found.miou[0],
            "b": found.miou[1],
            "difference": found.miou[1] - found.miou[0],
            "difference_interval": found.difference_interval,
        },
        "classes": [
            {"class": row.name, "a": row.float_iou, "b": row.int8_iou, "difference": row.change}
            for row in found.classes
        ],
        "worst_frames": [{"name": name, "agreement": agreement} for name, agreement in found.worst],
        "layers": None,
    }


def _side(side: Side) -> dict[str, Any]:
    quantization = side.manifest.quantization
    return {
        "path": str(side.path),
        "kind": side.kind,
        "number_format": quantization.number_format if quantization.layers else None,
        "int8_layers": quantization.count("int8") if quantization.layers else None,
        "techniques": quantization.techniques,
    }


def _layers_summary(
    layers: tuple[LayerDifference, ...], unmatched: tuple[str, ...], threshold: float
) -> dict[str, Any]:
    from edgeseg.converters.compare_layers import first_below

    first = first_below(layers, threshold)
    return {
        "threshold_db": threshold,
        "first_below": first.name if first else None,
        "unmatched": unmatched,
        "list": [
            {
                "name": layer.name,
                "op": layer.op,
                "snr_db": layer.snr,
                "equal": layer.snr == math.inf,
                "factors": layer.factors,
            }
            for layer in layers
        ],
    }


def _text(found: dict[str, Any]) -> str:
    against = "labels" if found["labelled"] else "A's class map"
    miou, frames = found["miou"], found["frames"]
    rows = [("class", "IoU A", "IoU B", "difference")]
    rows += [
        (row["class"], _points(row["a"]), _points(row["b"]), _signed(row["difference"])) for row in found["classes"]
    ]
    rows.append(("mean", _points(miou["a"]), _points(miou["b"]), _signed(miou["difference"])))
    summary = [
        *((name, f"{found[key]['path']} ({_kind(found[key])})") for name, key in (("A", "a"), ("B", "b"))),
        (
            "agreement",
            f"{found['agreement']:.2f} %{spread(found['agreement_interval'])} of the pixels on {frames} "
            f"frame{'' if frames == 1 else 's'}, {found['seconds']:.1f} s",
        ),
        ("logits", found["logits"]["reason"] or _logits_text(found["logits"])),
        ("mean IoU", f"{_signed(miou['difference'])}{spread(miou['difference_interval'])} points against {against}"),
    ]
    worst = [("worst frame", "agreement %")]
    worst += [(frame["name"], f"{frame['agreement']:.2f}") for frame in found["worst_frames"]]
    parts = [table(summary), table(rows, right=(1, 2, 3)), table(worst, right=(1,))]
    if found["layers"] is not None:
        parts.append(_layers_text(found["layers"]))
    return "\n\n".join(parts)


def _layers_text(found: dict[str, Any]) -> str:
    rows = [("layer", "operator", "SNR", "channel factors")]
    for layer in found["list"]:
        factors = layer["factors"]
        shown = "-" if factors is None else f"{factors[0]:.3g} to {factors[1]:.3g}"
        rows.append((layer["name"], layer["op"], _ratio(layer), shown))
    first, limit = found["first_below"], f"{found['threshold_db']:g} dB"
    lines = [table(rows, right=(2,)), ""]
    lines.append(f"first layer below {limit}: {first}" if first else f"no layer is below {limit}")
    if found["unmatched"]:
        names = found["unmatched"]
        lines.append(f"not in both with the same output shape: {', '.join(names[:4])}{', ...' if names[4:] else ''}")
    return "\n".join(lines)


def _kind(side: dict[str, Any]) -> str:
    if side["number_format"] == "FP16":
        return f"{side['kind']} in FP16"
    return side["kind"] if side["int8_layers"] is None else f"{side['kind']}, {side['int8_layers']} layers in INT8"


def _logits_text(logits: dict[str, Any]) -> str:
    return _ratio(logits) + ("" if logits["equal"] else " signal-to-noise ratio")


def _ratio(found: dict[str, Any]) -> str:
    return "equal" if found["equal"] else f"{found['snr_db']:.1f} dB"


def _points(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _signed(value: float | None) -> str:
    return "-" if value is None else f"{value:+.2f}"
