"""`edgeseg convert`: a float ONNX network and frames in, an INT8 or FP16 bundle with the proof of its accuracy out."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeseg.apps.cli.options import (
    add_classes_argument,
    add_map_argument,
    add_preprocessing_arguments,
    add_skip_broken_argument,
    frame_size,
    points,
    positive_count,
    preprocessing,
    share,
    stated_color,
)
from edgeseg.apps.cli.results import add_json_argument, only_results_on_stdout, print_json, scores_summary, spread
from edgeseg.bundle import SMALLER
from edgeseg.calibration.ranges import AUTO, METHODS
from edgeseg.calibration.table import read_table
from edgeseg.converters.options import DEFAULT_BUDGET, DEFAULT_COUNT, DEFAULT_METHOD, PARTNERS, TARGETS, ConvertOptions
from edgeseg.errors import UsageError
from edgeseg.zoo import SHIPPED, network_file

if TYPE_CHECKING:
    from edgeseg.converters.options import ConvertResult

__all__ = ["add_arguments", "run", "summary"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `edgeseg convert`."""
    parser.add_argument(
        "model",
        type=Path,
        metavar="MODEL.onnx|NAME",
        help=f"the float network: an image in, logits out; or one that ships with edgeseg: {', '.join(SHIPPED)}",
    )
    frames = parser.add_argument_group("frames")
    frames.add_argument(
        "--frames",
        metavar="SOURCE",
        help="real frames of the network's domain: a folder, glob, text list or video (required; in FP16 they only "
        "score)",
    )
    frames.add_argument(
        "--count",
        type=positive_count,
        default=DEFAULT_COUNT,
        metavar="N",
        help=f"calibration frames, evenly spaced (default {DEFAULT_COUNT})",
    )
    frames.add_argument("--labels", type=Path, metavar="DIR", help="label images of the frames: scores are then mIoU")
    frames.add_argument(
        "--score-frames",
        metavar="SOURCE",
        help="frames to score on; default: those of --frames that calibration does not use",
    )
    add_skip_broken_argument(frames)
    add_preprocessing_arguments(parser)
    classes = parser.add_argument_group("classes")
    add_classes_argument(classes)
    add_map_argument(classes)
    quantization = parser.add_argument_group("quantization and output")
    quantization.add_argument(
        "--method",
        choices=(AUTO, *sorted(METHODS)),
        default=DEFAULT_METHOD,
        help=f"how ranges are chosen; {AUTO}: for each tensor by the error at its layers' outputs (default "
        f"{DEFAULT_METHOD})",
    )
    quantization.add_argument(
        "--no-equalize", action="store_true", help="leave the channels of a tensor at their own magnitudes"
    )
    quantization.add_argument(
        "--no-bias-correction", action="store_true", help="leave biases as they are where quantization shifts a mean"
    )
    quantization.add_argument(
        "--no-weight-rounding",
        action="store_true",
        help="round each weight to the nearest level, not all of a layer to those that change its output least",
    )
    quantization.add_argument(
        "--partners",
        nargs="?",
        const="all",
        choices=PARTNERS,
        default=ConvertOptions().partners,
        help="skip inputs of sums that are quantized and concatenated tensors that get one range, for fewer kernels on "
        "a GPU: auto (default): those that can save something and leave the logits as they were; all; or none",
    )
    _add_mixed_precision_arguments(parser)
    quantization.add_argument(
        "--output",
        choices=("logits", "class-map"),
        default="logits",
        help="what the graph gives: low-resolution logits for edgeseg's fused step (default), or a uint8 class map",
    )
    quantization.add_argument(
        "--output-name", metavar="TENSOR", help="the logits, where the network has several outputs"
    )
    quantization.add_argument(
        "--also-size",
        type=frame_size,
        metavar="HxW",
        help="put the network for smaller frames into the bundle too, for camera --max-latency; needs a network whose "
        "input size is dynamic, and --size",
    )
    quantization.add_argument("-o", dest="bundle", type=Path, metavar="BUNDLE", help="default: MODEL.edgeseg")
    quantization.add_argument("--force", action="store_true", help="replace an existing bundle")
    quantization.add_argument("--licence", metavar="TEXT", help="licence of the weights, kept in the bundle")
    add_json_argument(parser)


