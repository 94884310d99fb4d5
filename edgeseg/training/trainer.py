"""The training loop: steps, scores, checkpoints, and going on where a run was interrupted."""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from edgeseg.calibration.progress import Progress, SilentProgress
from edgeseg.errors import TrainingError, UsageError
from edgeseg.models.network import SegmentationNetwork
from edgeseg.training.checkpoint import restore, save_checkpoint
from edgeseg.training.folder import BEST, LAST, open_folder
from edgeseg.training.journal import Journal
from edgeseg.training.objective import Objective, build_objective
from edgeseg.training.processes import Processes, synchronise_batch_norm
from edgeseg.training.recipe import Recipe
from edgeseg.training.samples import Batch, Samples, batches, steps_per_epoch
from edgeseg.training.scoring import score

__all__ = ["BEST", "LAST", "TrainResult", "train"]

_log = logging.getLogger(__name__)

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
        folder: for the checkpoints, the log and the recipe, as a person reads it; process 0 alone uses it.
        processes: this process among those that train together.
        resume: go on from the folder's last.pt.
        every: score after every so many epochs, and after the last.
        workers: threads that read frames.
        tensorboard: also log for TensorBoard.
        progress: watches the epochs.

    Raises:
        TrainingError: when the loss or a weight is not finite, or the GPU's memory is full; last.pt then is of the last
            whole epoch.
        UsageError: for a folder that holds another run, or none where one is to go on; for a recipe or data other than
            those that it was trained with; for fewer frames than a batch.
        ModelError: for a checkpoint that cannot be read.
        OutputError: when a checkpoint cannot be written.
    """
    started = time.perf_counter()
    steps_per_epoch(samples, recipe, processes.count)
    state = processes.from_first(lambda: open_folder(folder, recipe, resume))
    run = _Run(recipe, network, samples, folder, processes)
    if state is not None:
        run.restore(state)
    shown = progress if progress is not None and processes.first else SilentProgress()
    journal = Journal(folder, tensorboard, run.epoch) if processes.first else None
    open_journal = contextlib.closing(journal) if journal else contextlib.nullcontext()
    with open_journal, shown.step("train", recipe.epochs * run.steps_per_epoch) as advance:
        advance(run.step)
        while run.epoch < recipe.epochs:
            parts = run.train_epoch(workers, advance)
            due = run.epoch % every == 0 or run.epoch == recipe.epochs
            processes.from_first(lambda: run.close_epoch(parts, validation if due else None, journal))  # noqa: B023
    return TrainResult(
        folder, run.epoch, run.step, run.best, run.best_epoch, run.loss, round(time.perf_counter() - started, 1)
    )


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
        self.steps_per_epoch = steps_per_epoch(samples, recipe, processes.count)
        self.network = network.train().to(processes.device)
        objective = build_objective(self.network, recipe, samples).to(processes.device).train()
        self.objective: Objective = objective
        synchronise_batch_norm(objective, processes)
        self.parallel: nn.Module = objective
        if processes.count > 1:
            # Published networks have weights that nothing reads, which only a graph that never changes may have.
            self.parallel = DistributedDataParallel(objective, static_graph=True)
        self.average: AveragedModel | None = None
        if recipe.ema:
            averaging = get_ema_multi_avg_fn(recipe.ema)  # type: ignore[no-untyped-call]
            self.average = AveragedModel(self.network, multi_avg_fn=averaging, use_buffers=True)
        self.optimizer = _optimizer(objective, recipe)
        self.scaler = torch.amp.GradScaler(processes.device.type, enabled=recipe.precision == "float16")

    def rate(self, step: int) -> float:
        """The learning rate of a step."""
        return self.recipe.rate(step, self.recipe.epochs * self.steps_per_epoch)

    def train_epoch(self, workers: int, advance: Callable[[int], None]) -> dict[str, float]:
        """One pass over the frames; gives the means of the loss and its parts."""
        self._began = time.perf_counter()
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
                with _explained():
                    means = self._step(batch)
                for name, value in means.items():
                    sums[name] = sums.get(name, 0.0) + value
                advance(1)
        if not all(bool(value.isfinite().all()) for value in self.objective.state_dict().values()):
            raise TrainingError(self._ended("a weight is not finite after the last step"))
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
        parts = self.objective.weighed(parts, labels, self.processes)
        means = self._means(parts)
        if not math.isfinite(means["loss"]):
            raise TrainingError(self._ended(f"the loss is {means['loss']} at step {self.step + 1}"))
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(parts["loss"]).backward()  # type: ignore[no-untyped-call]
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.average is not None:
            self.average.update_parameters(self.network)
        self.step += 1
        return means

    def _ended(self, why: str) -> str:
        kept = f"{self.folder / LAST} is of epoch {self.epoch}" if self.epoch else "no epoch was finished"
        return f"{why} (epoch {self.epoch + 1}); {kept}; train with a smaller --lr or in float32"

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

    def close_epoch(self, parts: dict[str, float], validation: Samples | None, journal: Journal | None) -> None:
        """Score, log and save, in process 0 alone.

        Args:
            parts: means of the loss and its parts.
            validation: frames to score on, where it is their turn.
            journal: of this process.
        """
        assert journal is not None  # in process 0
        miou: float | None = None
        if validation is not None:
            miou = 100 * score(self.scored, validation, self.recipe, self.processes.device).mean_iou()
        journal.write(self.epoch, self.step, self.rate(self.step - 1), parts, miou)
        self._save(miou)
        scored = "" if miou is None else f", mIoU {miou:.2f} (best {self.best:.2f} after epoch {self.best_epoch})"
        seconds = time.perf_counter() - self._began
        _log.info("epoch %d/%d: loss %.4f%s, %.1f s", self.epoch, self.recipe.epochs, self.loss, scored, seconds)

    def _save(self, miou: float | None) -> None:
        """Write last.pt, and before it best.pt where the score is the best so far: last.pt knows of no other best."""
        better = miou is not None and (self.best is None or miou > self.best)
        if better:
            self.best, self.best_epoch = miou, self.epoch
        average = None if self.average is None else self.average.module.state_dict()
        network = self.network.state_dict()
        own = self._placed(network)
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
        if better:
            save_checkpoint(self.folder / BEST, {**state, "optimizer": None, "heads": None})
        save_checkpoint(self.folder / LAST, state)

    def _placed(self, network: Mapping[str, Any]) -> dict[str, Any]:
        """The network's state by its names in the objective's state, which with DSRL holds it twice."""
        places = ["network"] if self.objective.dual is None else ["network", "dual.network"]
        return {f"{place}.{name}": value for place in places for name, value in network.items()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint.

        Raises:
            ModelError: for one of another network.
            UsageError: for one of another number of frames.
        """
        path = self.folder / LAST
        if state["step"] != state["epoch"] * self.steps_per_epoch:
            raise UsageError(
                f"{path} was trained on other data: it took {state['step']} steps in {state['epoch']} epochs, but now "
                f"an epoch has {self.steps_per_epoch}; give the data that it was trained on"
            )
        restore(self.network, state["network"], path)
        restore(self.objective, {**self._placed(state["network"]), **state["heads"]}, path)
        if self.average is not None and state["ema"] is not None:
            restore(self.average.module, state["ema"], path)
            self.average.n_averaged.fill_(state["averaged"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.epoch, self.step, self.loss = state["epoch"], state["step"], state["loss"]
        self.best, self.best_epoch = state["best"], state["best_epoch"]


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    """Turn what torch raises for a batch that is too large or too small into errors that say what to do."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise TrainingError(
            "the memory of the GPU is full; train with a smaller --batch or --size, or with --precision bfloat16"
        ) from error
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise UsageError(
            "a BatchNorm of this network needs two values or more of every channel; use a larger --batch or --size"
        ) from error


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
