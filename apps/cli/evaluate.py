"""`edgeseg evaluate`: a bundle or a float ONNX network against the labels of a data set."""

from __future__ import annotations

import argparse
import contextlib
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeseg.apps.cli.options import (
    add_backend_arguments,
    add_classes_argument,
    add_map_argument,
    add_preprocessing_arguments,
    add_skip_broken_argument,
    engine_options,
    positive_count,
    preprocessing,
    share,
    stated_color,
)
from edgeseg.apps.cli.progress import progress_for
from edgeseg.apps.cli.refining import add_refine_arguments, asked_refinement
from edgeseg.apps.cli.results import add_json_argument, only_results_on_stdout, print_json, spread, table
from edgeseg.backends import get_backend
from edgeseg.boundary import DILATION
from edgeseg.errors import UsageError
from edgeseg.zoo import network_file

if TYPE_CHECKING:
    from edgeseg.calibration.scoring import BoundaryIoU, Predictor, Score
    from edgeseg.labels import LabelSet
    from edgeseg.refine import Refinement
    from edgeseg.segmenter import Segmenter

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `edgeseg evaluate`."""
    parser.add_argument("bundle", nargs="?", type=Path, metavar="BUNDLE")
    parser.add_argument(
        "--onnx", type=Path, metavar="MODEL.onnx|NAME", help="score a float network instead of a bundle"
    )
    data = parser.add_argument_group("data")
    data.add_argument(
        "--data",
        required=True,
        metavar="KIND:DIR",
        help="camvid:DIR, cityscapes:DIR, voc:DIR, folder:DIR (or DIR) with images/ and labels/ or masks/, or "
        "scene://street",
    )
    data.add_argument("--split", metavar="NAME", help="the data set's part, such as train or val")
    data.add_argument("--every", type=positive_count, default=1, metavar="N", help="score every Nth frame only")
    add_skip_broken_argument(data)
    add_map_argument(data)
    data.add_argument(
        "--boundary",
        nargs="?",
        type=share,
        const=DILATION,
        metavar="SHARE",
        help=f"boundary IoU too, within this share of a frame's diagonal of an outline (without one {DILATION:g})",
    )
    add_backend_arguments(parser)
    add_refine_arguments(parser)
    classes = parser.add_argument_group("a float network, with --onnx")
    add_classes_argument(classes)
    classes.add_argument("--output-name", metavar="TENSOR", help="the logits, where the network has several outputs")
    add_preprocessing_arguments(parser)
    add_json_argument(parser)


def run(options: argparse.Namespace) -> int:
    """Score and print."""
    _check(options)
    if options.onnx is not None:
        options.onnx = network_file(options.onnx)
    from edgeseg.calibration.datasets import labelled_from
    from edgeseg.calibration.scoring import check_classes, score_labels
    from edgeseg.labels import load_mapping

    with only_results_on_stdout():
        data = labelled_from(options.data, options.split, skip_broken=options.skip_broken)
        data = data.exclude({name for i, name in enumerate(data.names) if i % options.every})
        with _network(options) as network:
            mapping = load_mapping(options.map, network.classes) if options.map else None
            # A plain folder does not name its classes: its labels are then checked, file by file, against these.
            data = replace(data, label_set=check_classes(network.classes, mapping, data.label_set))
            start = time.perf_counter()
            with progress_for(options.quiet).step("evaluate", len(data)) as step:
                score = score_labels(
                    network.predict, data, network.classes, mapping, boundary=options.boundary, progress=step
                )
            seconds = time.perf_counter() - start
    if options.json:
        print_json({**_summary(score, network, seconds), "skipped": data.skipped})
    else:
        print(_text(score, network, seconds))
    return 0


@dataclass(frozen=True)
class _Network:
    """What is scored."""

    name: str
    backend: str
    classes: LabelSet
    predict: Predictor
    refine: str | None = None


def _check(options: argparse.Namespace) -> None:
    if options.boundary == 0:
        raise UsageError("--boundary is a share of a frame's diagonal above 0, such as 0.02; give one or leave it out")
    asked_refinement(options)
    if (options.bundle is None) == (options.onnx is None):
        raise UsageError("evaluate takes one network: either a BUNDLE or --onnx MODEL.onnx")
    only_float = ("classes", "mean", "std", "preset", "size", "output_name", "color")
    given = [f"--{name.replace('_', '-')}" for name in only_float if getattr(options, name) is not None]
    if options.split is not None and options.data.startswith("scene:"):
        raise UsageError("a scene has no splits; leave --split out and give another seed, as in scene://street?seed=1")
    if options.bundle is not None and given:
        raise UsageError(f"a bundle knows its classes and pre-processing: {', '.join(given)} only go with --onnx")
    if options.onnx is not None:
        if options.refine is not None:
            raise UsageError("--refine only goes with a bundle; convert the network first, or leave it out with --onnx")
        preprocessing(options)
        if options.backend != "auto":
            get_backend(options.backend)
        for name in ("threads", "plan"):
            if getattr(options, name) is not None:
                raise UsageError(f"--{name} only goes with a bundle; leave it out with --onnx")


@contextlib.contextmanager
def _network(options: argparse.Namespace) -> Iterator[_Network]:
    if options.bundle is not None:
        import edgeseg

        with edgeseg.load(options.bundle, **engine_options(options)) as segmenter:
            name, refine = str(options.bundle), asked_refinement(options)
            yield _Network(
                name, segmenter.backend_name, segmenter.labels, _predictor(segmenter, refine), options.refine
            )
        return
    from edgeseg.converters.network import PROOF_BACKEND, as_given, network_on_cpu
    from edgeseg.converters.options import ConvertOptions
    from edgeseg.converters.prepare import prepare

    mean, std = preprocessing(options, stated_color(options, options.onnx)) or (None, None)
    prepared = prepare(
        options.onnx,
        ConvertOptions(
            mean=mean,
            std=std,
            color_order=options.color,
            classes=options.classes,
            size=options.size,
            output_name=options.output_name,
        ),
    )
    as_bundle = options.backend == PROOF_BACKEND
    opened = network_on_cpu(prepared, prepared.model, prepared.output) if as_bundle else as_given(prepared)
    with opened as predict:
        yield _Network(str(options.onnx), PROOF_BACKEND if as_bundle else "onnxruntime", prepared.labels, predict)


def _predictor(segmenter: Segmenter, refine: Refinement | None) -> Predictor:
    if refine is None:
        return lambda image: segmenter(image).class_map
    from edgeseg.refine import segment_refined

    return lambda image: segment_refined(segmenter, refine, image).class_map


def _summary(score: Score, network: _Network, seconds: float) -> dict[str, Any]:
    return {
        "network": network.name,
        "backend": network.backend,
        "refine": network.refine,
        "miou": score.miou,
        "miou_interval": score.miou_interval,
        "iou": score.iou,
        "pixel_accuracy": score.pixel_accuracy,
        "boundary_iou": None if score.boundary is None else asdict(score.boundary),
        "frames": score.frames,
        "seconds": round(seconds, 3),
        "classes": list(score.iou),
        "confusion": score.confusion,
    }


def _text(score: Score, network: _Network, seconds: float) -> str:
    near = score.boundary
    rows = [("class", "IoU", *([] if near is None else ["boundary IoU"]), "labelled pixels")]
    for index, (name, value) in enumerate(score.iou.items()):
        outline = [] if near is None else [_iou(near.iou[name])]
        rows.append((name, _iou(value), *outline, f"{int(score.confusion[index].sum()):,}"))
    mean = [] if near is None else [_iou(near.mean)]
    rows.append(("mean", _iou(score.miou), *mean, f"{int(score.confusion.sum()):,}"))
    how = network.backend if network.refine is None else f"{network.backend}, {network.refine}"
    boundary = "" if near is None else f"boundary IoU {near.mean:.2f} within {_width(near)} of an outline\n"
    return (
        f"{table(rows, right=tuple(range(1, len(rows[0]))))}\n\nmean IoU {score.miou:.2f}"
        f"{spread(score.miou_interval)}\n{boundary}"
        f"pixel accuracy {score.pixel_accuracy:.2f} % on {score.frames} frames, {how}, {seconds:.1f} s"
    )


def _iou(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _width(near: BoundaryIoU) -> str:
    """The boundary's width in words: the same for frames of one size."""
    low, high = near.pixels
    pixels = f"{high} pixel{'s' * (high > 1)}" if low == high else f"{low} to {high} pixels"
    return f"{pixels} ({near.share:g} of the diagonal)"
