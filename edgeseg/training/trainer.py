"""The training loop: steps, scores, checkpoints, and going on where a run was interrupted."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from edgeseg.calibration.progress import Progress, SilentProgress
from edgeseg.errors import OutputError, TrainingError, UsageError
from edgeseg.models.network import SegmentationNetwork
from edgeseg.training.checkpoint import read_checkpoint, restore, save_checkpoint
from edgeseg.training.journal import Journal
from edgeseg.training.objective import Objective, build_objective
from edgeseg.training.processes import Processes, synchronise_batch_norm
from edgeseg.training.recipe import Recipe
from edgeseg.training.samples import Batch, Samples, batches
from edgeseg.training.scoring import score

__all__ = ["BEST", "LAST", "TrainResult", "train"]

LAST, BEST = "last.pt", "best.pt"

_TYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class TrainResult:
    """What a run gave.

    Attributes:
        folder: where last.pt, best.pt and log.csv are.
        epochs: epochs trained in all, earlier runs included.
        steps: optimiser steps in all.
        miou: the best mean IoU on the validation frames, 0..100; None without any.
        best_epoch: the epoch of that score, from 1.
        loss: mean of the last epoch.
        seconds: wall time of this run.
    """

    folder: Path
    epochs: int
    steps: int
    miou: float | None
    best_epoch: int | None
    loss: float
    seconds: float


def train(
    recipe: Recipe,
    network: SegmentationNetwork,
    samples: Samples,
    validation: Samples | None,
    folder: Path,
    processes: Processes,
    *,
    resume: bool = False,
    every: int = 1,
    workers: int = 1,
    tensorboard: bool = False,
    progress: Progress | None = None,
) -> TrainResult:
    """Train a network.

    Args:
        recipe: everything that decides the result.
        network: with the weights to start from.
        samples: frames to train on.
        validation: frames to score on, for best.pt; None keeps the last epoch alone.
        folder: for the checkpoints and the log.
        processes: this process among those that train together.
        resume: go on from the folder's last.pt.
        every: score after every so many epochs, and after the last.
        workers: threads that read frames.
        tensorboard: also log for TensorBoard.
        progress: watches the epochs.

    Raises:
        TrainingError: when the loss is not finite; last.pt then is of the last whole epoch.
        UsageError: for a folder that holds another run.
        OutputError: when a checkpoint cannot be written.
    """
    run = _Run(recipe, network, samples, folder, processes)
    started = time.perf_counter()
    if resume:
        run.resume()
    elif processes.first:
        _claim(folder)
    shown = progress if progress is not None and processes.first else SilentProgress()
    journal = Journal(folder, tensorboard, run.epoch) if processes.first else None
    open_journal = contextlib.closing(journal) if journal else contextlib.nullcontext()
    with open_journal, shown.step("train", recipe.epochs * run.steps_per_epoch) as advance:
        advance(run.step)
        while run.epoch < recipe.epochs:
            parts = run.train_epoch(workers, advance)
            if journal:
                due = run.epoch % every == 0 or run.epoch == recipe.epochs
                miou = run.score(validation) if validation is not None and due else None
                journal.write(run.epoch, run.step, run.rate(run.step - 1), parts, miou)
                run.save(miou)
            processes.wait()
    return TrainResult(
        folder, run.epoch, run.step, run.best, run.best_epoch, run.loss, round(time.perf_counter() - started, 1)
    )


def _claim(folder: Path) -> None:
    if (folder / LAST).exists():
        raise UsageError(f"{folder} holds a training run; go on with it by --resume, or choose another folder with -o")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make the folder {folder}: {error.strerror}; choose another with -o") from error


class _Run:
    """The state of a run between epochs."""

    def __init__(
        self, recipe: Recipe, network: SegmentationNetwork, samples: Samples, folder: Path, processes: Processes
    ) -> None:
        self.recipe, self.samples, self.folder, self.processes = recipe, samples, folder, processes
        self.epoch = self.step = 0
        self.best: float | None = None
        self.best_epoch: int | None = None
        self.loss = math.nan
        self.steps_per_epoch = len(samples) // recipe.batch
        self.network = network.train().to(processes.device)
        objective = build_objective(self.network, recipe, samples).to(processes.device).train()
        self.objective: Objective = objective
        synchronise_batch_norm(objective, processes)
        self.parallel: nn.Module = objective
        if processes.count > 1:
            self.parallel = DistributedDataParallel(objective)
        self.average: AveragedModel | None = None
        if recipe.ema:
            averaging = get_ema_multi_avg_fn(recipe.ema)  # type: ignore[no-untyped-call]
            self.average = AveragedModel(self.network, multi_avg_fn=averaging, use_buffers=True)
        self.optimizer = _optimizer(objective, recipe)
        self.scaler = torch.amp.GradScaler(processes.device.type, enabled=recipe.precision == "float16")

    def rate(self, step: int) -> float:
        """The learning rate of a step: poly, after a linear rise."""
        recipe = self.recipe
        total = max(1, recipe.epochs * self.steps_per_epoch)
        rise = min(1.0, (step + 1) / recipe.warmup) if recipe.warmup else 1.0
        return float(recipe.lr * rise * (1 - min(step, total) / total) ** recipe.power)

    def train_epoch(self, workers: int, advance: Callable[[int], None]) -> dict[str, float]:
        """One pass over the frames; gives the means of the loss and its parts."""
        # Dropout depends on the epoch alone, so that an interrupted run goes on as it would have.
        torch.manual_seed((self.recipe.seed << 20) + self.epoch * 1000 + self.processes.rank)
        sums: dict[str, float] = {}
        batch_source = batches(
            self.samples,
            self.recipe,
            self.epoch,
            rank=self.processes.rank,
            processes=self.processes.count,
            workers=workers,
        )
        with contextlib.closing(batch_source):  # type: ignore[type-var]
            for batch in batch_source:
                for name, value in self._step(batch).items():
                    sums[name] = sums.get(name, 0.0) + value
                advance(1)
        self.epoch += 1
        means = {name: value / self.steps_per_epoch for name, value in sums.items()}
        self.loss = means["loss"]
        return means

    def _step(self, batch: Batch) -> dict[str, float]:
        device, recipe = self.processes.device, self.recipe
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate(self.step)
        low, labels = batch.low.to(device), batch.labels.to(device)
        high = None if batch.high is None else batch.high.to(device)
        kind = _TYPES.get(recipe.precision)
        with torch.autocast(device.type, dtype=kind, enabled=kind is not None):
            parts = self.parallel(low, high, labels)
        means = self._means(parts)
        if not math.isfinite(means["loss"]):
            kept = f"{self.folder / LAST} is of epoch {self.epoch}" if self.epoch else "no epoch was finished"
            raise TrainingError(
                f"the loss is {means['loss']} at step {self.step + 1} (epoch {self.epoch + 1}); {kept}; "
                "train with a smaller --lr or in float32"
            )
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(parts["loss"]).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.average is not None:
            self.average.update_parameters(self.network)
        self.step += 1
        return means

    def _means(self, parts: dict[str, torch.Tensor]) -> dict[str, float]:
        """The parts of the loss over all processes, as numbers."""
        stacked = torch.stack([part.detach().float() for part in parts.values()])
        totals = self.processes.total(stacked) / self.processes.count
        return dict(zip(parts, totals.tolist(), strict=True))

    @property
    def scored(self) -> SegmentationNetwork:
        """The network that is scored and kept: the moving average where there is one."""
        if self.average is None:
            return self.network
        averaged = self.average.module
        assert isinstance(averaged, SegmentationNetwork)
        return averaged

    def score(self, validation: Samples) -> float:
        """Mean IoU, 0..100."""
        return 100 * score(self.scored, validation, self.recipe, self.processes.device).mean_iou()

    def save(self, miou: float | None) -> None:
        """Write last.pt, and best.pt where the score is the best so far."""
        better = miou is not None and (self.best is None or miou > self.best)
        if better:
            self.best, self.best_epoch = miou, self.epoch
        average = None if self.average is None else self.average.module.state_dict()
        network = self.network.state_dict()
        own = {f"network.{name}" for name in network} | {f"dual.network.{name}" for name in network}
        state = {
            "recipe": self.recipe.to_dict(),
            "network": network,
            "ema": average,
            "heads": {name: value for name, value in self.objective.state_dict().items() if name not in own},
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "averaged": 0 if self.average is None else int(self.average.n_averaged),
            "epoch": self.epoch,
            "step": self.step,
            "best": self.best,
            "best_epoch": self.best_epoch,
            "loss": self.loss,
        }
        save_checkpoint(self.folder / LAST, state)
        if better:
            save_checkpoint(self.folder / BEST, {**state, "optimizer": None, "heads": None})

    def resume(self) -> None:
        """Go on from last.pt.

        Raises:
            ModelError: for a checkpoint that cannot be read or is of another network.
            UsageError: for one that was trained otherwise.
        """
        path = self.folder / LAST
        state = read_checkpoint(path)
        earlier = Recipe.from_dict(state["recipe"])
        if earlier != self.recipe:
            raise UsageError(
                f"{path} was trained otherwise ({_difference(earlier, self.recipe)}); give the same options"
            )
        restore(self.network, state["network"], path)
        heads = {**self.objective.state_dict(), **state["heads"]}
        own = self.network.state_dict()
        heads.update({f"network.{n}": v for n, v in own.items()})
        if self.objective.dual is not None:
            heads.update({f"dual.network.{n}": v for n, v in own.items()})
        restore(self.objective, heads, path)
        if self.average is not None and state["ema"] is not None:
            restore(self.average.module, state["ema"], path)
            self.average.n_averaged.fill_(state["averaged"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.epoch, self.step, self.loss = state["epoch"], state["step"], state["loss"]
        self.best, self.best_epoch = state["best"], state["best_epoch"]


def _difference(one: Recipe, other: Recipe) -> str:
    """Names and values of the fields that differ."""
    a, b = one.to_dict(), other.to_dict()
    return ", ".join(f"{name} {a[name]} and now {b[name]}" for name in a if a[name] != b[name])


def _optimizer(objective: Objective, recipe: Recipe) -> torch.optim.Optimizer:
    """The recipe's optimiser over every part of the objective, the heads that only training needs included."""
    decayed: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for parameter in objective.parameters():
        (decayed if parameter.ndim > 1 else others).append(parameter)
    groups: list[dict[str, Any]] = [
        {"params": decayed, "weight_decay": recipe.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=recipe.lr)
    return torch.optim.SGD(groups, lr=recipe.lr, momentum=recipe.momentum)
