"""Quantization-aware fine-tuning: the canonical Q/DQ graph itself is trained, so that the result is the same graph."""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import onnx
import torch
from torch import Tensor, nn
from torch.nn import functional

from edgeseg.calibration.progress import Progress, SilentProgress
from edgeseg.calibration.ranges import LEVELS
from edgeseg.calibration.table import CalibrationTable, calibration_key
from edgeseg.converters.graph import GraphIndex
from edgeseg.converters.lint import require_clean
from edgeseg.converters.place import remove_qdq
from edgeseg.errors import TrainingError, UnsupportedModelError, UsageError
from edgeseg.manifest import Manifest, OutputSpec
from edgeseg.training.graph import GraphModule
from edgeseg.training.objective import build_criterion
from edgeseg.training.operators import resample
from edgeseg.training.recipe import Recipe
from edgeseg.training.samples import Batch, Samples, batches, steps_per_epoch
from edgeseg.training.scoring import score

__all__ = ["METHOD", "QuantizedNetwork", "Tuned", "fine_tune", "tuning_recipe"]

METHOD = "+qat"
"""Stands behind the range chooser's name in the manifest of a network that was fine-tuned."""

_SCALE_RATE = 10.0
"""Learning rate of the scales over that of the weights: AdamW moves a parameter by about its rate at each step, which
for the logarithm of a scale is a share of it."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class QuantizedNetwork:
    """A network as `edgeseg convert` quantizes it.

    Attributes:
        manifest: its input, output, labels and layers.
        model: the canonical graph with Q/DQ pairs.
        table: the ranges of its activations.
    """

    manifest: Manifest
    model: onnx.ModelProto
    table: CalibrationTable


@dataclass(frozen=True)
class Tuned:
    """What fine-tuning gave.

    Attributes:
        network: the same graph and table with what was learned.
        before: mean IoU of the fake-quantized graph on the validation frames before the first step, 0..100; None
            without any.
        miou: of the epoch that is kept.
        best_epoch: that epoch, from 1; 0 where no epoch was better than the start, whose graph is then kept.
        epochs, steps: trained in all.
        loss: mean of the last epoch.
        seconds: wall time.
    """

    network: QuantizedNetwork
    before: float | None
    miou: float | None
    best_epoch: int
    epochs: int
    steps: int
    loss: float
    seconds: float


def tuning_recipe(manifest: Manifest, **options: Any) -> Recipe:
    """The recipe of a fine-tuning run, with AdamW at a small rate.

    Args:
        manifest: of the network: it says the size and the classes. Mean, deviation and colour order are in the graph,
            so the recipe's frames stay as they are.
        options: other fields of `Recipe`.

    Raises:
        UnsupportedModelError: for a class map of more than twice the input's size.
        UsageError: for an option out of its range.
    """
    factor = manifest.map_size[0] // manifest.input.height
    if factor > 2:
        raise UnsupportedModelError(
            f"the network's class map is {factor} times the size of its input; fine-tuning takes 1 or 2 times"
        )
    given: dict[str, Any] = {"epochs": 10, "lr": 1e-4, "optimizer": "adamw", "weight_decay": 0.0, **options}
    return Recipe(
        network=manifest.network.name,
        size=(manifest.input.height, manifest.input.width),
        labels=manifest.labels.classes(),
        dsrl=factor == 2,
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        **given,
    )


def fine_tune(
    network: QuantizedNetwork,
    recipe: Recipe,
    samples: Samples,
    validation: Samples | None,
    device: torch.device,
    *,
    fixed_ranges: bool = False,
    distill: float = 0.0,
    workers: int = 1,
    progress: Progress | None = None,
) -> Tuned:
    """Train weights and activation scales through the rounding of INT8.

    Args:
        network: where to start; its scales are the calibrated ones.
        recipe: from `tuning_recipe`.
        samples: frames to train on.
        validation: frames that decide which epoch is kept; None keeps the last one.
        device: where to train.
        fixed_ranges: keep the calibrated scales of the activations.
        distill: weight of the Kullback-Leibler divergence from the float network's logits, beside the labels' loss.
        workers: threads that read frames.
        progress: watches the steps.

    Raises:
        TrainingError: when the loss or a weight is not finite, or the GPU's memory is full.
        UsageError: for fewer frames than a batch, or a weight of the distillation below 0.
        UnsupportedModelError: for a graph that cannot be trained through.
    """
    if not (math.isfinite(distill) and distill >= 0):
        raise UsageError(f"the weight of the distillation must be a number of at least 0, but is {distill}")
    started = time.perf_counter()
    run = _Run(network, recipe, samples, validation, device, fixed_ranges, distill)
    shown = progress or SilentProgress()
    run.score(0, shown)
    with shown.step("fine-tune", recipe.epochs * run.steps_per_epoch) as advance:
        for epoch in range(recipe.epochs):
            run.train_epoch(epoch, workers, advance)
            run.score(epoch + 1, SilentProgress())
    best = recipe.epochs if run.best is None else run.best_epoch
    seconds = round(time.perf_counter() - started, 1)
    return Tuned(run.written(), run.before, run.best, best, recipe.epochs, run.step, run.loss, seconds)


def _logits(model: onnx.ModelProto, output: OutputSpec) -> str:
    """The tensor whose largest channel is the class, where the graph ends in the class map as well."""
    if output.kind == "logits":
        return output.tensor
    found = next((node for node in model.graph.node if node.op_type == "ArgMax"), None)
    if found is None:
        raise UnsupportedModelError("expected an ArgMax that makes the graph's class map, but there is none")
    return str(found.input[0])


class _OnFrames(nn.Module):
    """A graph as the scorer calls a network: frames (N, 3, H, W) of 0..255 in, logits of the class map's size out."""

    def __init__(self, graph: GraphModule, manifest: Manifest) -> None:
        super().__init__()
        self.graph = graph
        self.size, self.coordinates = manifest.map_size, manifest.output.coordinates

    def logits(self, frames: Tensor) -> Tensor:
        """As the graph gives them."""
        logits: Tensor = self.graph(frames.permute(0, 2, 3, 1).to(torch.uint8))
        return logits

    def enlarge(self, logits: Tensor) -> Tensor:
        """By the rule of the runtime."""
        return logits if self.coordinates is None else resample(logits, self.size, self.coordinates)

    def forward(self, frames: Tensor) -> Tensor:
        return self.enlarge(self.logits(frames))


