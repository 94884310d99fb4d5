"""Training in several processes, on one machine or many, as torchrun starts them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed, nn

from edgeseg.errors import EdgesegError, UsageError, unknown_name

__all__ = ["DEVICES", "Processes", "SynchronisedBatchNorm", "started_processes", "synchronise_batch_norm"]

DEVICES = ("auto", "cpu", "cuda")

_PATIENCE = timedelta(hours=2)
"""How long processes wait for the first, which scores; a process that ends meanwhile ends the others at once."""

T = TypeVar("T")


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

    def from_first(self, make: Callable[[], T]) -> T:
        """What a function gives in process 0, in every process; the others wait, and share its error too.

        Raises:
            EdgesegError: what the function raised.
        """
        if self.count == 1:
            return make()
        shared: list[Any] = [None]
        if self.first:
            try:
                shared = [make()]
            except EdgesegError as error:
                shared = [error]
        distributed.broadcast_object_list(shared, device=self.device)
        if isinstance(shared[0], EdgesegError):
            raise shared[0]
        value: T = shared[0]
        return value


@contextlib.contextmanager
def started_processes(device: str = "auto") -> Iterator[Processes]:
    """Join the processes that torchrun started; without it there is one.

    Args:
        device: "cpu", "cuda", or "auto" for a GPU where there is one.

    Raises:
        UsageError: for a device that does not exist, or a GPU that is not there.
    """
    count, local = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("LOCAL_RANK", "0"))
    chosen = _device(device, local)
    if count == 1:
        yield Processes(0, 1, chosen)
        return
    distributed.init_process_group("gloo" if chosen.type == "cpu" else "nccl", timeout=_PATIENCE)
    try:
        yield Processes(distributed.get_rank(), count, chosen)
    finally:
        distributed.destroy_process_group()


def _device(name: str, local: int) -> torch.device:
    if name not in DEVICES:
        raise UsageError(unknown_name("device", name, DEVICES))
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise UsageError("--device cuda was asked for, but torch finds no GPU; use --device cpu")
    found = torch.cuda.device_count()
    if local >= found:
        raise UsageError(f"process {local + 1} of this machine has no GPU of its own: torch finds {found}; start fewer")
    chosen = torch.device("cuda", local)
    torch.cuda.set_device(chosen)  # where NCCL's barrier and broadcasts work
    return chosen


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
        summed: Tensor = _Sum.apply(torch.cat([values.sum((0, 2, 3)), count]))  # type: ignore[no-untyped-call]
        total = summed[-1].detach()
        if total < 2:
            raise ValueError(f"Expected more than 1 value per channel when training, got input size {input.shape}")
        mean = summed[:-1] / total
        # Not by the mean of the squares, whose difference loses all digits where the mean is large.
        centred = values - mean[:, None, None]
        squares: Tensor = _Sum.apply(centred.square().sum((0, 2, 3)))  # type: ignore[no-untyped-call]
        variance = squares / total
        self._track(mean.detach(), variance.detach() * total / (total - 1))
        scale = torch.rsqrt(variance + self.eps) * self.weight
        return (centred * scale[:, None, None] + self.bias[:, None, None]).to(input.dtype)

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
        converted: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(module)  # type: ignore[no-untyped-call]
        return converted
    for child in module.modules():
        if type(child) is nn.BatchNorm2d:
            child.__class__ = SynchronisedBatchNorm
    return module
