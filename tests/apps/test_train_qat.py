"""`edgeseg train --qat` on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from support.colours import Run
from support.training import network, recipe, register, write_data

from edgeseg.bundle import Bundle
from edgeseg.training.checkpoint import save_checkpoint


@pytest.fixture(autouse=True)
def registry(monkeypatch: pytest.MonkeyPatch) -> None:
    register(monkeypatch)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write_data(tmp_path / "data", 4)
    return write_data(tmp_path / "data", 2, "val")


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    made = recipe()
    state = {"network": network(made).state_dict(), "ema": None, "recipe": made.to_dict(), "step": 1, "epoch": 1}
    save_checkpoint(tmp_path / "best.pt", state)
    return tmp_path / "best.pt"


SHORT = ("--epochs", 1, "--batch", 2, "--scale", 1, 1, "--no-mirror", "--seed", 3)


def test_a_checkpoint_and_then_its_bundle(edgeseg: Run, checkpoint: Path, data: Path, tmp_path: Path) -> None:
    source = f"folder:{data}"
    place = tmp_path / "net.edgeseg"
    train = ("train", "--data", source, "--validation", source, *SHORT, "-o", place)
    code, out, err = edgeseg(*train, "--qat", checkpoint, "--json", "-q")
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert found["bundle"] == str(place)
    assert (found["frames"], found["epochs"], found["steps"]) == (4, 1, 2)
    assert found["scores"]["metric"] == "miou"
    assert found["scores"]["frames"] == 2
    assert isinstance(found["int8_before"], float)
    assert Path(found["report"]).is_file()
    assert set(found["seconds_by_step"]) >= {"calibrate", "fine-tune", "verify"}
    assert Bundle.open(place).manifest.quantization.method == "auto+qat"

    code, _, err = edgeseg(*train, "--qat", checkpoint)
    assert code == 1
    assert "exists; choose another place with -o or replace it with --force" in err
    code, _, err = edgeseg(*train, "--qat", place, "--force")
    assert code == 2
    assert "was fine-tuned already" in err


def test_text(edgeseg: Run, checkpoint: Path, data: Path, tmp_path: Path) -> None:
    code, out, _ = edgeseg(
        *("train", "--qat", checkpoint, "--data", f"folder:{data}", "--validation", f"folder:{data}", *SHORT),
        *("--fixed-ranges", "--distill", 0.5, "-o", tmp_path / "net.edgeseg", "-q"),
    )
    assert code == 0
    assert "trained 1 epochs, 2 steps" in out
    assert "INT8 before" in out
    assert "note    Fine-tuned in INT8 on 4 frames for 1 epochs" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "say what to train: NAME is one of bisenetv1"),
        (("tinynet", "--size", "16x24", "--fixed-ranges"), "--fixed-ranges only go with --qat BUNDLE|CHECKPOINT"),
        (("tinynet", "--size", "16x24", "--distill", 1, "--force"), "--distill, --force only go with --qat"),
        (("tinynet", "--qat", "best.pt"), "takes its network and input from best.pt; leave out NAME"),
        (("--qat", "best.pt", "--size", "16x24", "--dsrl"), "leave out --dsrl, --size"),
        (("--qat", "best.pt", "--resume", "--every", 2), "leave out --resume, --every"),
        (("--qat", "best.pt", "--optimizer", "sgd", "--ema", 0.9), "leave out --optimizer, --ema"),
        (("--qat", "nowhere.pt"), "there is no bundle or checkpoint nowhere.pt; give what edgeseg convert"),
    ],
)
def test_usage(edgeseg: Run, data: Path, tmp_path: Path, arguments: tuple[object, ...], message: str) -> None:
    place = tmp_path / "out.edgeseg"
    code, out, err = edgeseg("train", *arguments, "--data", f"folder:{data}", "-o", place)
    assert (code, out) == (2, "")
    assert message in err
    assert not place.exists()


def test_not_in_several_processes(
    edgeseg: Run, checkpoint: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from contextlib import contextmanager

    from edgeseg.training import processes

    @contextmanager
    def two(device: str):  # type: ignore[no-untyped-def]
        yield processes.Processes(0, 2, torch.device("cpu"))

    monkeypatch.setattr(processes, "started_processes", two)
    code, _, err = edgeseg("train", "--qat", checkpoint, "--data", f"folder:{data}", "-o", tmp_path / "net.edgeseg")
    assert code == 2
    assert "--qat trains in one process; start it without torchrun" in err


def test_other_classes(edgeseg: Run, checkpoint: Path, tmp_path: Path) -> None:
    data = write_data(tmp_path / "other", 2)
    labels = json.loads((data / "labels.json").read_text())
    labels["classes"][0]["name"] = "river"
    (data / "labels.json").write_text(json.dumps(labels))
    code, _, err = edgeseg("train", "--qat", checkpoint, "--data", f"folder:{data}", "-o", tmp_path / "net.edgeseg")
    assert code == 1
    assert "the network is trained on the classes road, sky, tree, car, but a data set has river" in err
