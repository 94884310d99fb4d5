"""The loop: what a step changes, what an epoch writes, and going on where a run was interrupted."""

from __future__ import annotations

import itertools
import json
import logging
import math
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from support.training import ONE, equal, log, network, one_thread, recipe, register, run, samples, write_data
from torch import Tensor

from edgeseg.errors import LabelError, ModelError, OutputError, TrainingError, UsageError
from edgeseg.training import trainer
from edgeseg.training.checkpoint import load_network, read_checkpoint, save_checkpoint
from edgeseg.training.objective import Objective
from edgeseg.training.recipe import Recipe
from edgeseg.training.trainer import BEST, LAST, train

VARIANTS: dict[str, dict[str, Any]] = {
    "sgd": {},
    "adamw": {"optimizer": "adamw", "lr": 1e-3, "warmup": 3},
    "average": {"ema": 0.9, "class_weights": "log"},
    "dropout": {"deploy": True},
    "dsrl": {"dsrl": True, "optimizer": "adamw", "lr": 1e-3, "ema": 0.5, "head": {"channels": 4}},
    "bfloat16": {"precision": "bfloat16"},
}


@pytest.fixture(autouse=True)
def _setting(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    register(monkeypatch)
    with one_thread():
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = write_data(tmp_path_factory.mktemp("data"))
    return write_data(root, 2, "val")


class StopError(Exception):
    """Ends a run as a crash does."""


def fail_at(monkeypatch: pytest.MonkeyPatch, call: int, error: BaseException, method: str = "forward") -> None:
    """Let the objective raise at one of its calls, from 1; later ones work again."""
    calls = itertools.count(1)
    real = getattr(Objective, method)

    def forward(self: Objective, *arguments: Any) -> Any:
        if next(calls) == call:
            raise error
        return real(self, *arguments)

    monkeypatch.setattr(Objective, method, forward)


class TestResume:
    @pytest.mark.parametrize("variant", VARIANTS)
    @pytest.mark.parametrize("step", [3, 4])  # the first of epoch 2, and within it; an epoch has 2
    def test_gives_what_a_run_without_a_break_gives(
        self, variant: str, step: int, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        made = recipe(epochs=3, **VARIANTS[variant])
        whole, broken = tmp_path / "whole", tmp_path / "broken"
        run(made, data, whole)
        with monkeypatch.context() as patch:
            fail_at(patch, step, StopError())
            with pytest.raises(StopError):
                run(made, data, broken)
        assert read_checkpoint(broken / LAST)["epoch"] == 1
        assert not equal(read_checkpoint(broken / LAST)["network"], read_checkpoint(whole / LAST)["network"])
        result = run(made, data, broken, resume=True)
        assert (result.epochs, result.steps) == (3, 6)
        assert equal(read_checkpoint(broken / LAST), read_checkpoint(whole / LAST))
        assert equal(read_checkpoint(broken / BEST), read_checkpoint(whole / BEST))
        assert (broken / "log.csv").read_text() == (whole / "log.csv").read_text()
        assert sorted(os.listdir(broken)) == sorted(os.listdir(whole)) == [BEST, LAST, "log.csv", "recipe.json"]

    def test_between_the_checkpoints_of_an_epoch(
        self, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        made = recipe(epochs=2)
        run(made, data, tmp_path / "whole")
        saves = itertools.count(1)

        def save(path: Path, state: Any) -> None:
            if next(saves) == 2:
                raise StopError
            save_checkpoint(path, state)

        with monkeypatch.context() as patch:
            patch.setattr(trainer, "save_checkpoint", save)
            with pytest.raises(StopError):
                run(made, data, tmp_path / "broken")
        # The run never knows of a best network that was not written.
        assert os.listdir(tmp_path / "broken").count(LAST) == 0
        run(made, data, tmp_path / "broken")
        assert equal(read_checkpoint(tmp_path / "broken" / BEST), read_checkpoint(tmp_path / "whole" / BEST))

    def test_a_finished_run_stays_as_it_is(self, data: Path, tmp_path: Path) -> None:
        made = recipe(epochs=1)
        first = run(made, data, tmp_path)
        before = (tmp_path / LAST).read_bytes()
        again = run(made, data, tmp_path, resume=True)
        assert replace(again, seconds=first.seconds) == first
        assert (tmp_path / LAST).read_bytes() == before

    def test_with_other_options(self, data: Path, tmp_path: Path) -> None:
        made = recipe(epochs=1)
        run(made, data, tmp_path)
        other = replace(made, lr=0.5, augmentation=replace(made.augmentation, color=0.1), options={"width": 2.0})
        with pytest.raises(UsageError) as error:
            run(other, data, tmp_path, resume=True)
        assert str(error.value) == (
            f"{tmp_path / LAST} was trained otherwise (lr 0.01 and now 0.5, augmentation.color 0.3 and now 0.1, "
            "options.width None and now 2.0); give the same options"
        )

    def test_without_a_run(self, data: Path, tmp_path: Path) -> None:
        with pytest.raises(
            UsageError, match=r"there is no run to go on with: .*last.pt does not exist; leave --resume"
        ):
            run(recipe(), data, tmp_path / "none", resume=True)
        assert not (tmp_path / "none").exists()

    def test_with_weights_alone(self, data: Path, tmp_path: Path) -> None:
        made = recipe(epochs=1)
        run(made, data, tmp_path)
        os.replace(tmp_path / BEST, tmp_path / LAST)
        with pytest.raises(UsageError, match=r"holds weights alone, with which no run can go on; .* --weights"):
            run(made, data, tmp_path, resume=True)

    @pytest.mark.parametrize("part", ["network", "heads"])
    def test_of_another_network(self, part: str, data: Path, tmp_path: Path) -> None:
        made = recipe(epochs=1, dsrl=True)
        run(made, data, tmp_path)
        state = read_checkpoint(tmp_path / LAST)
        lost = next(iter(state[part]))
        del state[part][lost]
        save_checkpoint(tmp_path / LAST, state)
        with pytest.raises(ModelError, match=f"is of another network: it lacks .*{lost}"):
            run(made, data, tmp_path, resume=True)

    def test_on_other_data(self, data: Path, tmp_path: Path) -> None:
        made = recipe(epochs=2)
        run(made, data, tmp_path / "run")
        more = write_data(tmp_path / "more", 12)
        with pytest.raises(UsageError, match=r"was trained on other data: it took 4 steps in 2 epochs, .* has 3; give"):
            run(made, more, tmp_path / "run", resume=True)

    def test_a_damaged_checkpoint(self, data: Path, tmp_path: Path) -> None:
        (tmp_path / LAST).write_bytes(b"damaged")
        with pytest.raises(ModelError, match="is not a checkpoint of edgeseg train, or is damaged"):
            run(recipe(), data, tmp_path, resume=True)


class TestNewRun:
    def test_a_folder_that_holds_a_run(self, data: Path, tmp_path: Path) -> None:
        made = recipe(epochs=1)
        run(made, data, tmp_path)
        before = (tmp_path / LAST).read_bytes()
        with pytest.raises(UsageError, match=r"holds a training run; go on with it by --resume, or choose another"):
            run(made, data, tmp_path)
        assert (tmp_path / LAST).read_bytes() == before

    def test_a_folder_that_is_a_file(self, data: Path, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(OutputError, match=r"cannot write into the folder .*file.*; choose another with -o"):
            run(recipe(), data, tmp_path / "file" / "run")

    def test_too_few_frames_make_no_folder(self, data: Path, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="a batch of 64 needs as many frames, but there are 8"):
            run(recipe(batch=64), data, tmp_path / "run")
        assert not (tmp_path / "run").exists()

    def test_keeps_the_recipe_for_a_person(self, data: Path, tmp_path: Path) -> None:
        made = recipe(epochs=1)
        run(made, data, tmp_path)
        assert Recipe.from_dict(json.loads((tmp_path / "recipe.json").read_text())) == made

    def test_says_each_epoch(self, data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        with caplog.at_level(logging.INFO, "edgeseg"):
            run(recipe(epochs=3), data, tmp_path, every=2)
        said = [record.getMessage() for record in caplog.records]
        rows = log(tmp_path)
        assert len(said) == 3
        assert said[0].startswith(f"epoch 1/3: loss {float(rows[0]['loss']):.4f}, ")
        assert "mIoU" not in said[0]
        assert f"mIoU {float(rows[1]['miou']):.2f} (best {float(rows[1]['miou']):.2f} after epoch 2)" in said[1]
        assert [bool(row["miou"]) for row in rows] == [False, True, True]

    def test_the_seed_decides(self, data: Path, tmp_path: Path) -> None:
        made = recipe(epochs=1)
        for name, seed in (("a", 0), ("b", 0), ("c", 1)):
            run(replace(made, seed=seed), data, tmp_path / name)
        first, second, other = (read_checkpoint(tmp_path / name / LAST)["network"] for name in "abc")
        assert equal(first, second)
        assert not equal(first, other)


class TestLearning:
    def test_learns_what_colours_tell(self, data: Path, tmp_path: Path) -> None:
        made = recipe(epochs=12, optimizer="adamw", lr=0.03, batch=2, size=(24, 32), weight_decay=0.0)
        result = run(made, data, tmp_path)
        losses = [float(row["loss"]) for row in log(tmp_path)]
        assert losses[-1] < 0.5 * losses[0]
        assert result.miou is not None
        assert result.miou > 40
        assert result.loss == pytest.approx(losses[-1], abs=1e-5)
        scored = [float(row["miou"]) for row in log(tmp_path)]
        assert result.miou == pytest.approx(max(scored), abs=1e-3)
        assert result.best_epoch == 1 + scored.index(max(scored))
        assert read_checkpoint(tmp_path / BEST)["epoch"] == result.best_epoch

    def test_the_rate_rises_and_falls(self, data: Path, tmp_path: Path) -> None:
        run(recipe(epochs=4, lr=1.0, warmup=4, power=2.0), data, tmp_path)
        # 8 steps; the last of each epoch is step 1, 3, 5 and 7 from 0.
        expected = [0.5 * (7 / 8) ** 2, (5 / 8) ** 2, (3 / 8) ** 2, (1 / 8) ** 2]
        assert [float(row["lr"]) for row in log(tmp_path)] == pytest.approx(expected, rel=1e-5)

    def test_decay_leaves_norms_and_biases_out(self, data: Path, tmp_path: Path) -> None:
        made = recipe(epochs=1, optimizer="adamw", lr=1e-9, weight_decay=0.9)
        run(made, data, tmp_path)
        group, other = read_checkpoint(tmp_path / LAST)["optimizer"]["param_groups"]
        assert (group["weight_decay"], other["weight_decay"]) == (0.9, 0.0)
        net = network(made)
        assert len(group["params"]) == sum(p.ndim > 1 for p in net.parameters())
        assert len(other["params"]) == sum(p.ndim == 1 for p in net.parameters())

    def test_the_average_is_what_is_scored_and_deployed(self, data: Path, tmp_path: Path) -> None:
        run(recipe(epochs=1, ema=0.5), data, tmp_path)
        state = read_checkpoint(tmp_path / LAST)
        assert not equal(state["ema"], state["network"])
        assert equal(dict(load_network(tmp_path / BEST)[0].state_dict()), state["ema"])

    def test_the_average_by_hand(self, data: Path, tmp_path: Path) -> None:
        # Two steps: the average starts with the weights after the first.
        made = recipe(epochs=1, ema=0.75)
        run(made, data, tmp_path / "two")
        first = recipe(epochs=1, ema=0.75, batch=4)
        seen: list[dict[str, Tensor]] = []
        net = network(first)
        real = trainer.AveragedModel.update_parameters

        def update(self: Any, model: Any) -> None:
            real(self, model)
            seen.append({n: v.clone() for n, v in model.state_dict().items()})

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(trainer.AveragedModel, "update_parameters", update)
            train(first, net, samples(data), None, tmp_path / "again", ONE)
        average = read_checkpoint(tmp_path / "two" / LAST)["ema"]
        for name in ("stem.0.weight", "stem.1.running_mean"):
            assert torch.allclose(average[name], 0.75 * seen[0][name] + 0.25 * seen[1][name], atol=1e-7)

    def test_without_validation_there_is_no_best(self, data: Path, tmp_path: Path) -> None:
        made = recipe(epochs=1)
        result = train(made, network(made), samples(data), None, tmp_path, ONE)
        assert (result.miou, result.best_epoch) == (None, None)
        assert not (tmp_path / BEST).exists()

    def test_super_resolution_writes_its_parts(self, data: Path, tmp_path: Path) -> None:
        made = recipe(epochs=1, dsrl=True)
        run(made, data, tmp_path)
        (row,) = log(tmp_path)
        total = sum(
            weight * float(row[name])
            for name, weight in (("segmentation", 1), ("auxiliary", 0.4), ("image", 0.1), ("affinity", 1))
        )
        assert float(row["loss"]) == pytest.approx(total, abs=1e-4)
        # Training's own heads are not part of the network.
        assert not any(name.startswith(("dual", "restoration")) for name in read_checkpoint(tmp_path / BEST)["network"])
        assert read_checkpoint(tmp_path / BEST)["heads"] is None


class TestFailures:
    def test_a_loss_that_is_no_number(self, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        calls = itertools.count(1)
        real = Objective.forward

        def forward(self: Objective, *arguments: Any) -> dict[str, Tensor]:
            parts = real(self, *arguments)
            return {**parts, "loss": parts["loss"] * math.nan} if next(calls) == 4 else parts

        monkeypatch.setattr(Objective, "forward", forward)
        with pytest.raises(TrainingError) as error:
            run(recipe(epochs=3), data, tmp_path)
        assert str(error.value) == (
            f"the loss is nan at step 4 (epoch 2); {tmp_path / LAST} is of epoch 1; "
            "train with a smaller --lr or in float32"
        )
        assert read_checkpoint(tmp_path / LAST)["epoch"] == 1

    def test_in_the_first_epoch(self, data: Path, tmp_path: Path) -> None:
        with pytest.raises(TrainingError, match=r"the loss is .* at step 2 \(epoch 1\); no epoch was finished; train"):
            run(recipe(lr=1e38, momentum=0.0), data, tmp_path)
        assert not (tmp_path / LAST).exists()

    def test_weights_that_are_no_numbers_are_not_saved(
        self, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        real = trainer.AveragedModel.update_parameters
        calls = itertools.count(1)

        def update(self: Any, model: Any) -> None:
            real(self, model)
            if next(calls) == 4:
                model.head.weight.data.fill_(math.inf)

        monkeypatch.setattr(trainer.AveragedModel, "update_parameters", update)
        with pytest.raises(
            TrainingError, match=r"a weight is not finite after the last step \(epoch 2\); .* of epoch 1"
        ):
            run(recipe(epochs=2, ema=0.5), data, tmp_path)
        assert read_checkpoint(tmp_path / LAST)["epoch"] == 1

    def test_a_full_gpu(self, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        fail_at(monkeypatch, 1, torch.OutOfMemoryError("CUDA out of memory"))
        with pytest.raises(TrainingError, match="the memory of the GPU is full; train with a smaller --batch"):
            run(recipe(), data, tmp_path)

    def test_a_batch_of_one_value(self, data: Path, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="a BatchNorm of this network needs two values or more of every channel"):
            run(recipe(batch=1, size=(4, 4)), data, tmp_path)

    def test_another_value_error_stays(self, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        fail_at(monkeypatch, 1, ValueError("a bug"))
        with pytest.raises(ValueError, match="a bug"):
            run(recipe(), data, tmp_path)

    def test_validation_without_labels(self, tmp_path: Path) -> None:
        root = write_data(write_data(tmp_path / "data"), 1, "val")
        cv2.imwrite(str(root / "labels/val/00.png"), np.full((24, 32), 255, np.uint8))
        with pytest.raises(LabelError, match="none of the 1 frames to score on has a labelled pixel"):
            run(recipe(), root, tmp_path / "run")
