"""One process of several that torchrun starts, for several checks: starting it takes longer than they do.

python -m torch.distributed.run --nproc-per-node 2 train_process.py norm RESULT then train ... then train ...
"""

from __future__ import annotations

import sys

import torch
from support.training import RegisteredNetwork
from torch import distributed, nn

from edgeseg import models
from edgeseg.apps import cli
from edgeseg.errors import ModelError
from edgeseg.training.processes import Processes, started_processes, synchronise_batch_norm


def batch(rank: int) -> torch.Tensor:
    """(2, 3, 4, 5), and a larger one for the second process; far from zero, where a mean of squares loses digits."""
    generator = torch.Generator().manual_seed(rank)
    return 300 + torch.randn(2 + rank, 3, 4, 5, generator=generator)


def norm_of(processes: Processes) -> dict[str, object]:
    """BatchNorm over the batches of all processes: value, gradients and running statistics."""
    torch.manual_seed(7)
    norm = nn.BatchNorm2d(3)
    nn.init.uniform_(norm.weight, 0.5, 2)
    nn.init.normal_(norm.bias)
    module = synchronise_batch_norm(nn.Sequential(norm), processes)
    own = batch(processes.rank).requires_grad_()
    result = module(own)
    (result * torch.sin(own.detach())).sum().backward()
    module.eval()
    return {
        "kind": type(module[0]).__name__,
        "result": result.detach(),
        "gradient": own.grad,
        "weight": processes.total(norm.weight.grad),
        "bias": processes.total(norm.bias.grad),
        "mean": norm.running_mean,
        "variance": norm.running_var,
        "count": norm.num_batches_tracked,
        "inference": module(batch(0)).detach(),
    }


def shared_of(processes: Processes) -> dict[str, object]:
    """What process 0 gives the others, an error too."""

    def fail() -> None:
        raise ModelError("of the first")

    given = processes.from_first(lambda: {"rank": processes.rank})
    try:
        processes.from_first(fail)
        said = ""
    except ModelError as error:
        said = str(error)
    return {"given": given, "said": said, "total": processes.total(torch.tensor(float(processes.rank + 1))).item()}


def run(arguments: list[str]) -> int:
    """Either `norm RESULT`, which saves what the functions above give as RESULT.RANK, or a command of edgeseg."""
    if arguments[0] == "norm":
        with started_processes("cpu") as processes:
            torch.save({**norm_of(processes), **shared_of(processes)}, f"{arguments[1]}.{processes.rank}")
        return 0
    return cli.main(arguments)


def main(words: list[str]) -> None:
    """Run command lines with `then` between them, and print their exit codes."""
    torch.set_num_threads(1)
    # One group for all of them: a second one in the same process may look for the first one's ports.
    distributed.init_process_group("gloo")
    distributed.init_process_group = lambda *arguments, **options: None
    end_all, distributed.destroy_process_group = distributed.destroy_process_group, lambda: None
    models.NETWORKS["tinynet"] = f"{RegisteredNetwork.__module__}:RegisteredNetwork"
    while words:
        end = words.index("then") if "then" in words else len(words)
        code = run(words[:end])
        sys.stdout.write(f"exit code {code}\n")
        sys.stdout.flush()
        words = words[end + 1 :]
    end_all()


if __name__ == "__main__":
    main(sys.argv[1:])
