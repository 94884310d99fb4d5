from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from support.colours import Run
from support.training import log, network, recipe, register, write_data

from edgeseg.training.checkpoint import read_checkpoint
from edgeseg.training.objective import Objective
from edgeseg.training.recipe import Recipe


@pytest.fixture(autouse=True)
def registry(monkeypatch: pytest.MonkeyPatch) -> None:
    register(monkeypatch)


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = write_data(tmp_path_factory.mktemp("data"))
    return write_data(root, 2, "val")


@pytest.fixture
def options(frames: Path, tmp_path: Path) -> tuple[object, ...]:
    return (
        *("train", "tinynet", "--size", "16x24", "--data", f"folder:{frames}", "--validation", f"folder:{frames}"),
        *("--batch", 4, "--epochs", 2, "--device", "cpu", "-o", tmp_path / "run"),
    )


def stop_at(monkeypatch: pytest.MonkeyPatch, step: int, error: type[BaseException]) -> None:
    calls = itertools.count(1)
    real = Objective.forward

    def forward(self: Objective, *arguments: Any) -> Any:
        if next(calls) == step:
            raise error
        return real(self, *arguments)

    monkeypatch.setattr(Objective, "forward", forward)


class TestTrain:
    def test_text(self, edgeseg: Run, options: tuple[object, ...], tmp_path: Path) -> None:
        code, out, err = edgeseg(*options)
        assert code == 0, err
        rows = log(tmp_path / "run")
        best = max(float(row["miou"]) for row in rows)
        first, second = out.splitlines()
        assert first.startswith(
            f"trained 2 epochs, 4 steps, loss {float(rows[1]['loss']):.4f}, best mIoU {best:.2f} after"
        )
        assert second == str(tmp_path / "run")
        assert [line[:31] for line in err.splitlines()] == [f"edgeseg: info: epoch {n}/2: loss " for n in (1, 2)]

    def test_quiet_json(self, edgeseg: Run, options: tuple[object, ...], tmp_path: Path) -> None:
        code, out, err = edgeseg(*options, "--json", "-q", "--dsrl", "--head", 4, "--precision", "bfloat16")
        assert (code, err) == (0, "")
        found = json.loads(out)
        assert (found["folder"], found["epochs"], found["steps"]) == (str(tmp_path / "run"), 2, 4)
        assert found["miou"] == pytest.approx(max(float(row["miou"]) for row in log(tmp_path / "run")), abs=1e-3)

    def test_options_reach_the_recipe(self, edgeseg: Run, options: tuple[object, ...], tmp_path: Path) -> None:
        code, _, err = edgeseg(
            *options,
            *("--width", 2, "--deploy", "--dsrl", "--head", 8, "--color", "BGR", "--preset", "imagenet"),
            *("--scale", 0.8, 1.2, "--color-change", 0.1, "--no-mirror", "--optimizer", "adamw", "--lr", 0.001),
            *("--weight-decay", 0.1, "--power", 1, "--warmup", 2, "--loss", "focal", "--class-weights", "log"),
            *("--image-weight", 0.2, "--affinity-weight", 0.5, "--affinity-subsampling", 4, "--ema", 0.9, "--seed", 3),
            *("--workers", 2, "--memory", 1),
        )
        assert code == 0, err
        made = Recipe.from_dict(json.loads((tmp_path / "run" / "recipe.json").read_text()))
        assert made == Recipe.from_dict(read_checkpoint(tmp_path / "run" / "last.pt")["recipe"])
        assert (made.options, made.deploy, made.dsrl, made.head) == ({"width": 2.0}, True, True, {"channels": 8})
        assert (made.color_order, made.mean[0]) == ("BGR", 103.53)
        assert (made.augmentation.scale, made.augmentation.color, made.augmentation.mirror) == ((0.8, 1.2), 0.1, False)
        assert (made.optimizer, made.lr, made.weight_decay, made.power, made.warmup) == ("adamw", 0.001, 0.1, 1.0, 2)
        assert (made.loss, made.class_weights, made.ema, made.seed) == ("focal", "log", 0.9, 3)
        assert (made.image_weight, made.affinity_weight, made.affinity_subsampling) == (0.2, 0.5, 4)
        assert (made.epochs, made.batch, made.labels.names[0]) == (2, 4, "road")

    def test_starts_from_weights(self, edgeseg: Run, options: tuple[object, ...], tmp_path: Path) -> None:
        weights = network(recipe(seed=9)).state_dict()
        torch.save(weights, tmp_path / "weights.pt")
        code, _, err = edgeseg(*options, "--weights", tmp_path / "weights.pt", "--lr", 1e-12, "--weight-decay", 0)
        assert code == 0, err
        trained = read_checkpoint(tmp_path / "run" / "last.pt")["network"]
        assert torch.allclose(trained["head.weight"], weights["head.weight"], atol=1e-6)

    def test_starts_from_an_exported_file(self, edgeseg: Run, options: tuple[object, ...], tmp_path: Path) -> None:
        first = [tmp_path / "first" if o == tmp_path / "run" else o for o in options]
        assert edgeseg(*first)[0] == 0
        assert edgeseg("export", tmp_path / "first" / "last.pt", "-o", tmp_path / "first.onnx")[0] == 0
        code, _, err = edgeseg(*options, "--weights", tmp_path / "first.onnx", "--lr", 1e-12, "--weight-decay", 0)
        assert code == 0, err
        weights, trained = (read_checkpoint(tmp_path / name / "last.pt")["network"] for name in ("first", "run"))
        assert torch.allclose(trained["head.weight"], weights["head.weight"], atol=1e-6)

    def test_balances_and_exports(self, edgeseg: Run, options: tuple[object, ...], tmp_path: Path) -> None:
        code, out, err = edgeseg(*options, "--balance", "--crop", "8x16", "--json")
        assert code == 0, err
        found = json.loads(out)["balanced"]
        assert found["training"][1] >= found["training"][0]
        assert len(found["validation"]) == 2
        assert found["checkpoint"] == str(tmp_path / "run" / "balanced.pt")
        states = [read_checkpoint(tmp_path / "run" / name) for name in ("last.pt", "balanced.pt")]
        moved = states[1]["network"]["head.bias"] - states[0]["network"]["head.bias"]
        assert torch.allclose(moved, torch.tensor(found["offsets"]), atol=1e-6)
        assert edgeseg("export", tmp_path / "run" / "balanced.pt", "-o", tmp_path / "net.onnx")[0] == 0
        code, out, err = edgeseg(*options, "--balance", "--crop", "8x16", "--resume")
        assert code == 0, err
        assert out.splitlines()[2].startswith("balanced: mean IoU ")

    def test_exports_afterwards(self, edgeseg: Run, options: tuple[object, ...], tmp_path: Path) -> None:
        assert edgeseg(*options, "--dsrl", "--ema", 0.5)[0] == 0
        code, out, err = edgeseg("export", tmp_path / "run" / "best.pt", "-o", tmp_path / "net.onnx", "--json")
        assert code == 0, err
        found = json.loads(out)
        assert (found["input"], found["output"]) == ([1, 3, 16, 24], [1, 4, 32, 48])