def _add_mixed_precision_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("layers that stay in float")
    group.add_argument(
        "--budget",
        type=points,
        metavar="POINTS",
        help="accuracy that INT8 may cost, of mean IoU with labels, else of agreement; layers stay in float until it "
        "is kept (default: all layers in INT8)",
    )
    group.add_argument(
        "--precision",
        choices=("int8", "mixed", "fp16"),
        help=f"mixed: as --budget {DEFAULT_BUDGET:g}; fp16: nothing is quantized or calibrated, for boards without "
        "INT8 or to compare with; default: int8, or mixed where --budget is given",
    )
    group.add_argument(
        "--keep-float", action="append", default=[], metavar="PATTERN", help="layers by name, with * and ?; repeatable"
    )
    group.add_argument(
        "--max-float-share",
        type=share,
        default=1.0,
        metavar="SHARE",
        help="of the cost of all layers that the budget may leave in float, 0 to 1 (default 1)",
    )
    group.add_argument(
        "--target",
        choices=sorted(TARGETS),
        default=ConvertOptions().target,
        help="where the cost of float layers is weighed (default %(default)s)",
    )
    group.add_argument(
        "--search-frames",
        metavar="SOURCE",
        help="frames to search on; default: a third of those with labels, which are then not scored, else calibration "
        "frames",
    )
    group.add_argument("--search-labels", type=Path, metavar="DIR", help="label images of --search-frames")


def run(options: argparse.Namespace) -> int:
    """Convert and print the result."""
    arguments = _convert_options(options)
    from edgeseg.apps.cli.progress import progress_for
    from edgeseg.converters.convert import convert
    from edgeseg.converters.smaller import convert_with_smaller

    model, progress = network_file(options.model), progress_for(options.quiet)
    with only_results_on_stdout():
        if options.also_size is None:
            result = convert(model, options.frames, arguments, progress)
        else:
            result = convert_with_smaller(model, options.frames, arguments, options.also_size, progress)
    if options.json:
        print_json(summary(result))
    else:
        print(_text(result))
    return 0


def _budget(options: argparse.Namespace) -> float | None:
    if options.precision == "int8" and options.budget is not None:
        raise UsageError("--budget leaves layers in float; give it without --precision int8")
    if options.search_labels is not None and options.search_frames is None:
        raise UsageError("--search-labels are those of --search-frames; give both")
    budget: float | None = options.budget
    return DEFAULT_BUDGET if budget is None and options.precision == "mixed" else budget


def _convert_options(options: argparse.Namespace) -> ConvertOptions:
    if options.frames is None and options.precision != "fp16":
        raise UsageError(
            "convert needs --frames: a folder, glob, text list or video with real frames of the network's domain; "
            "there is no default and no random calibration data, because ranges from it cost accuracy silently"
        )
    if options.map and options.labels is None:
        raise UsageError("--map brings the network's classes to those of the labels; give the labels with --labels DIR")
    mean, std = preprocessing(options, stated_color(options, network_file(options.model))) or (None, None)
    return ConvertOptions(
        classes=options.classes,
        color_order=options.color,
        mean=mean,
        std=std,
        precision="fp16" if options.precision == "fp16" else "int8",
        method=options.method,
        equalize=not options.no_equalize,
        correct_bias=not options.no_bias_correction,
        round_weights=not options.no_weight_rounding,
        partners=options.partners,
        budget=_budget(options),
        keep_float=tuple(options.keep_float),
        max_float_share=options.max_float_share,
        target=options.target,
        search_frames=options.search_frames,
        search_labels=options.search_labels,
        count=options.count,
        labels=options.labels,
        mapping=options.map,
        size=options.size,
        output_kind=options.output,
        output_name=options.output_name,
        output=options.bundle or _beside_the_user(options.model),
        force=options.force,
        skip_broken=options.skip_broken,
        score_frames=options.score_frames,
        licence=options.licence,
    )