class _Run:
    """The state of a run between epochs."""

    def __init__(
        self,
        network: QuantizedNetwork,
        recipe: Recipe,
        samples: Samples,
        validation: Samples | None,
        device: torch.device,
        fixed_ranges: bool,
        distill: float,
    ) -> None:
        self.start, self.recipe, self.samples, self.validation = network, recipe, samples, validation
        self.device, self.distill = device, distill
        self.step, self.steps_per_epoch = 0, steps_per_epoch(samples, recipe)
        self.loss = math.nan
        self.before: float | None = None
        self.best: float | None = None
        self.best_epoch = 0
        torch.manual_seed(recipe.seed)
        output = _logits(network.model, network.manifest.output)
        self.module = _OnFrames(GraphModule(network.model, output), network.manifest).to(device)
        self.teacher: _OnFrames | None = None
        if distill:
            given = GraphModule(remove_qdq(network.model), output)
            self.teacher = _OnFrames(given, network.manifest).to(device).requires_grad_(False)
        self.criterion = build_criterion(recipe, samples).to(device)
        graph = self.module.graph
        graph.scales.requires_grad_(not fixed_ranges)
        scales = list(graph.scales.parameters())
        known = set(map(id, scales))
        weights = [p for p in graph.parameters() if id(p) not in known]
        groups = [{"params": weights, "rate": 1.0}, {"params": scales, "rate": _SCALE_RATE, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=recipe.lr, weight_decay=recipe.weight_decay)
        self.kept = self._state()

    def _state(self) -> dict[str, Tensor]:
        return {name: value.detach().cpu().clone() for name, value in self.module.graph.named_parameters()}

    def train_epoch(self, epoch: int, workers: int, advance: Callable[[int], None]) -> None:
        """One pass over the frames."""
        total = 0.0
        source = batches(self.samples, self.recipe, epoch, workers=workers)
        with contextlib.closing(source):  # type: ignore[type-var]
            for batch in source:
                try:
                    total += self._step(batch)
                except torch.OutOfMemoryError as error:
                    raise TrainingError("the GPU's memory is full; fine-tune with a smaller --batch") from error
                advance(1)
        self.loss = total / self.steps_per_epoch

    def _step(self, batch: Batch) -> float:
        frames, labels = batch.low.to(self.device), batch.labels.to(self.device)
        steps = self.recipe.epochs * self.steps_per_epoch
        rate = self.recipe.rate(self.step, steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["rate"]
        logits = self.module.logits(frames)
        loss = self.criterion(self.module.enlarge(logits), labels)
        if self.teacher is not None:
            loss = loss + self.distill * _divergence(logits, self.teacher.logits(frames))
        value = float(loss.detach())
        if not math.isfinite(value):
            raise TrainingError(
                f"the loss is {value} at step {self.step + 1} of {steps}; nothing was written; fine-tune with a "
                f"smaller --lr than {self.recipe.lr:g}"
            )
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        self.step += 1
        return value

    def score(self, epoch: int, progress: Progress) -> None:
        """Keep what was learned where it is the best so far; without validation frames, always."""
        if self.validation is None:
            self.kept = self._state()
            return
        with progress.step("validate", len(self.validation)) as advance:
            matrix = score(self.module, self.validation, self.recipe, self.device, advance)
        miou = 100 * matrix.mean_iou()
        if epoch == 0:
            self.before = miou
            _log.info("before: mIoU %.2f in fake-quantized INT8", miou)
        else:
            _log.info("epoch %d: loss %.4f, mIoU %.2f in fake-quantized INT8", epoch, self.loss, miou)
        if self.best is None or miou > self.best:
            self.best, self.best_epoch, self.kept = miou, epoch, self._state()

    def written(self) -> QuantizedNetwork:
        """The network with what was kept.

        Raises:
            LintError: where TensorRT would not take it; that is a mistake of edgeseg.
        """
        self.module.graph.load_state_dict(self.kept, strict=False)
        model = self.module.graph.write_back(self.start.model)
        require_clean(model)
        return QuantizedNetwork(self.start.manifest, model, self._table(model))

    def _table(self, model: onnx.ModelProto) -> CalibrationTable:
        """The ranges that were learned, with the histograms of the calibration."""
        table, index = self.start.table, GraphIndex(model)
        scales = self.module.graph.activation_scales()
        entries = dict(table.entries)
        for node in model.graph.node:
            if node.op_type == "QuantizeLinear" and node.input[1] in scales and node.input[0] in entries:
                amax = float(index.constant(node.input[1])) * LEVELS  # type: ignore[arg-type]
                entries[node.input[0]] = entries[node.input[0]].with_amax(amax)
        method = table.method + METHOD
        content = model.SerializeToString(deterministic=True)
        return replace(
            table, key=calibration_key(content, table.frames, entries, method), method=method, entries=entries
        )


def _divergence(logits: Tensor, wanted: Tensor) -> Tensor:
    """Kullback-Leibler divergence of the class probabilities from those wanted, mean over the pixels."""
    pair = functional.log_softmax(logits, 1), functional.log_softmax(wanted, 1)
    return functional.kl_div(*pair, reduction="none", log_target=True).sum(1).mean()
