"""The log of a run."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from support.training import log

from edgeseg.errors import MissingDependencyError, OutputError
from edgeseg.training.journal import Journal

PARTS = {"loss": 1.5, "segmentation": 1.25, "affinity": 0.125}


def written(folder: Path, epochs: int) -> Path:
    journal = Journal(folder, False, 0)
    for epoch in range(1, epochs + 1):
        journal.write(epoch, 10 * epoch, 0.01, PARTS, 50.0 if epoch % 2 else None)
    journal.close()
    return folder


def test_a_line_an_epoch(tmp_path: Path) -> None:
    first, second = log(written(tmp_path, 2))
    assert first == {
        "epoch": "1",
        "step": "10",
        "lr": "0.01",
        "loss": "1.50000",
        "segmentation": "1.25000",
        "auxiliary": "",
        "image": "",
        "affinity": "0.12500",
        "miou": "50.000",
    }
    assert (second["epoch"], second["miou"]) == ("2", "")


def test_goes_on_behind_the_epoch_that_was_saved(tmp_path: Path) -> None:
    written(tmp_path, 3)
    Journal(tmp_path, False, 2).write(3, 31, 0.01, PARTS, None)
    assert [(row["epoch"], row["step"]) for row in log(tmp_path)] == [("1", "10"), ("2", "20"), ("3", "31")]


def test_a_new_run_starts_a_new_log(tmp_path: Path) -> None:
    Journal(written(tmp_path, 3), False, 0)
    assert log(tmp_path) == []


def test_a_lost_log_is_started_again(tmp_path: Path) -> None:
    Journal(tmp_path, False, 2).write(3, 30, 0.01, PARTS, None)
    assert [row["epoch"] for row in log(tmp_path)] == ["3"]
    assert [path.name for path in tmp_path.iterdir()] == ["log.csv"]


def test_a_folder_that_is_gone(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"cannot write the log .*log.csv: No such file or directory; free space"):
        Journal(tmp_path / "none", False, 0)


def test_tensorboard_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(MissingDependencyError, match=r"tensorboard is needed to log for TensorBoard, .* pip install"):
        Journal(tmp_path, True, 0)
