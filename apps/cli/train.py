"""`edgeseg train`: train a network on labelled frames, with or without dual super-resolution learning."""

from __future__ import annotations

import argparse
import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeseg.apps.cli import qat
from edgeseg.apps.cli.options import (
    add_network_arguments,
    add_preprocessing_arguments,
    augmentation,
    frame_size,
    network_options,
    positive_count,
    preprocessing,
)
from edgeseg.apps.cli.progress import progress_for
from edgeseg.apps.cli.results import add_json_argument, only_results_on_stdout, print_json
from edgeseg.errors import UsageError
from edgeseg.libraries import require
from edgeseg.models import NETWORKS
from edgeseg.zoo import network_file

if TYPE_CHECKING:
    from edgeseg.labels import LabelSet
    from edgeseg.models.network import SegmentationNetwork
    from edgeseg.training.balance import Balance
    from edgeseg.training.recipe import Recipe
    from edgeseg.training.samples import Samples
    from edgeseg.training.trainer import TrainResult

__all__ = ["add_arguments", "run"]

_MEMORY = 2048  # MiB
_MEASURED_FRAMES = 64
"""On which the BatchNorms of an exported file are measured again."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `edgeseg train`."""
    parser.add_argument("network", nargs="?", metavar="NAME", help=f"one of {', '.join(sorted(NETWORKS))}")
    parser.add_argument(
        "-o", dest="output", type=Path, required=True, metavar="DIR", help="checkpoints and log; the bundle of --qat"
    )
    parser.add_argument("--resume", action="store_true", help="go on with the run in DIR, with the same options")
    network = parser.add_argument_group("network")
    add_network_arguments(network)
    network.add_argument("--dsrl", action="store_true", help="class map of twice the input's size (DSRL)")
    network.add_argument("--head", type=positive_count, metavar="C", help="channels of DSRL's head (default 32)")
    network.add_argument(
        "--weights",
        type=Path,
        metavar="FILE",
        help="start from these weights: a checkpoint, a state dict, or what edgeseg export made of this network",
    )
    add_preprocessing_arguments(parser, "size of the network's input (required)")
    _add_data_arguments(parser)
    _add_optimisation_arguments(parser)
    qat.add_arguments(parser)
    add_json_argument(parser)


def _add_data_arguments(parser: argparse.ArgumentParser) -> None:
    data = parser.add_argument_group("data")
    data.add_argument(
        "--data",
        action="append",
        required=True,
        metavar="KIND:DIR[@SPLIT]",
        help="camvid, cityscapes, voc or folder; by default the split train; may be repeated",
    )
    data.add_argument("--validation", metavar="KIND:DIR[@SPLIT]", help="scored after epochs; by default the split val")
    data.add_argument("--classes", metavar="NAME|FILE.json", help="of a plain folder; the other kinds bring theirs")
    data.add_argument(
        "--crop", type=frame_size, metavar="HxW", help="what a step sees of --size, at most (default all of it)"
    )
    data.add_argument("--scale", type=float, nargs=2, metavar=("MIN", "MAX"), help="zoom of the crops (default 0.5 2)")
    data.add_argument("--color-change", type=float, metavar="C", help="largest change of colour (default 0.3)")
    data.add_argument("--no-mirror", action="store_true", help="never mirror frames")
    data.add_argument("--workers", type=positive_count, default=1, metavar="N", help="threads that read (default 1)")
    data.add_argument(
        "--memory",
        type=positive_count,
        default=_MEMORY,
        metavar="MIB",
        help=f"decoded frames that are kept, of --data and of --validation each (default {_MEMORY})",
    )


