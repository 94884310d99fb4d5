"""Training in several processes, on one machine or many, as torchrun starts them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, distributed, nn

from edgeseg.errors import UsageError

__all__ = ["Processes", "started_processes", "synchronise_batch_norm"]


@dataclass(frozen=True)
class Processes:
    """This process among those that train together.

    Attributes:
        rank: from 0; process 0 scores and writes.
        count: number of processes.
        device: where this process computes.
    """

    rank: int
    count: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this process writes."""
        return self.rank == 0

    def total(self, value: Tensor) -> Tensor:
        """The sum of a tensor over all processes."""
        if self.count == 1:
            return value
        summed = value.clone()
        distributed.all_reduce(summed)
        return summed

    def wait(self) -> None:
        """Until all processes are here."""
        if self.count > 1:
            distributed.barrier()


@contextlib.contextmanager
def started_processes(device: str = "auto") -> Iterator[Processes]:
    """Join the processes that torchrun started; without it there is one.

    Args:
        device: "cpu", "cuda", or "auto" for a GPU where there is one.

    Raises:
        UsageError: for a GPU that is not there.
    """
    if device != "cpu" and not torch.cuda.is_available():
        if device != "auto":
            raise UsageError(f"--device {device} was asked for, but torch finds no GPU; use --device cpu")
        device = "cpu"
    local = int(os.environ.get("LOCAL_RANK", "0"))
    chosen = torch.device("cpu") if device == "cpu" else torch.device("cuda", local)
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield Processes(0, 1, chosen)
        return
    distributed.init_process_group("gloo" if chosen.type == "cpu" else "nccl")
    try:
        yield Processes(distributed.get_rank(), count, chosen)
    finally:
        distributed.destroy_process_group()


class _Sum(torch.autograd.Function):
    """The sum over all processes, whose gradient is the sum of their gradients."""

    @staticmethod
    def forward(ctx: object, value: Tensor) -> Tensor:
        summed = value.clone()
        distributed.all_reduce(summed)
        return summed

    @staticmethod
    def backward(ctx: object, *gradients: Tensor) -> Tensor:
        summed = gradients[0].clone()
        distributed.all_reduce(summed)
        return summed


class SynchronisedBatchNorm(nn.BatchNorm2d):
    """BatchNorm over the frames of all processes, where torch's SyncBatchNorm does not go: on a CPU."""

    def forward(self, input: Tensor) -> Tensor:
        """See torch.nn.BatchNorm2d."""
        if not self.training:
            return super().forward(input)
        values = input.float()
        count = values.new_tensor([values.numel() / values.shape[1]])
        sums = torch.cat([values.sum((0, 2, 3)), values.square().sum((0, 2, 3)), count])
        summed: Tensor = _Sum.apply(sums)  # type: ignore[no-untyped-call]
        total = summed[-1].detach()
        mean, square = (summed[:-1] / total).chunk(2)
        variance = (square - mean.square()).clamp_min(0)
        self._track(mean.detach(), variance.detach() * total / (total - 1))
        scale = torch.rsqrt(variance + self.eps) * self.weight
        return (values * scale[:, None, None] + (self.bias - mean * scale)[:, None, None]).to(input.dtype)

    def _track(self, mean: Tensor, variance: Tensor) -> None:
        if self.running_mean is None or self.running_var is None or self.momentum is None:
            return
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance, self.momentum)
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)


def synchronise_batch_norm(module: nn.Module, processes: Processes) -> nn.Module:
    """The module with BatchNorm over all processes; itself where there is one process."""
    if processes.count == 1:
        return module
    if processes.device.type != "cpu":
        return nn.SyncBatchNorm.convert_sync_batchnorm(module)
    for child in module.modules():
        if type(child) is nn.BatchNorm2d:
            child.__class__ = SynchronisedBatchNorm
    return module
