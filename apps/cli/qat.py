"""`edgeseg train --qat`: fine-tune a quantized network, so that it wins back what INT8 cost."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeseg.apps.cli.options import augmentation
from edgeseg.apps.cli.progress import progress_for
from edgeseg.apps.cli.results import only_results_on_stdout, print_json, scores_summary
from edgeseg.errors import UsageError
from edgeseg.libraries import require
from edgeseg.models import NETWORKS

if TYPE_CHECKING:
    from edgeseg.training.tune import TuneOptions, TuneResult

__all__ = ["add_arguments", "refuse", "run"]

_PLAIN = ("epochs", "batch", "lr", "power", "weight_decay", "loss", "class_weights", "seed")
"""Options of the plain trainer that go into the recipe as they are, where given."""

_FOREIGN = (
    "resume", "width", "q", "backbone", "deploy", "dsrl", "head", "weights", "color", "mean", "std", "preset", "size",
    "crop", "classes", "optimizer", "momentum", "warmup", "image_weight", "affinity_weight", "affinity_subsampling",
    "balance", "ema", "precision", "tensorboard",
)  # fmt: skip
"""Options that the bundle or checkpoint decides, or that fine-tuning does not have."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options that only go with --qat, and --qat itself."""
    group = parser.add_argument_group("quantization-aware fine-tuning (10 epochs of AdamW, learning rate 1e-4)")
    group.add_argument("--qat", type=Path, metavar="BUNDLE|CHECKPOINT", help="fine-tune this in INT8; -o is a bundle")
    group.add_argument("--fixed-ranges", action="store_true", help="keep the calibrated ranges; learn weights only")
    group.add_argument("--distill", type=float, metavar="W", help="weight of the float network's logits (default 0)")
    group.add_argument("--force", action="store_true", help="replace an existing bundle")


def refuse(options: argparse.Namespace) -> None:
    """Check the options of a run without --qat.

    Raises:
        UsageError: for a missing network, or options that need --qat.
    """
    alone = [
        _flag(name) for name in ("fixed_ranges", "distill", "force") if getattr(options, name) not in (None, False)
    ]
    if alone:
        raise UsageError(f"{', '.join(alone)} only go with --qat BUNDLE|CHECKPOINT")
    if options.network is None:
        raise UsageError(
            f"say what to train: NAME is one of {', '.join(sorted(NETWORKS))}; or fine-tune in INT8 with --qat "
            "BUNDLE|CHECKPOINT"
        )


def run(options: argparse.Namespace) -> int:
    """Fine-tune and print the result."""
    arguments = _options(options)
    require("torch", "fine-tune networks")
    from edgeseg.training.processes import started_processes
    from edgeseg.training.tune import tune

    with only_results_on_stdout(), started_processes(options.device) as processes:
        if processes.count > 1:
            raise UsageError("--qat trains in one process; start it without torchrun")
        result = tune(options.qat, arguments, processes.device, progress_for(options.quiet))
    if options.json:
        print_json(_summary(result))
    else:
        print(_text(result))
    return 0


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _options(options: argparse.Namespace) -> TuneOptions:
    from edgeseg.training.tune import TuneOptions

    given = [_flag(name) for name in _FOREIGN if getattr(options, name) not in (None, False)]
    given += ["--every"] * (options.every != 1) + ["NAME"] * (options.network is not None)
    if given:
        raise UsageError(f"--qat takes its network and input from {options.qat}; leave out {', '.join(given)}")
    if not options.qat.exists():
        raise UsageError(
            f"there is no bundle or checkpoint {options.qat}; give what edgeseg convert or edgeseg train wrote"
        )
    recipe: dict[str, Any] = {name: value for name in _PLAIN if (value := getattr(options, name)) is not None}
    return TuneOptions(
        data=tuple(options.data),
        output=options.output,
        validation=options.validation,
        force=options.force,
        recipe={**recipe, "augmentation": augmentation(options)},
        fixed_ranges=options.fixed_ranges,
        distill=options.distill or 0.0,
        workers=options.workers,
        memory=options.memory << 20,
    )


def _summary(result: TuneResult) -> dict[str, Any]:
    tuned = result.tuned
    return {
        "bundle": str(result.bundle.path),
        "frames": result.frames,
        "epochs": tuned.epochs,
        "steps": tuned.steps,
        "best_epoch": tuned.best_epoch,
        "loss": tuned.loss,
        "int8_before": result.untuned_score,
        "scores": scores_summary(result.bundle.manifest.scores),
        "seconds": round(sum(result.seconds.values()), 3),
        "seconds_by_step": result.seconds,
        "report": str(result.bundle.path / "report.html"),
        "remarks": list(result.remarks),
    }


def _text(result: TuneResult) -> str:
    tuned, scores = result.tuned, result.bundle.manifest.scores
    lines = [
        f"{result.bundle.path}",
        f"  trained {tuned.epochs} epochs, {tuned.steps} steps, loss {tuned.loss:.4f}",
        f"  keeps   epoch {tuned.best_epoch}",
    ]
    if scores is not None:
        lines.append(
            f"  scores  mIoU: float {scores.float_score:.2f}, INT8 before {result.untuned_score:.2f}, INT8 now "
            f"{scores.int8_score:.2f} on {len(scores.frame_names)} frames"
        )
    lines += [f"  note    {remark}" for remark in result.remarks]
    lines.append(f"  report  {result.bundle.path / 'report.html'}")
    lines.append(f"  took    {sum(result.seconds.values()):.1f} s")
    return "\n".join(lines)