def _add_optimisation_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("optimisation; the defaults are those of DSRL's authors")
    group.add_argument("--epochs", type=positive_count, metavar="N", help="default 100")
    group.add_argument("--batch", type=positive_count, metavar="N", help="frames a step, of all processes (default 8)")
    group.add_argument("--optimizer", metavar="NAME", help="sgd (default) or adamw")
    group.add_argument("--lr", type=float, metavar="V", help="learning rate at the start (default 0.01)")
    group.add_argument("--momentum", type=float, metavar="V", help="default 0.9")
    group.add_argument("--weight-decay", type=float, metavar="V", help="default 5e-4")
    group.add_argument("--power", type=float, metavar="V", help="of the poly schedule (default 0.9)")
    group.add_argument("--warmup", type=int, metavar="STEPS", help="linear rise of the learning rate (default 0)")
    group.add_argument("--loss", metavar="NAME", help="cross_entropy (default), hard_cross_entropy, focal or dice")
    group.add_argument("--class-weights", metavar="NAME", help="none (default) or log: rare classes count more")
    group.add_argument(
        "--balance", action="store_true", help="afterwards fit the classes' biases for mean IoU: balanced.pt"
    )
    group.add_argument("--image-weight", type=float, metavar="V", help="DSRL's w1 (default 0.1)")
    group.add_argument("--affinity-weight", type=float, metavar="V", help="DSRL's w2 (default 1.0)")
    group.add_argument("--affinity-subsampling", type=positive_count, metavar="N", help="of the affinity (default 8)")
    group.add_argument("--ema", type=float, metavar="DECAY", help="score and keep a moving average of the weights")
    group.add_argument("--precision", metavar="NAME", help="float32 (default), bfloat16 or float16")
    group.add_argument("--seed", type=int, metavar="N", help="default 0")
    group.add_argument("--every", type=positive_count, default=1, metavar="N", help="score every N epochs (default 1)")
    group.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"), help="default auto: a GPU if any")
    group.add_argument("--tensorboard", action="store_true", help="also log for TensorBoard")


_PLAIN = (
    "epochs", "batch", "optimizer", "lr", "momentum", "weight_decay", "power", "warmup", "loss", "class_weights",
    "image_weight", "affinity_weight", "affinity_subsampling", "ema", "precision", "seed",
)  # fmt: skip
"""Options that go into the recipe as they are, where given."""

_DSRL = ("head", "image_weight", "affinity_weight", "affinity_subsampling")
"""Options that mean nothing without --dsrl."""


def run(options: argparse.Namespace) -> int:
    """Train and print the score."""
    if options.qat is not None:
        return qat.run(options)
    qat.refuse(options)
    require("torch", "train networks")
    import torch

    from edgeseg.labels import load_labels
    from edgeseg.training.checkpoint import build_network
    from edgeseg.training.processes import started_processes
    from edgeseg.training.samples import Samples, open_data
    from edgeseg.training.trainer import train

    with only_results_on_stdout(), _epochs_logged(options.quiet), started_processes(options.device) as processes:
        own = load_labels(options.classes) if options.classes else None
        sources = [open_data(spec, "train", own) for spec in options.data]
        validation = open_data(options.validation, "val", own) if options.validation else None
        labels = _labels(own or sources[0].label_set)
        recipe = _recipe(options, labels)
        torch.manual_seed(recipe.seed)
        network = build_network(recipe)
        memory = options.memory << 20
        samples = Samples(sources, labels, memory)
        held_out = Samples([validation], labels, memory) if validation is not None else None
        if options.weights is not None and not options.resume:
            _load(network, options.weights, samples, recipe)
        result = train(
            recipe,
            network,
            samples,
            held_out,
            options.output,
            processes,
            resume=options.resume,
            every=options.every,
            workers=options.workers,
            tensorboard=options.tensorboard,
            progress=progress_for(options.quiet),
        )
        balanced: Balance | None = None
        if options.balance and processes.first:
            balanced = _balanced(options, samples, held_out, processes.device)
    if processes.first:
        _print(result, balanced, options.json)
    return 0