class TestInterrupt:
    @pytest.mark.parametrize("step", [1, 4])
    def test_can_go_on(
        self, edgeseg: Run, options: tuple[object, ...], step: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        whole = [tmp_path / "whole" if o == tmp_path / "run" else o for o in options]
        assert edgeseg(*whole)[0] == 0
        with monkeypatch.context() as patch:
            stop_at(patch, step, KeyboardInterrupt)
            code, out, err = edgeseg(*options)
        assert (code, out) == (130, "")
        assert err.endswith("edgeseg: interrupted\n")
        assert edgeseg(*options, *(["--resume"] if step > 2 else []))[0] == 0
        states = [read_checkpoint(tmp_path / name / "last.pt") for name in ("run", "whole")]
        assert states[0]["step"] == states[1]["step"] == 4
        for name, value in states[1]["network"].items():
            assert torch.allclose(states[0]["network"][name].float(), value.float(), atol=1e-6)


class TestErrors:
    def refused(self, edgeseg: Run, *arguments: object) -> tuple[int, str]:
        code, out, err = edgeseg(*arguments)
        assert out == ""
        assert err.startswith("edgeseg: error: ")
        assert err.count("\n") == 1
        return code, err

    def test_a_folder_with_a_run(self, edgeseg: Run, options: tuple[object, ...], tmp_path: Path) -> None:
        assert edgeseg(*options)[0] == 0
        code, err = self.refused(edgeseg, *options)
        assert code == 2
        assert "holds a training run; go on with it by --resume" in err
        code, err = self.refused(edgeseg, *options, "--resume", "--lr", 0.5)
        assert code == 2
        assert "was trained otherwise (lr 0.01 and now 0.5); give the same options" in err

    @pytest.mark.parametrize(
        ("added", "code", "message"),
        [
            (("--resume",), 2, "there is no run to go on with"),
            (("--loss", "focl"), 2, "unknown loss 'focl'; did you mean focal?"),
            (("--optimizer", "sdg"), 2, "unknown optimizer 'sdg'; did you mean sgd?"),
            (("--batch", 16), 2, "a batch of 16 needs as many frames, but there are 8; use --batch"),
            (("--head", 4, "--image-weight", 1), 2, "--head, --image-weight only go with --dsrl"),
            (("--q", 3), 2, "tinynet has no option q; it has width"),
            (("--data", "camvid:/none"), 1, "there is no folder '/none'"),
            (("--weights", "/none.pt"), 1, "expected a file of weights, but /none.pt is no file"),
            (("--scale", 2, 1), 2, "the scale of crops must be two numbers"),
            (("--seed", -1), 2, "the seed must be 0 to"),
        ],
    )
    def test_one_line(
        self, edgeseg: Run, options: tuple[object, ...], added: tuple[object, ...], code: int, message: str
    ) -> None:
        found, err = self.refused(edgeseg, *options, *added)
        assert found == code
        assert message in err

    def test_an_unknown_network(self, edgeseg: Run, options: tuple[object, ...]) -> None:
        code, err = self.refused(edgeseg, "train", "espnetv3", *options[2:])
        assert code == 2
        assert "unknown network 'espnetv3'; did you mean espnetv2?" in err

    def test_no_size(self, edgeseg: Run, frames: Path, tmp_path: Path) -> None:
        code, err = self.refused(edgeseg, "train", "tinynet", "--data", f"folder:{frames}", "-o", tmp_path / "run")
        assert code == 2
        assert "give it with --size HxW" in err

    def test_classes_that_nobody_named(
        self, edgeseg: Run, options: tuple[object, ...], tmp_path: Path, frames: Path
    ) -> None:
        data = write_data(tmp_path / "data")
        (data / "labels.json").rename(tmp_path / "labels.json")
        given = [str(o).replace(str(frames), str(data)) for o in options if o != "--validation"]
        given.remove(f"folder:{data}")
        code, err = self.refused(edgeseg, *given)
        assert code == 2
        assert "name them with --classes NAME|FILE.json" in err
        assert edgeseg(*given, "--classes", tmp_path / "labels.json")[0] == 0

    def test_labels_out_of_range(self, edgeseg: Run, options: tuple[object, ...], tmp_path: Path, frames: Path) -> None:
        data = write_data(write_data(tmp_path / "data"), 1, "val")
        cv2.imwrite(str(data / "labels/train/04.png"), np.full((24, 32), 17, np.uint8))
        code, err = self.refused(edgeseg, *(str(o).replace(str(frames), str(data)) for o in options))
        assert code == 1
        assert "04.png has the unknown label 17 in 768 pixels" in err

    def test_a_loss_that_is_no_number(self, edgeseg: Run, options: tuple[object, ...]) -> None:
        code, err = self.refused(edgeseg, *options, "--lr", 1e38, "--momentum", 0)
        assert code == 1
        assert "at step 2 (epoch 1); no epoch was finished; train with a smaller --lr" in err

    def test_without_torch(self, options: tuple[object, ...]) -> None:
        code = (
            "import sys; sys.modules['torch'] = None; from edgeseg.apps.cli import main; sys.exit(main(sys.argv[1:]))"
        )
        command = [sys.executable, "-c", code, *map(str, options)]
        done = subprocess.run(command, capture_output=True, text=True, env={**os.environ})
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr == (
            "edgeseg: error: torch is needed to train networks, but it is not installed; run: "
            "pip install edgeseg[train]\n"
        )

    def test_help_needs_no_torch(self) -> None:
        code = "import sys; sys.modules['torch'] = None; from edgeseg.apps.cli import main; main(['train', '--help'])"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert done.returncode == 0
        assert "--affinity-subsampling" in done.stdout