def _beside_the_user(model: Path) -> Path | None:
    """Where the bundle of a shipped network goes: not into the package; None for a file, whose bundle stands beside."""
    return Path(f"{model}.edgeseg") if network_file(model) != model else None


def summary(result: ConvertResult) -> dict[str, Any]:
    """The JSON object of `edgeseg convert --json`."""
    manifest = result.bundle.manifest
    quantization = manifest.quantization
    return {
        "bundle": str(result.bundle.path),
        "number_format": quantization.number_format,
        "frames": result.frames,
        "method": quantization.method,
        "scores": scores_summary(manifest.scores),
        "smaller": _smaller(result),
        "partners": _partners(result),
        "layers": {
            "int8": quantization.count("int8"),
            "float": quantization.count("float"),
            "int8_mac_share": quantization.int8_mac_share,
        },
        "seconds": round(sum(result.seconds.values()), 3),
        "seconds_by_step": result.seconds,
        "peak_rss_mb": round(result.peak_rss_mb, 1),
        "reused_calibration": result.reused_calibration,
        "report": str(result.report),
        "remarks": list(result.remarks),
    }


def _smaller(result: ConvertResult) -> dict[str, Any] | None:
    """Size (height, width) and scores of the network for smaller frames; None without one."""
    held = result.bundle.smaller
    if held is None:
        return None
    entry = held.manifest.input
    return {"size": [entry.height, entry.width], "scores": scores_summary(held.manifest.scores)}


def _partners(result: ConvertResult) -> dict[str, Any] | None:
    """How many were taken and not, and what they cost together, in dB; None where there was none to take."""
    quantization = result.bundle.manifest.quantization
    found = None if quantization.number_format == "FP16" else read_table(result.bundle, "the summary").partners
    if found is None:
        return None
    taken = len(found.taken)
    return {"taken": taken, "left": len(found.groups) - taken, "loss": found.loss, "tolerance": found.tolerance}


def _text(result: ConvertResult) -> str:
    manifest = result.bundle.manifest
    scores, quantization = manifest.scores, manifest.quantization
    name, share = quantization.number_format, 100 * quantization.converted_mac_share
    layers = f"{quantization.converted_layers} of {len(quantization.layers)} in {name} ({share:.1f} % of the MACs)"
    ranges = f"{quantization.method} over {result.frames} frames" if result.frames else "none: FP16 needs none"
    seen = " that calibration never saw" if result.frames else ""
    lines = [f"{result.bundle.path}", f"  layers  {layers}", f"  ranges  {ranges}"]
    if (joined := _partners(result)) is not None:
        total = joined["taken"] + joined["left"]
        lines.append(f"  joined  {joined['taken']} of {total} partners of layers, for {joined['loss']:.2f} dB")
    if scores is None and result.frames:
        lines.append("  scores  none: every frame went into calibration; give more frames or --score-frames")
    elif scores is None:
        lines.append("  scores  none: there was no frame; give some with --frames or --score-frames")
    else:
        metric = "mIoU" if scores.metric == "miou" else "agreement with the float network"
        lines.append(
            f"  scores  {metric}: float {scores.float_score:.2f}, {name} {scores.int8_score:.2f}, "
            f"drop {scores.drop:.2f}{spread(scores.drop_interval)} on {len(scores.frame_names)} frames{seen}"
        )
    if (smaller := _smaller(result)) is not None:
        height, width = smaller["size"]
        score = f", {name} {smaller['scores']['int8']:.2f}" if smaller["scores"] else ""
        lines.append(f"  smaller {height}x{width}{score}, in {result.bundle.path}/{SMALLER}")
    lines += [f"  note    {remark}" for remark in result.remarks]
    lines.append(f"  report  {result.report}")
    lines.append(f"  took    {sum(result.seconds.values()):.1f} s, peak memory {result.peak_rss_mb:.0f} MB")
    return "\n".join(lines)