def _load(network: SegmentationNetwork, weights: Path, samples: Samples, recipe: Recipe) -> None:
    """Start from weights; an exported file's BatchNorms are measured on some of the frames."""
    from edgeseg.models.weights import load_weights
    from edgeseg.training.exported import load_exported
    from edgeseg.training.samples import seen_whole, spaced

    path = network_file(weights)
    if path.suffix == ".onnx":
        frames = (samples.read(index)[0] for index in spaced(samples, _MEASURED_FRAMES))
        load_exported(network, path, (seen_whole(frame, recipe) for frame in frames))
    else:
        load_weights(network, path)


def _balanced(options: argparse.Namespace, samples: Samples, validation: Samples | None, device: Any) -> Balance:
    from edgeseg.training.balance import FRAMES, balance
    from edgeseg.training.trainer import LAST

    with progress_for(options.quiet).step("balance", min(FRAMES, len(samples))) as advance:
        return balance(options.output, LAST, samples, validation, device, advance)


@contextlib.contextmanager
def _epochs_logged(quiet: bool) -> Iterator[None]:
    """Show a line an epoch without -v too: a long run is often watched without a terminal."""
    logger = logging.getLogger("edgeseg.training")
    before = logger.level
    if not quiet and logger.getEffectiveLevel() > logging.INFO:
        logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.setLevel(before)


def _labels(found: LabelSet | None) -> LabelSet:
    if found is None:
        raise UsageError("the classes of a plain folder are not known; name them with --classes NAME|FILE.json")
    return found.classes()


def _recipe(options: argparse.Namespace, labels: LabelSet) -> Recipe:
    from edgeseg.training.recipe import IMAGENET_MEAN, IMAGENET_STD, Recipe

    alone = [f"--{name.replace('_', '-')}" for name in _DSRL if getattr(options, name) is not None]
    if alone and not options.dsrl:
        raise UsageError(f"{', '.join(alone)} only go with --dsrl; give it too, or leave them out")
    if options.size is None:
        raise UsageError("the size of the network's input decides its cost and accuracy; give it with --size HxW")
    mean, std = preprocessing(options) or (IMAGENET_MEAN, IMAGENET_STD)
    given: dict[str, Any] = {name: value for name in _PLAIN if (value := getattr(options, name)) is not None}
    return Recipe(
        network=options.network,
        size=options.size,
        crop=options.crop,
        labels=labels,
        options=network_options(options),
        deploy=options.deploy,
        dsrl=options.dsrl,
        head={} if options.head is None else {"channels": options.head},
        color_order=options.color or "RGB",
        mean=mean,
        std=std,
        data=tuple(options.data),
        validation=options.validation,
        augmentation=augmentation(options),
        **given,
    )


def _print(result: TrainResult, balanced: Balance | None, as_json: bool) -> None:
    if as_json:
        print_json(
            {
                "folder": str(result.folder),
                "epochs": result.epochs,
                "steps": result.steps,
                "miou": result.miou,
                "best_epoch": result.best_epoch,
                "loss": result.loss,
                "seconds": result.seconds,
                "balanced": None if balanced is None else _summary(balanced),
            }
        )
        return
    scored = "" if result.miou is None else f", best mIoU {result.miou:.2f} after epoch {result.best_epoch}"
    print(f"trained {result.epochs} epochs, {result.steps} steps, loss {result.loss:.4f}{scored}\n{result.folder}")
    if balanced is not None:
        both = [("training pixels", balanced.training), ("validation", balanced.validation)]
        said = [f"{pair[0]:.2f} to {pair[1]:.2f} on {what}" for what, pair in both if pair is not None]
        print(f"balanced: mean IoU {', '.join(said)}\n{balanced.path}")


def _summary(balanced: Balance) -> dict[str, Any]:
    return {
        "checkpoint": str(balanced.path),
        "offsets": list(balanced.offsets),
        "training": list(balanced.training),
        "validation": None if balanced.validation is None else list(balanced.validation),
    }
