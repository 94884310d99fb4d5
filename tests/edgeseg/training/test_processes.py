"""Two processes that train together give what one gives."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from support import train_process
from support.training import ONE, log, register, write_data
from torch import nn

from edgeseg.apps import cli
from edgeseg.errors import UsageError
from edgeseg.training.checkpoint import read_checkpoint
from edgeseg.training.processes import started_processes, synchronise_batch_norm

REPOSITORY = Path(__file__).resolve().parents[3]


@dataclass(frozen=True)
class Ran:
    """What two processes gave.

    Attributes:
        norms: results of `support/train_process.py`, by rank.
        output: stdout of both.
        errors: stderr of both and of torchrun.
        options: of the run that they trained into `folder`.
    """

    norms: list[dict[str, Any]]
    output: str
    errors: str
    options: tuple[str, ...]
    folder: Path


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """Two processes: BatchNorm, a training run, one that is refused, and one that goes on."""
    root = tmp_path_factory.mktemp("two")
    # Frames with different numbers of ignored pixels; heads, an average and class weights; a weight that nothing reads.
    data = write_data(root / "data", ignored=True)
    write_data(data, 1, "val")
    options = (
        *("train", "tinynet", "--dsrl", "--head", "4", "--size", "16x24", "--data", f"folder:{data}"),
        *("--validation", f"folder:{data}", "--batch", "4", "--epochs", "2", "--class-weights", "log", "--ema", "0.5"),
        *("--device", "cpu", "-q", "-o"),
    )
    folder = root / "run"
    train = (*options, str(folder))
    lines = (("norm", str(root / "norm")), train, (*train, "--lr", "3", "--resume"), (*train, "--resume"))
    words = [word for line in lines for word in (*line, "then")][:-1]
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = {**os.environ, "PYTHONPATH": f"{REPOSITORY}{os.pathsep}{REPOSITORY / 'tests'}"}
    done = subprocess.run(
        [*launch, train_process.__file__, *words], capture_output=True, text=True, timeout=180, env=environment
    )
    assert done.returncode == 0, done.stderr
    norms = [torch.load(f"{root / 'norm'}.{rank}", weights_only=True) for rank in range(2)]
    return Ran(norms, done.stdout, done.stderr, options, folder)


class TestTwo:
    def test_batch_norm_is_that_of_one_process(self, two: Ran) -> None:
        torch.manual_seed(7)
        norm = nn.BatchNorm2d(3)
        nn.init.uniform_(norm.weight, 0.5, 2)
        nn.init.normal_(norm.bias)
        whole = torch.cat([train_process.batch(0), train_process.batch(1)]).requires_grad_()
        result = norm(whole)
        (result * torch.sin(whole.detach())).sum().backward()
        assert whole.grad is not None
        assert norm.weight.grad is not None
        assert norm.bias.grad is not None
        close = {"rtol": 1e-4, "atol": 1e-4}
        torch.testing.assert_close(torch.cat([r["result"] for r in two.norms]), result.detach(), **close)
        torch.testing.assert_close(torch.cat([r["gradient"] for r in two.norms]), whole.grad, **close)
        norm.eval()
        for found in two.norms:
            assert found["kind"] == "SynchronisedBatchNorm"
            torch.testing.assert_close(found["weight"], norm.weight.grad, **close)
            torch.testing.assert_close(found["bias"], norm.bias.grad, **close)
            torch.testing.assert_close(found["mean"], norm.running_mean, **close)
            torch.testing.assert_close(found["variance"], norm.running_var, **close)
            assert found["count"] == norm.num_batches_tracked
            torch.testing.assert_close(found["inference"], norm(train_process.batch(0)).detach(), **close)

    def test_the_first_tells_the_others(self, two: Ran) -> None:
        for found in two.norms:
            assert (found["given"], found["said"], found["total"]) == ({"rank": 0}, "of the first", 3.0)

    def test_train_as_one(self, two: Ran, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        register(monkeypatch)
        assert cli.main([*two.options, str(tmp_path / "one")]) == 0
        folders = (tmp_path / "one", two.folder)
        for name in ("loss", "segmentation", "auxiliary", "image", "affinity"):
            a, b = ([float(row[name]) for row in log(folder)] for folder in folders)
            assert a == pytest.approx(b, abs=2e-5)
        one, both = (read_checkpoint(folder / "last.pt") for folder in folders)
        assert one["loss"] == pytest.approx(both["loss"], abs=1e-5)
        assert (one["epoch"], one["step"]) == (both["epoch"], both["step"]) == (2, 4)
        for name, value in one["ema"].items():
            torch.testing.assert_close(both["ema"][name], value, rtol=1e-3, atol=1e-4)

    def test_each_says_why_it_is_refused_and_goes_on(self, two: Ran) -> None:
        codes = re.findall(r"exit code (\d)", two.output)
        assert sorted(codes) == ["0"] * 6 + ["2"] * 2
        assert two.errors.count("was trained otherwise (lr 0.01 and now 3.0); give the same options") == 2
        assert two.output.count("trained 2 epochs, 4 steps") == 2  # by process 0 alone, in both runs


class TestOne:
    def test_without_torchrun(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("WORLD_SIZE", "LOCAL_RANK"):
            monkeypatch.delenv(name, raising=False)
        with started_processes("cpu") as processes:
            assert processes == ONE
            assert processes.first
            assert processes.from_first(lambda: 3) == 3
            assert processes.total(torch.ones(())).item() == 1

    def test_batch_norm_stays(self) -> None:
        norm = nn.BatchNorm2d(2)
        assert type(synchronise_batch_norm(norm, ONE)) is nn.BatchNorm2d

    def test_an_unknown_device(self) -> None:
        with pytest.raises(UsageError, match="unknown device 'cudo'; did you mean cuda"), started_processes("cudo"):
            pass

    def test_no_gpu(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        said = "--device cuda was asked for, but torch finds no GPU; use --device cpu"
        with pytest.raises(UsageError, match=said), started_processes("cuda"):
            pass
        with started_processes("auto") as processes:
            assert processes.device.type == "cpu"

    def test_more_processes_than_gpus(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
        monkeypatch.setenv("LOCAL_RANK", "1")
        said = "process 2 of this machine has no GPU of its own: torch finds 1"
        with pytest.raises(UsageError, match=said), started_processes("auto"):
            pass
